//! One flight as this node sees it: what it holds, and its role.
//!
//! The role is in exactly one place, [`Flight::role`]; what leads do stands in [`super::lead`],
//! what followers do in [`super::follow`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::crowd;
use super::follow::Following;
use super::haste::{Doubts, Haste};
use super::join::Joining;
use super::lead::{Asks, Lead, STALLED};
use super::{Effect, Failure, FailureKind, Shelf, Step, Urgency, WanEnd};
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::manifest::Manifest;
use crate::core::swarm::{Swarm, View};

/// How long a manifest that could not be had from one place is not asked for again.
const MANIFEST_RETRY: Duration = Duration::from_millis(300);
/// Tries for a manifest before its clients are told.
const MANIFEST_TRIES: u32 = 30;
/// A node that is so far behind says nothing of its WAN by what it takes.
const BEHIND: Duration = Duration::from_millis(250);

/// What this node is in a flight.
#[derive(Debug)]
pub(super) enum Role {
    /// Not decided yet; left before the first input has been handled.
    New,
    /// It has the lease, or is about to.
    Lead(Box<Lead>),
    /// It has asked another to lead and waits for the answer.
    Joining(Joining),
    /// Another leads.
    Following(Following),
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) blob: BlobId,
    pub(super) manifest_id: ManifestId,
    pub(super) manifest: Option<Arc<Manifest>>,
    manifest_under_way: bool,
    manifest_failures: u32,
    manifest_retry: Instant,
    pub(super) held: ChunkSet,
    /// Chunks that came with a wrong hash, or went bad on disk.
    pub(super) damaged: ChunkSet,
    pub(super) wanted: bool,
    /// Of this node's most urgent client.
    pub(super) urgency: Urgency,
    /// How urgent what is pulled is, as it was last said.
    said_urgency: Option<Urgency>,
    pub(super) cursor: u32,
    pub(super) role: Role,
    pub(super) term: u64,
    pub(super) redirects: u32,
    pub(super) haste: Haste,
    pub(super) suspects: BTreeMap<NodeId, Instant>,
    pub(super) doubts: Doubts,
    pub(super) swarm: Swarm,
    /// This node has pulled over the WAN in this flight.
    pub(super) pulls: bool,
    /// What the lead was pulling when last heard of.
    pub(super) inherited: ChunkSet,
    /// Nodes to which a connection was asked for.
    pub(super) called: BTreeSet<NodeId>,
    pub(super) over: bool,
}

impl Flight {
    pub(super) fn new(now: Instant, blob: BlobId, manifest_id: ManifestId, shelf: &dyn Shelf) -> Self {
        let held = shelf.holding(&blob).filter(|(manifest, _)| manifest.id() == manifest_id);
        let (manifest, held) =
            held.map_or((None, ChunkSet::new()), |(manifest, held)| (Some(manifest), held));
        Self {
            blob,
            manifest_id,
            manifest,
            manifest_under_way: false,
            manifest_failures: 0,
            manifest_retry: now,
            held,
            damaged: ChunkSet::new(),
            wanted: false,
            urgency: Urgency::Background,
            said_urgency: None,
            cursor: 0,
            role: Role::New,
            term: 0,
            redirects: 0,
            haste: Haste::default(),
            suspects: BTreeMap::new(),
            doubts: Doubts::default(),
            swarm: Swarm::default(),
            pulls: false,
            inherited: ChunkSet::new(),
            called: BTreeSet::new(),
            over: false,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.count())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.count() == self.held.len())
    }

    pub(super) fn lead(&self) -> Option<NodeId> {
        match &self.role {
            Role::Joining(joining) => Some(joining.lead),
            Role::Following(following) => Some(following.lead),
            Role::New | Role::Lead(_) => None,
        }
    }

    /// `patience`: how much longer than usual others have, where this node is behind.
    pub(super) fn deadline(&self, settled_at: Instant, patience: Duration) -> Option<Instant> {
        let role = match &self.role {
            Role::New => None,
            Role::Lead(lead) => {
                lead.deadline(settled_at, self.patience(), patience, self.doubts.of_members())
            }
            Role::Joining(joining) => Some(joining.deadline(patience, &self.doubts)),
            Role::Following(following) => Some(following.deadline(patience + self.doubts.grace())),
        };
        let retries = self.manifest.is_none()
            && !self.manifest_under_way
            && match &self.role {
                Role::Lead(lead) => !lead.is_asking(),
                Role::Following(following) => following.lead_has_manifest,
                Role::New | Role::Joining(_) => false,
            };
        let manifest = retries.then_some(self.manifest_retry);
        [role, manifest, self.swarm.wake()].into_iter().flatten().min()
    }

    /// How long a lead may be without a WAN byte: the longer the site has been, the less does
    /// another lead help.
    pub(super) fn patience(&self) -> Duration {
        STALLED * 2u32.pow(self.term.saturating_sub(1).min(4) as u32)
    }

    /// Of the most urgent client, here or behind a follower.
    fn most_urgent(&self) -> Urgency {
        let Role::Lead(lead) = &self.role else { return self.urgency };
        lead.followers.values().map(|told| told.urgency).fold(self.urgency, Urgency::max)
    }

    // ---- what happens ----------------------------------------------------------------

    pub(super) fn want(&mut self, cx: &mut Context, urgency: Urgency) {
        let hurries = urgency > self.urgency;
        self.wanted = true;
        self.urgency = self.urgency.max(urgency);
        if hurries && let Some(lead) = self.lead() {
            self.ask_to_follow(cx, lead); // so that it knows
        }
    }

    pub(super) fn on_unwant(&mut self, cx: &mut Context) {
        self.wanted = false;
        self.urgency = Urgency::Background;
        if let Some(lead) = self.lead() {
            self.say(cx, lead, Step::Leave { complete: false });
            self.over = true;
        }
    }

    pub(super) fn on_joined(&mut self, cx: &mut Context, node: NodeId) {
        self.swarm.meet(cx.now, node);
        match &mut self.role {
            Role::Lead(lead) => {
                lead.asks(cx.now, node);
                let term = self.term;
                self.say(cx, node, Step::WhoHas { term });
            }
            Role::Joining(joining) if joining.lead == node && joining.absent => self.join(cx, node),
            _ => {}
        }
    }

    pub(super) fn on_left(&mut self, cx: &mut Context, node: NodeId) {
        let held = self.swarm.held_by(&node).cloned().unwrap_or_default();
        self.swarm.remove(&node);
        if let Role::Lead(lead) = &mut self.role {
            lead.forget(cx.now, node);
            self.ask_for_lost(cx, &held);
        } else if self.lead() == Some(node) {
            self.seek_lead(cx);
        }
    }

    pub(super) fn on_message(&mut self, cx: &mut Context, from: NodeId, step: Step) {
        match step {
            Step::WhoHas { .. } => self.on_who_has(cx, from),
            Step::Holding(holding) => self.on_holding(cx, from, holding),
            Step::Follow { suspects, leech, .. } if !cx.config.shares => {
                self.refuse_follower(cx, from, &suspects, leech);
            }
            Step::Follow { held, suspects, manifest, urgency, leech } => {
                self.on_follow(cx, from, held, &suspects, Asks { manifest, urgency });
                self.note_leech(cx, from, leech);
            }
            Step::Redirect { to, unfit } => self.on_redirect(cx, from, to, unfit),
            Step::Sources(sources) => self.on_sources(cx, from, sources),
            Step::Have(have) => self.on_have(cx, from, &have),
            Step::Need(chunks) => self.on_need(from, &chunks),
            Step::Lease { .. } => self.on_lease(cx, from),
            Step::Pulled(_) => {} // of no flight: see the coordinator
            Step::Leave { complete } => self.on_leave(cx, from, complete),
        }
    }

    pub(super) fn on_manifest(
        &mut self,
        cx: &mut Context,
        result: Result<(Arc<Manifest>, ChunkSet), Failure>,
    ) {
        self.manifest_under_way = false;
        match result {
            Ok((manifest, held)) => {
                self.held.union_with(&held);
                self.manifest = Some(manifest);
                if let Role::Lead(lead) = &mut self.role {
                    lead.tell(cx.now, cx.me, &self.held);
                }
            }
            Err(failure) => {
                self.manifest_failures += 1;
                self.manifest_retry = cx.now + MANIFEST_RETRY * self.manifest_failures.min(6);
                if failure.kind != FailureKind::Transient || self.manifest_failures >= MANIFEST_TRIES {
                    self.fail(cx, failure);
                }
            }
        }
    }

    pub(super) fn on_stored(&mut self, cx: &mut Context, chunks: &[u32]) {
        self.swarm.arrived(cx.now, self.manifest.as_deref(), chunks);
        let new: ChunkSet = chunks.iter().copied().filter(|&chunk| self.held.insert(chunk)).collect();
        if new.is_empty() {
            return;
        }
        match &mut self.role {
            Role::Lead(lead) => {
                let pulled: ChunkSet = new.iter().filter(|&chunk| lead.stored(cx.now, chunk)).collect();
                self.pulls |= !pulled.is_empty();
                if let Some(manifest) = &self.manifest {
                    // What a takeover repeats is booked as such.
                    cx.pulls.add(cx.now, manifest, &pulled.difference(&self.inherited));
                }
                lead.tell(cx.now, cx.me, &new);
            }
            Role::Following(following) if cx.config.shares => following.tell(cx, &new),
            Role::New | Role::Joining(_) | Role::Following(_) => {}
        }
    }

    pub(super) fn on_lost(&mut self, chunk: u32) {
        self.held.remove(chunk);
        self.damaged.insert(chunk);
    }

    pub(super) fn on_wan_bytes(&mut self, cx: &mut Context, bytes: u64, held_back: bool) {
        if let Role::Lead(lead) = &mut self.role {
            lead.wan_progress(cx.now);
            lead.speed.came(cx.now, bytes, held_back || cx.lag >= BEHIND);
            *cx.wan_best = lead.speed.best();
        }
    }

    pub(super) fn on_wan_ended(&mut self, cx: &mut Context, run: u64, end: WanEnd) {
        let Role::Lead(lead) = &mut self.role else { return };
        if let WanEnd::Corrupt { chunk } = end {
            self.damaged.insert(chunk);
        }
        if let Some(failure) = lead.run_ended(cx.now, run, end) {
            self.fail(cx, failure);
        }
    }

    pub(super) fn on_tick(&mut self, cx: &mut Context) {
        match &mut self.role {
            Role::New | Role::Lead(_) => {}
            Role::Joining(_) => self.joining_tick(cx),
            Role::Following(_) => self.following_tick(cx),
        }
    }

    // ---- moving on -------------------------------------------------------------------

    /// What follows from the state, after every input.
    pub(super) fn advance(&mut self, cx: &mut Context) {
        if self.over {
            return;
        }
        if self.is_complete() && self.wanted {
            self.wanted = false;
            cx.act(Effect::Ended { blob: self.blob, result: Ok(()) });
        }
        let urgency = self.most_urgent();
        if matches!(self.role, Role::Lead(_)) && self.said_urgency != Some(urgency) {
            self.said_urgency = Some(urgency);
            cx.act(Effect::Urgency { blob: self.blob, urgency });
        }
        match &self.role {
            Role::New => {}
            Role::Lead(_) => self.lead_advance(cx),
            Role::Joining(_) | Role::Following(_) => self.follow_advance(cx),
        }
        if !self.over {
            self.fetch_from_peers(cx);
        }
    }

    fn fetch_from_peers(&mut self, cx: &mut Context) {
        self.swarm.rest();
        let crowd = match &self.role {
            Role::Following(following) => following.crowd(),
            _ => 0,
        };
        self.swarm.endure(cx.patience() + crowd::patience(crowd));
        let Some(manifest) = self.manifest.clone() else { return };
        let lead = match &self.role {
            Role::Lead(_) => None,
            _ => self.lead(),
        };
        let missing = match &self.role {
            Role::Lead(lead) => lead.wants_from_peers(self.wanted, &self.held, manifest.count()),
            _ => ChunkSet::full(manifest.count()).difference(&self.held),
        };
        if missing.is_empty() {
            return;
        }
        for batch in self.swarm.overdue(cx.now) {
            cx.act(Effect::AbortPeer { blob: self.blob, batch });
        }
        let shares = cx.config.shares;
        let view =
            View { me: cx.me, shares, lead, manifest: &manifest, missing: &missing, cursor: self.cursor };
        for pick in self.swarm.pick(cx.now, view) {
            let (batch, source, chunks) = (pick.batch, pick.source, pick.chunks);
            cx.act(Effect::FetchPeer { blob: self.blob, batch, source, chunks });
        }
    }

    /// Asks for the manifest, once at a time.
    pub(super) fn fetch_manifest(&mut self, cx: &mut Context, from: Option<NodeId>) {
        if self.manifest.is_none() && !self.manifest_under_way && self.manifest_retry <= cx.now {
            self.manifest_under_way = true;
            cx.act(Effect::FetchManifest { blob: self.blob, manifest: self.manifest_id, from });
        }
    }

    /// How often the manifest could not be had.
    pub(super) fn manifest_failures(&self) -> u32 {
        self.manifest_failures
    }

    /// Tells everybody who waits that it will not come.
    pub(super) fn fail(&mut self, cx: &mut Context, failure: Failure) {
        if let Role::Lead(_) = &self.role {
            self.tell_failure(cx, &failure);
        } else if let Some(lead) = self.lead() {
            self.say(cx, lead, Step::Leave { complete: false });
        }
        if self.wanted {
            self.wanted = false;
            cx.act(Effect::Ended { blob: self.blob, result: Err(failure) });
        }
        self.over = true;
    }

    pub(super) fn say(&self, cx: &mut Context, to: NodeId, step: Step) {
        cx.send(to, self.blob, self.manifest_id, step);
    }
}
