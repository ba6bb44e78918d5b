//! What this node pulled over the WAN of late, so that two who were out of each other's sight find
//! out afterwards what crossed twice.
//!
//! When two nodes meet, each tells the other what it has pulled. What both did has crossed twice, and
//! the one with the lower id books it: once, whoever else was on either side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Effect, Message, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, NodeId};
use crate::core::ledger::WanReason;
use crate::core::manifest::Manifest;

/// Blobs that are remembered, and for how long.
const MOST: usize = 16;
const KEPT: Duration = Duration::from_secs(900);

#[derive(Debug)]
struct Pull {
    manifest: Arc<Manifest>,
    pulled: ChunkSet,
    /// Known to have crossed twice, and booked by one of the two.
    twice: ChunkSet,
    last: Instant,
}

/// What this node pulled, by blob.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    blobs: BTreeMap<BlobId, Pull>,
}

impl Pulls {
    /// Chunks came over the WAN.
    pub(super) fn add(&mut self, now: Instant, manifest: &Arc<Manifest>, chunks: &ChunkSet) {
        if chunks.is_empty() {
            return;
        }
        self.blobs.retain(|_, pull| now.saturating_duration_since(pull.last) < KEPT);
        let blob = manifest.blob();
        if self.blobs.len() >= MOST && !self.blobs.contains_key(&blob) {
            let oldest = self.blobs.iter().min_by_key(|(_, pull)| pull.last).map(|(blob, _)| *blob);
            oldest.and_then(|oldest| self.blobs.remove(&oldest));
        }
        let pull = self.blobs.entry(blob).or_insert_with(|| Pull {
            manifest: manifest.clone(),
            pulled: ChunkSet::new(),
            twice: ChunkSet::new(),
            last: now,
        });
        pull.pulled.union_with(chunks);
        pull.last = now;
    }

    /// What to tell a node that has come.
    pub(super) fn tell(&self, now: Instant, to: NodeId) -> Vec<Effect> {
        let recent = self.blobs.iter().filter(|(_, it)| now.saturating_duration_since(it.last) < KEPT);
        let message = |(blob, pull): (&BlobId, &Pull)| Effect::Send {
            to,
            message: Message {
                blob: *blob,
                manifest: pull.manifest.id(),
                step: Step::Pulled(pull.pulled.clone()),
            },
        };
        recent.map(message).collect()
    }

    /// What another has pulled; what to book, if there is something.
    pub(super) fn compare(
        &mut self,
        me: NodeId,
        from: NodeId,
        blob: BlobId,
        theirs: &ChunkSet,
    ) -> Option<Effect> {
        let pull = self.blobs.get_mut(&blob)?;
        let twice = pull.pulled.intersection(theirs).difference(&pull.twice);
        pull.twice.union_with(&twice);
        let bytes = pull.manifest.bytes_of(twice.iter());
        let mine = me < from && bytes > 0;
        mine.then_some(Effect::Duplicate { blob, bytes, reason: WanReason::Partition })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{ChunkId, PackId};
    use crate::core::manifest::Chunk;

    fn manifest() -> Arc<Manifest> {
        let chunk = |n: u32| Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            offset: 0,
            length: 1000,
            pack: 0,
            pack_offset: u64::from(n) * 1000,
            stored: 1000,
        };
        let chunks: Vec<Chunk> = (0..10).map(chunk).collect();
        Arc::new(
            Manifest::build(BlobId::of(b""), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent"),
        )
    }

    #[test]
    fn what_both_pulled_is_booked_once() {
        let (now, manifest) = (Instant::now(), manifest());
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let (of_a, of_b): (ChunkSet, ChunkSet) = ((0..6).collect(), (4..10).collect());
        let (mut left, mut right) = (Pulls::default(), Pulls::default());
        left.add(now, &manifest, &of_a);
        right.add(now, &manifest, &of_b);
        let blob = manifest.blob();
        let booked = left.compare(a, b, blob, &of_b);
        assert_eq!(booked, Some(Effect::Duplicate { blob, bytes: 2000, reason: WanReason::Partition }));
        assert_eq!(right.compare(b, a, blob, &of_a), None, "the other one does");
        assert_eq!(left.compare(a, b, blob, &of_b), None, "once");
        assert_eq!(left.tell(now, b).len(), 1);
        assert!(left.tell(now + KEPT, b).is_empty(), "it is old");
    }
}
