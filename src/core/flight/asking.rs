//! Asking the members before anything is pulled, and answering: who holds, or leads?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::context::Context;
use super::lead::{Lead, STALLED};
use super::state::{Flight, Role};
use super::{Effect, Holding, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::swarm::BatchEnd;

/// How long to wait for the members' answers; half way, those that are missing are asked again.
const ASK: Duration = Duration::from_millis(400);
/// How long to wait for a lead that others know and this node does not see yet.
const UNSEEN_LEAD: Duration = Duration::from_millis(1500);

/// How long until all have noticed that a lead has left, as this node has: who says in the meantime that
/// it leads is asked again.
const NOTICE: Duration = Duration::from_millis(150);

#[derive(Debug)]
pub(super) struct Asking {
    pub(super) unanswered: BTreeSet<NodeId>,
    pub(super) again_at: Option<Instant>,
    pub(super) until: Instant,
    unseen: Option<NodeId>,
    /// The lead that this node has just lost, until others who name it are asked again.
    lost: Option<NodeId>,
    /// It has waited for one that is not seen: not again.
    waited: bool,
    /// Leads that answered and are not to be waited for: they are told when this one takes over.
    rivals: BTreeSet<NodeId>,
}

impl Asking {
    pub(super) fn new(now: Instant, members: impl Iterator<Item = NodeId>) -> Self {
        Self {
            unanswered: members.collect(),
            again_at: Some(now + ASK / 2),
            until: now + ASK,
            unseen: None,
            lost: None,
            waited: false,
            rivals: BTreeSet::new(),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.unanswered.is_empty() && self.unseen.is_none()
    }
}

impl Lead {
    /// A node has joined while it asks, and is asked too.
    pub(super) fn asks(&mut self, now: Instant, node: NodeId) {
        if let Some(asking) = &mut self.asking {
            asking.unanswered.insert(node);
            // It came late: it has as long as the others, and is asked twice like them.
            asking.again_at.get_or_insert(now + ASK / 2);
            asking.until = asking.until.max(now + ASK);
        }
    }
}

impl Flight {
    /// This node takes over from a lead that it has just lost.
    pub(super) fn note_lost(&mut self, node: NodeId) {
        let Role::Lead(lead) = &mut self.role else { return };
        if let Some(asking) = &mut lead.asking {
            asking.lost = Some(node);
        }
    }

    /// Asks all members anew before more is pulled: what was known of them is old.
    pub(super) fn ask_again(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        lead.asking = Some(Asking::new(cx.now, cx.members.keys().copied()));
        for &node in cx.members.keys() {
            self.say(cx, node, Step::WhoHas { term: self.term });
        }
    }

    /// A batch has ended.
    pub(super) fn on_peer_ended(&mut self, cx: &mut Context, batch: u64, end: BatchEnd) {
        let failed = end == BatchEnd::Failed && matches!(self.role, Role::Lead(_));
        let before = if failed { self.swarm.covered() } else { ChunkSet::new() };
        self.swarm.batch_ended(cx.now, batch, end);
        self.ask_for_lost(cx, &before);
    }

    /// A source is lost. What it alone was known to hold may have spread meanwhile, so a lead asks
    /// before it pulls that; for the rest nobody has to be asked.
    pub(super) fn ask_for_lost(&mut self, cx: &mut Context, held: &ChunkSet) {
        if !held.is_empty() && !held.difference(&self.held).difference(&self.swarm.covered()).is_empty() {
            self.ask_again(cx);
        }
    }

    /// Stops, and asks all members before more is pulled.
    pub(super) fn doubt(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        if !lead.runs.is_empty() {
            lead.runs.clear();
            cx.act(Effect::StopWan { blob: self.blob });
        }
        self.ask_again(cx);
    }

    /// A lead asks who holds or leads, before it pulls.
    pub(super) fn on_who_has(&mut self, cx: &mut Context, from: NodeId) {
        if !cx.config.shares {
            return self.answer_as_leech(cx, from);
        }
        let asking = matches!(&self.role, Role::Lead(lead) if lead.is_asking());
        if asking && cx.outranks_me(&self.blob, &from) {
            return self.yield_to(cx, from); // its Follow is the answer
        }
        let (lead, stalled) = match &self.role {
            Role::Lead(lead) => (Some(cx.me), lead.stalled(cx.now)),
            Role::Following(following) if following.is_fresh(cx.now) => {
                (Some(following.lead), Duration::ZERO)
            }
            _ => (None, Duration::ZERO),
        };
        let holding = Holding {
            held: self.held.clone(),
            manifest: self.manifest.is_some(),
            lead: lead.filter(|&lead| lead != from),
            term: self.term,
            stalled_ms: stalled.as_millis() as u64,
        };
        self.say(cx, from, Step::Holding(holding));
    }

    pub(super) fn on_holding(&mut self, cx: &mut Context, from: NodeId, holding: Holding) {
        let stalled = Duration::from_millis(holding.stalled_ms) >= STALLED;
        if holding.lead == Some(from) && !stalled {
            self.suspects.remove(&from); // it answers, and its WAN gives: it was out of sight only
        }
        let suspect = |node: &NodeId| self.is_suspect(cx.now, node);
        let incumbent = holding.lead.filter(|lead| *lead != cx.me && !suspect(lead));
        let Role::Lead(lead) = &mut self.role else { return };
        if holding.manifest {
            lead.with_manifest.insert(from);
        }
        if !holding.held.is_empty() {
            self.swarm.add(cx.now, from, &holding.held, false);
            lead.tell(cx.now, from, &holding.held);
        }
        if !lead.pulling().intersection(&holding.held).is_empty() {
            // A late answer: what is on its way from the origin is on the site already.
            lead.runs.clear();
            cx.act(Effect::StopWan { blob: self.blob });
        }
        let Some(asking) = &mut lead.asking else {
            if incumbent == Some(from) {
                self.two_leads(cx, from, stalled);
            }
            return;
        };
        asking.unanswered.remove(&from);
        if asking.unseen == Some(from) {
            asking.unseen = None; // here it is
        }
        if holding.lead == Some(from) {
            asking.rivals.insert(from);
        }
        match incumbent {
            Some(other) if other == from && stalled => {}
            Some(other) if cx.is_member(&other) => self.yield_to(cx, other),
            Some(other) if asking.unseen == Some(other) => {}
            Some(other) if asking.lost == Some(other) => {
                (asking.lost, asking.unseen) = (None, Some(other));
                asking.until = cx.now + NOTICE;
            }
            Some(other) if !asking.waited => {
                asking.waited = true;
                asking.unseen = Some(other);
                asking.until = cx.now + UNSEEN_LEAD;
            }
            _ => {}
        }
    }

    pub(super) fn finish_asking(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(asking) = &mut lead.asking else { return };
        if asking.again_at.is_some_and(|at| at <= cx.now) {
            asking.again_at = None;
            let missing: Vec<NodeId> = asking.unanswered.iter().copied().collect();
            for node in missing {
                cx.send(node, self.blob, self.manifest_id, Step::WhoHas { term: self.term });
            }
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(asking) = &mut lead.asking else { return };
        if asking.until <= cx.now && asking.unseen.take().is_some() {
            // It never came, and what the others said meanwhile is old.
            asking.unanswered = cx.members.keys().copied().collect();
            (asking.again_at, asking.until) = (Some(cx.now + ASK / 2), cx.now + ASK);
            for &node in cx.members.keys() {
                cx.send(node, self.blob, self.manifest_id, Step::WhoHas { term: self.term });
            }
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(asking) = &lead.asking else { return };
        let answered = asking.is_answered();
        // A blob that is here needs no WAN, and so no answers.
        let complete = self.manifest.as_ref().is_some_and(|manifest| manifest.count() == self.held.len());
        if complete || (cx.settled && (answered || asking.until <= cx.now)) {
            let rivals = lead.asking.take().map(|asking| asking.rivals).unwrap_or_default();
            if lead.runs.is_empty() {
                lead.progress = cx.now;
            }
            if !cx.config.shares {
                return self.look_beyond_itself(cx);
            }
            for rival in rivals {
                self.say(cx, rival, Step::Lease { term: self.term });
            }
        }
    }
}
