//! Which nodes keep a package that the site is to hold so many copies of.
//!
//! As with leads, nobody decides it for the others: each node ranks all of them for the blob in the
//! same way and finds out for itself whether it is among those that keep it. A node that leaves moves
//! everybody behind it up, and one that comes back lets the last one go, which no message has to say.
//!
//! The rank goes by weight first (a seed before others, mains and wire before battery and radio), and
//! among equals by rendezvous hashing, so that they share the load.

use super::id::NodeId;
use super::orders::Copies;
use super::rank::by_weight;

/// What a node has of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// All of it.
    All,
    /// A part or nothing, and it can have the rest.
    Some,
    /// It has no room, or gets on no more although others hold all of it.
    CannotHave,
}

/// A node that may keep a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mate {
    /// Which.
    pub node: NodeId,
    /// Its weight, as its condition leaves it; one of weight 0 serves nobody, so its copy is none.
    pub weight: u32,
    /// What it has.
    pub has: Has,
}

/// Whether this node is among those that keep the blob of this key.
///
/// It is if fewer nodes before it hold all of the blob than are wanted, and either it holds all
/// itself or those before it that can have it are too few.
pub fn keeps(key: &[u8; 32], me: Mate, others: &[Mate], copies: Copies) -> bool {
    if me.weight == 0 {
        return false;
    }
    let Copies::AtLeast(copies) = copies else { return true };
    let mine = by_weight(key, &me.node, me.weight);
    let before = |it: &&Mate| by_weight(key, &it.node, it.weight) > mine;
    let (mut complete, mut able) = (0, 0);
    for mate in others.iter().filter(|it| it.weight > 0).filter(before) {
        complete += u32::from(mate.has == Has::All);
        able += u32::from(mate.has != Has::CannotHave);
    }
    complete < copies && (me.has == Has::All || able < copies)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn mates(has: &[(u32, Has)]) -> Vec<Mate> {
        let mate = |(n, (weight, has)): (usize, &(u32, Has))| Mate {
            node: NodeId::from_bytes([n as u8; 32]),
            weight: *weight,
            has: *has,
        };
        has.iter().enumerate().map(mate).collect()
    }

    fn keepers(mates: &[Mate], copies: u32) -> Vec<usize> {
        let others = |n: usize| [&mates[..n], &mates[n + 1..]].concat();
        let keeps = |n: &usize| keeps(&KEY, mates[*n], &others(*n), Copies::AtLeast(copies));
        (0..mates.len()).filter(keeps).collect()
    }

    /// What a site comes to, when those that keep it get it.
    fn settle(mates: &mut [Mate], copies: u32) -> Vec<usize> {
        loop {
            let keep = keepers(mates, copies);
            let missing: Vec<usize> = keep.iter().copied().filter(|&n| mates[n].has == Has::Some).collect();
            if missing.is_empty() {
                return keep;
            }
            missing.into_iter().for_each(|n| mates[n].has = Has::All);
        }
    }

    #[test]
    fn heavier_nodes_keep_it_and_leeches_do_not() {
        let mut site =
            mates(&[(100, Has::Some), (400, Has::Some), (0, Has::All), (10, Has::Some), (100, Has::Some)]);
        assert_eq!(settle(&mut site, 1), [1]);
        assert_eq!(settle(&mut site, 3), [0, 1, 4]);
        // The seed is full: another one steps in.
        site[1].has = Has::CannotHave;
        assert_eq!(settle(&mut site, 3), [0, 1, 3, 4], "and the seed goes on trying");
    }

    #[test]
    fn a_copy_that_is_there_is_not_let_go_before_better_ones_are_complete() {
        let mut site = mates(&[(10, Has::All), (100, Has::Some), (100, Has::Some)]);
        let rank = |n: usize| by_weight(&KEY, &site[n].node, site[n].weight);
        assert_eq!(keepers(&site, 1), [0, if rank(1) > rank(2) { 1 } else { 2 }]);
        assert_eq!(settle(&mut site, 1).len(), 1);
    }

    proptest! {
        /// As many copies as are wanted, or as there are nodes that can have one; and never a node that
        /// cannot.
        #[test]
        fn there_are_enough(
            site in proptest::collection::vec((0u32..3, 0u8..3), 1..12),
            copies in 1u32..6,
            lost in any::<prop::sample::Index>(),
        ) {
            let has = |n| [Has::All, Has::Some, Has::CannotHave][usize::from(n)];
            let site: Vec<(u32, Has)> = site.into_iter().map(|(weight, n)| (weight, has(n))).collect();
            let mut site = mates(&site);
            for _ in 0..2 {
                let able = site.iter().filter(|it| it.weight > 0 && it.has != Has::CannotHave).count();
                settle(&mut site, copies);
                let held = site.iter().filter(|it| it.weight > 0 && it.has == Has::All).count();
                prop_assert!(held >= able.min(copies as usize));
                // And again when one is lost.
                site.remove(lost.index(site.len()));
                if site.is_empty() { break }
            }
        }
    }
}
