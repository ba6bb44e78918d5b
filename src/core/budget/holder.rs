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
        let Some(limit) = self.limit() else { return };
        let known = self.askers.insert(from, Asker { demand, share, heard: now });
        self.askers.retain(|_, asker| now.saturating_duration_since(asker.heard) < IDLE);
        if demand.sum() == 0 {
            self.askers.remove(&from);
        }
        // While it listens, everybody goes on with what the holder before granted.
        if self.holder != self.me || (!self.members.is_empty() && now < self.since + LISTEN) {
            return;
        }
        let shares = share_out(limit, &self.askers);
        for (node, share) in shares {
            let Some(asker) = self.askers.get_mut(&node) else { continue };
            // The asker always; others when theirs changes for the less, at once.
            let less = share.foreground < asker.share.foreground || share.background < asker.share.background;
            if node == from || less || known.is_none() {
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
