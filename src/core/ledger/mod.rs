//! The books: every byte that reached a client, and every byte that crossed the WAN.
//!
//! The invariant that this file keeps: in every row, `delivered = wan + peer + local`. Content
//! that arrives is entered as *preloaded* at once; when a client is handed it, it moves to
//! *delivered*. So the books balance at every instant, and a crash cannot leave them open.

mod extents;
mod row;
mod settle;
mod tally;

use std::collections::{BTreeMap, BTreeSet};

pub use extents::Extents;
pub use row::{Front, Row, RowKey, Source, Totals, WanReason};
pub use settle::{Keep, OLDER};
use tally::Tally;

use crate::core::id::NodeId;

/// Content that came and was not yet handed to a client, or only in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    key: RowKey,
    source: Source,
    left: u64,
}

/// What WAN connections carried, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    /// Payload of TCP that came.
    pub read: u64,
    /// Of it, what must have been on its way, and was not seen to come.
    pub estimated: u64,
    /// Headers of TCP and IP on the packets that came.
    pub headers: u64,
    /// What was sent, headers and all.
    pub sent: u64,
}

/// All rows, and which of them changed since they were last written down.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<RowKey, Row>,
    changed: BTreeSet<RowKey>,
    tally: Tally,
}

impl Ledger {
    /// From rows that were written down.
    pub fn restore(rows: impl IntoIterator<Item = (RowKey, Row)>) -> Self {
        let mut ledger = Self { rows: rows.into_iter().collect(), ..Self::default() };
        ledger.look_for_faults();
        ledger
    }

    fn row(&mut self, key: &RowKey) -> &mut Row {
        self.changed.insert(key.clone());
        let row = self.rows.entry(key.clone()).or_default();
        self.tally.touch(key, row);
        row
    }

    /// Verified content came to this node.
    pub fn arrived(&mut self, key: RowKey, source: Source, bytes: u64) -> Arrival {
        let row = self.row(&key);
        match source {
            Source::Wan(reason) => {
                row.totals.preloaded_wan += bytes;
                *row.content.entry(reason).or_default() += bytes;
            }
            Source::Peer(node) => {
                row.totals.preloaded_peer += bytes;
                *row.givers.entry(node).or_default() += bytes;
            }
            Source::Media => row.totals.preloaded_media += bytes,
            Source::Reused => {}
        }
        Arrival { key, source, left: bytes }
    }

    /// A client was handed `bytes`, which came with this arrival as far as it goes, and else were
    /// held before.
    pub fn delivered(&mut self, key: &RowKey, arrival: Option<&mut Arrival>, bytes: u64) {
        let mut held = bytes;
        if let Some(arrival) = arrival {
            let fetched = bytes.min(arrival.left);
            held -= fetched;
            self.row(&arrival.key).totals.delivered += fetched;
            self.move_over(arrival, fetched);
        }
        if held > 0 {
            let totals = &mut self.row(key).totals;
            totals.delivered += held;
            totals.local += held;
        }
    }

    /// A client was handed bytes of this arrival before it was entered: they were taken for held.
    pub fn reclaim(&mut self, arrival: &mut Arrival, bytes: u64) {
        let totals = &mut self.row(&arrival.key).totals;
        let fetched = bytes.min(arrival.left).min(totals.local - totals.reused);
        totals.local -= fetched;
        self.move_over(arrival, fetched);
    }

    /// From what came to what was handed on.
    fn move_over(&mut self, arrival: &mut Arrival, bytes: u64) {
        arrival.left -= bytes;
        let totals = &mut self.row(&arrival.key).totals;
        let (now, before) = match arrival.source {
            Source::Wan(_) => (&mut totals.wan, &mut totals.preloaded_wan),
            Source::Peer(_) => (&mut totals.peer, &mut totals.preloaded_peer),
            Source::Reused => {
                totals.local += bytes;
                totals.reused += bytes;
                return;
            }
            Source::Media => {
                totals.local += bytes;
                return;
            }
        };
        // All of it, but where its row was rolled up meanwhile.
        let moved = bytes.min(*before);
        *now += moved;
        *before -= moved;
        totals.local += bytes - moved;
    }

    /// A machine without Branchline would have fetched so many bytes for what was just handed out.
    pub fn direct(&mut self, key: &RowKey, bytes: u64) {
        if bytes > 0 {
            self.row(key).totals.direct += bytes;
        }
    }

    /// WAN connections carried bytes.
    pub fn wire(&mut self, key: &RowKey, reason: WanReason, wire: Wire) {
        if wire != Wire::default() {
            let row = self.row(key);
            row.totals.wan_wire += wire.read;
            row.totals.wan_estimated += wire.estimated;
            row.totals.wan_headers += wire.headers;
            row.totals.wan_sent += wire.sent;
            *row.reasons.entry(reason).or_default() += wire.read;
        }
    }

    /// Of the bytes that were read from WAN connections, so many were a chunk, or an upstream's content as
    /// it came.
    pub fn chunk(&mut self, key: &RowKey, stored: u64) {
        self.row(key).totals.wan_chunks += stored;
    }

    /// Of the bytes that were read from WAN connections, so many were a recipe.
    pub fn recipe(&mut self, key: &RowKey, bytes: u64) {
        let totals = &mut self.row(key).totals;
        totals.wan_chunks += bytes;
        totals.wan_recipes += bytes;
    }

    /// Chunks were rebuilt that are so many bytes at the origin.
    pub fn rebuilt(&mut self, key: &RowKey, stored: u64) {
        if stored > 0 {
            self.row(key).totals.rebuilt += stored;
        }
    }

    /// Connections with members brought so many bytes.
    pub fn lan_wire(&mut self, key: &RowKey, bytes: u64) {
        if bytes > 0 {
            self.row(key).totals.lan_wire += bytes;
        }
    }

    /// A member was sent content.
    pub fn served(&mut self, key: &RowKey, taker: NodeId, bytes: u64) {
        let row = self.row(key);
        row.totals.served += bytes;
        *row.takers.entry(taker).or_default() += bytes;
    }

    /// Content turned out to have crossed twice.
    pub fn duplicate(&mut self, key: &RowKey, reason: WanReason, bytes: u64) {
        let row = self.row(key);
        row.totals.wan_duplicate += bytes;
        *row.duplicates.entry(reason).or_default() += bytes;
    }

    /// The rows that changed since the last call, to be written down.
    pub fn take_changed(&mut self) -> Vec<(RowKey, Row)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|key| Some((key.clone(), self.rows.get(&key)?.clone()))).collect()
    }

    /// One row.
    pub fn row_of(&self, key: &RowKey) -> Option<&Row> {
        self.rows.get(key)
    }

    /// The rows of these hours, oldest first.
    pub fn rows(&self, hours: std::ops::Range<u32>) -> impl Iterator<Item = (&RowKey, &Row)> {
        let first = |hour| RowKey { hour, package: String::new(), front: Front::None };
        self.rows.range(first(hours.start)..first(hours.end.max(hours.start)))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was ever entered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLD: Source = Source::Wan(WanReason::Cold);

    fn key(hour: u32) -> RowKey {
        RowKey { hour, package: "p@1".into(), front: Front::Get }
    }

    #[test]
    fn content_moves_from_preloaded_to_delivered() {
        let mut ledger = Ledger::default();
        let mut arrival = ledger.arrived(key(1), COLD, 100);
        ledger.delivered(&key(2), Some(&mut arrival), 60);
        ledger.delivered(&key(2), Some(&mut arrival), 60);
        let rows: Vec<_> = ledger.rows(0..9).map(|(_, row)| row.totals).collect();
        assert_eq!(rows[0], Totals { delivered: 100, wan: 100, ..Totals::default() });
        assert_eq!(rows[1], Totals { delivered: 20, local: 20, ..Totals::default() });
        assert_eq!(ledger.take_changed().len(), 2);
        assert_eq!(ledger.take_changed().len(), 0);
    }

    #[test]
    fn what_was_copied_is_local_and_said_so() {
        let mut ledger = Ledger::default();
        let mut arrival = ledger.arrived(key(1), Source::Reused, 100);
        ledger.delivered(&key(1), Some(&mut arrival), 120);
        let (_, row) = ledger.rows(0..9).next().expect("a row");
        assert_eq!(row.totals, Totals { delivered: 120, local: 120, reused: 100, ..Totals::default() });
        assert_eq!(row.fault(), None);
    }

    #[test]
    fn what_was_imported_is_local_also_for_those_who_waited() {
        let mut ledger = Ledger::default();
        let mut arrival = ledger.arrived(key(1), Source::Media, 100);
        ledger.delivered(&key(1), Some(&mut arrival), 60);
        ledger.delivered(&key(1), None, 40);
        let (_, row) = ledger.rows(0..9).next().expect("a row");
        let right = Totals { delivered: 100, local: 100, preloaded_media: 100, ..Totals::default() };
        assert_eq!((row.totals, row.fault()), (right, None));
    }

    #[test]
    fn more_over_the_wan_than_delivered_is_negative() {
        let totals = Totals { delivered: 10, direct: 4, wan_wire: 30, ..Totals::default() };
        assert_eq!((totals.saved_of_delivered(), totals.saved_of_direct()), (-20, -26));
        let row = Row { totals, ..Row::default() };
        assert!(row.fault().is_some_and(|fault| fault.contains("delivered")));
    }

    proptest! {
        #[test]
        fn always_balances(steps in proptest::collection::vec((0u32..3, 0u8..5, 0u64..100), 0..60)) {
            let mut ledger = Ledger::default();
            let mut arrivals = Vec::new();
            let (mut came, mut handed, mut imported) = (0, 0, 0);
            let node = NodeId::from_bytes([7; 32]);
            for (hour, what, bytes) in steps {
                match what {
                    0 => { arrivals.push(ledger.arrived(key(hour), COLD, bytes)); came += bytes; }
                    1 => { arrivals.push(ledger.arrived(key(hour), Source::Peer(node), bytes)); came += bytes; }
                    2 if bytes % 3 == 0 => if let Some(arrival) = arrivals.last_mut() { ledger.reclaim(arrival, bytes) },
                    2 => { ledger.delivered(&key(hour), arrivals.last_mut(), bytes); handed += bytes; }
                    3 if bytes % 2 == 0 => arrivals.push(ledger.arrived(key(hour), Source::Reused, bytes)),
                    3 => { arrivals.push(ledger.arrived(key(hour), Source::Media, bytes)); imported += bytes; }
                    _ => { ledger.delivered(&key(hour), None, bytes); handed += bytes; }
                }
            }
            let mut sum = Totals::default();
            for (_, row) in ledger.rows(0..9) {
                prop_assert_eq!(row.fault(), None);
                prop_assert!(row.totals.balances());
                sum.add(&row.totals);
            }
            prop_assert_eq!(sum.delivered, handed);
            prop_assert_eq!(sum.preloaded_media, imported);
            prop_assert_eq!(sum.wan + sum.peer + sum.preloaded_wan + sum.preloaded_peer, came);
        }
    }
}
