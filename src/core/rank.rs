//! Who leads: weighted rendezvous hashing.
//!
//! Every node ranks the live nodes for a key by itself and comes to the same order, so a lead is
//! agreed on without a vote, and a node that joins or leaves moves only the keys that it wins or
//! held. Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"; the
//! weighting by `-weight / ln(hash)` keeps each node's share proportional to its weight.

use super::id::NodeId;

/// A node's score for a key; the highest leads. `weight` 0 ranks below all others.
pub fn score(key: &[u8; 32], node: &NodeId, weight: u32) -> f64 {
    if weight == 0 {
        return 0.0;
    }
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(node.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // 53 bits, in the open interval (0, 1).
    let unit = ((u64::from_le_bytes(head) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(weight) / unit.ln()
}

/// The nodes, best first. Ties (two of weight 0) go by id.
pub fn rank(key: &[u8; 32], nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Vec<NodeId> {
    let mut scored: Vec<(f64, NodeId)> =
        nodes.into_iter().map(|(node, weight)| (score(key, &node, weight), node)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, node)| node).collect()
}

/// Whether `a` ranks before `b`; each with its weight.
pub fn outranks(key: &[u8; 32], a: (NodeId, u32), b: (NodeId, u32)) -> bool {
    let (mine, theirs) = (score(key, &a.0, a.1), score(key, &b.0, b.1));
    mine.total_cmp(&theirs).then(b.0.cmp(&a.0)).is_gt()
}

/// Where a node stands for a key if weight goes before all else, and rendezvous hashing decides among
/// equals: the greater one goes first.
pub fn by_weight(key: &[u8; 32], node: &NodeId, weight: u32) -> impl Ord + use<> {
    // Scores of one weight are positive, and as such in the order of their bits.
    (weight, score(key, node, 1).to_bits(), *node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn weight_sets_the_share() {
        let nodes = [(node(1), 1), (node(2), 3), (node(3), 0)];
        let mut first = [0; 4];
        for key in 0..4000u32 {
            let order = rank(blake3::hash(&key.to_le_bytes()).as_bytes(), nodes);
            first[order[0].as_bytes()[0] as usize] += 1;
            assert_eq!(order[2], node(3));
        }
        assert!((2800..3200).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn a_leaver_moves_nobody_else() {
        for key in 0..200u32 {
            let key = *blake3::hash(&key.to_le_bytes()).as_bytes();
            let all = rank(&key, (1..9).map(|n| (node(n), 1)));
            let without: Vec<_> = all.iter().copied().filter(|&n| n != node(4)).collect();
            assert_eq!(rank(&key, (1..9).filter(|&n| n != 4).map(|n| (node(n), 1))), without);
            assert!(outranks(&key, (all[0], 1), (all[1], 1)));
        }
    }
}
