//! Which chunk next, and from whom.
//!
//! A chunk that this node lacks is either *free* or *asked for* (of exactly one source, in exactly
//! one batch): [`Swarm::pick`] moves it from the first state to the second, and
//! [`Swarm::batch_ended`], [`Swarm::overdue`] or its arrival moves it out again. So no chunk is
//! asked for twice at a time, and the end of a transfer needs no duplicates: what a slow source
//! still owes is taken from it and asked of another one.
//!
//! What only the lead holds is shared out: each chunk has one *first taker* among the followers,
//! the same on every node's reckoning, who takes it from the lead; the others take it from the
//! first taker. So a chunk leaves the lead once, and each follower passes on an equal share.
//! Should the first taker be slow, the others lose their patience and ask the lead.
//!
//! What a client reads next comes in order; beyond that window the rarest comes first.

mod afar;
mod batch;
mod intake;
mod pick;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::chunkset::ChunkSet;
use super::id::NodeId;

use batch::Batch;
pub use batch::BatchEnd;
use intake::Intake;
pub use pick::{Pick, SHARED, View};
use source::Source;

/// The sources of one blob, and what was asked of them.
#[derive(Debug, Default)]
pub struct Swarm {
    sources: BTreeMap<NodeId, Source>,
    /// Nodes that were told of, and cannot be talked to: what they hold, and whether they follow.
    afar: BTreeMap<NodeId, (ChunkSet, bool)>,
    batches: BTreeMap<u64, Batch>,
    asked: ChunkSet,
    last_batch: u64,
    intake: Intake,
    /// When the lead first told of a chunk: the start of the others' patience.
    told: BTreeMap<u32, Instant>,
    /// How many sources hold each chunk; shorter if no source holds the last ones.
    copies: Vec<u16>,
    /// Chunks that somebody was said to hold.
    heard_of: ChunkSet,
    /// When to pick again though nothing has happened.
    wake: Option<Instant>,
    /// How much longer than usual a source has to answer.
    patience: Duration,
}

impl Swarm {
    // ---- who holds what --------------------------------------------------------------

    /// Adds to what a source is known to hold.
    pub fn add(&mut self, now: Instant, node: NodeId, held: &ChunkSet, follower: bool) {
        let source = self.sources.entry(node).or_default();
        source.follower = follower;
        let news = held.difference(&source.held);
        source.held.union_with(&news);
        for chunk in news.iter() {
            self.told.entry(chunk).or_insert(now);
            let at = chunk as usize;
            if self.copies.len() <= at {
                self.copies.resize(at + 1, 0);
            }
            self.copies[at] = self.copies[at].saturating_add(1);
        }
    }

    /// Replaces what a source is known to hold.
    pub fn set(&mut self, now: Instant, node: NodeId, held: &ChunkSet, follower: bool) {
        let lost = self.sources.get(&node).map(|source| source.held.difference(held)).unwrap_or_default();
        self.lose(&node, &lost);
        self.add(now, node, held, follower);
    }

    /// A source no longer holds these, or says so wrongly.
    fn lose(&mut self, node: &NodeId, lost: &ChunkSet) {
        let Some(source) = self.sources.get_mut(node) else { return };
        for chunk in lost.iter() {
            if source.held.remove(chunk)
                && let Some(copies) = self.copies.get_mut(chunk as usize)
            {
                *copies = copies.saturating_sub(1);
            }
        }
    }

    /// A source has left. Its batches are still reported by [`Swarm::batch_ended`].
    pub fn remove(&mut self, node: &NodeId) {
        let held = self.sources.get(node).map(|source| source.held.clone()).unwrap_or_default();
        self.lose(node, &held);
        self.sources.remove(node);
        self.afar.remove(node);
    }

    /// Forgets every source but these.
    pub fn retain(&mut self, keep: &BTreeSet<NodeId>) {
        let gone: Vec<NodeId> = self.sources.keys().filter(|node| !keep.contains(node)).copied().collect();
        gone.iter().for_each(|node| self.remove(node));
        self.afar.retain(|node, _| keep.contains(node));
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
        for source in self.sources.values().filter(|source| source.rests(now).is_none()) {
            reachable.union_with(&source.held);
        }
        reachable
    }

    /// What sources hold that had no upload slot free just now.
    pub fn busy(&self, now: Instant) -> ChunkSet {
        let mut busy = ChunkSet::new();
        let sources = self.sources.values().filter(|source| source.is_busy(now));
        sources.for_each(|source| busy.union_with(&source.held));
        busy
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

    /// When to pick again even if nothing happens.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// There is nothing to pick at the moment.
    pub fn rest(&mut self) {
        self.wake = None;
    }

    /// Has so much more patience with sources than usual: word of what they hold takes longer where many
    /// follow, and everything where this node is behind with its work.
    pub fn endure(&mut self, patience: Duration) {
        self.patience = patience;
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::id::{BlobId, ChunkId, PackId};
    use super::super::manifest::{Chunk, Manifest};
    use super::pick::PATIENCE;
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
            let view = View {
                me: node(me),
                shares: true,
                lead: Some(node(1)),
                manifest: &manifest,
                missing: &missing,
                cursor: 0,
            };
            loop {
                let picks = swarm.pick(now, view);
                if picks.is_empty() {
                    break;
                }
                for pick in picks {
                    taken.extend(&pick.chunks);
                    swarm.arrived(now, None, &pick.chunks);
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
    fn a_leech_leaves_the_lead_to_the_first_takers() {
        let (manifest, now) = (manifest(100), Instant::now());
        let missing = ChunkSet::full(100);
        let view = View {
            me: node(9),
            shares: false,
            lead: Some(node(1)),
            manifest: &manifest,
            missing: &missing,
            cursor: 0,
        };
        let mut swarm = Swarm::default();
        swarm.add(now, node(1), &ChunkSet::full(100), false);
        swarm.add(now, node(2), &ChunkSet::new(), true);
        assert_eq!(swarm.pick(now, view), [], "all of it is for the other one to take first");
        assert!(!swarm.pick(now + PATIENCE, view).is_empty(), "patience ends");
        let mut alone = Swarm::default();
        alone.add(now, node(1), &ChunkSet::full(100), false);
        assert!(!alone.pick(now, view).is_empty(), "nobody else would take it");
    }

    #[test]
    fn nothing_is_asked_for_twice_and_failures_free_it() {
        let (manifest, now) = (manifest(4), Instant::now());
        let missing = ChunkSet::full(4);
        let view =
            View { me: node(9), shares: true, lead: None, manifest: &manifest, missing: &missing, cursor: 2 };
        let mut swarm = Swarm::default();
        swarm.add(now, node(1), &ChunkSet::full(4), false);
        let picks = swarm.pick(now, view);
        assert_eq!(picks.len(), 1);
        assert_eq!(picks[0].chunks, [2, 3, 0, 1], "from the cursor on");
        swarm.add(now, node(2), &ChunkSet::full(4), false);
        assert_eq!(swarm.pick(now, view), []);
        swarm.arrived(now, Some(&manifest), &[2]);
        swarm.batch_ended(now, picks[0].batch, BatchEnd::Lied);
        let again = swarm.pick(now, View { missing: &[0, 1, 3].into_iter().collect(), ..view });
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].source, &again[0].chunks[..]), (node(2), &[3, 0, 1][..]));
    }

    #[test]
    fn what_a_slow_source_owes_is_asked_of_another() {
        let (manifest, start) = (manifest(40), Instant::now());
        let missing = ChunkSet::full(40);
        let mut swarm = Swarm::default();
        swarm.add(start, node(1), &ChunkSet::full(20), false);
        let view =
            View { me: node(9), shares: true, lead: None, manifest: &manifest, missing: &missing, cursor: 0 };
        let slow = swarm.pick(start, view).swap_remove(0);
        let later = start + Duration::from_millis(500);
        swarm.arrived(later, Some(&manifest), &slow.chunks[..1]);
        assert_eq!(swarm.overdue(later), [0u64; 0], "nobody else has it");
        swarm.add(later, node(2), &ChunkSet::full(40), false);
        assert!(swarm.overdue(later).contains(&slow.batch), "another would be sooner");
        let left = missing.difference(&[slow.chunks[0]].into_iter().collect());
        let again = swarm.pick(later, View { missing: &left, ..view });
        let of_two = again.iter().filter(|it| it.source == node(2));
        let taken: Vec<u32> = of_two.flat_map(|it| it.chunks.clone()).collect();
        assert!(slow.chunks[1..].iter().all(|chunk| taken.contains(chunk)), "{taken:?}");
    }

    #[test]
    fn the_window_comes_in_order_and_then_the_rarest() {
        let (manifest, now) = (manifest(400), Instant::now());
        let missing = ChunkSet::full(400);
        let mut swarm = Swarm::default();
        let wide = |intake: &mut Intake| {
            intake.begins(now);
            intake.came(now + Duration::from_millis(10), 2 << 20);
        };
        wide(&mut swarm.intake);
        let mut common = ChunkSet::full(400);
        common.remove(300);
        swarm.add(now, node(1), &ChunkSet::full(400), false);
        (2..5).for_each(|n| swarm.add(now, node(n), &common, false));
        let view = View {
            me: node(9),
            shares: true,
            lead: None,
            manifest: &manifest,
            missing: &missing,
            cursor: 100,
        };
        let picks = swarm.pick(now, view);
        let of_one: Vec<&Pick> = picks.iter().filter(|pick| pick.source == node(1)).collect();
        assert_eq!(picks[0].chunks[0], 100, "what is read next comes first");
        assert!(of_one.iter().any(|pick| pick.chunks.contains(&300)), "the rarest is not left for the end");
    }
}
