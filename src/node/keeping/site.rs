//! What the other nodes have of what is to be kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::neighbours::Inventory;
use crate::core::id::{BlobId, NodeId};
use crate::core::keeping::{Has, Mate};
use crate::net::Contact;

/// A node that gets no more bytes for so long, while others hold all of it, is not waited for.
const STUCK: Duration = Duration::from_secs(40);

/// What a node has of a blob that is to be kept, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::node) struct Keeping {
    pub(super) blob: BlobId,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    /// Why it cannot have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refuses: Option<String>,
}

#[derive(Debug)]
struct Known {
    keeping: Keeping,
    /// Since when its bytes have not changed.
    since: Instant,
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
    pub(super) fn heard(&mut self, inventories: &[(String, Inventory)]) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.known);
        for (node, inventory) in inventories {
            let Ok(node) = node.parse::<NodeId>() else { continue };
            for keeping in &inventory.keeps {
                let key = (node, keeping.blob);
                let same = before.get(&key).filter(|known| known.keeping.bytes == keeping.bytes);
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
    pub(super) fn of(&self, blob: &BlobId, complete_here: bool) -> Vec<Mate> {
        let somebody = complete_here || self.complete(blob) > 0;
        let has = |node: &NodeId| match self.known.get(&(*node, *blob)) {
            Some(known) if known.keeping.complete => Has::All,
            Some(known) if known.keeping.refuses.is_some() => Has::CannotHave,
            Some(known) if somebody && known.since.elapsed() > STUCK => Has::CannotHave,
            _ => Has::Some,
        };
        self.nodes
            .iter()
            .map(|(node, weight)| Mate { node: *node, weight: *weight, has: has(node) })
            .collect()
    }
}
