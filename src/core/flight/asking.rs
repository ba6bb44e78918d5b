//! Asking the members before anything is pulled, and answering: who holds, or leads?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::context::Context;
use super::lead::{Lead, STALLED};
use super::members::NOTICE;
use super::state::{Flight, Role};
use super::{Effect, Holding, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::swarm::BatchEnd;

/// How long to wait for the members' answers; half way, those that are missing are asked again.
const ASK: Duration = Duration::from_millis(400);
/// How long to wait for a lead that others know and this node does not see yet.
const UNSEEN_LEAD: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(super) struct Asking {
    pub(super) unanswered: BTreeSet<NodeId>,
    /// When all were asked, if none has come since.
    asked: Option<Instant>,
    pub(super) again_at: Option<Instant>,
    pub(super) until: Instant,
    unseen: Option<NodeId>,
    /// It has waited for one that is not seen: not again.
    waited: bool,
    /// Something was lost since: when the answers are there all are asked once more.
    anew: bool,
    /// Leads that answered and are not to be waited for: they are told when this one takes over.
    rivals: BTreeSet<NodeId>,
}

impl Asking {
    pub(super) fn new(now: Instant, members: impl Iterator<Item = NodeId>) -> Self {
        Self {
            unanswered: members.collect(),
            asked: Some(now),
            again_at: Some(now + ASK / 2),
            until: now + ASK,
            unseen: None,
            waited: false,
            anew: false,
            rivals: BTreeSet::new(),
        }
    }

    /// Goes on asking those who have not answered.
    fn until(self, until: Instant) -> Self {
        Self { until, ..self }
    }

    /// An answer says how long a question takes.
    fn sample(&self, cx: &mut Context) {
        if let Some(asked) = self.asked {
            cx.strain.round(cx.now, cx.now.saturating_duration_since(asked));
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
            asking.asked = None;
            // It came late: it has as long as the others, and is asked twice like them.
            asking.again_at.get_or_insert(now + ASK / 2);
            asking.until = asking.until.max(now + ASK);
        }
    }
}

impl Flight {
    /// Asks all members anew before more is pulled: what was known of them is old. One question at a
    /// time: where each loss asks all of a large site, the answers are what it cannot do.
    pub(super) fn ask_again(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        if let Some(asking) = &mut lead.asking {
            asking.anew = true;
            return;
        }
        lead.late = None;
        lead.asking = Some(Asking::new(cx.now, cx.members.nodes()));
        for node in cx.members.nodes() {
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
            Role::Following(following) if following.is_fresh(cx) => (Some(following.lead), Duration::ZERO),
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
        if let Some(late) = &mut lead.late
            && late.unanswered.remove(&from)
        {
            late.sample(cx);
        }
        if !lead.pulling().intersection(&holding.held).is_empty() {
            // A late answer: what is on its way from the origin is on the site already. So may more be,
            // by the answers of others who are late.
            lead.runs.clear();
            cx.act(Effect::StopWan { blob: self.blob });
            if lead.asking.is_none() {
                lead.asking = lead.late.take().map(|late| late.until(cx.now + ASK));
            }
        }
        let Some(asking) = &mut lead.asking else {
            if incumbent == Some(from) {
                self.two_leads(cx, from, stalled);
            }
            return;
        };
        if asking.unanswered.remove(&from) {
            asking.sample(cx);
        }
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
            Some(other) if cx.has_just_left(&other) => {
                // Who says that it leads is asked again.
                asking.unseen = Some(other);
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
        if asking.again_at.is_some_and(|at| at + cx.patience() / 2 <= cx.now) {
            asking.again_at = None;
            let missing: Vec<NodeId> = asking.unanswered.iter().copied().collect();
            for node in missing {
                cx.send(node, self.blob, self.manifest_id, Step::WhoHas { term: self.term });
            }
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(asking) = &mut lead.asking else { return };
        if asking.until + cx.patience() + self.doubts.of_members() <= cx.now && asking.unseen.take().is_some()
        {
            // It never came, and what the others said meanwhile is old.
            asking.unanswered = cx.members.nodes().collect();
            (asking.again_at, asking.until) = (Some(cx.now + ASK / 2), cx.now + ASK);
            for node in cx.members.nodes() {
                cx.send(node, self.blob, self.manifest_id, Step::WhoHas { term: self.term });
            }
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(asking) = &lead.asking else { return };
        let answered = asking.is_answered();
        // A blob that is here needs no WAN, and so no answers.
        let complete = self.manifest.as_ref().is_some_and(|manifest| manifest.count() == self.held.len());
        let over =
            cx.settled && (answered || asking.until + cx.patience() + self.doubts.of_members() <= cx.now);
        if asking.anew && over && !complete {
            lead.asking = None;
            return self.ask_again(cx);
        }
        if complete || over {
            lead.late = lead.asking.take();
            let rivals =
                lead.late.as_mut().map(|asking| std::mem::take(&mut asking.rivals)).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::flight::{Config, Coordinator, Input, Message, Nothing, Urgency};
    use crate::core::id::{BlobId, ChunkId, PackId};
    use crate::core::manifest::{Chunk, Manifest};

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    /// Four chunks.
    fn manifest() -> Arc<Manifest> {
        let chunk = |n: u8| Chunk {
            id: ChunkId::of(&[n]),
            offset: 0,
            length: 1000,
            pack: 0,
            pack_offset: 1000 * u64::from(n),
            stored: 1000,
        };
        let chunks: Vec<Chunk> = (0..4).map(chunk).collect();
        let built = Manifest::build(BlobId::of(b""), [0; 32], vec![PackId::of(b"")], &chunks);
        Arc::new(built.expect("consistent"))
    }

    /// A node that leads, among three that cannot, and has asked them.
    fn lead(now: Instant) -> Coordinator {
        let config = Config { settle: Duration::ZERO, ..Config::default() };
        let mut lead = Coordinator::new(now, node(1), config);
        for n in 2..5 {
            lead.handle(now, Input::Joined { node: node(n), weight: 0 }, &Nothing);
        }
        let (blob, id) = (manifest().blob(), manifest().id());
        lead.handle(now, Input::Want { blob, manifest: id, urgency: Urgency::Foreground }, &Nothing);
        lead
    }

    fn hear(it: &mut Coordinator, now: Instant, from: u8, held: &[u32]) {
        let holding = Holding { held: held.iter().copied().collect(), manifest: true, ..Holding::default() };
        let (blob, manifest) = (manifest().blob(), manifest().id());
        let message = Message { blob, manifest, step: Step::Holding(holding) };
        it.handle(now, Input::Message { from: node(from), message }, &Nothing);
    }

    /// Time passes, and it keeps its deadlines.
    fn pass(it: &mut Coordinator, until: Instant) {
        while let Some(at) = it.deadline().filter(|at| *at <= until) {
            it.handle(at, Input::Tick, &Nothing);
        }
    }

    /// What it pulls over the WAN from now on, whether it stops first, and how many it asks.
    fn does(it: &mut Coordinator) -> (Vec<u32>, bool, usize) {
        let effects: Vec<Effect> = std::iter::from_fn(|| it.poll()).collect();
        let pulled = effects.iter().filter_map(|effect| match effect {
            Effect::FetchWan { chunks, .. } => Some(chunks.clone()),
            _ => None,
        });
        let asks = |effect: &&Effect| matches!(effect, Effect::Send { message, .. } if matches!(message.step, Step::WhoHas { .. }));
        let stops = effects.iter().any(|effect| matches!(effect, Effect::StopWan { .. }));
        (pulled.flatten().collect(), stops, effects.iter().filter(asks).count())
    }

    #[test]
    fn who_is_late_stops_a_pull_and_the_others_that_are_late_are_waited_for() {
        let start = Instant::now();
        let mut it = lead(start);
        let manifest = manifest();
        assert_eq!(does(&mut it), (vec![], false, 3));
        it.handle(
            start,
            Input::Manifest { blob: manifest.blob(), result: Ok((manifest.clone(), ChunkSet::new())) },
            &Nothing,
        );
        pass(&mut it, start + ASK / 2);
        assert_eq!(does(&mut it), (vec![], false, 3), "asked once more");
        pass(&mut it, start + ASK);
        assert_eq!(does(&mut it), (vec![0, 1, 2, 3], false, 0), "nobody answers");
        hear(&mut it, start + 2 * ASK, 2, &[0, 1]);
        assert_eq!(does(&mut it), (vec![], true, 0), "the others may hold as much");
        hear(&mut it, start + 2 * ASK, 3, &[2]);
        assert_eq!(does(&mut it), (vec![], false, 0));
        hear(&mut it, start + 2 * ASK, 4, &[]);
        assert_eq!(does(&mut it), (vec![3], false, 0), "all have answered");
    }

    #[test]
    fn an_answer_that_stops_a_pull_ends_no_open_question() {
        let start = Instant::now();
        let mut it = lead(start);
        let manifest = manifest();
        let fetched = Input::Manifest { blob: manifest.blob(), result: Ok((manifest, ChunkSet::new())) };
        it.handle(start, fetched, &Nothing);
        for (n, held) in [(2, &[3][..]), (3, &[]), (4, &[])] {
            hear(&mut it, start, n, held);
        }
        assert_eq!(does(&mut it).0, [0, 1, 2]);
        // It loses a source, and asks those who are left.
        it.handle(start, Input::Left { node: node(2) }, &Nothing);
        assert_eq!(does(&mut it).2, 2);
        hear(&mut it, start, 3, &[0]);
        assert_eq!(does(&mut it), (vec![], true, 0), "the fourth has not answered");
        hear(&mut it, start, 4, &[1]);
        assert_eq!(does(&mut it).0, [2], "all have answered");
    }

    #[test]
    fn all_are_asked_once_for_all_that_is_lost_while_they_answer() {
        let start = Instant::now();
        let mut it = lead(start);
        does(&mut it);
        for n in [2, 3] {
            hear(&mut it, start, n, &[u32::from(n)]);
            it.handle(start, Input::Left { node: node(n) }, &Nothing);
        }
        assert_eq!(does(&mut it).2, 0, "the question is open still");
        hear(&mut it, start, 4, &[]);
        assert_eq!(does(&mut it).2, 1, "what was lost may have spread meanwhile");
        hear(&mut it, start, 4, &[]);
        assert_eq!(does(&mut it).2, 0);
    }
}
