//! Whom each follower of a crowded flight is told of.
//!
//! News of N nodes to F followers are F * N entries a tick: 62,500 for a site of 250. So beyond
//! [`WIDE`] followers each belongs to a group of at most [`GROUP`], and is told of its group, of
//! [`HOLDERS`] nodes that hold chunks already, of [`BRIDGES`] hubs that follow too, and of the
//! lead: at most 25 entries a message, whatever N is. Everybody is connected to the hubs, so chunks
//! come over those bridges before the neighbours have met, and cross from group to group. All of a
//! group know the same takers, so each chunk leaves the lead once a group. Places are given in the
//! order of coming, and nobody is ever moved: a leaver's place is taken by the next who comes, and
//! the neighbours of the others stay.
//!
//! What each message costs, at 250 followers and some 12 bytes a chunk set in its usual shape:
//! - `Sources`: 25 entries of 50 bytes, so 1 KB, at most every 260 ms to each: 1 MB/s leaves a lead
//!   whose flight is in full swing, and 0.1 MB/s (beats of 200 bytes) when nothing is new.
//! - `Have`: 100 bytes at most every 245 ms from each: 0.1 MB/s comes in.
//! - `WhoHas` and `Holding`: 100 bytes to and 130 from each member, once a flight and once for each
//!   holder that is lost: 60 KB.
//! - `Follow`: as `Have`, once and then every 5 s from each; its answer is one `Sources`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::id::NodeId;

/// Up to so many followers, everybody is told of everybody.
const WIDE: usize = 20;
/// Followers that are told of each other.
const GROUP: usize = 16;
/// Nodes that follow no more, or never did, and hold chunks: told of to each group.
const HOLDERS: usize = 4;
/// Hubs that follow, told of to each group besides its own: sources, and no takers of it.
const BRIDGES: usize = 4;
/// The most whom a follower connects to for one flight: its group, and the holders.
pub(super) const CALLS: usize = GROUP + HOLDERS;

/// How much longer news wait for company where so many follow: the lead hears of all and tells all, and
/// says no more than a thousand things a second.
pub(super) fn delay(followers: usize) -> Duration {
    Duration::from_millis(1) * followers.saturating_sub(WIDE).min(1000) as u32
}

/// How much longer others leave a chunk to its first taker there: until it has heard of the chunk, and
/// they of it.
pub(super) fn patience(followers: usize) -> Duration {
    3 * delay(followers)
}

#[derive(Debug, Default)]
struct Group {
    /// Those of it that follow.
    live: BTreeSet<NodeId>,
    /// Whom it has been told of.
    shown: BTreeSet<NodeId>,
}

/// The followers of a lead, in groups.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    groups: Vec<Group>,
    /// The group of each that follows or has followed.
    place: BTreeMap<NodeId, usize>,
    narrow: bool,
}

impl Crowd {
    /// Somebody follows.
    pub(super) fn enter(&mut self, node: NodeId) {
        let room = |group: &Group| group.live.len() < GROUP || group.live.contains(&node);
        let before = self.place.get(&node).copied().filter(|&at| self.groups.get(at).is_some_and(room));
        let at = before.or_else(|| self.groups.iter().position(room)).unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        self.groups[at].live.insert(node);
        self.place.insert(node, at);
    }

    /// Somebody follows no more; its neighbours may still fetch from it.
    pub(super) fn leave(&mut self, node: &NodeId) {
        if let Some(group) = self.place.get(node).and_then(|&at| self.groups.get_mut(at)) {
            group.live.remove(node);
        }
    }

    /// Somebody is gone.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.leave(node);
        self.place.remove(node);
        for group in &mut self.groups {
            group.shown.remove(node);
        }
    }

    /// Whether views are limited by now. True for the first time when all must be told anew; then
    /// it stays so, since to widen the views again would cost more than it brings.
    pub(super) fn narrows(&mut self, followers: usize) -> bool {
        let narrows = !self.narrow && followers > WIDE;
        self.narrow |= narrows;
        narrows
    }

    /// How many groups have to be told something: one while all see all.
    pub(super) fn groups(&self) -> usize {
        if self.narrow { self.groups.len() } else { 1 }
    }

    /// Whose news this follower gets.
    pub(super) fn group_of(&self, node: &NodeId) -> usize {
        if self.narrow { self.place.get(node).copied().unwrap_or(0) } else { 0 }
    }

    /// Whom a group sees, of all nodes that hold or follow; `None`: everybody. `holders` follow not,
    /// `hubs` follow.
    pub(super) fn view(
        &self,
        at: usize,
        me: NodeId,
        holders: &[NodeId],
        hubs: &[NodeId],
    ) -> Option<BTreeSet<NodeId>> {
        let group = self.groups.get(at).filter(|_| self.narrow)?;
        // Those that were of the group first: the others are connected to them.
        let key = |node: &NodeId| (self.place.get(node) != Some(&at), spread(at, node));
        let best = |of: &[NodeId], most: usize| {
            let mut best: Vec<_> = of.iter().map(|node| (key(node), *node)).collect();
            best.sort_unstable();
            best.into_iter().take(most).map(|(_, node)| node).collect::<Vec<_>>()
        };
        let away: Vec<NodeId> = hubs.iter().copied().filter(|node| !group.live.contains(node)).collect();
        let others = best(holders, HOLDERS).into_iter().chain(best(&away, BRIDGES));
        Some(group.live.iter().copied().chain(others).chain([me]).collect())
    }

    /// Whether a follower is one of a group, and so takes its share of what only the lead holds.
    pub(super) fn takes(&self, at: usize, node: &NodeId) -> bool {
        !self.narrow || self.groups.get(at).is_some_and(|group| group.live.contains(node))
    }

    /// Notes that a group has been told of a node; whether it had been before.
    pub(super) fn shows(&mut self, at: usize, node: NodeId) -> bool {
        self.groups.get_mut(at).is_some_and(|group| !group.shown.insert(node))
    }

    /// Whether a group has been told of a node.
    pub(super) fn has_shown(&self, at: usize, node: &NodeId) -> bool {
        self.groups.get(at).is_some_and(|group| group.shown.contains(node))
    }
}

/// Gives different groups different holders.
fn spread(group: usize, node: &NodeId) -> u64 {
    let word = u64::from_le_bytes(node.as_bytes()[..8].try_into().unwrap_or_default());
    (word ^ (group as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn groups_are_bounded_and_nobody_is_moved() {
        let mut crowd = Crowd::default();
        (0..WIDE as u8).for_each(|n| crowd.enter(node(n)));
        assert!(!crowd.narrows(WIDE) && crowd.view(0, node(255), &[], &[]).is_none());
        (0..200).for_each(|n| crowd.enter(node(n)));
        assert!(crowd.narrows(200) && !crowd.narrows(200));
        assert_eq!(crowd.groups(), 200usize.div_ceil(GROUP));
        let before: Vec<usize> = (0..200).map(|n| crowd.group_of(&node(n))).collect();
        crowd.leave(&node(3));
        crowd.forget(&node(77));
        crowd.enter(node(210));
        assert_eq!(crowd.group_of(&node(210)), before[3], "the first free place");
        assert!((0..200).filter(|&n| n != 77).all(|n| crowd.group_of(&node(n)) == before[n as usize]));
        crowd.enter(node(3));
        assert_eq!(crowd.group_of(&node(3)), before[77], "its own place is taken");
    }

    #[test]
    fn a_group_sees_itself_few_holders_and_the_lead() {
        let mut crowd = Crowd::default();
        (0..100).for_each(|n| crowd.enter(node(n)));
        crowd.narrows(100);
        let holders: Vec<NodeId> = (150..200).map(node).collect();
        let hubs: Vec<NodeId> = (0..100).step_by(7).map(node).collect();
        let views: Vec<_> =
            (0..crowd.groups()).filter_map(|at| crowd.view(at, node(255), &holders, &hubs)).collect();
        let most = GROUP + HOLDERS + BRIDGES + 1;
        assert!(views.iter().all(|view| view.len() <= most && view.contains(&node(255))));
        assert!(crowd.takes(0, &node(3)) && !crowd.takes(1, &node(3)), "a bridge takes for its own group");
        let used: BTreeSet<_> = views.iter().flatten().filter(|node| holders.contains(node)).collect();
        assert!(used.len() > 2 * HOLDERS, "different groups have different holders: {}", used.len());
        assert!(!crowd.shows(0, node(1)) && crowd.shows(0, node(1)) && crowd.has_shown(0, &node(1)));
    }
}
