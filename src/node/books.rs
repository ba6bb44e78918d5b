//! The ledger, kept: booked where bytes are metered, written down every second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::id::BlobId;
use crate::core::ledger::{Arrival, Ledger, Row, RowKey, Source, Totals, WanReason};

/// A kill loses at most so much of the books.
const EVERY: Duration = Duration::from_secs(1);
/// Rows are kept for so many days.
const DAYS: u32 = 400;
const CACHE: u64 = 2 << 20;

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// Chunks that came while a client was reading their blob, and that it was not handed yet.
    arrivals: HashMap<BlobId, HashMap<u32, Arrival>>,
    /// Bytes that a client was handed of chunks that had not been booked: those that were held, and
    /// those that a reader found on the disk before they were booked here.
    early: HashMap<BlobId, HashMap<u32, u64>>,
}

/// The node's books.
#[derive(Debug)]
pub struct Books {
    state: Mutex<State>,
    db: sled::Db,
}

/// Hours since the epoch.
pub fn hour_now() -> u32 {
    (jiff::Timestamp::now().as_second() / 3600).max(0) as u32
}

fn row_key(label: &str) -> RowKey {
    RowKey { hour: hour_now(), package: label.to_owned() }
}

/// Rows sort by hour, then package, in the file as in memory.
fn encode(key: &RowKey) -> Vec<u8> {
    [&key.hour.to_be_bytes()[..], key.package.as_bytes()].concat()
}

fn decode(key: &[u8]) -> Option<RowKey> {
    let (hour, package) = key.split_at_checked(4)?;
    let hour = u32::from_be_bytes(hour.try_into().ok()?);
    Some(RowKey { hour, package: String::from_utf8(package.to_vec()).ok()? })
}

impl Books {
    /// Opens the books in a folder; damaged ones are put aside, with a warning, not lost.
    ///
    /// # Errors
    /// In words, if the folder cannot be used.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let open = || sled::Config::new().path(dir).cache_capacity(CACHE).flush_every_ms(None).open();
        let db = open().or_else(|error| {
            let aside = dir.with_extension("damaged");
            tracing::error!(%error, kept = %aside.display(), "the ledger is damaged; put aside, and begun anew");
            std::fs::remove_dir_all(&aside).ok();
            std::fs::rename(dir, &aside).ok();
            open()
        });
        let db = db.map_err(|error| format!("{}: {error}", dir.display()))?;
        let rows = db
            .iter()
            .flatten()
            .filter_map(|(key, row)| Some((decode(&key)?, serde_json::from_slice::<Row>(&row).ok()?)));
        let ledger = Ledger::restore(rows);
        Ok(Self { state: Mutex::new(State { ledger, ..State::default() }), db })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wire(&self, label: &str, reason: WanReason, bytes: u64) {
        self.state().ledger.wire(&row_key(label), reason, bytes);
    }

    pub(super) fn duplicate(&self, label: &str, reason: WanReason, bytes: u64) {
        self.state().ledger.duplicate(&row_key(label), reason, bytes);
    }

    /// Verified chunks came, of these lengths; `read` says that a client waits for their blob.
    pub(super) fn arrived(
        &self,
        blob: BlobId,
        label: &str,
        source: Source,
        chunks: impl Iterator<Item = (u32, u64)>,
        read: bool,
    ) {
        let key = row_key(label);
        let mut state = self.state();
        let state = &mut *state;
        for (chunk, bytes) in chunks {
            let mut arrival = state.ledger.arrived(key.clone(), source, bytes);
            if let Some(early) = state.early.get_mut(&blob).and_then(|early| early.remove(&chunk)) {
                state.ledger.reclaim(&mut arrival, early);
            }
            if read {
                state.arrivals.entry(blob).or_default().insert(chunk, arrival);
            }
        }
    }

    /// Bytes came and were handed to a client, without being kept.
    pub(super) fn passed(&self, blob: BlobId, chunk: u32, label: &str, source: Source, bytes: u64) {
        self.arrived(blob, label, source, std::iter::once((chunk, bytes)), true);
        self.delivered(&blob, label, std::iter::once((chunk, bytes)));
    }

    /// A client was handed so many bytes of each of these chunks.
    pub(super) fn delivered(&self, blob: &BlobId, label: &str, pieces: impl Iterator<Item = (u32, u64)>) {
        let key = row_key(label);
        let mut state = self.state();
        let state = &mut *state;
        let mut arrivals = state.arrivals.get_mut(blob);
        for (chunk, bytes) in pieces {
            let arrival = arrivals.as_mut().and_then(|arrivals| arrivals.get_mut(&chunk));
            if arrival.is_none() {
                *state.early.entry(*blob).or_default().entry(chunk).or_default() += bytes;
            }
            state.ledger.delivered(&key, arrival, bytes);
        }
    }

    /// No client reads this blob any more, or yet: what came before was held before.
    pub(super) fn settle(&self, blob: &BlobId) {
        let mut state = self.state();
        state.arrivals.remove(blob);
        state.early.remove(blob);
    }

    /// The rows of the last so many hours (all, if `None`).
    pub fn rows(&self, hours: Option<u32>) -> Vec<(RowKey, Row)> {
        let since = hours.map_or(0, |hours| hour_now().saturating_sub(hours));
        self.state().ledger.since(since).map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// The sum of all rows.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.state().ledger.since(0).for_each(|(_, row)| totals.add(&row.totals));
        totals
    }

    /// Writes down what changed.
    pub fn flush(&self) {
        let (changed, forgotten) = {
            let mut state = self.state();
            let forgotten = state.ledger.forget_before(hour_now().saturating_sub(DAYS * 24));
            (state.ledger.take_changed(), forgotten)
        };
        if changed.is_empty() && forgotten.is_empty() {
            return;
        }
        let mut batch = sled::Batch::default();
        for (key, row) in &changed {
            if let Ok(row) = serde_json::to_vec(row) {
                batch.insert(encode(key), row);
            }
        }
        forgotten.iter().for_each(|key| batch.remove(encode(key)));
        if let Err(error) = self.db.apply_batch(batch).and_then(|()| self.db.flush()) {
            tracing::error!(%error, "the ledger could not be written; its rows are kept in memory");
            changed.iter().for_each(|(key, _)| self.state().ledger.touch(key));
        }
    }
}

/// Writes the books down every second, for as long as the agent runs.
pub(super) async fn keep(books: Arc<Books>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let books = books.clone();
        super::blocking(move || books.flush()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let books = Books::open(&path).expect("a fresh folder");
        let blob = BlobId::of(b"b");
        books.wire("p@1", WanReason::Cold, 110);
        books.arrived(blob, "p@1", Source::Wan, [(0, 100)].into_iter(), true);
        books.delivered(&blob, "p@1", [(0, 100)].into_iter());
        books.settle(&blob);
        books.delivered(&blob, "p@1", [(0, 50)].into_iter());
        books.flush();
        let before = books.totals();
        drop(books);
        let totals = Books::open(&path).expect("its own folder").totals();
        assert_eq!(totals, before);
        assert!(totals.balances());
        assert_eq!((totals.delivered, totals.wan, totals.local, totals.wan_wire), (150, 100, 50, 110));
    }
}
