//! A site: nodes, their links, their WAN, and what goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::processor::Processor;
use crate::trouble::Trouble;
use branchline::core::chunkset::ChunkSet;
use branchline::core::flight::{
    Config, Coordinator, Effect, Failure, FailureKind, Input, Message, Shelf, Urgency, WanEnd,
};
use branchline::core::hubs;
use branchline::core::id::{BlobId, ChunkId, NodeId, PackId};
use branchline::core::manifest::{Chunk, Manifest};
use branchline::core::swarm::BatchEnd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a run saw.
#[derive(Debug)]
pub struct Report {
    pub trouble: Trouble,
    pub nodes: u64,
    pub kills: u64,
    pub partitions: u64,
    pub chunks: u64,
    pub repeated: u64,
    pub leeches: u64,
    /// Chunks that leeches pulled, each for itself alone.
    pub leeched: u64,
    pub longest_ms: u64,
    pub messages: u64,
    /// Some nodes held the blob before.
    pub seeded: bool,
    pub violations: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Start(usize),
    Connect(usize, usize),
    Disconnect(usize, usize),
    /// A node of a large site learns who the hubs are.
    Shape(usize),
    Deliver {
        to: usize,
        life: u32,
        input: Input,
    },
    Message {
        from: usize,
        to: usize,
        message: Message,
    },
    Serve {
        from: usize,
        to: usize,
        batch: u64,
        chunks: Vec<u32>,
    },
    WanChunk {
        node: usize,
        life: u32,
        run: u64,
    },
    Tick {
        node: usize,
        life: u32,
        /// As it was planned; another one may have been planned since.
        at: Instant,
    },
    Want(usize),
    WantLater(usize),
    Unwant(usize),
    Kill(usize),
    Split(BTreeSet<usize>),
    Heal,
    WanCut(Vec<usize>),
    WanHeal,
    /// A node stands still, as a machine that swaps or sleeps does.
    Freeze(usize),
    Thaw(usize),
    /// What the origin sends to this node becomes so many times slower.
    Crawl(usize, u32),
    /// A node's disk is full.
    Fill(usize),
    /// The processor that all machines share is free again.
    Free,
    /// A machine is carried elsewhere: without LAN and WAN, then back with another address.
    Leave(usize),
    Return(usize),
    Weigh(usize, u32),
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    life: u32,
    coordinator: Option<Coordinator>,
    held: ChunkSet,
    manifest: bool,
    wanted: Option<Instant>,
    pub(crate) asks: bool,
    done: bool,
    wan_up: bool,
    pub(crate) liar: bool,
    pub(crate) leech: bool,
    weight: u32,
    /// It has pulled over the WAN.
    pulled: bool,
    /// Its LAN is slow.
    pub(crate) slow: bool,
    /// So many times slower than usual its WAN is.
    slowed: u32,
    /// Something happens to itself, so that its own client may have to wait longer.
    pub(crate) befallen: bool,
    full: bool,
    away: bool,
    /// What it would have heard had it not stood still.
    frozen: Option<Vec<Input>>,
    /// How its clock differs: ahead by so much, and so fast.
    pub(crate) ahead: Duration,
    pub(crate) drift: f64,
    /// Nodes that it cannot get through to, nor they to it.
    pub(crate) blind_to: BTreeSet<usize>,
    links: BTreeMap<usize, Instant>,
    /// Whom it takes for hubs, in a large site.
    hubs: BTreeSet<NodeId>,
    shape_due: Option<Instant>,
    /// Links that its flight asked for.
    called: usize,
    runs: BTreeMap<u64, Vec<u32>>,
    tick_at: Option<Instant>,
}

struct Disk<'a>(&'a Node, &'a Arc<Manifest>);

impl Shelf for Disk<'_> {
    fn holding(&self, _: &BlobId) -> Option<(Arc<Manifest>, ChunkSet)> {
        self.0.manifest.then(|| (self.1.clone(), self.0.held.clone()))
    }
}

pub struct World {
    pub(crate) rng: StdRng,
    pub(crate) trouble: Trouble,
    start: Instant,
    pub(crate) now: Instant,
    number: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    pub(crate) nodes: Vec<Node>,
    manifest: Arc<Manifest>,
    side: BTreeSet<usize>,
    crossed: Vec<u64>,
    last_trouble: Instant,
    /// Chunks that a node which was lost alone held or pulled.
    pub(crate) died: u64,
    /// For so long no WAN may have been there.
    pub(crate) outage: Duration,
    /// A large site: so many hubs, and all others are connected to those alone.
    hubs: Option<usize>,
    pub(crate) processor: Processor,
    pub(crate) report: Report,
    pub trace: bool,
}

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Bytes of a chunk.
const CHUNK: u64 = 200_000;
/// Hubs of a large site: few, so that runs stay cheap.
const HUBS: usize = 8;
/// Links that one flight may ask for: a group and some holders, and leads that it was sent to.
const CALLS: usize = 2 * 20;
/// After the last trouble, and so much per chunk, every client must have its blob.
const PATIENCE: Duration = Duration::from_secs(45);

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let trouble = Trouble::ALL[(seed % Trouble::ALL.len() as u64) as usize];
        let (count, chunks) = trouble.size(&mut rng);
        Self::of(trouble, rng, (count, chunks), None)
    }

    /// A site that is larger than a mesh: links to hubs, and those that flights ask for. In some of
    /// them a few nodes hold the blob beforehand.
    pub fn large(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let trouble = Trouble::LARGE[(seed % Trouble::LARGE.len() as u64) as usize];
        let count = rng.random_range(60..=120);
        let chunks = if rng.random_bool(0.2) { 1 } else { rng.random_range(2..120) };
        let mut world = Self::of(trouble, rng, (count, chunks), Some(HUBS));
        if world.rng.random_bool(0.4) {
            let all = ChunkSet::full(world.manifest.count());
            for node in (0..count).filter(|node| node % 37 == 5) {
                (world.nodes[node].manifest, world.nodes[node].held) = (true, all.clone());
            }
            // These have met before anybody asks, so nothing may cross that a node at the rim holds.
            for event in world.events.values_mut() {
                if let Event::Want(node) = event {
                    *event = Event::WantLater(*node);
                }
            }
            world.report.seeded = true;
        }
        world
    }

    fn of(trouble: Trouble, mut rng: StdRng, (count, chunks): (usize, usize), hubs: Option<usize>) -> Self {
        let now = Instant::now();
        let some = trouble != Trouble::Crawl && hubs.is_none() && rng.random_bool(0.3);
        let leeches = if some { rng.random_range(0.1..0.8) } else { 0.0 };
        let nodes: Vec<Node> = (0..count)
            .map(|_| (NodeId::from_bytes(rng.random()), rng.random_bool(leeches)))
            .map(|(id, leech)| Node {
                id,
                leech,
                weight: if leech { 0 } else { 100 },
                pulled: false,
                life: 0,
                coordinator: None,
                held: ChunkSet::new(),
                manifest: false,
                wanted: None,
                asks: false,
                done: false,
                wan_up: true,
                liar: false,
                slow: false,
                slowed: 1,
                befallen: false,
                full: false,
                away: false,
                frozen: None,
                ahead: Duration::ZERO,
                drift: 1.0,
                blind_to: BTreeSet::new(),
                links: BTreeMap::new(),
                hubs: BTreeSet::new(),
                shape_due: None,
                called: 0,
                runs: BTreeMap::new(),
                tick_at: None,
            })
            .collect();
        let report = Report {
            trouble,
            nodes: count as u64,
            kills: 0,
            partitions: 0,
            chunks: chunks as u64,
            repeated: 0,
            leeches: nodes.iter().filter(|node| node.leech).count() as u64,
            leeched: 0,
            longest_ms: 0,
            messages: 0,
            seeded: false,
            violations: Vec::new(),
        };
        let mut world = Self {
            rng,
            trouble,
            start: now,
            now,
            number: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes,
            manifest: Arc::new(manifest(chunks as u32)),
            side: BTreeSet::new(),
            crossed: vec![0; chunks],
            last_trouble: now,
            died: 0,
            outage: Duration::ZERO,
            hubs,
            processor: Processor::default(),
            report,
            trace: false,
        };
        world.plan();
        world
    }

    pub(crate) fn is_large(&self) -> bool {
        self.hubs.is_some()
    }

    pub(crate) fn random_ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    pub(crate) fn at(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((self.now + after, self.number)));
        self.events.insert(self.number, event);
    }

    pub fn run(mut self) -> Report {
        let mut steps = 0u64;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            self.now = at;
            steps += 1;
            self.take_turn(event);
            let queued = 4 * self.processor.work(self.report.nodes, self.report.chunks);
            let calm = at > self.last_trouble + PATIENCE + queued + 20 * MS * self.crossed.len() as u32;
            if steps > 3_000_000 || calm || self.report.violations.len() > 3 || self.finished() {
                break;
            }
        }
        self.judge(steps);
        self.report
    }

    /// Nothing planned is left, and everybody has what they asked for.
    fn finished(&self) -> bool {
        let planned = self.events.values().any(|event| {
            matches!(
                event,
                Event::Start(_)
                    | Event::Want(_)
                    | Event::WantLater(_)
                    | Event::Kill(_)
                    | Event::Split(_)
                    | Event::Heal
                    | Event::WanCut(_)
                    | Event::WanHeal
                    | Event::Unwant(_)
                    | Event::Freeze(_)
                    | Event::Thaw(_)
                    | Event::Crawl(..)
                    | Event::Fill(_)
                    | Event::Leave(_)
                    | Event::Return(_)
            )
        });
        !planned
            && self.nodes.iter().all(|node| node.coordinator.is_none() || node.wanted.is_none())
            && self.nodes.iter().all(|node| node.runs.is_empty())
    }

    fn judge(&mut self, steps: u64) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].coordinator.is_some() && self.nodes[node].wanted.is_some() {
                let flights: Vec<_> = self.nodes[node].coordinator.iter().flat_map(|c| c.flights()).collect();
                self.violation(format!("node {node} never got its blob after {steps} steps: {flights:?}"));
            }
        }
        self.report.repeated = self.crossed.iter().map(|&times| times.saturating_sub(1)).sum();
        let allowed = self.may_repeat();
        let untroubled = matches!(self.trouble, Trouble::None | Trouble::Clients);
        if self.report.seeded && untroubled && self.crossed.iter().any(|&times| times > 0) {
            self.violation("chunks crossed the WAN that nodes at the rim held".into());
        }
        if self.report.repeated > allowed {
            self.violation(format!("{} chunks crossed the WAN again, {allowed} may", self.report.repeated));
        }
        // They are to agree, not to argue.
        let allowed = self.report.nodes * (400 + 4 * self.report.chunks);
        if self.report.messages > allowed {
            self.violation(format!("{} messages, {allowed} may be", self.report.messages));
        }
        let allowed = self.may_wait().as_millis() as u64;
        if self.report.longest_ms > allowed {
            self.violation(format!("a client waited {} ms, {allowed} may be", self.report.longest_ms));
        }
    }

    fn violation(&mut self, what: String) {
        let at = (self.now - self.start).as_millis();
        self.report.violations.push(format!("at {at} ms: {what}"));
    }

    pub(crate) fn step(&mut self, event: Event) {
        if self.trace && !matches!(event, Event::Tick { .. }) {
            println!("{:>6} {event:?}", (self.now - self.start).as_millis());
        }
        match event {
            Event::Start(node) => self.start_node(node),
            Event::Connect(a, b) => self.connect(a, b),
            Event::Shape(node) => self.shape(node),
            Event::Disconnect(a, b) => self.disconnect(a, b),
            Event::Deliver { to, life, input } => {
                // News of a death that comes after the rebirth is no news.
                let stale = matches!(&input, Input::Left { node } if self.linked(to, *node))
                    || matches!(&input, Input::Joined { node, .. } if !self.linked(to, *node));
                if self.nodes[to].life == life && !stale {
                    self.feed(to, input);
                }
            }
            Event::Message { from, to, message } => {
                if !self.nodes[to].links.contains_key(&from) {
                } else if !self.reachable(from, to) {
                    // As TCP does: it arrives when the line is back, if the link lasts so long.
                    self.at(MS * 200, Event::Message { from, to, message });
                } else {
                    let from = self.nodes[from].id;
                    self.feed(to, Input::Message { from, message });
                }
            }
            Event::Serve { from, to, batch, chunks } => self.serve(from, to, batch, chunks),
            Event::WanChunk { node, life, run } => self.wan_chunk(node, life, run),
            Event::Tick { node, life, at } => {
                if self.nodes[node].life == life && self.nodes[node].tick_at == Some(at) {
                    self.nodes[node].tick_at = None;
                    self.feed(node, Input::Tick);
                }
            }
            Event::Want(node) => {
                if self.nodes[node].coordinator.is_some() && self.nodes[node].wanted.is_none() {
                    self.nodes[node].wanted = Some(self.now);
                    self.nodes[node].done = false;
                    let (blob, manifest) = (self.manifest.blob(), self.manifest.id());
                    self.feed(node, Input::Want { blob, manifest, urgency: Urgency::Foreground });
                }
            }
            Event::WantLater(node) => self.at(MS * 5000, Event::Want(node)),
            Event::Unwant(node) => {
                self.nodes[node].wanted = None;
                self.feed(node, Input::Unwant { blob: self.manifest.blob() });
            }
            Event::Kill(node) => self.kill(node),
            Event::Split(side) => self.split(side),
            Event::Heal => {
                self.last_trouble = self.now;
                self.side.clear();
                self.link_all();
            }
            Event::WanCut(nodes) => {
                self.last_trouble = self.now;
                nodes.into_iter().for_each(|node| self.nodes[node].wan_up = false);
            }
            Event::WanHeal => {
                self.last_trouble = self.now;
                self.nodes.iter_mut().for_each(|node| node.wan_up = true);
            }
            Event::Freeze(node) => self.freeze(node),
            Event::Thaw(node) => self.thaw(node),
            Event::Crawl(node, times) => {
                self.last_trouble = self.now;
                self.nodes[node].slowed = times;
            }
            Event::Fill(node) => {
                self.last_trouble = self.now;
                self.nodes[node].full = true;
            }
            Event::Leave(node) => {
                self.last_trouble = self.now;
                self.died += self.only_on(node);
                (self.nodes[node].away, self.nodes[node].wan_up) = (true, false);
                self.lose_sight(node);
            }
            Event::Return(node) => {
                self.last_trouble = self.now;
                (self.nodes[node].away, self.nodes[node].wan_up) = (false, true);
                // The old connections are of no use: their address is gone.
                let others: Vec<usize> = self.nodes[node].links.keys().copied().collect();
                others.into_iter().for_each(|other| self.unlink(node, other));
                (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.link(node, other));
            }
            Event::Weigh(node, weight) => self.weigh(node, weight),
            Event::Free => {} // of a processor that nobody shares
        }
    }

    /// A tick that another one has replaced.
    pub(crate) fn is_stale(&self, event: &Event) -> bool {
        matches!(event, Event::Tick { node, at, .. } if self.nodes[*node].tick_at != Some(*at))
    }

    pub(crate) fn blob(&self) -> BlobId {
        self.manifest.blob()
    }

    pub(crate) fn coordinator(&self, node: usize) -> Option<&Coordinator> {
        self.nodes[node].coordinator.as_ref()
    }

    fn linked(&self, node: usize, other: NodeId) -> bool {
        self.nodes[node].links.keys().any(|&link| self.nodes[link].id == other)
    }

    fn reachable(&self, a: usize, b: usize) -> bool {
        let up = |node: usize| {
            let node = &self.nodes[node];
            node.coordinator.is_some() && node.frozen.is_none() && !node.away
        };
        up(a)
            && up(b)
            && self.side.contains(&a) == self.side.contains(&b)
            && !self.nodes[a].blind_to.contains(&b)
    }

    /// What a node's own clock says.
    fn clock(&self, node: usize) -> Instant {
        let time = (self.now - self.start).mul_f64(self.nodes[node].drift);
        self.start + self.nodes[node].ahead + time
    }

    /// When it will say so.
    fn when(&self, node: usize, clock: Instant) -> Instant {
        let time = clock.saturating_duration_since(self.start + self.nodes[node].ahead);
        self.start + time.div_f64(self.nodes[node].drift)
    }

    fn freeze(&mut self, node: usize) {
        if self.nodes[node].coordinator.is_some() && self.nodes[node].frozen.is_none() {
            self.last_trouble = self.now;
            self.died += self.only_on(node);
            self.nodes[node].frozen = Some(Vec::new());
            self.lose_sight(node);
        }
    }

    fn thaw(&mut self, node: usize) {
        self.last_trouble = self.now;
        for input in self.nodes[node].frozen.take().unwrap_or_default() {
            self.feed(node, input);
        }
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.link(node, other));
    }

    /// The others notice after a while that a node is silent, and it that they are.
    fn lose_sight(&mut self, node: usize) {
        for other in self.nodes[node].links.keys().copied().collect::<Vec<_>>() {
            let after = self.random_ms(2500..3500);
            self.at(after, Event::Disconnect(node, other));
        }
    }

    fn start_node(&mut self, node: usize) {
        if self.nodes[node].coordinator.is_some() {
            return;
        }
        self.last_trouble = self.now;
        let it = &mut self.nodes[node];
        it.life += 1;
        it.tick_at = None;
        let id = it.id;
        let config = Config { weight: it.weight, shares: !it.leech, ..Config::default() };
        let clock = self.clock(node);
        self.nodes[node].coordinator = Some(Coordinator::new(clock, id, config));
        self.nodes[node].hubs.clear();
        if self.hubs.is_some() {
            return self.reshape(2..250);
        }
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.link(node, other));
    }

    /// In a large site everybody learns of its hubs, each at its own time.
    fn reshape(&mut self, after: std::ops::Range<u64>) {
        if self.hubs.is_none() {
            return;
        }
        for node in 0..self.nodes.len() {
            let after = self.random_ms(after.clone());
            let at = self.now + after;
            if self.nodes[node].shape_due.is_none_or(|due| due > at) {
                self.nodes[node].shape_due = Some(at);
                self.at(after, Event::Shape(node));
            }
        }
    }

    fn shape(&mut self, node: usize) {
        if self.nodes[node].shape_due.is_some_and(|due| due <= self.now) {
            self.nodes[node].shape_due = None;
        }
        let Some(places) = self.hubs.filter(|_| self.nodes[node].coordinator.is_some()) else { return };
        let live = (0..self.nodes.len()).filter(|&other| self.reachable(node, other));
        let hubs = hubs::choose(live.map(|other| (self.nodes[other].id, 100, true)), places).hubs;
        let before = std::mem::replace(&mut self.nodes[node].hubs, hubs.clone());
        let me = self.nodes[node].id;
        self.feed(node, Input::Weight { weight: if hubs.contains(&me) { 100 } else { 0 } });
        for other in self.nodes[node].links.keys().copied().collect::<Vec<_>>() {
            let id = self.nodes[other].id;
            if before.contains(&id) != hubs.contains(&id) {
                let weight = self.weight(node, other);
                self.feed(node, Input::Joined { node: id, weight });
            }
        }
        let places = (0..self.nodes.len()).filter(|&it| hubs.contains(&self.nodes[it].id));
        for hub in places.filter(|&hub| hub != node).collect::<Vec<_>>() {
            self.link(node, hub);
        }
    }

    /// What a node takes another's weight for.
    fn weight(&self, node: usize, other: usize) -> u32 {
        let hub = self.hubs.is_none() || self.nodes[node].hubs.contains(&self.nodes[other].id);
        if hub { self.nodes[other].weight } else { 0 }
    }

    fn link_all(&mut self) {
        if self.hubs.is_some() {
            return self.reshape(2..250);
        }
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.link(a, b);
            }
        }
    }

    /// Discovery takes its time.
    fn link(&mut self, a: usize, b: usize) {
        if self.reachable(a, b) && !self.nodes[a].links.contains_key(&b) {
            let after = self.random_ms(2..250);
            self.at(after, Event::Connect(a, b));
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if !self.reachable(a, b) {
            return;
        }
        for (x, y) in [(a, b), (b, a)] {
            if self.nodes[x].links.insert(y, self.now).is_none() {
                let node = self.nodes[y].id;
                self.feed(x, Input::Left { node });
                // An introduction comes before all else on its stream, so nobody hears a stranger.
                let weight = self.weight(x, y);
                self.feed(x, Input::Joined { node, weight });
            }
        }
    }

    /// A node's weight changes, and in a while the others know.
    fn weigh(&mut self, node: usize, weight: u32) {
        if self.nodes[node].leech {
            return;
        }
        self.nodes[node].weight = weight;
        self.feed(node, Input::Weight { weight });
        let id = self.nodes[node].id;
        for other in self.nodes[node].links.keys().copied().collect::<Vec<_>>() {
            // In the order in which they were said.
            self.deliver(other, 15 * MS, Input::Joined { node: id, weight });
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        if !self.reachable(a, b) {
            self.unlink(a, b);
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        for (x, y) in [(a, b), (b, a)] {
            if self.nodes[x].links.remove(&y).is_some() {
                let node = self.nodes[y].id;
                self.feed(x, Input::Left { node });
            }
        }
    }

    fn kill(&mut self, node: usize) {
        if self.nodes[node].coordinator.take().is_none() {
            return;
        }
        self.last_trouble = self.now;
        self.report.kills += 1;
        // What a leech held was nobody else's.
        self.died += if self.nodes[node].leech { 0 } else { self.only_on(node) };
        self.nodes[node].life += 1;
        self.nodes[node].wanted = None;
        self.nodes[node].frozen = None;
        self.nodes[node].runs.clear();
        let silent = self.rng.random_bool(0.3);
        for other in std::mem::take(&mut self.nodes[node].links).into_keys() {
            self.nodes[other].links.remove(&node);
            let id = self.nodes[node].id;
            let after = if silent { self.random_ms(2500..3500) } else { self.random_ms(0..10) };
            let life = self.nodes[other].life;
            self.at(after, Event::Deliver { to: other, life, input: Input::Left { node: id } });
        }
        if silent { self.reshape(3500..4000) } else { self.reshape(10..300) }
    }

    /// How many chunks no other living node holds.
    fn only_on(&self, node: usize) -> u64 {
        let mut elsewhere = ChunkSet::new();
        let gives = |it: &Node| it.coordinator.is_some() && it.frozen.is_none() && !it.away && !it.leech;
        let others = self.nodes.iter().enumerate().filter(|(index, it)| *index != node && gives(it));
        others.for_each(|(_, it)| elsewhere.union_with(&it.held));
        let mut here = self.nodes[node].held.clone();
        here.union_with(&self.nodes[node].runs.values().flatten().copied().collect());
        u64::from(here.difference(&elsewhere).len())
    }

    fn split(&mut self, side: BTreeSet<usize>) {
        self.last_trouble = self.now;
        self.report.partitions += 1;
        self.side = side;
        for a in 0..self.nodes.len() {
            for b in 0..a {
                if self.nodes[a].links.contains_key(&b) && !self.reachable(a, b) {
                    let after = self.random_ms(2500..3500);
                    self.at(after, Event::Disconnect(a, b));
                }
            }
        }
        self.reshape(3500..4000);
    }

    /// Hands a node an input and carries out what it wants done.
    fn feed(&mut self, node: usize, input: Input) {
        if let Some(missed) = &mut self.nodes[node].frozen {
            return missed.push(input);
        }
        let clock = self.clock(node);
        let Some(mut coordinator) = self.nodes[node].coordinator.take() else { return };
        if let Input::Manifest { result: Ok(_), .. } = &input {
            self.nodes[node].manifest = true;
        }
        coordinator.handle(clock, input, &Disk(&self.nodes[node], &self.manifest));
        let mut effects = Vec::new();
        while let Some(effect) = coordinator.poll() {
            effects.push(effect);
        }
        let deadline = coordinator.deadline().map(|at| self.when(node, at));
        self.nodes[node].coordinator = Some(coordinator);
        effects.into_iter().for_each(|effect| self.perform(node, effect));
        if let Some(at) = deadline
            && self.nodes[node].tick_at.is_none_or(|tick| at < tick)
        {
            let at = at.max(self.now + Duration::from_micros(100));
            self.nodes[node].tick_at = Some(at);
            let life = self.nodes[node].life;
            self.at(at - self.now, Event::Tick { node, life, at });
        }
    }

    pub(crate) fn deliver(&mut self, to: usize, after: Duration, input: Input) {
        let life = self.nodes[to].life;
        self.at(after, Event::Deliver { to, life, input });
    }

    fn index(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of this world")
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        if self.trace {
            println!("{:>6}   node {node}: {effect:?}", (self.now - self.start).as_millis());
        }
        match effect {
            Effect::Send { to, message } => self.post(node, to, message),
            Effect::FetchManifest { blob, from, .. } => {
                let fine = match from {
                    Some(from) => {
                        let from = self.index(from);
                        if self.nodes[from].leech {
                            self.violation(format!("node {node} asks leech {from} for the manifest"));
                        }
                        self.reachable(node, from) && self.nodes[from].manifest
                    }
                    None => self.nodes[node].wan_up,
                };
                let result = if fine {
                    Ok((self.manifest.clone(), self.nodes[node].held.clone()))
                } else {
                    Err(Failure { why: "out of reach".into(), kind: FailureKind::Transient })
                };
                let after = if from.is_some() { self.random_ms(1..5) } else { self.random_ms(40..90) };
                self.deliver(node, after, Input::Manifest { blob, result });
            }
            Effect::Connect { nodes } => {
                self.nodes[node].called += nodes.len();
                if self.nodes[node].called > CALLS {
                    self.violation(format!("node {node} asked for {} links", self.nodes[node].called));
                }
                for other in nodes {
                    let other = self.index(other);
                    // Some addresses are out of date.
                    if self.rng.random_bool(0.9) {
                        let after = self.random_ms(20..250);
                        self.at(after, Event::Connect(node, other));
                    }
                }
            }
            Effect::FetchWan { run, chunks, .. } => self.fetch_wan(node, run, chunks),
            Effect::StopWan { .. } => self.nodes[node].runs.clear(),
            Effect::FetchPeer { batch, source, chunks, .. } => {
                let from = self.index(source);
                let after = self.random_ms(1..4);
                self.at(after, Event::Serve { from, to: node, batch, chunks });
            }
            // What still comes of it is welcome, and does come.
            Effect::AbortPeer { .. } | Effect::Duplicate { .. } | Effect::Urgency { .. } => {}
            Effect::Ended { result, .. } => {
                // A node without room passes its client's bytes through: not simulated.
                let no_room = |failure: &Failure| failure.kind == FailureKind::Local;
                if let Err(failure) = &result
                    && !(self.nodes[node].full && no_room(failure))
                {
                    self.violation(format!("node {node} was refused its blob: {}", failure.why));
                }
                if result.is_ok() && self.nodes[node].held.len() != self.manifest.count() {
                    self.violation(format!("node {node} was told that a part is the whole"));
                }
                if let Some(since) = self.nodes[node].wanted.take() {
                    let waited = (self.now - since).as_millis() as u64;
                    if !self.nodes[node].befallen {
                        self.report.longest_ms = self.report.longest_ms.max(waited);
                    }
                    self.nodes[node].done = true;
                }
            }
            Effect::Over { .. } => {
                self.nodes[node].called = 0;
                self.nodes[node].runs.clear();
            }
        }
    }

    fn post(&mut self, from: usize, to: NodeId, message: Message) {
        let to = self.index(to);
        self.report.messages += 1;
        let rough = self.trouble == Trouble::Messages;
        if rough && self.rng.random_bool(0.03) {
            return;
        }
        let copies = if rough && self.rng.random_bool(0.03) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if rough { self.random_ms(0..30) } else { MS };
            self.at(delay, Event::Message { from, to, message: message.clone() });
        }
    }

    fn serve(&mut self, from: usize, to: usize, batch: u64, chunks: Vec<u32>) {
        let blob = self.manifest.blob();
        if self.nodes[from].frozen.is_some() && self.nodes[to].links.contains_key(&from) {
            // The kernel takes the request; nobody answers it.
            return self.at(MS * 200, Event::Serve { from, to, batch, chunks });
        }
        if self.nodes[to].full {
            let why = "the disk is full".to_owned();
            self.deliver(to, MS, Input::Unwritable { blob, why });
            return self.deliver(to, MS, Input::PeerEnded { blob, batch, end: BatchEnd::Busy });
        }
        if self.nodes[from].leech {
            self.violation(format!("node {to} asks leech {from} for chunks"));
        }
        let fine =
            self.reachable(from, to) && chunks.iter().all(|&chunk| self.nodes[from].held.contains(chunk));
        if !fine {
            return self.deliver(to, MS * 20, Input::PeerEnded { blob, batch, end: BatchEnd::Failed });
        }
        if self.nodes[from].liar {
            self.deliver(to, MS, Input::PeerEnded { blob, batch, end: BatchEnd::Lied });
            // The agent shows a liar the door.
            self.nodes[from].links.remove(&to);
            self.nodes[to].links.remove(&from);
            let (liar, victim) = (self.nodes[from].id, self.nodes[to].id);
            self.deliver(to, MS, Input::Left { node: liar });
            return self.deliver(from, MS, Input::Left { node: victim });
        }
        let mut after = Duration::ZERO;
        let pace = if self.nodes[from].slow || self.nodes[to].slow { 40 * MS } else { MS };
        for &chunk in &chunks {
            after += pace;
            self.deliver(to, after, Input::Stored { blob, chunks: vec![chunk] });
            self.nodes[to].held.insert(chunk);
        }
        self.deliver(to, after, Input::PeerEnded { blob, batch, end: BatchEnd::Done });
    }

    fn fetch_wan(&mut self, node: usize, run: u64, chunks: Vec<u32>) {
        self.check_lone(node, &chunks);
        self.check_leech(node);
        self.nodes[node].pulled = true;
        self.nodes[node].runs.insert(run, chunks);
        let (life, after) = (self.nodes[node].life, self.random_ms(40..60));
        self.at(after, Event::WanChunk { node, life, run });
    }

    /// Promise 1 at its source: nobody whom this node could have asked holds the chunk or is
    /// pulling it. Links younger than a second excuse, and so do troubles in which what a node was
    /// told may be out of date: lost messages, partitions, dead WANs, liars that were shown out. How
    /// much those may repeat is bounded at the end.
    fn check_lone(&mut self, node: usize, chunks: &[u32]) {
        // A leech that pulls for itself does not turn to one whose disk was full a moment ago.
        let let_down = self.nodes[node].leech && self.trouble == Trouble::Full;
        if !self.trouble.keeps_everybody_informed() || let_down {
            return;
        }
        let old = |since: &Instant| self.now.saturating_duration_since(*since) > Duration::from_secs(1);
        let others: Vec<usize> =
            self.nodes[node].links.iter().filter(|(_, since)| old(since)).map(|(&other, _)| other).collect();
        for other in others {
            if !self.reachable(node, other) || self.nodes[other].liar || self.nodes[other].leech {
                continue;
            }
            let it = &self.nodes[other];
            let pulls = |chunk: &u32| it.runs.values().any(|run| run.contains(chunk));
            if let Some(chunk) = chunks.iter().find(|chunk| it.held.contains(**chunk) || pulls(chunk)) {
                self.violation(format!("node {node} pulls chunk {chunk}, which node {other} holds or pulls"));
                return;
            }
        }
    }

    /// A leech begins to pull only if no other node could.
    fn check_leech(&mut self, node: usize) {
        let it = &self.nodes[node];
        if !it.leech || it.pulled || !matches!(self.trouble, Trouble::None | Trouble::Clients) {
            return;
        }
        let old = |since: Instant| self.now.saturating_duration_since(since) > Duration::from_secs(1);
        let able = |(other, since): (&usize, &Instant)| old(*since) && !self.nodes[*other].leech;
        if it.links.iter().any(able) {
            self.violation(format!("leech {node} pulls though others could"));
        }
    }

    fn wan_chunk(&mut self, node: usize, life: u32, run: u64) {
        let blob = self.manifest.blob();
        let it = &mut self.nodes[node];
        if it.life != life || !it.runs.contains_key(&run) {
            return;
        }
        if !it.wan_up {
            it.runs.remove(&run);
            let end = WanEnd::Failed(Failure { why: "no route".into(), kind: FailureKind::Transient });
            let after = self.random_ms(100..3000);
            return self.deliver(node, after, Input::WanEnded { blob, run, end });
        }
        if it.frozen.is_some() {
            return self.at(MS * 100, Event::WanChunk { node, life, run });
        }
        if it.full {
            it.runs.remove(&run);
            let end = WanEnd::Failed(Failure { why: "the disk is full".into(), kind: FailureKind::Local });
            return self.feed(node, Input::WanEnded { blob, run, end });
        }
        let Some(chunks) = it.runs.get_mut(&run) else { return };
        let chunk = chunks.remove(0);
        let last = chunks.is_empty();
        it.held.insert(chunk);
        if it.leech {
            self.report.leeched += 1;
        } else {
            self.crossed[chunk as usize] += 1;
        }
        self.feed(node, Input::WanBytes { blob, bytes: CHUNK, held_back: false });
        self.feed(node, Input::Stored { blob, chunks: vec![chunk] });
        if last {
            self.nodes[node].runs.remove(&run);
            self.feed(node, Input::WanEnded { blob, run, end: WanEnd::Done });
        } else {
            let after = self.random_ms(5..40) * self.nodes[node].slowed * self.trouble.slowness();
            self.at(after, Event::WanChunk { node, life, run });
        }
    }
}

fn manifest(count: u32) -> Manifest {
    let chunks: Vec<Chunk> = (0..count)
        .map(|n| Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            offset: 0,
            length: CHUNK as u32,
            pack: 0,
            pack_offset: u64::from(n) * CHUNK,
            stored: CHUNK as u32,
        })
        .collect();
    Manifest::build(BlobId::of(b"blob"), [0; 32], vec![PackId::of(b"pack")], &chunks).expect("consistent")
}
