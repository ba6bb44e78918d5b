//! What a flight sees of its node while it handles one input.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::members::Members;
use super::pulls::Pulls;
use super::{Config, Effect, Message, Step};
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::rank;
use crate::core::strain::{self, Strain};

/// The node around a flight, for the length of one input.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) me: NodeId,
    pub(super) config: Config,
    /// How far behind this node is, and what that is measured with.
    pub(super) lag: Duration,
    pub(super) strain: &'a mut Strain,
    /// The others have had time to appear.
    pub(super) settled: bool,
    /// The best rate that a WAN of this site was seen to give, in bytes per second.
    pub(super) wan_best: &'a mut u64,
    pub(super) pulls: &'a mut Pulls,
    pub(super) members: &'a Members,
    pub(super) effects: &'a mut VecDeque<Effect>,
}

impl Context<'_> {
    pub(super) fn act(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// How much longer than usual others have to answer.
    pub(super) fn patience(&self) -> Duration {
        strain::patience(self.lag)
    }

    pub(super) fn send(&mut self, to: NodeId, blob: BlobId, manifest: ManifestId, step: Step) {
        self.act(Effect::Send { to, message: Message { blob, manifest, step } });
    }

    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        self.members.contains(node)
    }

    /// Whether others may still take it for a member, which it was a moment ago.
    pub(super) fn has_just_left(&self, node: &NodeId) -> bool {
        self.members.has_just_left(self.now, node)
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(super) fn weight(&self, node: &NodeId) -> u32 {
        if *node == self.me { self.config.weight } else { self.members.weight(node) }
    }

    /// The best node to lead this blob among the live ones (this one included) that pass. A leech
    /// takes itself only if there is no other.
    pub(super) fn best(&self, blob: &BlobId, pass: impl Fn(&NodeId) -> bool) -> NodeId {
        let mut all: Vec<_> = self.members.weighed().filter(|(node, _)| pass(node)).collect();
        if self.config.shares || all.is_empty() {
            all.push((self.me, self.config.weight));
        }
        rank::rank(blob.as_bytes(), all)[0]
    }

    /// The best of the others that pass.
    pub(super) fn next_best(&self, blob: &BlobId, pass: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        let others = self.members.weighed().filter(|(node, _)| pass(node));
        rank::rank(blob.as_bytes(), others).first().copied()
    }

    pub(super) fn outranks_me(&self, blob: &BlobId, node: &NodeId) -> bool {
        rank::outranks(blob.as_bytes(), (*node, self.weight(node)), (self.me, self.config.weight))
    }
}
