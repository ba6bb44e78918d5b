//! Which nodes of a large site hold it together.
//!
//! Up to [`MESH`] nodes all are connected to all. Above it each keeps to the [`HUBS`] best of a
//! ranking that all nodes compute alike ([`rank::by_weight`], one key for the whole site, with the weights
//! that rank leads: seeds come first and laptops on battery last). So a node has about sixteen
//! connections, and only a hub as many as there are nodes. Nothing is voted
//! on: nodes that know of the same others choose the same hubs, and hubs, which meet everybody,
//! tell of each other. Two nodes that disagree for a while cost a redirect, not a wrong byte.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::id::NodeId;
use super::rank;

/// Up to so many nodes, all are connected to all: 47 connections each.
pub const MESH: usize = 48;
/// Hubs of a larger site. Enough that the loss of some is nothing, few enough that their links to
/// each other and to everybody are cheap.
pub const HUBS: usize = 16;
/// A site that has shrunk to this is a mesh again: a quarter below [`MESH`], so that one that hovers
/// there does not change its shape all the time.
pub const SMALL: usize = MESH * 3 / 4;
/// A candidate whose dials failed so often is passed over until it is reached.
pub const FAILED: u32 = 2;

/// Whether a site of so many nodes has hubs, where it had them before or not.
pub fn is_large(nodes: usize, before: bool) -> bool {
    nodes > if before { SMALL } else { MESH }
}

/// What a node takes from the ranking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The hubs: the best that can be reached.
    pub hubs: BTreeSet<NodeId>,
    /// Whom to connect to: the hubs, and those that would be hubs if they could be reached.
    pub near: BTreeSet<NodeId>,
}

/// Chooses so many hubs among the nodes, each with its weight and whether it can be reached.
pub fn choose(nodes: impl IntoIterator<Item = (NodeId, u32, bool)>, places: usize) -> Choice {
    let mut choice = Choice::default();
    for (node, reached) in best_first(nodes) {
        if choice.hubs.len() >= places {
            break;
        }
        choice.near.insert(node);
        if reached {
            choice.hubs.insert(node);
        }
    }
    choice
}

/// The nodes in the order in which they become hubs, each with its weight and what came with it.
pub fn best_first<T>(nodes: impl IntoIterator<Item = (NodeId, u32, T)>) -> Vec<(NodeId, T)> {
    let key = *blake3::hash(b"branchline hubs").as_bytes();
    let mut nodes: Vec<(NodeId, u32, T)> = nodes.into_iter().collect();
    nodes.sort_by_cached_key(|(node, weight, _)| Reverse(rank::by_weight(&key, node, *weight)));
    nodes.into_iter().map(|(node, _, with)| (node, with)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> impl Iterator<Item = NodeId> {
        (0..count).map(|n| NodeId::from_bytes([n; 32]))
    }

    #[test]
    fn all_choose_alike_and_a_newcomer_moves_one_at_most() {
        let choice = choose(nodes(200).map(|node| (node, 100, true)), HUBS);
        assert_eq!((choice.hubs.len(), &choice.near), (HUBS, &choice.hubs));
        let mut backwards: Vec<NodeId> = nodes(200).collect();
        backwards.reverse();
        assert_eq!(choose(backwards.into_iter().map(|node| (node, 100, true)), HUBS), choice);
        let more = choose(nodes(201).map(|node| (node, 100, true)), HUBS);
        assert!(choice.hubs.difference(&more.hubs).count() <= 1);
    }

    #[test]
    fn the_dead_take_no_places_and_are_still_dialed() {
        let all = choose(nodes(100).map(|node| (node, 100, true)), HUBS);
        let dead: BTreeSet<NodeId> = all.hubs.iter().copied().take(5).collect();
        let choice = choose(nodes(100).map(|node| (node, 100, !dead.contains(&node))), HUBS);
        assert_eq!(choice.hubs.len(), HUBS);
        assert!(choice.hubs.is_disjoint(&dead) && dead.is_subset(&choice.near));
        let few = choose(nodes(5).map(|node| (node, 100, true)), HUBS);
        assert_eq!(few.hubs.len(), 5);
    }

    #[test]
    fn seeds_come_first_and_who_must_not_lead_last() {
        let weight = |node: &NodeId| match node.as_bytes()[0] {
            0..4 => 101,
            4..80 => 100,
            _ => 0,
        };
        let hubs = choose(nodes(100).map(|node| (node, weight(&node), true)), HUBS).hubs;
        assert!(nodes(4).all(|seed| hubs.contains(&seed)));
        assert!(hubs.iter().all(|node| weight(node) > 0));
    }

    #[test]
    fn the_shape_does_not_flap() {
        assert!(!is_large(MESH, false) && is_large(MESH + 1, false));
        assert!(is_large(SMALL + 1, true) && !is_large(SMALL, true));
    }
}
