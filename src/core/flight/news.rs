//! What a lead tells its followers: who holds what, and that it lives.

use std::collections::BTreeMap;

use super::context::Context;
use super::lead::{BEAT, Lead, RARER};
use super::state::{Flight, Role};
use super::{Effect, Failure, FailureKind, Sources, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;

/// What one group of followers is told: the same to all of it.
struct News {
    /// To those who know nothing yet.
    whole: Vec<Entry>,
    /// To the others.
    delta: Vec<Entry>,
}

/// A node, what it holds, and whether it follows.
type Entry = (NodeId, ChunkSet, bool);

impl Flight {
    /// Tells the followers what is new: all at once to those who know nothing yet.
    ///
    /// A newcomer's first news are the answer to its asking, so they do not wait; the others are not
    /// told of it before the next news are due, or F newcomers would cost F * F messages.
    pub(super) fn send_news(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        let due = lead.news_at.is_some_and(|at| at <= cx.now) || lead.beat_at <= cx.now;
        if !due && !lead.answers {
            return;
        }
        lead.answers = false;
        if lead.crowd.narrows(lead.followers.len()) {
            lead.followers.values_mut().for_each(|told| told.whole = false);
        }
        let (mut fresh, mut gone) = (BTreeMap::new(), Vec::new());
        if due {
            lead.news_at = None;
            lead.beat_at = cx.now + BEAT + cx.lag.min(RARER);
            (fresh, gone) = (std::mem::take(&mut lead.news), std::mem::take(&mut lead.gone));
        }
        let all: BTreeMap<NodeId, &ChunkSet> =
            self.swarm.sources().map(|(node, held, _)| (node, held)).chain([(cx.me, &self.held)]).collect();
        let news: Vec<News> =
            (0..lead.crowd.groups()).map(|at| news_of(lead, at, cx, &all, &fresh, due)).collect();
        let (pulling, stalled) = (lead.pulling(), lead.stalled(cx.now).as_millis() as u64);
        let crowd = lead.followers.len() as u32;
        for (follower, told) in lead.followers.iter_mut().filter(|(_, told)| due || !told.whole) {
            let Some(news) = news.get(lead.crowd.group_of(follower)) else { continue };
            let number = told.next(cx.now);
            let (nodes, gone) =
                if told.whole { (&news.delta, gone.clone()) } else { (&news.whole, Vec::new()) };
            let sources = Sources {
                term: self.term,
                number,
                whole: !std::mem::replace(&mut told.whole, true),
                nodes: nodes.clone(),
                gone,
                pulling: pulling.clone(),
                stalled_ms: stalled,
                wan_best: *cx.wan_best,
                manifest: self.manifest.is_some(),
                failed: None,
                unfit: false,
                small: None, // whoever sends it has the content, and adds it
                crowd,
                lag_ms: cx.lag.as_millis() as u64,
            };
            cx.send(*follower, self.blob, self.manifest_id, Step::Sources(sources));
        }
    }

    /// The last news from a lead that cannot go on: because the flight cannot, or it alone.
    pub(super) fn tell_failure(&mut self, cx: &mut Context, failure: &Failure) {
        let Role::Lead(lead) = &self.role else { return };
        if !lead.runs.is_empty() {
            cx.act(Effect::StopWan { blob: self.blob });
        }
        for (follower, told) in &lead.followers {
            let unfit = failure.kind == FailureKind::Local;
            let failed = Some(failure.why.clone());
            let number = told.number + 1;
            let sources = Sources { term: self.term, number, failed, unfit, ..Sources::default() };
            cx.send(*follower, self.blob, self.manifest_id, Step::Sources(sources));
        }
    }
}

/// The news of one group. `all` is what each node holds, `fresh` what is new of that.
fn news_of(
    lead: &mut Lead,
    at: usize,
    cx: &Context,
    all: &BTreeMap<NodeId, &ChunkSet>,
    fresh: &BTreeMap<NodeId, ChunkSet>,
    due: bool,
) -> News {
    let follows = |lead: &Lead, node: &NodeId| lead.followers.contains_key(node);
    let holds = |lead: &Lead, node: &NodeId, held: &ChunkSet| {
        *node != cx.me && !follows(lead, node) && !held.is_empty()
    };
    let holders: Vec<NodeId> =
        all.iter().filter(|(node, held)| holds(lead, node, held)).map(|(node, _)| *node).collect();
    let hubs: Vec<NodeId> = lead.followers.keys().copied().filter(|node| cx.weight(node) > 0).collect();
    let view = lead.crowd.view(at, cx.me, &holders, &hubs);
    let sees = |node: &NodeId| view.as_ref().is_none_or(|view| view.contains(node));
    let whole = all.iter().filter(|(node, _)| sees(node));
    let takes = |lead: &Lead, node: &NodeId| lead.passes_on(node) && lead.crowd.takes(at, node);
    let whole = whole.map(|(node, held)| (*node, (*held).clone(), takes(lead, node))).collect();
    let mut delta: Vec<Entry> = Vec::new();
    // Whom a group was told of once, it is told of until the end: whether a node still takes chunks
    // first must be known to all alike.
    for (node, held) in fresh.iter().filter(|(node, _)| sees(node) || lead.crowd.has_shown(at, node)) {
        delta.push((*node, held.clone(), takes(lead, node)));
    }
    if due && let Some(view) = view {
        for node in view {
            if lead.crowd.shows(at, node) {
                continue;
            }
            let follower = takes(lead, &node);
            delta.retain(|(known, ..)| *known != node);
            delta.extend(all.get(&node).map(|held| (node, (*held).clone(), follower)));
        }
    }
    News { whole, delta }
}
