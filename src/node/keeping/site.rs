//! What the other nodes have of what is to be kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::neighbours::Inventory;
use crate::core::id::{BlobId, NodeId};
use crate::core::keeping::{Has, Mate};
use crate::net::Contact;

/// A node that tries, and gets no more bytes for so long while others hold all of it, is not waited for.
const STUCK: Duration = Duration::from_secs(40);

/// What a node has of a blob that is to be kept, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::node) struct Keeping {
    pub(super) blob: BlobId,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    /// It is to have it, as far as it knows.
    #[serde(default)]
    pub(super) tries: bool,
    /// Why it cannot have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refuses: Option<String>,
}

#[derive(Debug)]
struct Known {
    keeping: Keeping,
    /// Since when its bytes have not changed, nor whether it tries.
    since: Instant,
}

impl Known {
    fn is_as(&self, keeping: &Keeping) -> bool {
        (self.keeping.bytes, self.keeping.tries) == (keeping.bytes, keeping.tries)
    }

    /// A node that was not to have it before somebody was lost is no reason not to wait for it now.
    fn is_stuck(&self, now: Instant) -> bool {
        self.keeping.tries && now.saturating_duration_since(self.since) > STUCK
    }
}

/// The other nodes, as they were last heard of.
#[derive(Debug, Default)]
pub(super) struct Mates {
    /// With their weight.
    nodes: Vec<(NodeId, u32)>,
    known: HashMap<(NodeId, BlobId), Known>,
}

impl Mates {
    /// These are connected, and their weights.
    pub(super) fn are(&mut self, contacts: &[Contact]) {
        self.nodes = contacts.iter().map(|contact| (contact.node, contact.weight())).collect();
        let here = |node: &NodeId| self.nodes.iter().any(|(it, _)| it == node);
        self.known.retain(|(node, _), _| here(node));
    }

    /// What they say that they have.
    pub(super) fn heard(&mut self, now: Instant, inventories: &[(String, Inventory)]) {
        let before = std::mem::take(&mut self.known);
        for (node, inventory) in inventories {
            let Ok(node) = node.parse::<NodeId>() else { continue };
            for keeping in &inventory.keeps {
                let key = (node, keeping.blob);
                let same = before.get(&key).filter(|known| known.is_as(keeping));
                let since = same.map_or(now, |known| known.since);
                self.known.insert(key, Known { keeping: keeping.clone(), since });
            }
        }
    }

    /// How many of them hold all of a blob, and serve it.
    pub(super) fn complete(&self, blob: &BlobId) -> usize {
        let complete = |(node, weight): &&(NodeId, u32)| {
            *weight > 0 && self.known.get(&(*node, *blob)).is_some_and(|known| known.keeping.complete)
        };
        self.nodes.iter().filter(complete).count()
    }

    /// All of them, as they stand to a blob.
    pub(super) fn of(&self, now: Instant, blob: &BlobId, complete_here: bool) -> Vec<Mate> {
        let somebody = complete_here || self.complete(blob) > 0;
        let has = |node: &NodeId| match self.known.get(&(*node, *blob)) {
            Some(known) if known.keeping.complete => Has::All,
            Some(known) if known.keeping.refuses.is_some() => Has::CannotHave,
            Some(known) if somebody && known.is_stuck(now) => Has::CannotHave,
            _ => Has::Some,
        };
        self.nodes
            .iter()
            .map(|(node, weight)| Mate { node: *node, weight: *weight, has: has(node) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_tries_can_be_stuck() {
        let (blob, start) = (BlobId::of(b"office"), Instant::now());
        let node = |n: u8| NodeId::from_bytes([n; 32]);
        let mut mates = Mates { nodes: (0..4).map(|n| (node(n), 100)).collect(), known: HashMap::new() };
        let told = |tries, bytes| Keeping { blob, bytes, complete: bytes == 9, tries, refuses: None };
        let inventory = |keeping: Keeping| Inventory { keeps: vec![keeping], ..Inventory::default() };
        let all = |tries| {
            let told = [told(true, 9), told(tries, 0), told(false, 0), told(true, 3)];
            told.into_iter().zip(0..).map(|(it, n)| (node(n).to_string(), inventory(it))).collect::<Vec<_>>()
        };
        let has =
            |mates: &Mates, now| mates.of(now, &blob, false).iter().map(|mate| mate.has).collect::<Vec<_>>();
        mates.heard(start, &all(false));
        let later = start + 2 * STUCK;
        assert_eq!(has(&mates, later), [Has::All, Has::Some, Has::Some, Has::CannotHave]);
        // The second one's turn has come, just now.
        mates.heard(later, &all(true));
        assert_eq!(has(&mates, later), [Has::All, Has::Some, Has::Some, Has::CannotHave]);
        assert_eq!(has(&mates, later + 2 * STUCK), [Has::All, Has::CannotHave, Has::Some, Has::CannotHave]);
    }
}
