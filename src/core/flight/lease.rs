//! Whose lease it is, where two nodes claim it.

use std::time::Duration;

use super::context::Context;
use super::join::SUSPECT;
use super::lead::STALLED;
use super::state::{Flight, Role};
use super::{Effect, Step};
use crate::core::id::NodeId;

/// A lead that should not be one leads for so long at least: two nodes that take each other for the
/// hub would hand the lease to and fro at the speed of light. Its questions wake it by then.
const HOLD: Duration = Duration::from_millis(200);

impl Flight {
    /// To whom the lease should go, if this node should not lead while another can: in a large site
    /// only hubs are connected to all, and two leads at its rim would never hear of each other.
    pub(super) fn heir(&self, cx: &Context) -> Option<NodeId> {
        let Role::Lead(lead) = &self.role else { return None };
        if cx.config.weight > 0 || cx.now < lead.began + HOLD {
            return None;
        }
        let best = cx.best(&self.blob, |node| !self.is_suspect(cx.now, node));
        (cx.weight(&best) > 0).then_some(best)
    }

    /// Hands the lease over as soon as what is under way has come: nothing crosses twice for it.
    pub(super) fn hand_over(&mut self, cx: &mut Context) -> bool {
        let heir = self.heir(cx);
        let idle = matches!(&self.role, Role::Lead(lead) if lead.runs.is_empty());
        if let Some(heir) = heir.filter(|_| idle) {
            self.yield_to(cx, heir);
            return true;
        }
        false
    }

    /// Stops leading at once and follows another.
    pub(super) fn yield_to(&mut self, cx: &mut Context, other: NodeId) {
        self.hand_to(cx, other, false);
    }

    /// A lead whose WAN gives nothing, or little, has the next in rank try, whose WAN may be fine.
    /// Who comes next does not hand it back: it has a pace of its own to fall short of.
    pub(super) fn step_aside(&mut self, cx: &mut Context) {
        let next = cx.next_best(&self.blob, |node| !self.is_suspect(cx.now, node));
        if let Some(next) = next {
            self.hand_to(cx, next, true);
        }
    }

    fn hand_to(&mut self, cx: &mut Context, other: NodeId, unfit: bool) {
        if let Role::Lead(lead) = &self.role {
            if !lead.runs.is_empty() {
                cx.act(Effect::StopWan { blob: self.blob });
            }
            for &follower in lead.followers.keys().filter(|follower| **follower != other) {
                self.say(cx, follower, Step::Redirect { to: other, unfit });
            }
        }
        if self.is_complete() && !self.wanted {
            self.over = true; // it led for others only, and they ask the other one now
        } else {
            if unfit {
                self.suspects.insert(cx.me, cx.now + SUSPECT);
            }
            self.join(cx, other);
        }
    }

    /// Two leads have met, after a partition or an outage: the better rank keeps the lease, unless
    /// its WAN gives nothing.
    pub(super) fn two_leads(&mut self, cx: &mut Context, other: NodeId, stalled: bool) {
        let Role::Lead(lead) = &self.role else { return };
        let stuck = lead.stalled(cx.now) >= STALLED;
        let worse = if stuck == stalled { cx.outranks_me(&self.blob, &other) } else { stuck };
        let yields = worse || !cx.config.shares;
        if yields {
            self.yield_to(cx, other);
        } else {
            self.say(cx, other, Step::Lease { term: self.term });
        }
    }

    /// Somebody else claims the lease.
    pub(super) fn on_lease(&mut self, cx: &mut Context, from: NodeId) {
        match &self.role {
            Role::Lead(lead) => {
                let stuck = lead.stalled(cx.now) >= STALLED;
                if stuck || cx.outranks_me(&self.blob, &from) || !cx.config.shares {
                    self.yield_to(cx, from);
                } else {
                    self.say(cx, from, Step::Lease { term: self.term });
                }
            }
            Role::Following(following) if following.lead != from && !following.is_fresh(cx) => {
                self.join(cx, from);
            }
            _ => {}
        }
    }
}
