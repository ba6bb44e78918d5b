//! What this node has had to do with each member: how fast it answers, and what went wrong.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::NodeId;

/// Members that are remembered; the ones that gave least are forgotten first.
const MOST: usize = 1024;
/// How much of the shown rate is the newest batch's.
const NEWEST: f64 = 0.3;

/// Of one member, since this agent started.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Dealings {
    /// Bytes per second of one batch from it, smoothed.
    pub rate: u64,
    /// Content that came from it, in bytes.
    pub received: u64,
    /// Content that it was sent, in bytes.
    pub sent: u64,
    /// Batches that it answered.
    pub answers: u64,
    /// Times that it had no upload slot free.
    pub busy: u64,
    /// Batches that were taken from it because it was slow.
    pub slow: u64,
    /// Batches that broke off, or were wrong.
    pub faults: u64,
}

/// How a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Busy,
    Slow,
    Fault,
}

/// Of all members.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    members: Mutex<HashMap<NodeId, Dealings>>,
}

impl Ledger {
    fn members(&self) -> MutexGuard<'_, HashMap<NodeId, Dealings>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, node: NodeId, change: impl FnOnce(&mut Dealings)) {
        let mut members = self.members();
        if members.len() >= MOST && !members.contains_key(&node) {
            let least = members.iter().min_by_key(|(_, it)| it.received + it.sent).map(|(node, _)| *node);
            least.and_then(|node| members.remove(&node));
        }
        change(members.entry(node).or_default());
    }

    /// A batch from a member ended.
    pub(super) fn batch(&self, node: NodeId, outcome: Outcome, bytes: u64, took: Duration) {
        self.change(node, |it| {
            it.received += bytes;
            match outcome {
                Outcome::Answered => it.answers += 1,
                Outcome::Busy => it.busy += 1,
                Outcome::Slow => it.slow += 1,
                Outcome::Fault => it.faults += 1,
            }
            if bytes > 0 {
                let rate = bytes as f64 / took.as_secs_f64().max(1e-4);
                let before = if it.rate == 0 { rate } else { it.rate as f64 };
                it.rate = (before + NEWEST * (rate - before)) as u64;
            }
        });
    }

    /// A member sent a small blob with its news.
    pub(super) fn inline(&self, node: NodeId, bytes: u64) {
        self.change(node, |it| {
            it.received += bytes;
            it.answers += 1;
        });
    }

    /// A member was sent content.
    pub(super) fn sent(&self, node: NodeId, bytes: u64) {
        self.change(node, |it| it.sent += bytes);
    }

    /// What is known of a member.
    pub(super) fn with(&self, node: &NodeId) -> Dealings {
        self.members().get(node).copied().unwrap_or_default()
    }
}
