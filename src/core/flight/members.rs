//! The nodes that this one is connected to, and those that have just left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::id::NodeId;

/// How long until all have noticed that a node has left, as this one has. What others say of it in the
/// meantime is old.
pub(super) const NOTICE: Duration = Duration::from_millis(150);

#[derive(Debug, Default)]
pub(super) struct Members {
    weights: BTreeMap<NodeId, u32>,
    left: BTreeMap<NodeId, Instant>,
}

impl Members {
    /// True if it is new.
    pub(super) fn join(&mut self, node: NodeId, weight: u32) -> bool {
        self.left.remove(&node);
        self.weights.insert(node, weight).is_none()
    }

    /// True if it was there.
    pub(super) fn leave(&mut self, now: Instant, node: NodeId) -> bool {
        let was = self.weights.remove(&node).is_some();
        self.left.retain(|_, left| now < *left + NOTICE);
        if was {
            self.left.insert(node, now);
        }
        was
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.weights.contains_key(node)
    }

    /// Whether it was there a moment ago, so that others may not know yet that it has left.
    pub(super) fn has_just_left(&self, now: Instant, node: &NodeId) -> bool {
        self.left.get(node).is_some_and(|left| now < *left + NOTICE)
    }

    /// 0 for who is not there.
    pub(super) fn weight(&self, node: &NodeId) -> u32 {
        self.weights.get(node).copied().unwrap_or(0)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.weights.keys().copied()
    }

    /// With their weights.
    pub(super) fn weighed(&self) -> impl Iterator<Item = (NodeId, u32)> {
        self.weights.iter().map(|(node, weight)| (*node, *weight))
    }
}
