//! What a follower does: listen to the lead, and leave it when it fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::context::Context;
use super::crowd::{self, CALLS};
use super::haste::Doubts;
use super::lead::RARER;
use super::message::Have;
use super::state::{Flight, Role};
use super::{Effect, Failure, FailureKind, Sources, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;
use crate::core::strain;
use crate::core::swarm;

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
/// A lead that was heard for so long is above all doubt.
const STEADY: Duration = Duration::from_secs(10);
/// A lead without WAN bytes that has not handed over so long after it should have is left.
const OVERDUE: Duration = Duration::from_millis(500);
/// A chunk that no reachable source holds for so long is asked of the lead.
const NEED: Duration = Duration::from_secs(2);

/// Listening to a lead.
#[derive(Debug)]
pub struct Following {
    pub(super) lead: NodeId,
    since: Instant,
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
                if cx.now.saturating_duration_since(following.since) >= STEADY {
                    self.doubts = Doubts::default();
                }
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
                    since: cx.now,
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

    pub(super) fn following_tick(&mut self, cx: &mut Context) {
        let Role::Following(following) = &mut self.role else { return };
        let lead = following.lead;
        let patience = following.patience(cx.patience() + self.doubts.grace());
        if cx.now.saturating_duration_since(following.heard) >= SILENCE + patience {
            self.doubts.another();
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
