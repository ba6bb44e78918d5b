//! What the site has used of its month, from the ledgers of all its nodes.
//!
//! The node that holds the budget adds up, about once a minute and at once when the schedule is new,
//! and tells all. Nodes that are away count with what they said last; what they took since then is
//! not known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Node;
use super::neighbours::NodeBooks;
use crate::core::window::Month;

/// How often it is looked whether it is time to add up.
const LOOK: Duration = Duration::from_secs(1);
/// How often the ledgers are asked for; more often when little is left.
const ASK: Duration = Duration::from_secs(60);
const ASK_NEAR_END: Duration = Duration::from_secs(10);
/// Near the end, in percent.
const NEAR: u64 = 90;

/// What the site has used of its month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bytes that crossed the WAN to the site, headers of TCP/IP included.
    pub(super) bytes: u64,
    /// Nodes that did not answer.
    pub(super) away: usize,
}

/// What crossed by these books, as a router counts it.
fn crossed(books: &NodeBooks) -> u64 {
    let sums = books.rows.iter().map(|(_, row)| row.totals.wan_wire.saturating_add(row.totals.wan_headers));
    sums.fold(0, u64::saturating_add)
}

/// Adds up now and then, while this node is the one that does.
pub(super) async fn keep(node: Node) {
    // What each node said last, of the month that began then.
    let (mut began, mut said) = (None, BTreeMap::new());
    let mut added: Option<Instant> = None;
    let mut warned = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let windows = &node.inner.windows;
        let schedule = windows.schedule();
        let (Some(schedule), true) = (schedule, windows.goes_by().1 && node.is_ready()) else { continue };
        let (Some(month), Some(begins)) = (schedule.month(), schedule.month_began(Timestamp::now())) else {
            continue;
        };
        if began.replace(begins) != Some(begins) {
            (said, added, warned) = (BTreeMap::new(), None, 0);
        }
        let known = windows.added_up().map(|used| used.bytes);
        let near = known.is_some_and(|used| used / NEAR >= month.bytes.0 / 100);
        let every = if near { ASK_NEAR_END } else { ASK };
        if known.is_some() && added.is_some_and(|at| at.elapsed() < every) {
            continue;
        }
        added = Some(Instant::now());
        let used = node.add_up(begins, &mut said).await;
        windows.set_added_up(used);
        node.inner.allowance.look_again();
        warned = warn(month, used, warned);
    }
}

/// Tells when another share is reached; the highest that was told.
fn warn(month: &Month, used: Used, warned: u32) -> u32 {
    let reached = month.reached(used.bytes).unwrap_or(0);
    if reached > warned {
        let (used, of, away) = (used.bytes, month.bytes.0, used.away);
        tracing::warn!(reached, used, of, away, "the site has used this share of its month, in percent");
    }
    reached.max(warned)
}

impl Node {
    async fn add_up(&self, began: Timestamp, said: &mut BTreeMap<String, u64>) -> Used {
        // Whole hours: a month that begins within one counts all of it.
        let hour = |at: Timestamp| u32::try_from(at.as_second() / 3600).unwrap_or(0);
        let hours = hour(began)..hour(Timestamp::now()) + 1;
        said.insert(self.me().to_string(), crossed(&self.own_books(hours.clone())));
        let others = self.ledgers(hours, Duration::ZERO).await;
        for (node, books) in &others.nodes {
            said.insert(node.clone(), crossed(books));
        }
        let bytes = said.values().copied().fold(0, u64::saturating_add);
        Used { bytes, away: others.unanswered.len() }
    }
}
