//! What the holder of the budget does: hears who could use how much, and shares the limit out.

use std::time::{Duration, Instant};

use super::share::{Asker, share_out};
use super::{Act, Budget, Rates, Word};
use crate::core::id::NodeId;

/// A new holder listens for so long before it shares out anything.
const LISTEN: Duration = Duration::from_millis(300);
/// Who has asked for nothing for so long pulls no more.
const IDLE: Duration = Duration::from_millis(700);

impl Budget {
    pub(super) fn on_ask(&mut self, now: Instant, from: NodeId, demand: Rates, share: Rates) {
        if !self.is_bound() {
            return;
        }
        let known = self.askers.insert(from, Asker { demand, share, heard: now });
        self.askers.retain(|_, asker| now.saturating_duration_since(asker.heard) < IDLE);
        if demand.sum() == 0 {
            self.askers.remove(&from);
        }
        self.share_for(now, |node| node == from || known.is_none());
    }

    /// What there is to share out has changed: everybody is told.
    pub(super) fn share_again(&mut self, now: Instant) {
        self.share_for(now, |_| true);
    }

    /// Those that `wants` names are granted what is theirs; others when theirs changes for the less, at
    /// once.
    fn share_for(&mut self, now: Instant, wants: impl Fn(NodeId) -> bool) {
        // While it listens, everybody goes on with what the holder before granted.
        if self.holder != self.me || (!self.members.is_empty() && now < self.since + LISTEN) {
            return;
        }
        for (node, share) in share_out(self.bounds(), &self.askers) {
            let Some(asker) = self.askers.get_mut(&node) else { continue };
            if wants(node) || asker.share.exceeds(&share) {
                asker.share = share;
                self.grant(now, node, share);
            }
        }
    }

    fn grant(&mut self, now: Instant, node: NodeId, share: Rates) {
        if node == self.me {
            self.keep(now, share);
        } else {
            self.acts.push_back(Act::Say { to: node, word: Word::Grant(share) });
        }
    }
}
