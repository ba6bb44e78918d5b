//! What the holder of the budget does: hears who could use how much, and shares the limit out.

use std::time::{Duration, Instant};

use super::share::{Asker, share_out};
use super::{Act, Budget, Rates, Word};
use crate::core::id::NodeId;

/// A new holder listens for so long before it shares out anything, if it has not heard all before. Others
/// may have noticed so much sooner that it is.
pub(super) const LISTEN: Duration = Duration::from_millis(300);
/// Who has asked for nothing for so long pulls no more.
const IDLE: Duration = Duration::from_millis(700);

impl Budget {
    pub(super) fn on_ask(&mut self, now: Instant, from: NodeId, demand: Rates, share: Rates) {
        if !self.is_bound() {
            return;
        }
        let listened = self.listens(now);
        self.told.insert(from, now);
        let known = self.askers.insert(from, Asker { demand, share, heard: now });
        self.askers.retain(|_, asker| now.saturating_duration_since(asker.heard) < IDLE);
        if demand.sum() == 0 {
            self.askers.remove(&from);
        }
        self.share_for(now, |node| node == from || known.is_none() || listened);
    }

    /// Whether it waits for others to say what they go by.
    fn listens(&self, now: Instant) -> bool {
        now < self.since + LISTEN && !self.members.keys().all(|node| self.told.contains_key(node))
    }

    /// This node may have become the holder: who knew that before it has said so of late.
    pub(super) fn forget_what_is_old(&mut self, now: Instant) {
        let is_new = |at: Instant| now.saturating_duration_since(at) < LISTEN;
        self.told.retain(|_, at| is_new(*at));
        self.askers.retain(|_, asker| is_new(asker.heard));
    }

    /// What there is to share out has changed: everybody is told.
    pub(super) fn share_again(&mut self, now: Instant) {
        self.share_for(now, |_| true);
    }

    /// Those that `wants` names are granted what is theirs; others when theirs changes for the less, at
    /// once.
    fn share_for(&mut self, now: Instant, wants: impl Fn(NodeId) -> bool) {
        // While it listens, everybody goes on with what the holder before granted.
        if self.holder != self.me || self.listens(now) {
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
