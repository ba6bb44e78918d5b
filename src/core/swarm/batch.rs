//! What was asked of a source, until it is there: progress, and taking it back from the slow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Swarm;
use super::source::Source;
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::manifest::Manifest;

/// A batch that brings nothing for so long is taken back if another source can be asked.
const NO_PROGRESS: Duration = Duration::from_millis(800);
/// And for so long at the most, however thin this node's own link is.
const LONGEST: Duration = Duration::from_secs(4);
/// The rest of a batch is taken back when another source would have brought it in this share of
/// the time that its own still needs.
const MUCH_FASTER: f64 = 0.25;
/// What is nearly there is not worth asking for again.
const NEARLY: Duration = Duration::from_millis(400);
/// How often batches are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Chunks under way from one source.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) source: NodeId,
    left: ChunkSet,
    left_bytes: u64,
    bytes: u64,
    began: Instant,
    progress: Instant,
}

impl Batch {
    pub(super) fn new(now: Instant, source: NodeId, chunks: &[u32], bytes: u64) -> Self {
        let left = chunks.iter().copied().collect();
        Self { source, left, left_bytes: bytes, bytes, began: now, progress: now }
    }

    /// How long its source still needs for it, by the pace of this batch so far.
    fn needs(&self, now: Instant, source: &Source) -> Duration {
        let came = self.bytes - self.left_bytes;
        let took = now.saturating_duration_since(self.began).as_secs_f64().max(1e-3);
        let rate = if came > 0 { came as f64 / took } else { source.rate() };
        Duration::from_secs_f64((self.left_bytes as f64 / rate.max(1.0)).min(3600.0))
    }
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEnd {
    /// All chunks arrived.
    Done,
    /// The source has no upload slot free at the moment.
    Busy,
    /// It was taken back from a slow source.
    Slow,
    /// It broke off, made no progress, or no longer holds a chunk.
    Failed,
    /// A chunk's hash was wrong.
    Lied,
}

impl Swarm {
    /// Chunks are there, whoever brought them.
    pub fn arrived(&mut self, now: Instant, manifest: Option<&Manifest>, chunks: &[u32]) {
        for &chunk in chunks {
            self.told.remove(&chunk);
            if !self.asked.remove(chunk) {
                continue;
            }
            let length = manifest.and_then(|it| it.chunk(chunk)).map_or(0, |it| u64::from(it.length));
            for batch in self.batches.values_mut() {
                if batch.left.remove(chunk) {
                    self.intake.came(now, length);
                    batch.progress = now;
                    batch.left_bytes = batch.left_bytes.saturating_sub(length);
                    if let Some(source) = self.sources.get_mut(&batch.source) {
                        source.owes = source.owes.saturating_sub(length);
                    }
                }
            }
        }
    }

    /// A batch has ended; what it did not bring is free again.
    pub fn batch_ended(&mut self, now: Instant, number: u64, end: BatchEnd) {
        let Some(batch) = self.batches.remove(&number) else { return };
        self.asked = self.asked.difference(&batch.left);
        if end == BatchEnd::Failed {
            self.lose(&batch.source, &batch.left); // until it is told of again
        }
        if end == BatchEnd::Lied {
            self.remove(&batch.source);
        }
        let Some(source) = self.sources.get_mut(&batch.source) else { return };
        source.batches = source.batches.saturating_sub(1);
        source.owes = source.owes.saturating_sub(batch.left_bytes);
        let came = batch.bytes.saturating_sub(batch.left_bytes);
        if came > 0 || end == BatchEnd::Slow {
            source.measured(came, now.saturating_duration_since(batch.began));
        }
        match end {
            BatchEnd::Done => source.succeeded(),
            BatchEnd::Busy => source.was_busy(now),
            BatchEnd::Failed | BatchEnd::Slow => source.failed(now),
            BatchEnd::Lied => {}
        }
    }

    /// Batches whose rest another source would bring much sooner. They are over: their chunks are
    /// free, and whatever still comes of them is welcome.
    pub fn overdue(&mut self, now: Instant) -> Vec<u64> {
        let sources = &self.sources;
        // What was asked of many sources shares this node's own link: each of them may seem to be silent.
        let patience =
            (4 * self.intake.takes(under_way(&self.batches).1)).clamp(NO_PROGRESS, LONGEST) + self.patience;
        let nearly = NEARLY + self.patience;
        let late = |batch: &Batch| {
            let source = sources.get(&batch.source)?;
            let needs = batch.needs(now, source);
            let silent = now.saturating_duration_since(batch.progress) >= patience;
            let sooner = |other: &Source| {
                let time = Duration::from_secs_f64(batch.left_bytes as f64 / other.rate()) + other.backlog();
                silent || (needs > nearly && time < needs.mul_f64(MUCH_FASTER))
            };
            let able = |(node, other): (&NodeId, &Source)| {
                *node != batch.source
                    && other.rests(now).is_none()
                    && sooner(other)
                    && batch.left.difference(&other.held).is_empty()
            };
            (!batch.left.is_empty() && sources.iter().any(able)).then_some(())
        };
        let over: Vec<u64> = self.batches.iter().filter_map(|(n, batch)| late(batch).map(|()| *n)).collect();
        over.iter().for_each(|&number| self.batch_ended(now, number, BatchEnd::Slow));
        if self.batches.values().any(|batch| !batch.left.is_empty()) && self.sources.len() > 1 {
            self.wake_at(now + LOOK);
        }
        over
    }
}

/// What is under way, for [`Swarm::pick`]: batches, and bytes.
pub(super) fn under_way(batches: &BTreeMap<u64, Batch>) -> (usize, u64) {
    let open = batches.values().filter(|batch| !batch.left.is_empty());
    open.fold((0, 0), |(count, bytes), batch| (count + 1, bytes + batch.left_bytes))
}
