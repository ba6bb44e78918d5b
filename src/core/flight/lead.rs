//! What a lead does: ask first, pull what no member holds, and tell its followers who has what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::asking::Asking;
use super::context::Context;
use super::crowd::{self, Crowd};
use super::message::Have;
use super::speed::Speed;
use super::state::{Flight, Role};
use super::wan::retry_after;
use super::{Effect, Failure, FailureKind, Step, Urgency, WanEnd};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;

/// News wait so long for company, and longer with more followers, up to [`SOME`].
const NEWS_GAP: Duration = Duration::from_millis(10);
const NEWS_GAP_PER_FOLLOWER: Duration = Duration::from_millis(1);
const SOME: u32 = 20;
/// A lead says that it lives this often.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// And its news by so much less often at the most, where it is behind with its work: the followers are to
/// know by then how much patience it needs.
pub(super) const RARER: Duration = Duration::from_millis(1000);
/// Without a WAN byte for so long, a lease may be taken over.
pub(super) const STALLED: Duration = Duration::from_millis(1500);
/// Without a WAN byte for so long, clients are told.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Wrong bytes from the origin for one flight before its clients are told.
const CORRUPT: u32 = 3;

/// Of so many news it is known when they were sent.
const SENT: usize = 16;

/// The state of a lead.
#[derive(Debug)]
pub struct Lead {
    pub(super) began: Instant,
    pub(super) asking: Option<Asking>,
    /// Those who have not answered in time.
    pub(super) late: Option<Asking>,
    pub(super) followers: BTreeMap<NodeId, Told>,
    pub(super) crowd: Crowd,
    /// Somebody waits for its first news.
    pub(super) answers: bool,
    pub(super) news: BTreeMap<NodeId, ChunkSet>,
    pub(super) gone: Vec<NodeId>,
    pub(super) news_at: Option<Instant>,
    pub(super) beat_at: Instant,
    pub(super) runs: BTreeMap<u64, ChunkSet>,
    pub(super) last_run: u64,
    pub(super) failures: u32,
    pub(super) corrupt: u32,
    pub(super) last_failure: String,
    pub(super) awaits_manifest: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) progress: Instant,
    pub(super) speed: Speed,
    /// It has been without WAN bytes for too long, and has done what can be done.
    overdue: bool,
    /// How far behind this node is.
    lag: Duration,
    /// Chunks that followers cannot get from the nodes that hold them.
    pub(super) forced: ChunkSet,
    pub(super) with_manifest: BTreeSet<NodeId>,
}

/// What a follower was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) number: u64,
    /// When the last of them were sent, the newest at the end.
    sent: VecDeque<Instant>,
    pub(super) whole: bool,
    /// Of its most urgent client.
    pub(super) urgency: Urgency,
    /// It passes nothing on.
    pub(super) leech: bool,
}

impl Told {
    /// The next news go out now: their number.
    pub(super) fn next(&mut self, now: Instant) -> u64 {
        self.number += 1;
        self.sent.push_back(now);
        if self.sent.len() > SENT {
            self.sent.pop_front();
        }
        self.number
    }

    /// When the news of this number were sent, if that was lately.
    fn sent_at(&self, number: u64) -> Option<Instant> {
        let back = self.number.checked_sub(number)? as usize;
        self.sent.len().checked_sub(back + 1).map(|at| self.sent[at])
    }
}

/// What a node that wants to follow says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    pub(super) manifest: bool,
    pub(super) urgency: Urgency,
}

impl Lead {
    fn new(now: Instant, members: impl Iterator<Item = NodeId>, best: u64) -> Self {
        Self {
            began: now,
            asking: Some(Asking::new(now, members)),
            late: None,
            followers: BTreeMap::new(),
            crowd: Crowd::default(),
            answers: false,
            news: BTreeMap::new(),
            gone: Vec::new(),
            news_at: None,
            beat_at: now + BEAT,
            runs: BTreeMap::new(),
            last_run: 0,
            failures: 0,
            corrupt: 0,
            last_failure: String::new(),
            awaits_manifest: false,
            retry_at: None,
            progress: now,
            speed: Speed::new(now, best),
            overdue: false,
            lag: Duration::ZERO,
            forced: ChunkSet::new(),
            with_manifest: BTreeSet::new(),
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn followers(&self) -> usize {
        self.followers.len()
    }

    pub(super) fn pulling(&self) -> ChunkSet {
        let mut pulling = ChunkSet::new();
        self.runs.values().for_each(|run| pulling.union_with(run));
        pulling
    }

    /// Since when it needs WAN bytes and gets none.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        let needs = !self.runs.is_empty() || self.retry_at.is_some() || self.awaits_manifest;
        if needs { now.saturating_duration_since(self.progress) } else { Duration::ZERO }
    }

    pub(super) fn deadline(
        &self,
        settled_at: Instant,
        stalls: Duration,
        patience: Duration,
        grace: Duration,
    ) -> Option<Instant> {
        let asking = self.asking.as_ref().map(|asking| match asking.again_at {
            _ if asking.is_answered() => settled_at,
            Some(again) => (again + patience / 2).min(asking.until + patience + grace),
            None => (asking.until + patience + grace).max(settled_at),
        });
        let beat = (!self.followers.is_empty()).then_some(self.beat_at);
        let stalls = (!self.overdue && !self.runs.is_empty()).then_some(self.progress + stalls + patience);
        [asking, beat, self.news_at, self.retry_at, stalls].into_iter().flatten().min()
    }

    /// A node has left.
    pub(super) fn forget(&mut self, now: Instant, node: NodeId) {
        for asking in self.asking.iter_mut().chain(&mut self.late) {
            asking.unanswered.remove(&node);
        }
        self.followers.remove(&node);
        self.crowd.forget(&node);
        self.with_manifest.remove(&node);
        self.news.remove(&node);
        self.gone.push(node);
        self.news_soon(now);
    }

    /// Notes that a node holds these, to be told to the followers.
    pub(super) fn tell(&mut self, now: Instant, node: NodeId, held: &ChunkSet) {
        self.gone.retain(|gone| *gone != node);
        self.news.entry(node).or_default().union_with(held);
        self.news_soon(now);
    }

    fn news_soon(&mut self, now: Instant) {
        let some = NEWS_GAP + NEWS_GAP_PER_FOLLOWER * (self.followers.len() as u32).min(SOME);
        let gap = some + crowd::delay(self.followers.len()) + self.lag.min(RARER);
        self.news_at.get_or_insert(now + gap);
    }

    /// A chunk is stored; whether it came over the WAN.
    pub(super) fn stored(&mut self, now: Instant, chunk: u32) -> bool {
        self.forced.remove(chunk);
        let mut pulled = false;
        for run in self.runs.values_mut() {
            pulled |= run.remove(chunk);
        }
        if pulled {
            self.wan_progress(now);
        }
        pulled
    }

    pub(super) fn wan_progress(&mut self, now: Instant) {
        self.progress = now;
        self.failures = 0;
        self.overdue = false;
    }

    /// A run has ended; returns why the flight cannot go on, if it cannot.
    pub(super) fn run_ended(&mut self, now: Instant, run: u64, end: WanEnd) -> Option<Failure> {
        self.runs.remove(&run)?;
        match end {
            WanEnd::Done => None,
            WanEnd::Corrupt { chunk } => {
                self.corrupt += 1;
                let why = format!(
                    "the origin sends wrong bytes for chunk {chunk}: its pack is damaged; publish again"
                );
                (self.corrupt >= CORRUPT).then_some(Failure { why, kind: FailureKind::Permanent })
            }
            WanEnd::Failed(failure) if failure.kind != FailureKind::Transient => Some(failure),
            WanEnd::Failed(failure) => {
                self.failures += 1;
                self.last_failure = failure.why;
                self.retry_at = Some(now + retry_after(self.failures));
                None
            }
        }
    }

    /// What a lead fetches from its members: all, if a client of its own waits; else what its
    /// followers cannot get by themselves.
    pub(super) fn wants_from_peers(&self, wanted: bool, held: &ChunkSet, count: u32) -> ChunkSet {
        let all = if wanted { ChunkSet::full(count) } else { self.forced.clone() };
        all.difference(held).difference(&self.pulling())
    }
}

impl Flight {
    /// Claims the lease: asks all members first.
    pub(super) fn become_lead(&mut self, cx: &mut Context) {
        self.term += 1;
        self.redirects = 0;
        let mut lead = Lead::new(cx.now, cx.members.nodes(), *cx.wan_best);
        lead.tell(cx.now, cx.me, &self.held);
        self.swarm.forget_afar();
        // What the swarm knows stays true for its sources; those who follow will say so again.
        self.role = Role::Lead(Box::new(lead));
        for node in cx.members.nodes() {
            self.say(cx, node, Step::WhoHas { term: self.term });
        }
    }

    pub(super) fn on_follow(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        held: ChunkSet,
        suspects: &[NodeId],
        asks: Asks,
    ) {
        if let Role::Joining(_) | Role::Following(_) = &self.role {
            let Some(current) = self.lead() else { return };
            let fresh = matches!(&self.role, Role::Following(following) if following.is_fresh(cx));
            if current != from && (fresh || !suspects.contains(&current)) {
                return self.say(cx, from, Step::Redirect { to: current, unfit: false });
            }
            // Of one that led this node until now nothing more can be expected.
            let joining = matches!(self.role, Role::Joining(_));
            if joining && current == from && !suspects.contains(&from) && cx.outranks_me(&self.blob, &from) {
                return; // each has yielded to the other: the better rank leads, as it learns from us
            }
            if fresh && suspects.contains(&current) {
                // It lives, and was too slow. So may the site's WAN as a whole be: less is expected of
                // whoever comes next, or the lease would go round for ever.
                *cx.wan_best /= 2;
            }
            // The follower has lost the lead, and so have we; or our lead wants to follow us.
            self.suspect_all(cx, suspects);
            self.become_lead(cx);
        }
        let Role::Lead(lead) = &mut self.role else { return };
        for asking in lead.asking.iter_mut().chain(&mut lead.late) {
            asking.unanswered.remove(&from);
        }
        if asks.manifest {
            lead.with_manifest.insert(from);
        }
        let told = Told { urgency: asks.urgency, ..Told::default() };
        lead.answers |= lead.followers.insert(from, told).is_none();
        lead.crowd.enter(from);
        lead.tell(cx.now, from, &held);
        self.swarm.add(cx.now, from, &held, true);
    }

    pub(super) fn on_have(&mut self, cx: &mut Context, from: NodeId, have: &Have) {
        let Role::Lead(lead) = &mut self.role else { return };
        let sent = lead.followers.get(&from).and_then(|told| told.sent_at(have.heard));
        if let Some(sent) = sent {
            let took = cx.now.saturating_duration_since(sent);
            cx.strain.round(cx.now, took.saturating_sub(Duration::from_millis(have.ago_ms)));
        }
        let follower = lead.passes_on(&from);
        lead.tell(cx.now, from, &have.held);
        self.swarm.add(cx.now, from, &have.held, follower);
    }

    pub(super) fn on_need(&mut self, from: NodeId, chunks: &ChunkSet) {
        let Role::Lead(lead) = &mut self.role else { return };
        if lead.followers.contains_key(&from) {
            lead.forced.union_with(&chunks.difference(&self.held));
        }
    }

    pub(super) fn on_leave(&mut self, cx: &mut Context, from: NodeId, complete: bool) {
        let Role::Lead(lead) = &mut self.role else { return };
        lead.followers.remove(&from);
        lead.crowd.leave(&from);
        let held = match &self.manifest {
            Some(manifest) if complete => ChunkSet::full(manifest.count()),
            _ => ChunkSet::new(),
        };
        lead.tell(cx.now, from, &held);
        self.swarm.add(cx.now, from, &held, false);
    }

    // ---- moving on -------------------------------------------------------------------

    pub(super) fn lead_advance(&mut self, cx: &mut Context) {
        if let Role::Lead(lead) = &mut self.role {
            lead.lag = cx.lag;
        }
        if self.hand_over(cx) {
            return;
        }
        self.finish_asking(cx);
        let Role::Lead(lead) = &self.role else { return };
        if lead.followers.is_empty() && !self.wanted {
            if !lead.runs.is_empty() {
                cx.act(Effect::StopWan { blob: self.blob });
            }
            self.over = true;
            return;
        }
        let stalled = lead.stalled(cx.now);
        if stalled >= GIVE_UP {
            let why =
                format!("nothing came from the origin for {} s ({})", stalled.as_secs(), lead.last_failure);
            return self.fail(cx, Failure { why, kind: FailureKind::Permanent });
        }
        // A WAN that crawls, or gives nothing: another node's may be fine.
        if !lead.is_asking() && (stalled >= self.patience() + cx.patience() || lead.speed.crawls(cx.now)) {
            self.note_overdue(cx);
            self.step_aside(cx);
        }
        let Role::Lead(lead) = &self.role else { return };
        if !lead.is_asking() {
            self.lead_manifest(cx);
            self.pull(cx);
        }
        self.send_news(cx);
    }

    /// The followers hear of it at once.
    fn note_overdue(&mut self, cx: &Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        if !std::mem::replace(&mut lead.overdue, true) {
            lead.news_at = Some(cx.now);
        }
    }
}
