//! A site: nodes, their links, their WAN, and what goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::core::chunkset::ChunkSet;
use branchline::core::flight::{
    Config, Coordinator, Effect, Failure, FailureKind, Input, Message, Shelf, WanEnd,
};
use branchline::core::hubs;
use branchline::core::id::{BlobId, ChunkId, NodeId, PackId};
use branchline::core::manifest::{Chunk, Manifest};
use branchline::core::swarm::BatchEnd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing; and all nodes may start in the same instant.
    None,
    /// Control messages are lost, doubled and overtake each other.
    Messages,
    /// Nodes are killed, and some come back with what they had stored.
    Kills,
    /// The site is cut in two and healed.
    Partition,
    /// The WAN of single nodes fails, or of all for a while.
    Wan,
    /// A node hands out wrong bytes.
    Liar,
    /// Clients come and go.
    Clients,
}

impl Trouble {
    pub const ALL: [Self; 7] =
        [Self::None, Self::Messages, Self::Kills, Self::Partition, Self::Wan, Self::Liar, Self::Clients];
}

/// What a run saw.
#[derive(Debug)]
pub struct Report {
    pub trouble: Trouble,
    pub nodes: u64,
    pub kills: u64,
    pub partitions: u64,
    pub chunks: u64,
    pub repeated: u64,
    pub longest_ms: u64,
    pub messages: u64,
    /// Some nodes held the blob before.
    pub seeded: bool,
    pub violations: Vec<String>,
}

#[derive(Debug, Clone)]
enum Event {
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
    },
    Want(usize),
    WantLater(usize),
    Unwant(usize),
    Kill(usize),
    Split(BTreeSet<usize>),
    Heal,
    WanCut(Vec<usize>),
    WanHeal,
}

struct Node {
    id: NodeId,
    life: u32,
    coordinator: Option<Coordinator>,
    held: ChunkSet,
    manifest: bool,
    wanted: Option<Instant>,
    asks: bool,
    done: bool,
    wan_up: bool,
    liar: bool,
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
    rng: StdRng,
    trouble: Trouble,
    start: Instant,
    now: Instant,
    number: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    nodes: Vec<Node>,
    manifest: Arc<Manifest>,
    side: BTreeSet<usize>,
    crossed: Vec<u64>,
    last_trouble: Instant,
    /// Chunks that a killed node alone held or pulled.
    died: u64,
    /// A large site: so many hubs, and all others are connected to those alone.
    hubs: Option<usize>,
    report: Report,
    pub trace: bool,
}

/// Hubs of a large site: few, so that runs stay cheap.
const HUBS: usize = 8;
/// Links that one flight may ask for: a group and some holders, and leads that it was sent to.
const CALLS: usize = 2 * 20;
const MS: Duration = Duration::from_millis(1);
/// After the last trouble, and so much per chunk, every client must have its blob.
const PATIENCE: Duration = Duration::from_secs(45);

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = if rng.random_bool(0.1) { rng.random_range(2..=50) } else { rng.random_range(2..=10) };
        Self::of(seed, rng, count, None)
    }

    /// A site that is larger than a mesh: links to hubs, and those that flights ask for. In some of
    /// them a few nodes hold the blob beforehand.
    pub fn large(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(60..=120);
        let mut world = Self::of(seed, rng, count, Some(HUBS));
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

    fn of(seed: u64, mut rng: StdRng, count: usize, hubs: Option<usize>) -> Self {
        let trouble = Trouble::ALL[(seed % Trouble::ALL.len() as u64) as usize];
        let chunks = if rng.random_bool(0.2) { 1 } else { rng.random_range(2..120) };
        let now = Instant::now();
        let nodes = (0..count)
            .map(|_| Node {
                id: NodeId::from_bytes(rng.random()),
                life: 0,
                coordinator: None,
                held: ChunkSet::new(),
                manifest: false,
                wanted: None,
                asks: false,
                done: false,
                wan_up: true,
                liar: false,
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
            manifest: Arc::new(manifest(chunks)),
            side: BTreeSet::new(),
            crossed: vec![0; chunks as usize],
            last_trouble: now,
            died: 0,
            hubs,
            report,
            trace: false,
        };
        world.plan();
        world
    }

    fn random_ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((self.now + after, self.number)));
        self.events.insert(self.number, event);
    }

    /// Draws who starts when, who asks when, and what goes wrong.
    fn plan(&mut self) {
        let spread = if self.rng.random_bool(0.5) { 1 } else { 3000 };
        let asking = self.rng.random_range(1..=self.nodes.len());
        for node in 0..self.nodes.len() {
            let start = self.random_ms(0..spread);
            self.at(start, Event::Start(node));
            if node < asking {
                self.nodes[node].asks = true;
                let ask = if self.rng.random_bool(0.5) { MS } else { self.random_ms(1..4000) };
                self.at(start + ask, Event::Want(node));
            }
        }
        let length = 1000 + 10 * self.report.chunks;
        for _ in 0..self.rng.random_range(1..3) {
            let when = self.random_ms(300..length + 2000);
            let node = self.rng.random_range(0..self.nodes.len());
            match self.trouble {
                Trouble::None | Trouble::Messages => {}
                Trouble::Kills => {
                    self.at(when, Event::Kill(node));
                    if self.rng.random_bool(0.7) {
                        let back = when + self.random_ms(200..5000);
                        self.at(back, Event::Start(node));
                        self.at(back + MS, Event::Want(node));
                    }
                }
                Trouble::Partition => {
                    let side = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.5)).collect();
                    self.at(when, Event::Split(side));
                    let heal = when + self.random_ms(100..12_000);
                    self.at(heal, Event::Heal);
                }
                Trouble::Wan => {
                    let all = self.rng.random_bool(0.4);
                    let cut = if all { (0..self.nodes.len()).collect() } else { vec![node] };
                    self.at(when, Event::WanCut(cut));
                    let heal = when + self.random_ms(500..20_000);
                    self.at(heal, Event::WanHeal);
                }
                Trouble::Liar => self.nodes[node].liar = true,
                Trouble::Clients => {
                    self.at(when, Event::Unwant(node));
                    let again = when + self.random_ms(1..3000);
                    self.at(again, Event::Want(node));
                }
            }
        }
    }

    pub fn run(mut self) -> Report {
        let mut steps = 0u64;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            self.now = at;
            steps += 1;
            self.step(event);
            let calm = at > self.last_trouble + PATIENCE + 20 * MS * self.crossed.len() as u32;
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
        // What each trouble may repeat at most: what died with a node, what one lead has under way,
        // what each side of a cut pulled, what a liar spoilt. A message lost at the wrong moment
        // (an answer to the lead's question, twice) may cost what is under way, too.
        let under_way = 33;
        let allowed = match self.trouble {
            Trouble::None | Trouble::Clients => 0,
            Trouble::Messages => 2 * under_way,
            Trouble::Kills => self.died,
            Trouble::Partition => ((1 << self.report.partitions) - 1) * self.report.chunks,
            Trouble::Wan => 2 * under_way,
            Trouble::Liar => 2 * self.report.chunks,
        };
        let untroubled = matches!(self.trouble, Trouble::None | Trouble::Clients);
        if self.report.seeded && untroubled && self.crossed.iter().any(|&times| times > 0) {
            self.violation("chunks crossed the WAN that nodes at the rim held".into());
        }
        if self.report.repeated > allowed {
            self.violation(format!("{} chunks crossed the WAN again, {allowed} may", self.report.repeated));
        }
    }

    fn violation(&mut self, what: String) {
        let at = (self.now - self.start).as_millis();
        self.report.violations.push(format!("at {at} ms: {what}"));
    }

    fn step(&mut self, event: Event) {
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
                let stale = matches!(&input, Input::Left { node } if self.linked(to, *node));
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
            Event::Tick { node, life } => {
                if self.nodes[node].life == life {
                    self.nodes[node].tick_at = None;
                    self.feed(node, Input::Tick);
                }
            }
            Event::Want(node) => {
                if self.nodes[node].coordinator.is_some() && self.nodes[node].wanted.is_none() {
                    self.nodes[node].wanted = Some(self.now);
                    self.nodes[node].done = false;
                    let (blob, manifest) = (self.manifest.blob(), self.manifest.id());
                    self.feed(node, Input::Want { blob, manifest });
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
        }
    }

    fn linked(&self, node: usize, other: NodeId) -> bool {
        self.nodes[node].links.keys().any(|&link| self.nodes[link].id == other)
    }

    fn reachable(&self, a: usize, b: usize) -> bool {
        let up = |node: usize| self.nodes[node].coordinator.is_some();
        up(a) && up(b) && self.side.contains(&a) == self.side.contains(&b)
    }

    fn start_node(&mut self, node: usize) {
        if self.nodes[node].coordinator.is_some() {
            return;
        }
        self.last_trouble = self.now;
        let it = &mut self.nodes[node];
        it.life += 1;
        it.tick_at = None;
        it.coordinator = Some(Coordinator::new(self.now, it.id, Config::default()));
        it.hubs.clear();
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
        let hubs = hubs::choose(live.map(|other| (self.nodes[other].id, true)), places).hubs;
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
        if hub { 100 } else { 0 }
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

    fn disconnect(&mut self, a: usize, b: usize) {
        if self.reachable(a, b) {
            return;
        }
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
        self.died += self.only_on(node);
        self.nodes[node].life += 1;
        self.nodes[node].wanted = None;
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
        let others =
            self.nodes.iter().enumerate().filter(|(index, it)| *index != node && it.coordinator.is_some());
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
        let Some(mut coordinator) = self.nodes[node].coordinator.take() else { return };
        if let Input::Manifest { result: Ok(_), .. } = &input {
            self.nodes[node].manifest = true;
        }
        coordinator.handle(self.now, input, &Disk(&self.nodes[node], &self.manifest));
        let mut effects = Vec::new();
        while let Some(effect) = coordinator.poll() {
            effects.push(effect);
        }
        let deadline = coordinator.deadline();
        self.nodes[node].coordinator = Some(coordinator);
        effects.into_iter().for_each(|effect| self.perform(node, effect));
        if let Some(at) = deadline
            && self.nodes[node].tick_at.is_none_or(|tick| at < tick)
        {
            let at = at.max(self.now + Duration::from_micros(100));
            self.nodes[node].tick_at = Some(at);
            let life = self.nodes[node].life;
            self.at(at - self.now, Event::Tick { node, life });
        }
    }

    fn deliver(&mut self, to: usize, after: Duration, input: Input) {
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
            Effect::AbortPeer { .. } | Effect::Duplicate { .. } => {}
            Effect::Ended { result, .. } => {
                if let Err(failure) = &result {
                    self.violation(format!("node {node} was refused its blob: {}", failure.why));
                }
                if result.is_ok() && self.nodes[node].held.len() != self.manifest.count() {
                    self.violation(format!("node {node} was told that a part is the whole"));
                }
                if let Some(since) = self.nodes[node].wanted.take() {
                    let waited = (self.now - since).as_millis() as u64;
                    self.report.longest_ms = self.report.longest_ms.max(waited);
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
        for &chunk in &chunks {
            after += MS;
            self.deliver(to, after, Input::Stored { blob, chunks: vec![chunk] });
            self.nodes[to].held.insert(chunk);
        }
        self.deliver(to, after, Input::PeerEnded { blob, batch, end: BatchEnd::Done });
    }

    fn fetch_wan(&mut self, node: usize, run: u64, chunks: Vec<u32>) {
        self.check_lone(node, &chunks);
        self.nodes[node].runs.insert(run, chunks);
        let (life, after) = (self.nodes[node].life, self.random_ms(40..60));
        self.at(after, Event::WanChunk { node, life, run });
    }

    /// Promise 1 at its source: nobody whom this node could have asked holds the chunk or is
    /// pulling it. Links younger than a second excuse, and so do troubles in which what a node was
    /// told may be out of date: lost messages, partitions, dead WANs, liars that were shown out. How
    /// much those may repeat is bounded at the end.
    fn check_lone(&mut self, node: usize, chunks: &[u32]) {
        if !matches!(self.trouble, Trouble::None | Trouble::Kills | Trouble::Clients) {
            return;
        }
        let old = |since: &Instant| self.now.saturating_duration_since(*since) > Duration::from_secs(1);
        let others: Vec<usize> =
            self.nodes[node].links.iter().filter(|(_, since)| old(since)).map(|(&other, _)| other).collect();
        for other in others {
            if !self.reachable(node, other) || self.nodes[other].liar {
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
        let Some(chunks) = it.runs.get_mut(&run) else { return };
        let chunk = chunks.remove(0);
        let last = chunks.is_empty();
        it.held.insert(chunk);
        self.crossed[chunk as usize] += 1;
        self.feed(node, Input::Stored { blob, chunks: vec![chunk] });
        if last {
            self.nodes[node].runs.remove(&run);
            self.feed(node, Input::WanEnded { blob, run, end: WanEnd::Done });
        } else {
            let after = self.random_ms(5..40);
            self.at(after, Event::WanChunk { node, life, run });
        }
    }
}

fn manifest(count: u32) -> Manifest {
    let chunks: Vec<Chunk> = (0..count)
        .map(|n| Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            offset: 0,
            length: 200_000,
            pack: 0,
            pack_offset: u64::from(n) * 200_000,
            stored: 200_000,
        })
        .collect();
    Manifest::build(BlobId::of(b"blob"), [0; 32], vec![PackId::of(b"pack")], &chunks).expect("consistent")
}
