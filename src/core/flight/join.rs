//! Finding a lead: asking the best in rank, and whom it sends this node to.

use std::time::{Duration, Instant};

use super::context::Context;
use super::crowd::CALLS;
use super::haste::Doubts;
use super::members::NOTICE;
use super::state::{Flight, Role};
use super::{Effect, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;

/// A lead that is asked to be followed answers within this; half way it is asked again.
const ANSWER: Duration = Duration::from_millis(1000);
/// A lead that failed is not asked again for so long.
pub(super) const SUSPECT: Duration = Duration::from_secs(10);
/// After so many redirects in a row a node leads by itself.
const REDIRECTS: u32 = 6;

/// Waiting for a lead's first news.
#[derive(Debug)]
pub struct Joining {
    pub(super) lead: NodeId,
    /// The lead is known by name only, and not connected yet.
    pub(super) absent: bool,
    /// It has been asked, and may be late to answer.
    asked: bool,
    again_at: Option<Instant>,
    until: Instant,
    /// This one was asked to lead, and says that it follows another, whom this node has left.
    kept: Option<NodeId>,
}

impl Joining {
    pub(super) fn deadline(&self, patience: Duration, doubts: &Doubts) -> Instant {
        let patience = self.patience(patience, doubts);
        let until = self.until + patience;
        self.again(patience).map_or(until, |again| again.min(until))
    }

    /// How much longer than usual it may take. Doubts are about leads that have been asked: one that cannot be
    /// reached has no more to do for each that cannot either.
    fn patience(&self, patience: Duration, doubts: &Doubts) -> Duration {
        if self.absent { patience } else { patience + doubts.grace() }
    }

    /// When to ask it, or to ask it again.
    fn again(&self, patience: Duration) -> Option<Instant> {
        self.again_at.map(|at| if self.asked { at + patience / 2 } else { at })
    }
}

impl Flight {
    /// The first message of a flight that this node was not part of: somebody wants to follow.
    pub(super) fn on_asked(&mut self, cx: &mut Context, from: NodeId, step: Step) {
        if !cx.config.shares {
            self.over = true;
            return self.on_message(cx, from, step);
        }
        if let Step::Follow { suspects, .. } = &step {
            self.suspect_all(cx, suspects);
        }
        let best = cx.best(&self.blob, |node| !self.is_suspect(cx.now, node));
        if best == cx.me || best == from {
            self.become_lead(cx);
            self.on_message(cx, from, step);
        } else {
            // Nothing ties this node to the flight: the better one will lead it.
            self.say(cx, from, Step::Redirect { to: best, unfit: false });
            self.over = true;
        }
    }

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
        let until = cx.now + pause + ANSWER;
        let asked = !absent && pause.is_zero();
        self.role = Role::Joining(Joining { lead, absent, asked, again_at, until, kept: None });
        if asked {
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

    pub(super) fn is_suspect(&self, now: Instant, node: &NodeId) -> bool {
        self.suspects.get(node).is_some_and(|&until| until > now)
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
            // It may not know yet what we know. The timer of joining asks it again, and at last believes it.
            let until = match &self.role {
                Role::Joining(joining) if joining.kept == Some(to) => joining.until,
                _ => cx.now + ANSWER,
            };
            self.ask_later(cx.now, from, ANSWER / 3, (until, Some(to)));
        } else if cx.has_just_left(&to) {
            self.ask_later(cx.now, from, NOTICE / 3, (cx.now + ANSWER, None));
        } else {
            self.join(cx, to);
        }
    }

    /// Goes on with this lead, which has answered, and asks it once more.
    fn ask_later(
        &mut self,
        now: Instant,
        lead: NodeId,
        pause: Duration,
        (until, kept): (Instant, Option<NodeId>),
    ) {
        let again_at = Some(now + pause);
        self.role = Role::Joining(Joining { lead, absent: false, asked: true, again_at, until, kept });
    }

    pub(super) fn joining_tick(&mut self, cx: &mut Context) {
        let Role::Joining(joining) = &mut self.role else { return };
        let (lead, kept, absent) = (joining.lead, joining.kept, joining.absent);
        let patience = joining.patience(cx.patience(), &self.doubts);
        if joining.again(patience).is_some_and(|at| at <= cx.now) {
            (joining.asked, joining.again_at) = (true, None);
            self.ask_to_follow(cx, lead);
        } else if joining.until + patience <= cx.now {
            if !absent {
                self.doubts.another();
            }
            if let Some(kept) = kept {
                // Who still hears the lead is believed: it was late, and lives.
                self.suspects.remove(&kept);
                return self.join(cx, kept);
            }
            self.suspect(cx, lead);
            self.seek_lead(cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::flight::{Config, Coordinator, Input, Message, Nothing, RoleView, Sources, Urgency};
    use crate::core::id::{BlobId, ManifestId};

    /// Whom it asks to lead, until then.
    fn asks(it: &mut Coordinator, until: Instant) -> Vec<(NodeId, Instant)> {
        let mut asked = Vec::new();
        while let Some(at) = it.deadline().filter(|at| *at <= until) {
            it.handle(at, Input::Tick, &Nothing);
            while let Some(effect) = it.poll() {
                if let Effect::Send { to, message: Message { step: Step::Follow { .. }, .. } } = effect {
                    asked.push((to, at));
                }
            }
        }
        asked
    }

    /// A node that wants a blob, and asks one of these members to lead.
    fn joining(start: Instant, members: &[u8]) -> (Coordinator, BlobId, ManifestId) {
        let config = Config { settle: Duration::ZERO, weight: 0, ..Config::default() };
        let mut it = Coordinator::new(start, NodeId::from_bytes([1; 32]), config);
        for n in members {
            it.handle(start, Input::Joined { node: NodeId::from_bytes([*n; 32]), weight: 100 }, &Nothing);
        }
        let (blob, manifest) = (BlobId::of(b"blob"), ManifestId::of(b"manifest"));
        it.handle(start, Input::Want { blob, manifest, urgency: Urgency::Foreground }, &Nothing);
        (it, blob, manifest)
    }

    #[test]
    fn leads_that_cannot_be_reached_take_no_longer_one_after_the_other() {
        let (mut now, member) = (Instant::now(), NodeId::from_bytes([2; 32]));
        let (mut it, blob, manifest) = joining(now, &[2]);
        while it.poll().is_some() {}
        // It sees one member only, which sends it to others whom it does not.
        for n in 11..11 + REDIRECTS as u8 {
            let step = Step::Redirect { to: NodeId::from_bytes([n; 32]), unfit: false };
            let message = Message { blob, manifest, step };
            it.handle(now, Input::Message { from: member, message }, &Nothing);
            let asked = asks(&mut it, now + ANSWER);
            assert_eq!(asked, [(member, now + ANSWER)], "another {n}");
            now += ANSWER;
        }
    }

    #[test]
    fn who_has_not_noticed_yet_that_a_lead_has_left_is_asked_again_in_a_moment() {
        let now = Instant::now();
        let (mut it, blob, manifest) = joining(now, &[2, 3]);
        let Some(Effect::Send { to: lead, .. }) = it.poll() else { panic!("it asks nobody to lead") };
        it.handle(now, Input::Left { node: lead }, &Nothing);
        let Some(Effect::Send { to: next, .. }) = it.poll() else { panic!("it asks nobody else") };
        let message = Message { blob, manifest, step: Step::Redirect { to: lead, unfit: false } };
        let mut late = now + Duration::from_millis(2);
        it.handle(late, Input::Message { from: next, message: message.clone() }, &Nothing);
        assert_eq!(asks(&mut it, late + NOTICE / 3), [(next, late + NOTICE / 3)]);
        // Later it is believed: it may be this node's connection alone that broke.
        late = now + NOTICE;
        it.handle(late, Input::Message { from: next, message }, &Nothing);
        assert!(matches!(it.poll(), Some(Effect::Connect { nodes }) if nodes == [lead]));
    }

    #[test]
    fn a_lead_that_gives_the_lease_to_its_follower_is_followed_by_it_no_more() {
        let (now, lead) = (Instant::now(), NodeId::from_bytes([2; 32]));
        let (mut it, blob, manifest) = joining(now, &[2]);
        let hears = |it: &mut Coordinator, step| {
            it.handle(
                now,
                Input::Message { from: lead, message: Message { blob, manifest, step } },
                &Nothing,
            );
        };
        let follow = || Step::Follow {
            held: ChunkSet::new(),
            suspects: Vec::new(),
            manifest: false,
            urgency: Urgency::Foreground,
            leech: false,
        };
        // Before it has heard of it, the two may have asked each other: the better rank leads.
        hears(&mut it, follow());
        assert_eq!(it.flights().next().expect("wanted").role, RoleView::Joining);
        hears(&mut it, Step::Sources(Sources::default()));
        assert_eq!(it.flights().next().expect("wanted").role, RoleView::Follower);
        hears(&mut it, follow());
        assert_eq!(it.flights().next().expect("wanted").role, RoleView::Lead);
    }

    #[test]
    fn a_lead_that_others_still_hear_is_gone_back_to_and_given_more_time() {
        let start = Instant::now();
        let (mut it, blob, manifest) = joining(start, &[2, 3]);
        let Some(Effect::Send { to: lead, .. }) = it.poll() else { panic!("it asks nobody to lead") };
        let mut now = start + ANSWER;
        let asked = asks(&mut it, now);
        assert!(asked[0].0 == lead && asked.len() == 2, "once more, then the next in rank: {asked:?}");
        let other = asked[1].0;
        assert_ne!(other, lead);
        // The other hears the lead, and says so whenever it is asked.
        let (mut next, mut answered) = (other, 0);
        while next == other {
            let step = Step::Redirect { to: lead, unfit: false };
            it.handle(
                now,
                Input::Message { from: other, message: Message { blob, manifest, step } },
                &Nothing,
            );
            answered += 1;
            (next, now) = loop {
                let at = it.deadline().expect("it has something to wait for");
                if let Some(asked) = asks(&mut it, at).first() {
                    break *asked;
                }
            };
        }
        assert!(next == lead && answered > 1, "the other may not know yet, and is asked again: {answered}");
        let back = now;
        let given_up = asks(&mut it, back + 10 * ANSWER).into_iter().find(|(node, _)| *node == other);
        let (_, at) = given_up.expect("it is silent for good");
        assert!(at >= back + 3 * ANSWER, "twice in doubt: {:?}", at - back);
    }
}
