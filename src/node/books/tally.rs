//! What monitoring is told of the books.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Books, lock};
use crate::core::ledger::{Row, Totals};

impl Books {
    /// What was booked since the agent started; see [`crate::core::ledger::Ledger::booked`]. Each figure
    /// but `preloaded_*` only grows: what may yet turn out to have come for its request is not `local`
    /// before that is settled, a few seconds later.
    pub(in super::super) fn booked(&self) -> Row {
        let mut state = lock(&self.state);
        Self::forget_readings(&mut state);
        let early: u64 = state.early.values().flat_map(HashMap::values).sum();
        let mut row = state.ledger.booked();
        row.totals.local = row.totals.local.saturating_sub(early);
        row
    }

    /// How many rows there are, and how many of them do not add up.
    pub(in super::super) fn health(&self) -> (usize, usize) {
        let mut state = lock(&self.state);
        (state.ledger.len(), state.ledger.faulty())
    }

    /// The packages that clients were handed most of since an hour, by name.
    pub(in super::super) fn top_packages(&self, since: u32, most: usize) -> Vec<(String, Totals)> {
        let state = lock(&self.state);
        let mut names: Vec<(&str, Totals)> = state.ledger.by_name(since).into_iter().collect();
        names.sort_by_key(|(_, totals)| Reverse((totals.delivered, totals.wan_wire)));
        names.truncate(most);
        names.into_iter().map(|(name, totals)| (name.to_owned(), totals)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{BlobId, ChunkId, PackId};
    use crate::core::ledger::{Front, Source, WanReason};
    use crate::core::manifest::{Chunk, Manifest};

    fn manifest() -> Manifest {
        let chunk = |n: u64| Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            offset: 0,
            length: 100,
            pack: 0,
            pack_offset: n * 100,
            stored: 100,
        };
        let chunks: Vec<Chunk> = (0..3).map(chunk).collect();
        Manifest::build(BlobId::of(b"b"), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent")
    }

    /// A client is handed a chunk before it is booked: taken for held, and then not.
    #[test]
    fn what_monitoring_is_told_only_grows() {
        let dir = tempfile::tempdir().expect("a folder");
        let (books, manifest) = (Books::open(&dir.path().join("ledger")).expect("fresh"), manifest());
        let blob = manifest.blob();
        books.begin(blob, Front::Get);
        let told = || [books.booked().totals.wan, books.booked().totals.local];
        books.delivered(&manifest, "p@1", Front::Get, 0..150);
        assert_eq!((told(), books.totals().local), ([0, 0], 150));
        books.arrived(blob, "p@1", Source::Wan(WanReason::Cold), [(0, 100)].into_iter());
        assert_eq!((told(), books.totals().local), ([100, 0], 50));
        books.settle(&blob);
        books.begin(blob, Front::Get);
        assert_eq!(told(), [100, 50], "the rest was held indeed");
        books.close();
    }
}
