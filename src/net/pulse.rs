//! How often a connection says that it lives, and when it was last of use.
//!
//! Beats are nearly all that an idle node does, at some 0.2 ms of CPU time for one sent and one heard. So only
//! where a flight is going on there is one a second; else one in [`QUIET`], and all that a node sends
//! go out together, so that it wakes once for them. A beat a second on each of 250 connections costs
//! a hub more than its work does: a node with more than [`FREE`] connections beats less often on
//! those that are idle, about [`FREE`] times a second in all, and asks the others for the same; where
//! a flight is going on at most three seconds apart, so that what is in use is missed nearly as soon
//! as in a small site. Each beat declares when the next one comes, and the silence that means death
//! follows from that.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The shortest time between two beats, and the longest that is believed.
pub(super) const BEAT: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(15);
/// The shortest time between two beats where no flight is going on.
const QUIET: Duration = Duration::from_secs(3);
/// Up to so many connections each has a beat a second.
const FREE: usize = 32;
/// Beats that may be missing before a member is taken for gone, in tenths.
const MISSED_TENTHS: u32 = 35;
/// Steps of waiting for them.
const STEPS: u32 = 4;
/// The longest time between two beats while a flight is going on.
const BUSY: Duration = Duration::from_secs(3);
/// A flight is going on for so long after its last message.
const FLIGHT: Duration = Duration::from_secs(10);

/// The time from one beat to the next with so many connections.
fn pace(connections: usize) -> Duration {
    (BEAT * connections.min(100_000) as u32 / FREE as u32).clamp(BEAT, SLOWEST)
}

/// A declared time, within bounds.
fn bounded(millis: u32) -> Duration {
    Duration::from_millis(millis.into()).clamp(BEAT, SLOWEST)
}

/// How long to wait for a member that declared this.
pub(super) fn silence(next_ms: u32) -> Duration {
    bounded(next_ms) * MISSED_TENTHS / 10
}

/// A member has said nothing for too long.
#[derive(Debug)]
pub(super) struct Silent;

/// How much longer than usual to wait for others, where this node is behind with its own work.
#[derive(Debug, Default)]
pub(super) struct Slack(AtomicU64);

impl Slack {
    pub(super) fn set(&self, slack: Duration) {
        self.0.store(slack.as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Waits for a word, in steps: a machine that is so busy that its own tasks stand still wakes with
/// all timers past and all words unread, and must not take that for the others' silence.
pub(super) async fn patiently<T>(
    silence: Duration,
    slack: &Slack,
    word: impl Future<Output = T>,
) -> Result<T, Silent> {
    let mut word = std::pin::pin!(word);
    for _ in 0..STEPS {
        if let Ok(said) = tokio::time::timeout((silence + slack.get()) / STEPS, &mut word).await {
            return Ok(said);
        }
    }
    Err(Silent)
}

/// Of one connection; shared by the tasks that use it.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Of this node, to members.
    connections: Arc<AtomicUsize>,
    /// When, in microseconds of [`clock`].
    flight: AtomicU64,
    used: AtomicU64,
    /// What the other end asks for, in milliseconds.
    asked_ms: AtomicU64,
}

impl Pulse {
    pub(super) fn new(connections: Arc<AtomicUsize>) -> Self {
        let used = AtomicU64::new(clock());
        Self { connections, flight: AtomicU64::new(0), used, asked_ms: AtomicU64::new(0) }
    }

    /// A message about a flight was sent.
    pub(super) fn flight(&self) {
        self.flight.store(clock().max(1), Ordering::Relaxed);
        self.touch();
    }

    /// It is of use.
    pub(super) fn touch(&self) {
        self.used.store(clock(), Ordering::Relaxed);
    }

    /// Since when it was of no use.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_micros(clock().saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// The other end asks for this time between beats.
    pub(super) fn asked(&self, pace_ms: u32) {
        self.asked_ms.store(pace_ms.into(), Ordering::Relaxed);
    }

    /// What this end asks the other one for.
    pub(super) fn asks(&self) -> Duration {
        pace(self.connections.load(Ordering::Relaxed))
    }

    /// When the next beat is due. In a large site a flight of all its nodes keeps them busy, and beats on
    /// all connections of its hubs would keep them busier: that a lead is silent its followers notice by
    /// themselves, and sooner.
    pub(super) fn next(&self) -> Duration {
        let pace = self.asks().max(bounded(self.asked_ms.load(Ordering::Relaxed) as u32));
        if self.flies() { pace.min(BUSY) } else { pace.max(QUIET) }
    }

    fn flies(&self) -> bool {
        let flight = self.flight.load(Ordering::Relaxed);
        flight > 0 && clock().saturating_sub(flight) < FLIGHT.as_micros() as u64
    }
}

/// How long it is until beats of this pace go out next: at the same moments on all connections.
pub(super) fn until_due(pace: Duration) -> Duration {
    let pace = pace.as_micros().max(1) as u64;
    Duration::from_micros(pace - clock() % pace)
}

/// Microseconds since this process first asked: what a beat carries, and its answer repeats.
pub(super) fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_slow_down_as_they_grow_in_number() {
        let connections = Arc::new(AtomicUsize::new(16));
        let pulse = Pulse::new(connections.clone());
        assert_eq!(pulse.next(), QUIET);
        for (count, millis) in [(32, 3000), (64, 3000), (250, 7812), (512, 15_000), (5000, 15_000)] {
            connections.store(count, Ordering::Relaxed);
            assert_eq!(pulse.next().as_millis(), millis, "{count}");
        }
        pulse.flight();
        assert_eq!(pulse.next(), BUSY, "a flight is going on");
        connections.store(16, Ordering::Relaxed);
        assert_eq!(pulse.next(), BEAT, "in a small site a dead node is missed at once");
    }

    #[test]
    fn beats_of_one_pace_are_due_together() {
        for pace in [BEAT, QUIET, Duration::from_micros(1)] {
            let wait = until_due(pace);
            assert!(!wait.is_zero() && wait <= pace, "{wait:?} of {pace:?}");
        }
        let due = |pace| clock() / 1000 + until_due(pace).as_millis() as u64;
        let (one, other) = (due(SLOWEST), due(SLOWEST));
        assert!(one.abs_diff(other) <= 1, "{one} and {other} ms");
    }

    #[tokio::test]
    async fn silence_ends_and_a_late_word_is_heard() {
        let silence = Duration::from_millis(80);
        let start = Instant::now();
        let slack = Slack::default();
        patiently(silence, &slack, std::future::pending::<()>()).await.expect_err("nobody says a word");
        assert!(start.elapsed() >= silence, "{:?}", start.elapsed());
        patiently(silence, &slack, tokio::time::sleep(silence / 2)).await.expect("in time");
        slack.set(2 * silence);
        patiently(silence, &slack, tokio::time::sleep(2 * silence)).await.expect("this node is behind");
    }

    #[test]
    fn the_other_end_is_heeded_within_bounds() {
        let pulse = Pulse::new(Arc::new(AtomicUsize::new(16)));
        pulse.asked(7812);
        assert_eq!((pulse.next().as_millis(), pulse.asks()), (7812, BEAT), "no echo of what was asked");
        pulse.asked(u32::MAX);
        assert_eq!(pulse.next(), SLOWEST);
        assert_eq!(silence(0), Duration::from_millis(3500));
        assert_eq!(silence(u32::MAX), SLOWEST * 7 / 2);
    }
}
