//! Writing the books down: within milliseconds where a kill cannot take it, every second for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::blocking;
use super::journal::Entry;
use super::{Books, State, hour_now, lock};
use crate::core::id::BlobId;
use crate::core::ledger::{Extents, Keep, Row, RowKey};
use crate::net::Net;

/// A kill of the process loses at most so much of the books.
const NOTE: Duration = Duration::from_millis(10);
/// A power cut loses at most so much of them.
const EVERY: Duration = Duration::from_secs(1);
/// An idle agent books what members said so often.
const IDLE: Duration = Duration::from_secs(60);
/// What is kept: some 500 bytes a row, so at most 50 MB on disk.
const KEEP: Keep = Keep { hourly_days: 35, days: 400, rows: 100_000 };

impl Books {
    /// Notes what changed where a kill cannot take it.
    pub(super) fn note(&self) {
        let mut disk = lock(&self.disk);
        let changes = lock(&self.state).take_changes();
        disk.note(changes);
    }

    /// Writes down what changed.
    pub fn flush(&self) {
        let gone = {
            let (mut state, hour) = (lock(&self.state), hour_now());
            Self::forget_readings(&mut state);
            let settles = std::mem::replace(&mut state.settled, hour) != hour;
            if settles { state.ledger.settle(hour, KEEP) } else { Vec::new() }
        };
        self.note();
        let mut disk = lock(&self.disk);
        disk.note_gone(gone);
        let (rows, blobs) = disk.unflushed();
        if rows.is_empty() && blobs.is_empty() {
            return;
        }
        let (rows, handed) = lock(&self.state).look_up(rows, blobs);
        if let Err(error) = disk.flush(&rows, &handed) {
            tracing::error!(%error, "the ledger could not be written; its rows are kept in memory");
        }
    }

    /// Writes down what changed, and that nothing is missing.
    pub fn close(&self) {
        self.flush();
        if let Err(error) = lock(&self.disk).end() {
            tracing::warn!(%error, "the ledger could not be closed");
        }
    }
}

impl State {
    /// What changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Entry> {
        let rows = self.ledger.take_changed();
        let rows = rows.into_iter().map(|(key, row)| Entry::Row(key, Box::new(row)));
        let handed: Vec<BlobId> = self.handed_changed.drain().collect();
        let handed = handed.into_iter().map(|blob| Entry::Handed(blob, self.handed.get(&blob).cloned()));
        let flying = std::mem::take(&mut self.flying_changed);
        let flying = flying.then(|| Entry::Flying(self.flying.values().cloned().collect()));
        rows.chain(handed).chain(flying).collect()
    }

    /// What there is to be written down for good. The journal then begins anew, and with it what is on
    /// its way.
    pub(super) fn look_up(&mut self, rows: Vec<RowKey>, blobs: Vec<BlobId>) -> Changes {
        self.flying_changed = !self.flying.is_empty();
        let row = |key| (self.ledger.row_of(&key).cloned(), key);
        let rows = rows.into_iter().map(row).map(|(row, key)| (key, row)).collect();
        let handed = blobs.into_iter().map(|blob| (blob, self.handed.get(&blob).cloned())).collect();
        (rows, handed)
    }
}

/// Rows and what was handed out, as they are now; `None` if they are no more.
type Changes = (Vec<(RowKey, Option<Row>)>, Vec<(BlobId, Option<Extents>)>);

/// Writes the books down, for as long as the agent runs. An agent that books nothing is woken once a
/// minute.
pub(in super::super) async fn keep(books: Arc<Books>, net: Net) {
    let mut flushed = Instant::now();
    let mut dirty = false;
    loop {
        if dirty {
            let due = tokio::time::sleep_until((flushed + EVERY).into());
            tokio::select! {
                () = due => {}
                () = books.changed.notified() => tokio::time::sleep(NOTE).await,
            }
        } else {
            // Members talk even when nothing is booked.
            tokio::time::timeout(IDLE, books.changed.notified()).await.ok();
            tokio::time::sleep(NOTE).await;
        }
        let due = flushed.elapsed() >= EVERY;
        if due {
            books.lan_wire(net.take_read());
        }
        let it = books.clone();
        blocking(move || if due { it.flush() } else { it.note() }).await;
        dirty = !due;
        if due {
            flushed = Instant::now();
        }
    }
}
