//! The ledger, kept: booked where bytes are metered, noted within milliseconds, written down every
//! second.

mod audit;
mod disk;
mod journal;
mod keep;
mod tally;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::core::id::{BlobId, NodeId};
use crate::core::ledger::{Arrival, Extents, Front, Ledger, Row, RowKey, Source, WanReason, Wire};
use crate::core::manifest::Manifest;
use crate::origin::Carried;
pub use audit::Audit;
use disk::Disk;
pub use disk::Gap;
use journal::Flying;
pub(super) use keep::keep;

/// Of TCP over IPv4: payload of a full segment, and its headers, in bytes.
const SEGMENT: u64 = 1448;
const HEADERS: u64 = 52;

/// A chunk that a client was handed is booked so much later at most.
const LATE: Duration = Duration::from_secs(5);

/// Clients that read a blob.
#[derive(Debug, Clone, Copy)]
struct Reading {
    front: Front,
    /// When the last one went.
    left: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// Through which front a blob is being read, or was until lately.
    readings: HashMap<BlobId, Reading>,
    /// Chunks that came while a client was reading their blob, and that it was not handed yet.
    arrivals: HashMap<BlobId, HashMap<u32, Arrival>>,
    /// Bytes that a client was handed of chunks that had not been booked: those that were held, and
    /// those that a reader found on the disk before they were booked here.
    early: HashMap<BlobId, HashMap<u32, u64>>,
    /// What clients of this machine were handed of the blobs it holds.
    handed: HashMap<BlobId, Extents>,
    handed_changed: HashSet<BlobId>,
    /// What is on its way over the WAN, by connection; and whether that changed.
    flying: HashMap<u64, Flying>,
    flying_changed: bool,
    /// The hour in which rows were last rolled up.
    settled: u32,
}

/// The node's books.
#[derive(Debug)]
pub struct Books {
    state: Mutex<State>,
    disk: Mutex<Disk>,
    gaps: Vec<Gap>,
    changed: Notify,
}

/// Hours since the epoch.
pub fn hour_now() -> u32 {
    (jiff::Timestamp::now().as_second() / 3600).max(0) as u32
}

fn row_key(label: &str, front: Front) -> RowKey {
    RowKey { hour: hour_now(), package: label.to_owned(), front }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    /// Opens the books in a folder; damaged ones are put aside, with a warning, not lost.
    ///
    /// # Errors
    /// In words, if the folder cannot be used.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let (disk, mut kept) = Disk::open(dir)?;
        for it in kept.flying {
            let headers = it.bytes / SEGMENT * HEADERS;
            let wire = Wire { read: it.bytes, estimated: it.bytes, headers, sent: 0 };
            kept.ledger.wire(&row_key(&it.package, Front::None), it.reason, wire);
        }
        let state = State { ledger: kept.ledger, handed: kept.handed, ..State::default() };
        let changed = Notify::new();
        let books = Self { state: Mutex::new(state), disk: Mutex::new(disk), gaps: kept.gaps, changed };
        // What was recovered is not recovered twice.
        books.flush();
        Ok(books)
    }

    /// The ledger, to enter something.
    fn state(&self) -> MutexGuard<'_, State> {
        self.changed.notify_one();
        lock(&self.state)
    }

    /// A WAN connection carried bytes.
    pub(super) fn carried(&self, label: &str, reason: WanReason, carried: Carried) {
        let mut state = self.state();
        state.ledger.wire(&row_key(label, Front::None), reason, carried.wire);
        state.flying_changed = true;
        if carried.flying == 0 {
            state.flying.remove(&carried.connection);
        } else {
            let flying = Flying { package: label.to_owned(), reason, bytes: carried.flying };
            state.flying.insert(carried.connection, flying);
        }
    }

    /// Of them, so many were a chunk as the origin stores it, or content as an upstream sent it.
    pub(super) fn chunk(&self, label: &str, stored: u64) {
        self.state().ledger.chunk(&row_key(label, Front::None), stored);
    }

    /// Of them, so many were a recipe.
    pub(super) fn recipe(&self, label: &str, bytes: u64) {
        self.state().ledger.recipe(&row_key(label, Front::None), bytes);
    }

    /// Chunks were rebuilt that are so many bytes at the origin.
    pub(super) fn rebuilt(&self, label: &str, stored: u64) {
        self.state().ledger.rebuilt(&row_key(label, Front::None), stored);
    }

    pub(super) fn duplicate(&self, label: &str, reason: WanReason, bytes: u64) {
        self.state().ledger.duplicate(&row_key(label, Front::None), reason, bytes);
    }

    /// A member was sent content.
    pub(super) fn served(&self, label: &str, taker: NodeId, bytes: u64) {
        self.state().ledger.served(&row_key(label, Front::None), taker, bytes);
    }

    /// Connections with members brought so many bytes, headers of TCP and IP apart.
    pub(super) fn lan_wire(&self, bytes: u64) {
        // It waits for the next entry to be written down: members talk all the time.
        lock(&self.state).ledger.lan_wire(&row_key(SWARM, Front::None), bytes);
    }

    /// A blob has begun in the store, with these chunks copied from other blobs: a machine without
    /// Branchline would fetch all of it.
    pub(super) fn opened(&self, label: &str, manifest: &Manifest, reused: impl Iterator<Item = u32>) {
        let blob = manifest.blob();
        let mut state = self.state();
        let state = &mut *state;
        if state.handed.remove(&blob).is_some() {
            state.handed_changed.insert(blob);
        }
        let Some(reading) = state.readings.get(&blob).filter(|reading| reading.left.is_none()) else {
            return;
        };
        let key = row_key(label, reading.front);
        for chunk in reused {
            let bytes = manifest.chunk(chunk).map_or(0, |chunk| u64::from(chunk.length));
            let arrival = state.ledger.arrived(key.clone(), Source::Reused, bytes);
            state.arrivals.entry(blob).or_default().insert(chunk, arrival);
        }
    }

    /// Verified chunks came, of these lengths.
    pub(super) fn arrived(
        &self,
        blob: BlobId,
        label: &str,
        source: Source,
        chunks: impl Iterator<Item = (u32, u64)>,
    ) {
        let mut state = self.state();
        let state = &mut *state;
        let reading = state.readings.get(&blob).copied();
        let is_read = reading.is_some_and(|reading| reading.left.is_none());
        let key = row_key(label, reading.map_or(Front::None, |reading| reading.front));
        let nobodys = RowKey { front: Front::None, ..key.clone() };
        for (chunk, bytes) in chunks {
            let early = state.early.get_mut(&blob).and_then(|early| early.remove(&chunk));
            let key = if is_read || early.is_some() { &key } else { &nobodys };
            let mut arrival = state.ledger.arrived(key.clone(), source, bytes);
            if let Some(early) = early {
                state.ledger.reclaim(&mut arrival, early);
            }
            if is_read {
                state.arrivals.entry(blob).or_default().insert(chunk, arrival);
            }
        }
    }

    /// Bytes of a chunk came and were handed to a client, without being kept. Another time they would
    /// come again, as they would without Branchline.
    pub(super) fn passed(
        &self,
        blob: BlobId,
        chunk: u32,
        label: &str,
        front: Front,
        source: Source,
        bytes: u64,
    ) {
        self.arrived(blob, label, source, std::iter::once((chunk, bytes)));
        let key = row_key(label, front);
        let mut state = self.state();
        hand_out(&mut state, &key, blob, std::iter::once((chunk, bytes)));
        state.ledger.direct(&key, bytes);
    }

    /// A client was handed these bytes.
    pub(super) fn delivered(&self, manifest: &Manifest, label: &str, front: Front, bytes: Range<u64>) {
        let (key, blob) = (row_key(label, front), manifest.blob());
        let mut state = self.state();
        hand_out(&mut state, &key, blob, manifest.pieces(bytes.clone()));
        let new = state.handed.entry(blob).or_default().add(bytes);
        state.ledger.direct(&key, new);
        if new > 0 {
            state.handed_changed.insert(blob);
        }
    }

    /// The first client begins to read a blob: what came before was held before.
    pub(super) fn begin(&self, blob: BlobId, front: Front) {
        let mut state = lock(&self.state);
        state.arrivals.remove(&blob);
        state.early.remove(&blob);
        state.readings.insert(blob, Reading { front, left: None });
    }

    /// No client reads this blob any more. Its last chunk may not be booked yet.
    pub(super) fn settle(&self, blob: &BlobId) {
        let mut state = lock(&self.state);
        state.arrivals.remove(blob);
        if let Some(reading) = state.readings.get_mut(blob) {
            reading.left = Some(Instant::now());
        }
    }

    /// Forgets readings that ended a while ago.
    fn forget_readings(state: &mut State) {
        let over = |reading: &Reading| reading.left.is_some_and(|left| left.elapsed() > LATE);
        let State { readings, early, .. } = state;
        readings.retain(|_, reading| !over(reading));
        early.retain(|blob, _| readings.contains_key(blob));
    }

    /// Forgets what clients were handed of blobs that this node does not hold.
    pub(super) fn retain(&self, holds: impl Fn(&BlobId) -> bool) {
        let mut state = self.state();
        let gone: Vec<BlobId> = state.handed.keys().filter(|blob| !holds(blob)).copied().collect();
        for blob in gone {
            state.handed.remove(&blob);
            state.handed_changed.insert(blob);
        }
    }

    /// The rows of these hours, oldest first.
    pub fn rows(&self, hours: Range<u32>) -> Vec<(RowKey, Row)> {
        lock(&self.state).ledger.rows(hours).map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// When the agent did not stop as it should.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The sum of all rows, with what it is made of.
    #[cfg(test)]
    fn sum(&self) -> Row {
        let mut sum = Row::default();
        lock(&self.state).ledger.rows(0..u32::MAX).for_each(|(_, row)| sum.add(row));
        sum
    }

    /// The sum of all rows.
    #[cfg(test)]
    fn totals(&self) -> crate::core::ledger::Totals {
        self.sum().totals
    }
}

/// How the ledger calls what members say to each other.
const SWARM: &str = "(swarm)";

fn hand_out(state: &mut State, key: &RowKey, blob: BlobId, pieces: impl Iterator<Item = (u32, u64)>) {
    let mut arrivals = state.arrivals.get_mut(&blob);
    for (chunk, bytes) in pieces {
        let arrival = arrivals.as_mut().and_then(|arrivals| arrivals.get_mut(&chunk));
        if arrival.is_none() {
            *state.early.entry(blob).or_default().entry(chunk).or_default() += bytes;
        }
        state.ledger.delivered(key, arrival, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{ChunkId, PackId};
    use crate::core::ledger::Totals;
    use crate::core::manifest::Chunk;

    fn manifest(chunks: u32) -> Manifest {
        let chunk = |n: u32| Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            offset: 0,
            length: 100,
            pack: 0,
            pack_offset: u64::from(n) * 100,
            stored: 100,
        };
        let chunks: Vec<Chunk> = (0..chunks).map(chunk).collect();
        Manifest::build(BlobId::of(b"b"), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent")
    }

    const COLD: Source = Source::Wan(WanReason::Cold);

    fn book(books: &Books, manifest: &Manifest, flying: u64) {
        let blob = manifest.blob();
        let wire = Wire { read: 110, headers: 40, ..Wire::default() };
        books.carried("p@1", WanReason::Cold, Carried { connection: 1, wire, flying, ..Carried::default() });
        books.begin(blob, Front::Get);
        books.opened("p@1", manifest, std::iter::once(1));
        books.arrived(blob, "p@1", COLD, [(0, 100)].into_iter());
        books.delivered(manifest, "p@1", Front::Get, 0..200);
        books.settle(&blob);
        books.delivered(manifest, "p@1", Front::Packages, 0..50);
    }

    fn figures(totals: &Totals) -> [u64; 7] {
        let it = totals;
        [it.delivered, it.wan, it.local, it.reused, it.direct, it.wan_wire, it.wan_headers]
    }

    #[test]
    fn rows_survive_a_kill_and_it_is_said() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, copy) = (dir.path().join("ledger"), dir.path().join("killed"));
        let manifest = manifest(2);
        let books = Books::open(&path).expect("a fresh folder");
        book(&books, &manifest, 2 * SEGMENT);
        books.note();
        // What a killed process leaves behind.
        std::fs::create_dir(&copy).expect("room");
        for file in std::fs::read_dir(&path).expect("a folder").flatten().filter(|it| it.path().is_file()) {
            std::fs::copy(file.path(), copy.join(file.file_name())).expect("room");
        }
        let expected = [250, 100, 150, 100, 200, 110, 40];
        assert_eq!(figures(&books.totals()), expected);
        let killed = Books::open(&copy).expect("what was left");
        let (wire, headers) = (110 + 2 * SEGMENT, 40 + 2 * HEADERS);
        assert_eq!(figures(&killed.totals()), [250, 100, 150, 100, 200, wire, headers]);
        assert_eq!(killed.sum().fault(), None);
        assert_eq!(killed.gaps()[0].estimated, 2 * SEGMENT);
        assert_eq!(killed.totals().wan_estimated, 2 * SEGMENT);
        killed.delivered(&manifest, "p@1", Front::Get, 100..200);
        assert_eq!(killed.totals().direct, 200, "handed out before");
        drop(killed);
        let again = Books::open(&copy).expect("its own folder");
        assert_eq!(again.gaps().len(), 2, "the second kill");
        drop(again);
        books.close();
        drop(books);
        let books = Books::open(&path).expect("its own folder");
        assert_eq!((figures(&books.totals()), books.gaps().len()), (expected, 0));
    }

    #[test]
    fn an_audit_reads_what_was_written_down() {
        let dir = tempfile::tempdir().expect("a folder");
        let books = Books::open(&dir.path().join("ledger")).expect("a fresh folder");
        book(&books, &manifest(2), 0);
        let audit = books.audit();
        assert_eq!((audit.rows, &audit.faults), (3, &Vec::new()));
        assert_eq!(audit.totals, books.totals());
        lock(&books.disk).spoil();
        let faults = books.audit().faults;
        assert!(faults[0].contains("delivered") && faults.len() == 2, "{faults:?}");
    }

    #[test]
    fn a_last_chunk_that_is_booked_late_was_fetched_all_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let books = Books::open(&dir.path().join("ledger")).expect("a fresh folder");
        let (manifest, blob) = (manifest(2), manifest(2).blob());
        books.begin(blob, Front::Get);
        books.delivered(&manifest, "p@1", Front::Get, 0..100);
        books.settle(&blob);
        let node = NodeId::from_bytes([7; 32]);
        books.arrived(blob, "p@1", Source::Peer(node), [(0, 100), (1, 100)].into_iter());
        let totals = books.totals();
        assert_eq!((totals.delivered, totals.peer, totals.local, totals.preloaded_peer), (100, 100, 0, 100));
    }
}
