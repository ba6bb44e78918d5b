//! What a follower does: find the lead, listen to it, and leave it when it fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::context::Context;
use super::crowd::{self, CALLS};
use super::lead::RARER;
use super::message::Have;
use super::state::{Flight, Role};
use super::{Effect, Failure, FailureKind, Sources, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::strain;
use crate::core::swarm;

/// A lead that is asked to be followed answers within this; half way it is asked again.
const ANSWER: Duration = Duration::from_millis(1000);
/// A lead that says nothing for so long is suspected (it speaks twice a second).
const SILENCE: Duration = Duration::from_millis(2500);
/// A lead heard of so recently is not given up on hearsay.
const FRESH: Duration = Duration::from_millis(1500);
/// A follower says anew what it holds this often, in case something was lost.
const REFRESH: Duration = Duration::from_secs(5);
/// Chunks of a lead's run that may have crossed, and were not told of when it was lost.
const IN_FLIGHT: usize = 2;
/// After a gap in the lead's news, it is asked anew so much later.
const LOST: Duration = Duration::from_millis(500);
/// What it newly holds waits so long for company.
const NEWS_GAP: Duration = Duration::from_millis(15);
/// A lead that failed is not asked again for so long.
pub(super) const SUSPECT: Duration = Duration::from_secs(10);
/// A lead without WAN bytes that has not handed over so long after it should have is left.
const OVERDUE: Duration = Duration::from_millis(500);
/// So many nodes in a row are asked at once; then a pause comes before each, and doubles.
const FREE_JOINS: u32 = 4;
/// After so many in a row nobody will lead it.
const VAIN_JOINS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// After so many redirects in a row a node leads by itself.
const REDIRECTS: u32 = 6;
/// A chunk that no reachable source holds for so long is asked of the lead.
const NEED: Duration = Duration::from_secs(2);

/// How often in a row it was sent elsewhere. While nodes do not yet see the same site they may send
/// each other in circles; going ever slower gives them time to see it.
#[derive(Debug, Default)]
pub(super) struct Haste {
    joins: u32,
    last: Option<Instant>,
}

impl Haste {
    /// It has been sent around for so long that there is no sense in it.
    pub(super) fn is_in_vain(&self) -> bool {
        self.joins > VAIN_JOINS
    }

    /// How long to wait before the next node is asked to lead.
    fn pause(&mut self, now: Instant) -> Duration {
        let again = self.last.is_some_and(|last| now < last + 2 * LONGEST_PAUSE);
        self.joins = if again { self.joins + 1 } else { 0 };
        self.last = Some(now);
        match self.joins.checked_sub(FREE_JOINS) {
            None => Duration::ZERO,
            Some(more) => (PAUSE * 2u32.pow(more.min(5))).min(LONGEST_PAUSE),
        }
    }
}

/// Waiting for a lead's first news.
#[derive(Debug)]
pub struct Joining {
    pub(super) lead: NodeId,
    /// The lead is known by name only, and not connected yet.
    pub(super) absent: bool,
    again_at: Option<Instant>,
    until: Instant,
}

impl Joining {
    pub(super) fn deadline(&self, patience: Duration) -> Instant {
        let until = self.until + patience;
        self.again_at.map_or(until, |again| (again + patience / 2).min(until))
    }
}

/// Listening to a lead.
#[derive(Debug)]
pub struct Following {
    pub(super) lead: NodeId,
    heard: Instant,
    number: u64,
    /// How far behind the lead is.
    lead_lag: Duration,
    pub(super) lead_has_manifest: bool,
    refresh_at: Instant,
    news: ChunkSet,
    news_at: Option<Instant>,
    /// When chunks without a reachable source are asked of the lead.
    need_at: Instant,
    /// How many follow.
    crowd: usize,
}

impl Following {
    pub(super) fn is_fresh(&self, cx: &Context) -> bool {
        cx.now.saturating_duration_since(self.heard) < FRESH + self.patience(cx.patience())
    }

    /// How many follow.
    pub(super) fn crowd(&self) -> usize {
        self.crowd
    }

    /// Of this node, or of its lead if that is further behind.
    fn patience(&self, own: Duration) -> Duration {
        own.max(strain::patience(self.lead_lag))
    }

    pub(super) fn deadline(&self, patience: Duration) -> Instant {
        let silent = self.heard + SILENCE + self.patience(patience);
        let timers = [Some(silent), Some(self.refresh_at), self.news_at, Some(self.need_at)];
        timers.into_iter().flatten().min().unwrap_or(self.refresh_at)
    }

    /// Notes what this node newly holds, to be told to the lead.
    pub(super) fn tell(&mut self, cx: &Context, held: &ChunkSet) {
        self.news.union_with(held);
        self.news_at.get_or_insert(
            cx.now + NEWS_GAP + crowd::delay(self.crowd) + cx.lag.max(self.lead_lag).min(RARER),
        );
    }
}

impl Flight {
    /// Asks the best-ranked node to lead; leads if that is this one.
    pub(super) fn seek_lead(&mut self, cx: &mut Context) {
        let best = cx.best(&self.blob, |node| !self.is_suspect(cx.now, node));
        if best == cx.me {
            self.become_lead(cx);
        } else {
            self.join(cx, best);
        }
    }

    pub(super) fn join(&mut self, cx: &mut Context, lead: NodeId) {
        let absent = !cx.is_member(&lead);
        if absent && self.called.len() < 2 * CALLS && self.called.insert(lead) {
            cx.act(Effect::Connect { nodes: vec![lead] });
        }
        let pause = self.haste.pause(cx.now);
        let again = if pause.is_zero() { ANSWER / 2 } else { pause };
        let again_at = (!absent).then_some(cx.now + again);
        self.role = Role::Joining(Joining { lead, absent, again_at, until: cx.now + pause + ANSWER });
        if !absent && pause.is_zero() {
            self.ask_to_follow(cx, lead);
        }
    }

    pub(super) fn ask_to_follow(&self, cx: &mut Context, lead: NodeId) {
        let suspects = self.suspects.iter().filter(|(_, until)| **until > cx.now).map(|(node, _)| *node);
        let shares = cx.config.shares;
        let step = Step::Follow {
            held: if shares { self.held.clone() } else { ChunkSet::new() },
            suspects: suspects.collect(),
            manifest: self.manifest.is_some() && shares,
            urgency: self.urgency,
            leech: !shares,
        };
        self.say(cx, lead, step);
    }

    pub(super) fn suspect(&mut self, cx: &Context, node: NodeId) {
        self.suspects.insert(node, cx.now + SUSPECT);
    }

    pub(super) fn suspect_all(&mut self, cx: &Context, nodes: &[NodeId]) {
        for node in nodes.iter().filter(|node| **node != cx.me) {
            self.suspects.insert(*node, cx.now + SUSPECT);
        }
    }

    pub(super) fn on_redirect(&mut self, cx: &mut Context, from: NodeId, to: NodeId, unfit: bool) {
        if self.lead() != Some(from) {
            return;
        }
        if unfit {
            self.suspect(cx, from);
        }
        self.redirects += 1;
        if to == cx.me || self.redirects > REDIRECTS {
            self.become_lead(cx);
        } else if self.is_suspect(cx.now, &to) {
            // It does not know yet what we know; it will soon. The timer of joining asks it again.
            let until = cx.now + ANSWER;
            self.role = Role::Joining(Joining {
                lead: from,
                absent: false,
                again_at: Some(cx.now + ANSWER / 3),
                until,
            });
        } else {
            self.join(cx, to);
        }
    }

    pub(super) fn on_sources(&mut self, cx: &mut Context, from: NodeId, sources: Sources) {
        if self.lead() != Some(from) {
            if matches!(self.role, Role::Lead(_)) && !cx.config.shares {
                self.hear_lead_as_leech(cx, from, &sources);
            } else if matches!(self.role, Role::Lead(_)) {
                // It leads too, and takes this node for a follower still.
                self.say(cx, from, Step::Lease { term: self.term });
            }
            return;
        }
        if let Some(why) = sources.failed {
            if sources.unfit {
                self.suspect(cx, from);
                return self.seek_lead(cx);
            }
            return self.fail(cx, Failure { why, kind: FailureKind::Permanent });
        }
        self.listen(cx, from, &sources);
        // A run comes chunk by chunk: only its first ones can have crossed without being told of.
        self.inherited = sources.pulling.runs().into_iter().flat_map(|run| run.take(IN_FLIGHT)).collect();
        self.term = self.term.max(sources.term);
        if sources.wan_best > 0 {
            *cx.wan_best = sources.wan_best;
        }
        self.learn(cx, &sources);
        // It hands over by itself; if it cannot, it is left.
        let patience = self.patience() + strain::patience(sources.lag().max(cx.lag));
        if Duration::from_millis(sources.stalled_ms) >= patience + OVERDUE {
            self.suspect(cx, from);
            self.seek_lead(cx);
        }
    }

    fn listen(&mut self, cx: &Context, lead: NodeId, sources: &Sources) {
        self.redirects = 0;
        match &mut self.role {
            Role::Following(following) => {
                following.lead_lag = sources.lag();
                following.heard = cx.now;
                following.crowd = sources.crowd as usize;
                if !sources.whole && sources.number > following.number + 1 {
                    // Something was lost on the way, or overtaken: ask anew, in a while.
                    following.refresh_at = following.refresh_at.min(cx.now + LOST + cx.patience());
                }
                following.number =
                    if sources.whole { sources.number } else { sources.number.max(following.number) };
                following.lead_has_manifest |= sources.manifest;
            }
            role => {
                *role = Role::Following(Following {
                    lead,
                    heard: cx.now,
                    number: sources.number,
                    lead_lag: sources.lag(),
                    lead_has_manifest: sources.manifest,
                    refresh_at: cx.now + REFRESH + cx.patience(),
                    news: ChunkSet::new(),
                    news_at: None,
                    need_at: cx.now + NEED + cx.patience(),
                    crowd: sources.crowd as usize,
                });
            }
        }
    }

    fn learn(&mut self, cx: &Context, sources: &Sources) {
        let others = || sources.nodes.iter().filter(|(node, ..)| *node != cx.me);
        if sources.whole {
            let keep: BTreeSet<NodeId> = others().map(|(node, ..)| *node).collect();
            self.swarm.retain(&keep);
        }
        for (node, held, follower) in others() {
            self.swarm.hear_of(held);
            if !cx.is_member(node) {
                self.swarm.note_afar(*node, held, *follower, sources.whole);
            } else if sources.whole {
                self.swarm.set(cx.now, *node, held, *follower);
            } else {
                self.swarm.add(cx.now, *node, held, *follower);
            }
        }
        sources.gone.iter().for_each(|node| self.swarm.remove(node));
    }

    /// Asks for connections to the nodes that it was told of and cannot talk to: each once.
    ///
    /// What the lead said of them is kept meanwhile, so nobody has to be asked anew when they come;
    /// and they count as takers from the start, or all would fall upon the lead at once.
    fn call(&mut self, cx: &mut Context) {
        let shares = self.count() >= swarm::SHARED;
        if self.called.len() >= CALLS || (!shares && self.swarm.out_of_reach(cx.now).is_empty()) {
            return;
        }
        let afar = self.swarm.afar().filter(|node| !self.called.contains(node));
        let nodes: Vec<NodeId> = afar.take(CALLS - self.called.len()).collect();
        if !nodes.is_empty() {
            self.called.extend(&nodes);
            cx.act(Effect::Connect { nodes });
        }
    }

    pub(super) fn joining_tick(&mut self, cx: &mut Context) {
        let Role::Joining(joining) = &mut self.role else { return };
        let lead = joining.lead;
        if joining.again_at.is_some_and(|at| at + cx.patience() / 2 <= cx.now) {
            joining.again_at = None;
            self.ask_to_follow(cx, lead);
        } else if joining.until + cx.patience() <= cx.now {
            self.suspect(cx, lead);
            self.seek_lead(cx);
        }
    }

    pub(super) fn following_tick(&mut self, cx: &mut Context) {
        let Role::Following(following) = &mut self.role else { return };
        let lead = following.lead;
        let patience = following.patience(cx.patience());
        if cx.now.saturating_duration_since(following.heard) >= SILENCE + patience {
            self.suspect(cx, lead);
            return self.seek_lead(cx);
        }
        let refresh = following.refresh_at <= cx.now;
        if refresh {
            following.refresh_at = cx.now + REFRESH + patience;
        }
        let need = following.need_at <= cx.now;
        if need {
            following.need_at = cx.now + NEED + patience;
        }
        if refresh {
            self.ask_to_follow(cx, lead);
        }
        if need {
            self.ask_for_unreachable(cx, lead);
        }
    }

    /// Chunks that some node holds, but none that this one gets through to.
    fn ask_for_unreachable(&mut self, cx: &mut Context, lead: NodeId) {
        let missing = self.swarm.out_of_reach(cx.now).difference(&self.held);
        if !missing.is_empty() {
            self.say(cx, lead, Step::Need(missing));
        }
    }

    pub(super) fn follow_advance(&mut self, cx: &mut Context) {
        let complete = self.is_complete();
        let Some(lead) = self.lead() else { return };
        if matches!(&self.role, Role::Following(following) if following.lead_has_manifest) {
            self.fetch_manifest(cx, Some(lead));
        }
        if !complete {
            self.call(cx);
        }
        if let Role::Following(following) = &mut self.role
            && (complete || following.news_at.is_some_and(|at| at <= cx.now))
        {
            following.news_at = None;
            let held = std::mem::take(&mut following.news);
            let ago = cx.now.saturating_duration_since(following.heard);
            let have = Have { held, heard: following.number, ago_ms: ago.as_millis() as u64 };
            if !have.held.is_empty() {
                self.say(cx, lead, Step::Have(have));
            }
        }
        if complete {
            self.say(cx, lead, Step::Leave { complete: cx.config.shares });
            self.over = true;
        }
    }
}
