//! The coordinator: who pulls a blob over the WAN, and who follows.
//!
//! A pure state machine. It is told what happens ([`Input`]) and asked what to do ([`Effect`]);
//! time is an argument. The same code runs in the agent and, by the thousand, in the simulator.
//!
//! # One flight's way
//! Every node ranks the live nodes for a blob ([`super::rank`]) and comes to the same order. A
//! node whose client wants the blob asks the first of that order to be followed ([`follow`]).
//! That node becomes the *lead* ([`lead`]): it asks all members who holds or leads, and then
//! pulls over the WAN what no member holds. It tells its followers who holds what, and they fetch
//! from it and from each other ([`super::swarm`]). A lead that leaves, falls silent or makes no
//! progress is suspected, and the next in rank takes over with what the site holds by then.
//!
//! A flight belongs to the coordinator: [`Input::Unwant`] takes this node's clients out of it and
//! nobody else's.

mod askers;
mod asking;
mod context;
mod crowd;
mod encoding;
pub mod follow;
mod haste;
mod join;
pub mod lead;
mod lease;
mod leech;
mod members;
pub mod message;
mod news;
mod port;
mod pull;
mod pulls;
mod speed;
mod state;
mod urgency;
mod view;
pub mod wan;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunkset::ChunkSet;
use super::id::{BlobId, ManifestId, NodeId};
use super::manifest::Manifest;
use super::strain::{self, Strain};

use askers::Askers;
use context::Context;
use members::Members;
pub use message::{Holding, Message, Small, Sources, Step};
pub use port::{Effect, Failure, FailureKind, Input, WanEnd};
use pulls::Pulls;
use state::Flight;
pub use urgency::Urgency;
pub use view::{FlightView, RoleView};

/// What this node holds of blobs that have no flight.
pub trait Shelf {
    /// The manifest and the verified chunks, if anything is held.
    fn holding(&self, blob: &BlobId) -> Option<(Arc<Manifest>, ChunkSet)>;
}

/// What a site may set.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// This node's weight in the ranking of leads; 0: never lead while another can.
    pub weight: u32,
    /// It passes on what it holds, and leads others; a leech does neither.
    pub shares: bool,
    /// How long after its start a node waits for others to appear before it pulls.
    pub settle: Duration,
    /// WAN runs of one flight at a time.
    pub wan_runs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { weight: 100, shares: true, settle: Duration::from_millis(600), wan_runs: 3 }
    }
}

/// A deadline that is missed by so much says that this node stood still.
const ASLEEP: Duration = Duration::from_millis(1500);

/// All flights that this node takes part in.
#[derive(Debug)]
pub struct Coordinator {
    me: NodeId,
    config: Config,
    settled_at: Instant,
    /// The best rate that a WAN of this site was seen to give, in bytes per second.
    wan_best: u64,
    members: Members,
    pulls: Pulls,
    askers: Askers,
    /// The deadline as it was last told.
    due: Option<Instant>,
    /// The one that the next tick is for, though it may have passed long ago.
    tick_due: Option<Instant>,
    strain: Strain,
    /// How far behind this node was when something last happened.
    lag: Duration,
    flights: BTreeMap<BlobId, Flight>,
    effects: VecDeque<Effect>,
}

impl Coordinator {
    /// A coordinator that knows of no other node yet.
    pub fn new(now: Instant, me: NodeId, config: Config) -> Self {
        Self {
            me,
            config,
            settled_at: now + config.settle,
            wan_best: 0,
            pulls: Pulls::default(),
            askers: Askers::default(),
            due: None,
            tick_due: None,
            strain: Strain::default(),
            lag: Duration::ZERO,
            members: Members::default(),
            flights: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    // ---- what it knows ---------------------------------------------------------------

    /// The flights that this node takes part in.
    pub fn flights(&self) -> impl Iterator<Item = FlightView> {
        self.flights.values().map(Flight::view)
    }

    /// Whether this node follows another in this flight, and lacks chunks.
    pub fn follows(&self, blob: &BlobId, manifest: &ManifestId, lead: &NodeId) -> bool {
        self.flights.get(blob).is_some_and(|it| it.manifest_id == *manifest && it.lead() == Some(*lead))
    }

    /// When to say [`Input::Tick`] at the latest; `None` while nothing is going on.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = strain::patience(self.lag);
        self.flights.values().filter_map(|flight| flight.deadline(self.settled_at, patience)).min()
    }

    // ---- what it wants done ----------------------------------------------------------

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    // ---- what happens ----------------------------------------------------------------

    /// Takes note of what happened. `shelf` answers for what this node holds.
    pub fn handle(&mut self, now: Instant, input: Input, shelf: &dyn Shelf) {
        let patience = strain::patience(self.strain.lag(now));
        if self.due.take().is_some_and(|due| due + ASLEEP + patience <= now) {
            self.wake_up(now);
        }
        // What is handled before the tick may have waited as long as that, and does not say so.
        if let Some(due) = self.tick_due.take_if(|due| *due <= now && matches!(input, Input::Tick)) {
            self.strain.turn(now, due);
        }
        self.lag = self.strain.lag(now);
        self.take_note(now, input, shelf);
        let deadline = self.deadline();
        self.due = deadline.filter(|due| *due > now);
        let still = self.tick_due.filter(|due| *due <= now && deadline.is_some_and(|at| at <= now));
        self.tick_due = still.or(deadline);
    }

    /// How far behind this node is: what it does for its flights it does so late.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// This node stood still for a while, and does not know it: others may have taken over.
    fn wake_up(&mut self, now: Instant) {
        self.settled_at = now + self.config.settle;
        self.each(now, Flight::doubt);
    }

    fn take_note(&mut self, now: Instant, input: Input, shelf: &dyn Shelf) {
        match input {
            Input::Joined { node, weight } => {
                if node != self.me && self.members.join(node, weight) {
                    self.effects.extend(self.pulls.tell(now, node));
                    self.each(now, |flight, cx| flight.on_joined(cx, node));
                }
            }
            Input::Weight { weight } => self.config.weight = weight,
            Input::Left { node } => {
                self.askers.forget(&node);
                if self.members.leave(now, node) {
                    if self.members.is_empty() {
                        // More likely this node is cut off than that all others are gone.
                        self.settled_at = now + self.config.settle;
                    }
                    self.each(now, |flight, cx| flight.on_left(cx, node));
                }
            }
            // Who has left, or not come yet, has no rank: its words would make no sense.
            Input::Message { from, .. } if !self.members.contains(&from) => {}
            Input::Message { from, message } => self.on_message(now, from, message, shelf),
            Input::Want { blob, manifest, urgency } => {
                self.on_want(now, (blob, manifest), urgency, shelf);
            }
            Input::Unwant { blob } => self.one(now, blob, |flight, cx| flight.on_unwant(cx)),
            Input::Reading { blob, chunk } => self.one(now, blob, |flight, _| flight.cursor = chunk),
            Input::Manifest { blob, result } => {
                self.one(now, blob, |flight, cx| flight.on_manifest(cx, result));
            }
            Input::Stored { blob, .. } if !self.flights.contains_key(&blob) => {
                self.tell_askers(now, blob, shelf);
            }
            Input::Stored { blob, chunks } => self.one(now, blob, |flight, cx| flight.on_stored(cx, &chunks)),
            Input::Lost { blob, chunk } => self.one(now, blob, |flight, _| flight.on_lost(chunk)),
            Input::WanBytes { blob, bytes, held_back } => {
                self.one(now, blob, |flight, cx| flight.on_wan_bytes(cx, bytes, held_back));
            }
            Input::WanEnded { blob, run, end } => {
                self.one(now, blob, |flight, cx| flight.on_wan_ended(cx, run, end));
            }
            Input::Unwritable { blob, why } => {
                self.one(now, blob, |flight, cx| flight.fail(cx, Failure { why, kind: FailureKind::Local }));
            }
            Input::PeerEnded { blob, batch, end } => {
                self.one(now, blob, |flight, cx| flight.on_peer_ended(cx, batch, end));
            }
            Input::Tick => self.each(now, Flight::on_tick),
        }
    }

    fn on_want(
        &mut self,
        now: Instant,
        (blob, manifest): (BlobId, ManifestId),
        urgency: Urgency,
        shelf: &dyn Shelf,
    ) {
        if self.flights.contains_key(&blob) {
            return self.one(now, blob, |flight, cx| flight.want(cx, urgency));
        }
        let mut flight = Flight::new(now, blob, manifest, shelf);
        if flight.is_complete() {
            self.effects.push_back(Effect::Ended { blob, result: Ok(()) });
            return;
        }
        flight.wanted = true;
        flight.urgency = urgency;
        self.begin(now, flight, Flight::seek_lead);
    }

    fn on_message(&mut self, now: Instant, from: NodeId, message: Message, shelf: &dyn Shelf) {
        let Message { blob, manifest, step } = message;
        if let Step::Pulled(pulled) = step {
            self.effects.extend(self.pulls.compare(self.me, from, blob, &pulled));
            return;
        }
        let known = self.flights.get(&blob).map(|flight| flight.manifest_id);
        if known.is_some_and(|known| known != manifest) {
            return; // the same content laid out in another way: not the same flight
        }
        if known.is_some() {
            return self.one(now, blob, |flight, cx| flight.on_message(cx, from, step));
        }
        match step {
            Step::WhoHas { .. } => {
                let (held, has) = match shelf.holding(&blob) {
                    Some((known, held)) if known.id() == manifest && self.config.shares => (held, true),
                    _ => (ChunkSet::new(), false),
                };
                self.askers.note(now, blob, manifest, from);
                let step = Step::Holding(Holding { held, manifest: has, ..Holding::default() });
                self.effects.push_back(Effect::Send { to: from, message: Message { blob, manifest, step } });
            }
            Step::Follow { .. } => {
                let flight = Flight::new(now, blob, manifest, shelf);
                self.begin(now, flight, |flight, cx| flight.on_asked(cx, from, step));
            }
            // Late words about a flight that is over.
            _ => {}
        }
    }

    /// More of a blob has come to this node without a flight: from a bundle. Leads that have asked what it
    /// holds hear of it, before they pull that.
    fn tell_askers(&mut self, now: Instant, blob: BlobId, shelf: &dyn Shelf) {
        if !self.config.shares || !self.askers.has(&blob) {
            return;
        }
        let Some((known, held)) = shelf.holding(&blob) else { return };
        let complete = held.len() == known.count();
        let Some((manifest, whom)) = self.askers.due(now, &blob, complete) else { return };
        if known.id() != manifest {
            return;
        }
        for to in whom {
            let step = Step::Holding(Holding { held: held.clone(), manifest: true, ..Holding::default() });
            self.effects.push_back(Effect::Send { to, message: Message { blob, manifest, step } });
        }
    }

    fn begin(&mut self, now: Instant, flight: Flight, first: impl FnOnce(&mut Flight, &mut Context)) {
        let blob = flight.blob;
        self.flights.insert(blob, flight);
        self.one(now, blob, first);
    }

    /// Does something with one flight, then lets it move on.
    fn one(&mut self, now: Instant, blob: BlobId, act: impl FnOnce(&mut Flight, &mut Context)) {
        let Some(flight) = self.flights.get_mut(&blob) else { return };
        let mut cx = Context {
            now,
            me: self.me,
            config: self.config,
            lag: self.lag,
            strain: &mut self.strain,
            settled: now >= self.settled_at,
            wan_best: &mut self.wan_best,
            pulls: &mut self.pulls,
            members: &self.members,
            effects: &mut self.effects,
        };
        act(flight, &mut cx);
        flight.advance(&mut cx);
        if flight.over {
            self.flights.remove(&blob);
            self.effects.push_back(Effect::Over { blob });
        }
    }

    fn each(&mut self, now: Instant, mut act: impl FnMut(&mut Flight, &mut Context)) {
        for blob in self.flights.keys().copied().collect::<Vec<_>>() {
            self.one(now, blob, &mut act);
        }
    }
}

/// A store that holds nothing.
#[cfg(test)]
struct Nothing;

#[cfg(test)]
impl Shelf for Nothing {
    fn holding(&self, _: &BlobId) -> Option<(Arc<Manifest>, ChunkSet)> {
        None
    }
}
