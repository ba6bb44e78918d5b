//! What a leech does differently: it takes, and gives nothing.
//!
//! It follows like others, and says of nothing that it holds it, so nobody takes it for a source.
//! It leads nobody: whoever asks it to is sent elsewhere. When nobody else can lead, it pulls for
//! itself alone, which is no lease: it never claims one, and stops as soon as another node leads.
//! What a leech has pulled is not the site's, and so crosses again when others want it.

use std::time::Duration;

use super::context::Context;
use super::lead::{Lead, STALLED};
use super::state::{Flight, Role};
use super::{Holding, Sources, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;

impl Lead {
    /// A follower that hands on what it gets.
    pub(super) fn passes_on(&self, node: &NodeId) -> bool {
        self.followers.get(node).is_some_and(|told| !told.leech)
    }
}

impl Flight {
    /// A lead notes whether a follower hands on what it gets: a leech is nobody's first taker.
    pub(super) fn note_leech(&mut self, cx: &Context, from: NodeId, leech: bool) {
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(told) = lead.followers.get_mut(&from) else { return };
        told.leech = leech;
        self.swarm.add(cx.now, from, &ChunkSet::new(), !leech);
    }

    /// Somebody wants to follow this leech.
    pub(super) fn refuse_follower(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        suspects: &[NodeId],
        leech: bool,
    ) {
        if leech {
            self.suspect(cx, from); // it would refuse as well
        }
        let step = match self.lead() {
            Some(lead) if lead != from && !suspects.contains(&lead) => {
                Step::Redirect { to: lead, unfit: false }
            }
            _ => {
                let failed = Some("it is a leech, and leads nobody".to_owned());
                Step::Sources(Sources { term: self.term, failed, unfit: true, ..Sources::default() })
            }
        };
        self.say(cx, from, step);
    }

    /// Somebody is about to lead. That is what a leech that pulls for itself waits for.
    pub(super) fn answer_as_leech(&mut self, cx: &mut Context, from: NodeId) {
        if matches!(self.role, Role::Lead(_)) && !self.is_suspect(cx.now, &from) {
            return self.yield_to(cx, from); // its Follow is the answer
        }
        let lead = match &self.role {
            Role::Following(following) if following.is_fresh(cx) => Some(following.lead),
            _ => None,
        };
        let lead = lead.filter(|lead| *lead != from);
        self.say(cx, from, Step::Holding(Holding { lead, term: self.term, ..Holding::default() }));
    }

    /// A lead takes this leech, which pulls for itself, for a follower still.
    pub(super) fn hear_lead_as_leech(&mut self, cx: &mut Context, from: NodeId, sources: &Sources) {
        if sources.failed.is_some() {
            return;
        }
        if Duration::from_millis(sources.stalled_ms) < STALLED {
            self.suspects.remove(&from); // it was out of sight only
            self.yield_to(cx, from);
        } else {
            self.say(cx, from, Step::Leave { complete: false });
        }
    }

    /// Nobody leads, as all have said. Before a leech pulls, it asks another to lead.
    pub(super) fn look_beyond_itself(&mut self, cx: &mut Context) {
        let best = cx.best(&self.blob, |node| !self.is_suspect(cx.now, node));
        // Those who could lead may not agree who does, and send it from one to the other.
        if best != cx.me && !self.pulls && !self.is_complete() && !self.haste.is_in_vain() {
            self.yield_to(cx, best);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::{Config, Coordinator, Effect, Input, Message, Shelf, Urgency};
    use super::*;
    use crate::core::id::{BlobId, ChunkId, PackId};
    use crate::core::manifest::{Chunk, Manifest};

    /// It holds the whole blob, or nothing.
    struct Held(Option<Arc<Manifest>>);

    impl Shelf for Held {
        fn holding(&self, _: &BlobId) -> Option<(Arc<Manifest>, ChunkSet)> {
            self.0.clone().map(|manifest| (manifest.clone(), ChunkSet::full(manifest.count())))
        }
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn manifest() -> Arc<Manifest> {
        let chunk =
            Chunk { id: ChunkId::of(b"0"), offset: 0, length: 1000, pack: 0, pack_offset: 0, stored: 1000 };
        let built = Manifest::build(BlobId::of(b""), [0; 32], vec![PackId::of(b"")], &[chunk]);
        Arc::new(built.expect("consistent"))
    }

    /// A node of this id among members, each with its weight.
    fn coordinator(now: Instant, me: u8, shares: bool, members: &[(u8, u32)]) -> Coordinator {
        let config = Config {
            weight: if shares { 100 } else { 0 },
            shares,
            settle: Duration::ZERO,
            ..Config::default()
        };
        let mut coordinator = Coordinator::new(now, node(me), config);
        for (member, weight) in members {
            let joined = Input::Joined { node: node(*member), weight: *weight };
            coordinator.handle(now, joined, &Held(None));
        }
        coordinator
    }

    fn hear(it: &mut Coordinator, now: Instant, from: u8, step: Step, shelf: &Held) {
        let (blob, manifest) = (manifest().blob(), manifest().id());
        let message = Message { blob, manifest, step };
        it.handle(now, Input::Message { from: node(from), message }, shelf);
    }

    fn want(it: &mut Coordinator, now: Instant) {
        let (blob, manifest) = (manifest().blob(), manifest().id());
        it.handle(now, Input::Want { blob, manifest, urgency: Urgency::Foreground }, &Held(None));
    }

    /// What it says now, and to whom.
    fn said(it: &mut Coordinator) -> Vec<(NodeId, Step)> {
        let effects: Vec<Effect> = std::iter::from_fn(|| it.poll()).collect();
        let said = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to, message } => Some((to, message.step)),
            _ => None,
        });
        said.collect()
    }

    fn follow(leech: bool) -> Step {
        Step::Follow {
            held: ChunkSet::new(),
            suspects: Vec::new(),
            manifest: false,
            urgency: Urgency::Foreground,
            leech,
        }
    }

    #[test]
    fn a_leech_neither_says_what_it_holds_nor_leads() {
        let now = Instant::now();
        let mut leech = coordinator(now, 1, false, &[(2, 100)]);
        let shelf = Held(Some(manifest()));
        hear(&mut leech, now, 2, Step::WhoHas { term: 1 }, &shelf);
        assert_eq!(said(&mut leech), [(node(2), Step::Holding(Holding::default()))]);
        hear(&mut leech, now, 2, follow(false), &shelf);
        let answer = said(&mut leech);
        assert!(
            matches!(&answer[..], [(_, Step::Sources(sources))] if sources.unfit && sources.failed.is_some()),
            "{answer:?}"
        );
        assert_eq!(leech.flights().count(), 0, "the asker's flight is none of its own");
    }

    #[test]
    fn a_leech_follows_without_a_word_of_what_it_holds() {
        let now = Instant::now();
        let mut leech = coordinator(now, 1, false, &[(2, 100), (3, 0)]);
        want(&mut leech, now);
        assert_eq!(said(&mut leech), [(node(2), follow(true))], "it asks one who can lead");
        let (blob, manifest) = (manifest().blob(), manifest());
        let news = Sources { number: 1, whole: true, manifest: true, ..Sources::default() };
        hear(&mut leech, now, 2, Step::Sources(news), &Held(None));
        leech.handle(now, Input::Manifest { blob, result: Ok((manifest, ChunkSet::new())) }, &Held(None));
        assert_eq!(said(&mut leech), []);
        // Who asks it to lead meanwhile is sent to its lead, another leech too.
        hear(&mut leech, now, 3, follow(true), &Held(None));
        assert_eq!(said(&mut leech), [(node(3), Step::Redirect { to: node(2), unfit: false })]);
        leech.handle(now, Input::Stored { blob, chunks: vec![0] }, &Held(None));
        assert_eq!(said(&mut leech), [(node(2), Step::Leave { complete: false })]);
    }

    #[test]
    fn a_leech_that_pulls_for_itself_stops_when_another_leads() {
        let now = Instant::now();
        let mut leech = coordinator(now, 1, false, &[]);
        want(&mut leech, now);
        leech.handle(now, Input::Tick, &Held(None));
        leech.handle(now, Input::Joined { node: node(2), weight: 100 }, &Held(None));
        said(&mut leech);
        hear(&mut leech, now, 2, Step::WhoHas { term: 1 }, &Held(None));
        assert_eq!(said(&mut leech), [(node(2), follow(true))]);
    }

    #[test]
    fn a_lead_lists_a_leech_as_no_first_taker() {
        let now = Instant::now();
        let mut lead = coordinator(now, 1, true, &[(2, 0), (3, 100)]);
        lead.handle(now, Input::Weight { weight: 1_000_000 }, &Held(None));
        hear(&mut lead, now, 2, follow(true), &Held(None));
        hear(&mut lead, now, 3, follow(false), &Held(None));
        let said = said(&mut lead);
        let last = said.iter().rev().find_map(|(to, step)| match step {
            Step::Sources(sources) if *to == node(3) => Some(sources.clone()),
            _ => None,
        });
        let listed = last.expect("news").nodes;
        let follower = |n| listed.iter().find(|(it, ..)| *it == node(n)).map(|(.., follower)| *follower);
        assert_eq!((follower(2), follower(3)), (Some(false), Some(true)));
    }
}
