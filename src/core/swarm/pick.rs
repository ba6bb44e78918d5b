//! Choosing: the source, and the chunks to ask of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Swarm;
use super::batch::{self, Batch};
use super::source::Source;
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::manifest::Manifest;

/// Batches under way to one source.
const BATCHES_PER_SOURCE: usize = 3;
/// Batches under way in all.
const BATCHES: usize = 24;
/// A batch is what its source brings in this time, within bounds.
const BATCH_TIME: Duration = Duration::from_millis(100);
const SMALLEST: u64 = 64 << 10;
const LARGEST: u64 = 4 << 20;
/// How long others wait for a chunk's first taker before they ask the lead themselves.
pub(super) const PATIENCE: Duration = Duration::from_millis(400);
/// A blob of fewer chunks is not shared out: all take it from the lead.
pub const SHARED: u32 = 8;
/// What a client reads next comes in order: so many bytes from where it is.
const WINDOW: u64 = 8 << 20;
/// Beyond the window, the rarest of so many chunks is looked for.
const LOOK_AT: usize = 4096;
/// Neighbouring chunks that are equally rare are asked for together, in blocks of so many.
const BLOCK: u32 = 16;
/// A source that is so far behind is asked last.
const BEHIND: Duration = Duration::from_secs(1);

/// What to ask of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Identifies the batch until it ends.
    pub batch: u64,
    /// Whom to ask.
    pub source: NodeId,
    /// For what.
    pub chunks: Vec<u32>,
}

/// The facts that a pick depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This node.
    pub me: NodeId,
    /// It hands on what it gets; a leech is no first taker.
    pub shares: bool,
    /// The flight's lead, whose chunks are shared out.
    pub lead: Option<NodeId>,
    /// The chunk list.
    pub manifest: &'a Manifest,
    /// What this node lacks and wants.
    pub missing: &'a ChunkSet,
    /// The chunk that a client reads next; those after it come first.
    pub cursor: u32,
}

impl Swarm {
    /// Batches to ask for now. Marks their chunks as asked for.
    pub fn pick(&mut self, now: Instant, view: View<'_>) -> Vec<Pick> {
        let mut picks = Vec::new();
        let (mut count, mut bytes) = batch::under_way(&self.batches);
        if count == 0 {
            self.intake.begins(now);
        }
        let room = self.intake.room();
        if count >= BATCHES || bytes >= room {
            return picks;
        }
        let mut free = view.missing.difference(&self.asked);
        if free.is_empty() {
            return picks;
        }
        let takers = self.takers(view);
        while count < BATCHES
            && bytes < room
            && let Some((source, chunks, more)) = self.pick_one(now, view, &takers, &free)
        {
            (count, bytes) = (count + 1, bytes + more);
            for &chunk in &chunks {
                free.remove(chunk);
                self.asked.insert(chunk);
            }
            self.last_batch += 1;
            self.batches.insert(self.last_batch, Batch::new(now, source, &chunks, more));
            if let Some(source) = self.sources.get_mut(&source) {
                source.batches += 1;
                source.owes += more;
            }
            picks.push(Pick { batch: self.last_batch, source, chunks });
        }
        picks
    }

    fn takers(&self, view: View<'_>) -> Vec<NodeId> {
        let near = self.sources.iter().filter(|(_, source)| source.follower).map(|(node, _)| *node);
        let afar = self.afar.iter().filter(|(_, (_, follower))| *follower).map(|(node, _)| *node);
        let takers: BTreeSet<NodeId> = near.chain(afar).chain(view.shares.then_some(view.me)).collect();
        takers.into_iter().collect()
    }

    fn pick_one(
        &mut self,
        now: Instant,
        view: View<'_>,
        takers: &[NodeId],
        free: &ChunkSet,
    ) -> Option<(NodeId, Vec<u32>, u64)> {
        // The least busy first, the lead last: its upload is what the site has least of.
        let rank = |node: &NodeId, source: &Source| {
            (source.backlog() > BEHIND, source.batches, Some(*node) == view.lead, mix(node, &view.me))
        };
        let mut order: Vec<_> =
            self.sources.iter().map(|(node, source)| (rank(node, source), *node)).collect();
        order.sort_unstable();
        for (_, node) in order {
            let source = &self.sources[&node];
            if let Some(until) = source.rests(now) {
                self.wake_at(until);
                continue;
            }
            if source.batches >= BATCHES_PER_SOURCE {
                continue;
            }
            let (chunks, bytes) = self.batch_from(now, view, takers, free, node);
            if !chunks.is_empty() {
                return Some((node, chunks, bytes));
            }
        }
        None
    }

    /// What to ask of this source: first in order, for the client that reads; then the rarest.
    fn batch_from(
        &mut self,
        now: Instant,
        view: View<'_>,
        takers: &[NodeId],
        free: &ChunkSet,
        node: NodeId,
    ) -> (Vec<u32>, u64) {
        let source = &self.sources[&node];
        let candidates = source.held.intersection(free);
        let most = ((source.rate() * BATCH_TIME.as_secs_f64()) as u64).clamp(SMALLEST, LARGEST);
        let mut patience = None;
        let mut chunks = Vec::new();
        let mut bytes = 0;
        let mut take = |chunk: u32| {
            let length = view.manifest.chunk(chunk).map_or(0, |chunk| u64::from(chunk.length));
            if !chunks.is_empty() && bytes + length > most {
                return false;
            }
            bytes += length;
            chunks.push(chunk);
            true
        };
        let mut may = |chunk: u32| {
            let waits = self.waits_for_taker(now, view, takers, node, chunk);
            patience = patience.into_iter().chain(waits).min();
            waits.is_none() && !view.manifest.is_repeat(chunk)
        };
        let window = window_end(view);
        let in_order = candidates.iter_from(view.cursor).take_while(|&chunk| chunk < window);
        let more = in_order.filter(|&chunk| may(chunk)).all(&mut take);
        if more {
            let later =
                candidates.iter_from(window).chain(candidates.iter().take_while(|&it| it < view.cursor));
            let later: Vec<u32> = later.take(LOOK_AT).filter(|&chunk| may(chunk)).collect();
            let from = self.rarest(&later, view.me);
            later[from..].iter().copied().all(&mut take);
        }
        if let Some(at) = patience {
            self.wake_at(at);
        }
        (chunks, bytes)
    }

    /// Where among these chunks the block begins whose rarest chunk is the rarest of all. Different
    /// nodes begin at different ones of equally rare blocks.
    fn rarest(&self, chunks: &[u32], me: NodeId) -> usize {
        let copies = |chunk: u32| self.copies.get(chunk as usize).copied().unwrap_or(0);
        let salt = mix(&me, &me);
        let key = |&(_, &chunk): &(usize, &u32)| {
            let block = u64::from(chunk / BLOCK);
            (copies(chunk), (block ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15), chunk)
        };
        chunks.iter().enumerate().min_by_key(key).map_or(0, |(at, _)| at)
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
        let alone = takers.iter().all(|taker| *taker == view.me);
        if Some(node) != view.lead || alone || view.manifest.count() < SHARED {
            return None;
        }
        let until = *self.told.get(&chunk)? + PATIENCE + self.patience;
        if until <= now || takers[first_taker(chunk, takers.len())] == view.me {
            return None;
        }
        Some(until)
    }
}

/// The chunk at which the window of a reading client ends.
fn window_end(view: View<'_>) -> u32 {
    let start = view.manifest.chunk(view.cursor).map_or(0, |chunk| chunk.offset);
    view.manifest.chunk_at(start + WINDOW).unwrap_or(view.manifest.count())
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
