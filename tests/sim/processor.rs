//! One processor that plays all machines: what each of them does waits for its turn.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use branchline::core::flight::Input;
use branchline::core::strain;
use branchline::core::swarm::BatchEnd;

use crate::trouble::Trouble;
use crate::world::{Event, MS, World};

/// A node that asked for chunks, and sees none for so long, gives up.
const SILENT: Duration = Duration::from_secs(3);

/// A machine whose turn it is goes on for so long, if it has so much to do.
const TURN: Duration = Duration::from_millis(3);

#[derive(Default)]
pub(crate) struct Processor {
    busy: bool,
    /// The machines that have something to do, in the order of their turns.
    turns: VecDeque<usize>,
    /// What each has to do, and since when.
    waiting: BTreeMap<usize, VecDeque<(Instant, Event)>>,
    /// What is left of the turn of the first one.
    left: Duration,
    /// How slow it is: with 2, a hundred nodes that all ask at once are more than it can do. With 0, nobody
    /// waits for it.
    pub(crate) slowness: u32,
}

impl Processor {
    /// Who does it.
    fn machine(event: &Event) -> Option<usize> {
        match event {
            Event::Message { to: node, .. }
            | Event::Deliver { to: node, .. }
            | Event::Serve { from: node, .. }
            | Event::WanChunk { node, .. }
            | Event::Tick { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn put(&mut self, now: Instant, node: usize, event: Event) {
        let waiting = self.waiting.entry(node).or_default();
        if waiting.is_empty() {
            self.turns.push_back(node);
        }
        // Who has its turn looks at its clock first.
        match event {
            Event::Tick { .. } => waiting.push_front((now, event)),
            event => waiting.push_back((now, event)),
        }
    }

    fn next(&mut self) -> Option<(Instant, Event)> {
        let node = *self.turns.front()?;
        let next = self.waiting.get_mut(&node)?.pop_front()?;
        self.left = self.left.saturating_sub(self.cost(&next.1));
        let more = self.waiting.get(&node).is_some_and(|waiting| !waiting.is_empty());
        if self.left.is_zero() || !more {
            self.turns.pop_front();
            self.turns.extend(more.then_some(node));
            self.left = TURN;
        }
        Some(next)
    }

    /// For how long it is busy with something.
    fn cost(&self, event: &Event) -> Duration {
        let micros = match event {
            Event::Message { .. } => 150,
            Event::Serve { .. } => 100,
            Event::Deliver { input: Input::Stored { .. }, .. } | Event::WanChunk { .. } => 1000,
            Event::Tick { .. } | Event::Deliver { .. } => 30,
            _ => 0,
        };
        Duration::from_micros(micros) * self.slowness
    }

    /// Where each of so many nodes stores so many chunks, it is busy for so long at least.
    pub(crate) fn work(&self, nodes: u64, chunks: u64) -> Duration {
        MS * self.slowness * (nodes * chunks) as u32
    }
}

impl World {
    /// What happens, happens now; or when the processor is free, if all share one.
    pub(crate) fn take_turn(&mut self, event: Event) {
        if self.trouble != Trouble::Cramped {
            return self.step(event);
        }
        match Processor::machine(&event) {
            Some(node) => self.processor.put(self.now, node, event),
            None if matches!(event, Event::Free) => self.processor.busy = false,
            None => return self.step(event),
        }
        if !self.processor.busy
            && let Some((since, event)) = self.processor.next()
        {
            self.work_on(since, event);
        }
    }

    fn work_on(&mut self, since: Instant, event: Event) {
        let cost = if self.is_stale(&event) { Duration::ZERO } else { self.processor.cost(&event) };
        self.processor.busy = true;
        self.at(cost, Event::Free);
        match event {
            Event::Serve { to, batch, .. } if self.now > since + SILENT + self.patience(to) => {
                let blob = self.blob();
                self.deliver(to, MS, Input::PeerEnded { blob, batch, end: BatchEnd::Failed });
            }
            event => self.step(event),
        }
    }

    /// How much longer than usual a node waits for another, as far behind as it is.
    fn patience(&self, node: usize) -> Duration {
        self.coordinator(node).map_or(Duration::ZERO, |it| strain::patience(it.lag()))
    }
}
