//! Lines that lie idle until the next request, by the connection to the member that they lead to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::data::{Kind, Line, SILENCE};
use super::pulse::Slack;

/// Idle streams kept for each connection.
const KEEP: usize = 4;
/// Bulk connections to one member: as many as batches are asked of it at a time.
const BULK: usize = 3;
/// A member that is to bring so many bytes gets them. In a large site each brings little of a package, and
/// handshakes are what its first seconds are full of.
const WORTH: u64 = 2 << 20;
/// A bulk connection that nobody needs is closed after so long.
pub(super) const REST: Duration = Duration::from_secs(10);
/// A member that could not be dialed for bulk is left in peace for so long.
const BARRED: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Member {
    streams: Vec<Line>,
    /// With the time when each was given back.
    bulk: Vec<(Line, Instant)>,
    /// Bytes that were asked of it in batches.
    asked: u64,
    places: Arc<Semaphore>,
    barred_until: Option<Instant>,
}

impl Member {
    fn new() -> Self {
        let places = Arc::new(Semaphore::new(BULK));
        Self { streams: Vec::new(), bulk: Vec::new(), asked: 0, places, barred_until: None }
    }
}

/// Idle lines, by the connection that they belong to.
#[derive(Debug)]
pub(super) struct Pool {
    slack: Arc<Slack>,
    members: Mutex<HashMap<ConnectionId, Member>>,
}

impl Pool {
    pub(super) fn new(slack: Arc<Slack>) -> Self {
        Self { members: Mutex::default(), slack }
    }

    /// For how long an answer may bring nothing.
    pub(super) fn silence(&self) -> Duration {
        SILENCE + self.slack.get()
    }

    fn members(&self) -> MutexGuard<'_, HashMap<ConnectionId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is such a connection.
    pub(super) fn know(&self, connection: ConnectionId) {
        self.members().entry(connection).or_insert_with(Member::new);
    }

    /// The connection is gone.
    pub(super) fn forget(&self, connection: ConnectionId) {
        self.members().remove(&connection);
    }

    /// An idle line, a bulk connection rather than a stream if there is much to bring.
    pub(super) fn take(&self, connection: ConnectionId, much: bool) -> Option<Line> {
        let mut members = self.members();
        let member = members.get_mut(&connection)?;
        let bulk = if much { member.bulk.pop() } else { None };
        bulk.map(|(line, _)| line).or_else(|| member.streams.pop())
    }

    pub(super) fn give_back(&self, line: Line) {
        let mut members = self.members();
        let Some(member) = members.get_mut(&line.home) else { return };
        match line.kind {
            Kind::Bulk => member.bulk.push((line, Instant::now())),
            Kind::Stream if member.streams.len() < KEEP => member.streams.push(line),
            Kind::Stream => {}
        }
    }

    /// The member is asked for so many bytes: a place for one more bulk connection to it, if that is
    /// worth its while.
    pub(super) fn widen(&self, connection: ConnectionId, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let mut members = self.members();
        let member = members.get_mut(&connection)?;
        member.asked = member.asked.saturating_add(bytes);
        let barred = member.barred_until.is_some_and(|until| Instant::now() < until);
        if barred || member.asked < WORTH || !member.bulk.is_empty() {
            return None;
        }
        member.places.clone().try_acquire_owned().ok()
    }

    /// No bulk connection to this member for a while.
    pub(super) fn bar(&self, connection: ConnectionId) {
        if let Some(member) = self.members().get_mut(&connection) {
            member.barred_until = Some(Instant::now() + BARRED);
        }
    }

    /// Closes what has been idle for long.
    pub(super) fn rest(&self) {
        let now = Instant::now();
        for member in self.members().values_mut() {
            member.bulk.retain(|(_, since)| now.saturating_duration_since(*since) < REST);
        }
    }

    /// Idle bulk connections, of all members.
    #[cfg(test)]
    pub(super) fn idle_bulk(&self) -> usize {
        self.members().values().map(|member| member.bulk.len()).sum()
    }
}
