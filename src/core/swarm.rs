//! Which chunk next, and from whom.
//!
//! A chunk that this node lacks is either *free* or *asked for* (of exactly one source, in exactly
//! one batch): [`Swarm::pick`] moves it from the first state to the second, and
//! [`Swarm::batch_ended`] or its arrival moves it out again. So no chunk is asked for twice at a
//! time.
//!
//! What only the lead holds is shared out: each chunk has one *first taker* among the followers,
//! the same on every node's reckoning, who takes it from the lead; the others take it from the
//! first taker. So a chunk leaves the lead once, and each follower passes on an equal share.
//! Should the first taker be slow, the others lose their patience and ask the lead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::chunkset::ChunkSet;
use super::id::NodeId;
use super::manifest::Manifest;

/// Batches under way to one source.
const BATCHES_PER_SOURCE: usize = 2;
/// Batches under way in all.
const BATCHES: usize = 24;
/// Chunks in one batch, and their bytes.
const BATCH_CHUNKS: usize = 16;
const BATCH_BYTES: u64 = 1 << 20;
/// How long others wait for a chunk's first taker before they ask the lead themselves.
const PATIENCE: Duration = Duration::from_millis(400);
/// A source that failed rests for this long, doubled for each failure in a row.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A node that holds chunks of the blob.
#[derive(Debug, Default)]
struct Source {
    held: ChunkSet,
    follower: bool,
    batches: usize,
    failures: u32,
    rests_until: Option<Instant>,
}

/// What to ask of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Identifies the batch until it ends.
    pub batch: u64,
    /// Whom to ask.
    pub source: NodeId,
    /// For what, in order.
    pub chunks: Vec<u32>,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEnd {
    /// All chunks arrived.
    Done,
    /// The source has no upload slot free at the moment.
    Busy,
    /// It broke off, made no progress, or no longer holds a chunk.
    Failed,
    /// A chunk's hash was wrong.
    Lied,
}

/// The facts that a pick depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This node.
    pub me: NodeId,
    /// The flight's lead, whose chunks are shared out.
    pub lead: Option<NodeId>,
    /// The chunk list.
    pub manifest: &'a Manifest,
    /// What this node lacks and wants.
    pub missing: &'a ChunkSet,
    /// The chunk that a client reads next; those after it come first.
    pub cursor: u32,
}

/// The sources of one blob, and what was asked of them.
#[derive(Debug, Default)]
pub struct Swarm {
    sources: BTreeMap<NodeId, Source>,
    batches: BTreeMap<u64, (NodeId, BTreeSet<u32>)>,
    asked: ChunkSet,
    last_batch: u64,
    /// When the lead first told of a chunk: the start of the others' patience.
    told: BTreeMap<u32, Instant>,
    /// Chunks that somebody was said to hold.
    heard_of: ChunkSet,
    /// When to pick again though nothing has happened.
    wake: Option<Instant>,
}

impl Swarm {
    /// Adds to what a source is known to hold.
    pub fn add(&mut self, now: Instant, node: NodeId, held: &ChunkSet, follower: bool) {
        let source = self.sources.entry(node).or_default();
        for chunk in held.difference(&source.held).iter() {
            self.told.entry(chunk).or_insert(now);
        }
        source.held.union_with(held);
        source.follower = follower;
    }

    /// Replaces what a source is known to hold.
    pub fn set(&mut self, now: Instant, node: NodeId, held: &ChunkSet, follower: bool) {
        if let Some(source) = self.sources.get_mut(&node) {
            source.held = ChunkSet::new();
        }
        self.add(now, node, held, follower);
    }

    /// A source has left. Its batches are still reported by [`Swarm::batch_ended`].
    pub fn remove(&mut self, node: &NodeId) {
        self.sources.remove(node);
    }

    /// Forgets every source but these.
    pub fn retain(&mut self, keep: &BTreeSet<NodeId>) {
        self.sources.retain(|node, _| keep.contains(node));
    }

    /// All that some source holds.
    pub fn covered(&self) -> ChunkSet {
        let mut covered = ChunkSet::new();
        self.sources.values().for_each(|source| covered.union_with(&source.held));
        covered
    }

    /// What the sources that are not resting after a failure hold.
    pub fn reachable(&self, now: Instant) -> ChunkSet {
        let mut reachable = ChunkSet::new();
        for source in self.sources.values().filter(|source| source.rests_until.is_none_or(|at| at <= now)) {
            reachable.union_with(&source.held);
        }
        reachable
    }

    /// Notes chunks that the site holds, wherever they are.
    pub fn hear_of(&mut self, held: &ChunkSet) {
        self.heard_of.union_with(held);
    }

    /// Chunks that the site holds, and that this node cannot get.
    pub fn out_of_reach(&self, now: Instant) -> ChunkSet {
        self.heard_of.difference(&self.asked).difference(&self.reachable(now))
    }

    /// Each source with what it holds.
    pub fn sources(&self) -> impl Iterator<Item = (NodeId, &ChunkSet, bool)> {
        self.sources.iter().map(|(node, source)| (*node, &source.held, source.follower))
    }

    /// What one source holds.
    pub fn held_by(&self, node: &NodeId) -> Option<&ChunkSet> {
        self.sources.get(node).map(|source| &source.held)
    }

    /// Chunks that were asked for and have not come.
    pub fn asked(&self) -> &ChunkSet {
        &self.asked
    }

    /// A chunk is there, whoever brought it.
    pub fn arrived(&mut self, chunk: u32) {
        self.told.remove(&chunk);
        self.asked.remove(chunk);
        for (_, chunks) in self.batches.values_mut() {
            chunks.remove(&chunk);
        }
    }

    /// A batch has ended; what it did not bring is free again.
    pub fn batch_ended(&mut self, now: Instant, batch: u64, end: BatchEnd) {
        let Some((node, rest)) = self.batches.remove(&batch) else { return };
        for chunk in &rest {
            self.asked.remove(*chunk);
        }
        let Some(source) = self.sources.get_mut(&node) else { return };
        source.batches = source.batches.saturating_sub(1);
        match end {
            BatchEnd::Done => source.failures = 0,
            BatchEnd::Busy => source.rests_until = Some(now + REST / 2),
            BatchEnd::Lied => drop(self.sources.remove(&node)),
            BatchEnd::Failed => {
                for chunk in &rest {
                    source.held.remove(*chunk); // until it is told of again
                }
                source.failures = (source.failures + 1).min(10);
                let rest = (REST * 2u32.pow(source.failures)).min(LONGEST_REST);
                source.rests_until = Some(now + rest);
            }
        }
    }

    /// Batches to ask for now. Marks their chunks as asked for.
    pub fn pick(&mut self, now: Instant, view: View<'_>) -> Vec<Pick> {
        self.wake = None;
        let mut free = view.missing.difference(&self.asked);
        let takers = self.takers(view.me);
        let mut picks = Vec::new();
        while let Some(pick) = self.pick_one(now, view, &takers, &free) {
            for &chunk in &pick.chunks {
                free.remove(chunk);
                self.asked.insert(chunk);
            }
            self.batches.insert(pick.batch, (pick.source, pick.chunks.iter().copied().collect()));
            picks.push(pick);
        }
        picks
    }

    /// There is nothing to pick at the moment.
    pub fn rest(&mut self) {
        self.wake = None;
    }

    /// When to pick again even if nothing happens.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    fn takers(&self, me: NodeId) -> Vec<NodeId> {
        let others = self.sources.iter().filter(|(_, source)| source.follower).map(|(node, _)| *node);
        let takers: BTreeSet<NodeId> = others.chain([me]).collect();
        takers.into_iter().collect()
    }

    fn pick_one(&mut self, now: Instant, view: View<'_>, takers: &[NodeId], free: &ChunkSet) -> Option<Pick> {
        if self.batches.len() >= BATCHES {
            return None;
        }
        // The least busy first, the lead last: its upload is what the site has least of.
        let mut order: Vec<_> = self.sources.iter().map(|(node, source)| (source.batches, *node)).collect();
        order.sort_by_key(|&(batches, node)| (batches, Some(node) == view.lead, mix(&node, &view.me)));
        for (batches, node) in order {
            let source = &self.sources[&node];
            let rests = source.rests_until.filter(|&until| until > now);
            if let Some(until) = rests {
                self.wake_at(until);
            }
            if rests.is_some() || batches >= BATCHES_PER_SOURCE {
                continue;
            }
            let chunks = self.batch_from(now, view, takers, free, node);
            if !chunks.is_empty() {
                self.last_batch += 1;
                self.sources.entry(node).or_default().batches += 1;
                return Some(Pick { batch: self.last_batch, source: node, chunks });
            }
        }
        None
    }

    fn batch_from(
        &mut self,
        now: Instant,
        view: View<'_>,
        takers: &[NodeId],
        free: &ChunkSet,
        node: NodeId,
    ) -> Vec<u32> {
        let candidates = self.sources[&node].held.intersection(free);
        let (before, after): (Vec<u32>, Vec<u32>) = candidates.iter().partition(|&chunk| chunk < view.cursor);
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for chunk in after.into_iter().chain(before) {
            if view.manifest.is_repeat(chunk) {
                continue;
            }
            if let Some(until) = self.waits_for_taker(now, view, takers, node, chunk) {
                self.wake_at(until);
                continue;
            }
            bytes += view.manifest.chunk(chunk).map_or(0, |chunk| u64::from(chunk.length));
            if chunks.len() == BATCH_CHUNKS || (bytes > BATCH_BYTES && !chunks.is_empty()) {
                break;
            }
            chunks.push(chunk);
        }
        chunks
    }

    /// Until when to leave a chunk that only the lead holds to its first taker.
    fn waits_for_taker(
        &self,
        now: Instant,
        view: View<'_>,
        takers: &[NodeId],
        node: NodeId,
        chunk: u32,
    ) -> Option<Instant> {
        if Some(node) != view.lead || takers.len() < 2 || view.manifest.count() < 8 {
            return None;
        }
        let until = *self.told.get(&chunk)? + PATIENCE;
        if until <= now || takers[first_taker(chunk, takers.len())] == view.me {
            return None;
        }
        Some(until)
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Which of the takers (sorted by id, so that all nodes agree) takes a chunk first.
fn first_taker(chunk: u32, takers: usize) -> usize {
    (u64::from(chunk).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % takers
}

/// Spreads the order in which different nodes try equal sources.
fn mix(a: &NodeId, b: &NodeId) -> u64 {
    let word = |node: &NodeId| u64::from_le_bytes(node.as_bytes()[..8].try_into().unwrap_or_default());
    (word(a) ^ word(b).rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::super::id::{BlobId, ChunkId, PackId};
    use super::super::manifest::Chunk;
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn manifest(count: u32) -> Manifest {
        let chunks: Vec<Chunk> = (0..count)
            .map(|n| Chunk {
                id: ChunkId::of(&n.to_le_bytes()),
                offset: 0,
                length: 60_000,
                pack: 0,
                pack_offset: u64::from(n) * 60_000,
                stored: 60_000,
            })
            .collect();
        Manifest::build(BlobId::of(b""), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent")
    }

    #[test]
    fn followers_share_out_what_only_the_lead_holds() {
        let (manifest, now) = (manifest(100), Instant::now());
        let missing = ChunkSet::full(100);
        let mut taken: Vec<u32> = Vec::new();
        for me in 2..6 {
            let mut swarm = Swarm::default();
            swarm.add(now, node(1), &ChunkSet::full(100), false);
            (2..6).filter(|&n| n != me).for_each(|n| swarm.add(now, node(n), &ChunkSet::new(), true));
            let view =
                View { me: node(me), lead: Some(node(1)), manifest: &manifest, missing: &missing, cursor: 0 };
            loop {
                let picks = swarm.pick(now, view);
                if picks.is_empty() {
                    break;
                }
                for pick in picks {
                    taken.extend(&pick.chunks);
                    pick.chunks.iter().for_each(|&chunk| swarm.arrived(chunk));
                    swarm.batch_ended(now, pick.batch, BatchEnd::Done);
                    // What came is not missing any more; the view here is fixed, so mark it asked.
                    swarm.asked.union_with(&pick.chunks.iter().copied().collect());
                }
            }
            assert_eq!(swarm.wake(), Some(now + PATIENCE));
            assert!(!swarm.pick(now + PATIENCE, view).is_empty(), "patience ends");
        }
        taken.sort_unstable();
        assert!(taken.iter().copied().eq(0..100), "each chunk has one first taker");
    }

    #[test]
    fn nothing_is_asked_for_twice_and_failures_free_it() {
        let (manifest, now) = (manifest(4), Instant::now());
        let missing = ChunkSet::full(4);
        let view = View { me: node(9), lead: None, manifest: &manifest, missing: &missing, cursor: 2 };
        let mut swarm = Swarm::default();
        swarm.add(now, node(1), &ChunkSet::full(4), false);
        let picks = swarm.pick(now, view);
        assert_eq!(picks.len(), 1);
        assert_eq!(picks[0].chunks, [2, 3, 0, 1], "from the cursor on");
        swarm.add(now, node(2), &ChunkSet::full(4), false);
        assert_eq!(swarm.pick(now, view), []);
        swarm.arrived(2);
        swarm.batch_ended(now, picks[0].batch, BatchEnd::Lied);
        let again = swarm.pick(now, View { missing: &[0, 1, 3].into_iter().collect(), ..view });
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].source, &again[0].chunks[..]), (node(2), &[3, 0, 1][..]));
    }
}
