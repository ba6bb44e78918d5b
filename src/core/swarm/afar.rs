//! Nodes that the lead tells of and that this node is not connected to.
//!
//! They are no sources, so nothing is asked of them and nothing of theirs counts as held within
//! reach. But they are takers like the others, and what they hold is known when they are met.

use std::time::Instant;

use super::Swarm;
use crate::core::chunkset::ChunkSet;
use crate::core::id::NodeId;

/// The most that are kept: twice what an honest lead tells of.
const MOST: usize = 64;

impl Swarm {
    /// Notes what a node far away holds: all of it, or more than was known.
    pub fn note_afar(&mut self, node: NodeId, held: &ChunkSet, follower: bool, all: bool) {
        if self.afar.len() >= MOST && !self.afar.contains_key(&node) {
            return;
        }
        let known = self.afar.entry(node).or_default();
        known.1 = follower;
        if all {
            known.0 = held.clone();
        } else {
            known.0.union_with(held);
        }
    }

    /// The nodes that are far away: first those that take chunks too, then those that only hold some.
    pub fn afar(&self) -> impl Iterator<Item = NodeId> {
        let of = |kind: bool| self.afar.iter().filter(move |(_, (_, follower))| *follower == kind);
        of(true).chain(of(false)).map(|(node, _)| *node)
    }

    /// A node can be talked to from now on.
    pub fn meet(&mut self, now: Instant, node: NodeId) {
        if let Some((held, follower)) = self.afar.remove(&node) {
            self.add(now, node, &held, follower);
        }
    }

    /// Forgets all of them.
    pub fn forget_afar(&mut self) {
        self.afar.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_far_away_is_no_source_until_it_is_met() {
        let (now, node) = (Instant::now(), NodeId::from_bytes([1; 32]));
        let mut swarm = Swarm::default();
        swarm.note_afar(node, &ChunkSet::full(3), true, true);
        swarm.note_afar(node, &[7].into_iter().collect(), true, false);
        assert!(swarm.covered().is_empty() && swarm.afar().eq([node]));
        swarm.meet(now, node);
        assert_eq!((swarm.covered().len(), swarm.afar().count()), (4, 0));
        swarm.remove(&node);
        assert!(swarm.covered().is_empty());
        (0..=255).for_each(|n| swarm.note_afar(NodeId::from_bytes([n; 32]), &ChunkSet::new(), false, false));
        assert_eq!(swarm.afar().count(), MOST);
    }
}
