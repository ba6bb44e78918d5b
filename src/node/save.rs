//! Writing down what is only remembered: soon where something has changed, and nothing where nothing has. An idle
//! agent lets its disk sleep.

use std::time::Duration;

use super::{Node, blocking};
use crate::store::Buffer;

/// A kill loses at most so much of what is known of the store's content, which its files tell anyway, and of
/// upstreams' objects.
const OFTEN: Duration = Duration::from_secs(1);
/// ... and of what was used when, in so many of those.
const SELDOM: u32 = 30;

/// Saves as long as the agent runs, and lets go of idle memory.
pub(super) async fn keep(node: Node) {
    let mut tick = tokio::time::interval(OFTEN);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in (1..=SELDOM).cycle() {
        tick.tick().await;
        let inner = &node.inner;
        if turn == SELDOM || inner.store.is_unsaved() || inner.upstreams.is_unsaved() {
            let node = node.clone();
            blocking(move || node.save()).await;
        }
        if turn == SELDOM {
            Buffer::release();
        }
    }
}

impl Node {
    /// Blocks.
    pub(super) fn save(&self) {
        self.inner.store.flush();
        self.inner.upstreams.save();
    }
}
