//! What this node gives to members: so many answers at a time, fairly shared, and no faster than
//! its owner allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::throttle::Throttle;
use crate::core::bitrate::Rate;
use crate::core::id::NodeId;
use crate::store::PIECE;

/// Under a limit, answers at a time are so few that each has this rate, in bytes per second: more
/// would all be so slow that they are given up.
const LEAST_RATE: u64 = 128 << 10;
/// Answers at a time to one member, however many slots there are.
const EACH: usize = 2;

/// The upload slots.
#[derive(Debug)]
pub(super) struct Uploads {
    slots: usize,
    busy: Mutex<HashMap<NodeId, usize>>,
    throttle: Throttle,
}

/// One answer's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    uploads: Arc<Uploads>,
    node: NodeId,
}

impl Uploads {
    pub(super) fn new(slots: usize, limit: Option<Rate>) -> Self {
        let slots = limit.map_or(slots, |limit| slots.min((limit.0 / LEAST_RATE).max(1) as usize));
        Self { slots, busy: Mutex::default(), throttle: Throttle::new(limit) }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for this member, if one is free and it has not had its share: no member may hold more
    /// than its part of the slots while others wait for theirs.
    pub(super) fn enter(self: &Arc<Self>, node: NodeId) -> Option<Slot> {
        let mut busy = self.busy();
        let used: usize = busy.values().sum();
        let mine = busy.get(&node).copied().unwrap_or(0);
        let members = busy.len() + usize::from(mine == 0);
        let share = (self.slots / members).max(EACH);
        if used >= self.slots || mine >= share {
            return None;
        }
        *busy.entry(node).or_default() += 1;
        Some(Slot { uploads: self.clone(), node })
    }

    /// How many answers are under way.
    pub(super) fn used(&self) -> usize {
        self.busy().values().sum()
    }

    /// How many may be.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Waits until so many more bytes may be sent.
    pub(super) async fn keep_pace(&self, bytes: u64) {
        self.throttle.pass(bytes).await;
    }

    /// Bytes to read and send at a time.
    pub(super) fn piece(&self) -> u64 {
        if self.throttle.is_limited() { 64 << 10 } else { PIECE as u64 }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut busy = self.uploads.busy();
        if let Some(used) = busy.get_mut(&self.node) {
            *used -= 1;
            if *used == 0 {
                busy.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_shared_and_given_back() {
        let uploads = Arc::new(Uploads::new(8, None));
        let node = |n| NodeId::from_bytes([n; 32]);
        let alone: Vec<Slot> = std::iter::from_fn(|| uploads.enter(node(1))).collect();
        assert_eq!(alone.len(), 8, "a member that is alone may have all");
        assert!(uploads.enter(node(2)).is_none());
        drop(alone);
        let first = uploads.enter(node(1));
        let second: Vec<Slot> = std::iter::from_fn(|| uploads.enter(node(2))).collect();
        assert_eq!((first.is_some(), second.len()), (true, 4), "half for each of two");
        drop((first, second));
        assert_eq!(uploads.used(), 0);
        assert_eq!(Uploads::new(32, Some(Rate(300_000))).slots(), 2, "fewer under a limit");
    }
}
