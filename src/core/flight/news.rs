//! What a lead tells its followers: who holds what, and that it lives.

use super::context::Context;
use super::lead::{BEAT, Lead};
use super::state::{Flight, Role};
use super::{Effect, Failure, FailureKind, Sources, Step};
use crate::core::id::NodeId;

impl Flight {
    /// Tells the followers what is new: all at once to those who know nothing yet.
    pub(super) fn send_news(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &mut self.role else { return };
        let news_due = lead.news_at.is_some_and(|at| at <= cx.now);
        if !news_due && lead.beat_at > cx.now {
            return;
        }
        lead.news_at = None;
        lead.beat_at = cx.now + BEAT;
        let news = std::mem::take(&mut lead.news);
        let gone = std::mem::take(&mut lead.gone);
        let follows = |node: &NodeId, lead: &Lead| lead.passes_on(node);
        let delta: Vec<_> = news.into_iter().map(|(node, held)| (node, held, follows(&node, lead))).collect();
        let mut whole: Vec<_> =
            self.swarm.sources().map(|(node, held, _)| (node, held.clone(), follows(&node, lead))).collect();
        whole.push((cx.me, self.held.clone(), false));
        let (pulling, stalled) = (lead.pulling(), lead.stalled(cx.now).as_millis() as u64);
        for (follower, told) in &mut lead.followers {
            told.number += 1;
            let (nodes, gone) =
                if told.whole { (delta.clone(), gone.clone()) } else { (whole.clone(), Vec::new()) };
            let sources = Sources {
                term: self.term,
                number: told.number,
                whole: !std::mem::replace(&mut told.whole, true),
                nodes,
                gone,
                pulling: pulling.clone(),
                stalled_ms: stalled,
                wan_best: *cx.wan_best,
                manifest: self.manifest.is_some(),
                failed: None,
                unfit: false,
                small: None, // whoever sends it has the content, and adds it
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
