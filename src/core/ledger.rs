//! The books: every byte that reached a client, and every byte that crossed the WAN.
//!
//! The invariant that this file keeps: in every row, `delivered = wan + peer + local`. Content
//! that arrives is entered as *preloaded* at once; when a client is handed it, it moves to
//! *delivered*. So the books balance at every instant, and a crash cannot leave them open.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Why bytes crossed the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WanReason {
    /// Nobody on the site held it.
    Cold,
    /// Another lead was pulling it and was lost.
    Takeover,
    /// What came before did not match its hash.
    HashFailure,
    /// Members hold it, and none could be reached.
    NoPeer,
    /// A check whether the catalog is still current.
    Revalidate,
    /// A manifest.
    Manifest,
    /// Another lead, out of reach, pulled it too.
    Partition,
}

impl WanReason {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Takeover => "takeover",
            Self::HashFailure => "hash_failure",
            Self::NoPeer => "no_peer",
            Self::Revalidate => "revalidate",
            Self::Manifest => "manifest",
            Self::Partition => "partition",
        }
    }
}

/// From where content came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Over the WAN.
    Wan,
    /// From a member of the site.
    Peer,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// Hours since 1970-01-01 UTC.
    pub hour: u32,
    /// `NAME@VERSION`, or `(catalog)`.
    pub package: String,
}

/// Sums of bytes. `delivered` is what clients were handed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Handed to clients of this node.
    pub delivered: u64,
    /// Of it, fetched over the WAN for that request.
    pub wan: u64,
    /// Of it, fetched from members for that request.
    pub peer: u64,
    /// Of it, held before the request.
    pub local: u64,
    /// Fetched over the WAN with no client of this node waiting.
    pub preloaded_wan: u64,
    /// Fetched from members with no client of this node waiting.
    pub preloaded_peer: u64,
    /// Read from WAN connections, as it was on the wire: headers and encryption counted in.
    pub wan_wire: u64,
    /// Content that crossed although the site held it or was pulling it.
    pub wan_duplicate: u64,
}

impl Totals {
    /// Adds another sum to this one.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.wan += other.wan;
        self.peer += other.peer;
        self.local += other.local;
        self.preloaded_wan += other.preloaded_wan;
        self.preloaded_peer += other.preloaded_peer;
        self.wan_wire += other.wan_wire;
        self.wan_duplicate += other.wan_duplicate;
    }

    /// Whether the books balance.
    pub fn balances(&self) -> bool {
        self.delivered == self.wan + self.peer + self.local
    }
}

/// One row: sums, and the wire bytes by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
    /// `wan_wire` by reason.
    pub reasons: BTreeMap<WanReason, u64>,
    /// `wan_duplicate` by reason.
    #[serde(default)]
    pub duplicates: BTreeMap<WanReason, u64>,
}

/// Content that came and was not yet handed to a client, or only in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    key: RowKey,
    source: Source,
    left: u64,
}

/// All rows, and which of them changed since they were last written down.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<RowKey, Row>,
    changed: BTreeSet<RowKey>,
}

impl Ledger {
    /// From rows that were written down.
    pub fn restore(rows: impl IntoIterator<Item = (RowKey, Row)>) -> Self {
        Self { rows: rows.into_iter().collect(), changed: BTreeSet::new() }
    }

    fn row(&mut self, key: &RowKey) -> &mut Row {
        self.changed.insert(key.clone());
        self.rows.entry(key.clone()).or_default()
    }

    /// Verified content came to this node.
    pub fn arrived(&mut self, key: RowKey, source: Source, bytes: u64) -> Arrival {
        let totals = &mut self.row(&key).totals;
        match source {
            Source::Wan => totals.preloaded_wan += bytes,
            Source::Peer => totals.preloaded_peer += bytes,
        }
        Arrival { key, source, left: bytes }
    }

    /// A client was handed `bytes`, which came with this arrival as far as it goes, and else were
    /// held before.
    pub fn delivered(&mut self, key: &RowKey, arrival: Option<&mut Arrival>, bytes: u64) {
        let mut held = bytes;
        if let Some(arrival) = arrival {
            let fetched = bytes.min(arrival.left);
            arrival.left -= fetched;
            held -= fetched;
            let totals = &mut self.row(&arrival.key).totals;
            totals.delivered += fetched;
            let (now, before) = match arrival.source {
                Source::Wan => (&mut totals.wan, &mut totals.preloaded_wan),
                Source::Peer => (&mut totals.peer, &mut totals.preloaded_peer),
            };
            *now += fetched;
            *before -= fetched;
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
        let fetched = bytes.min(arrival.left).min(totals.local);
        let (now, before) = match arrival.source {
            Source::Wan => (&mut totals.wan, &mut totals.preloaded_wan),
            Source::Peer => (&mut totals.peer, &mut totals.preloaded_peer),
        };
        *now += fetched;
        *before -= fetched;
        totals.local -= fetched;
        arrival.left -= fetched;
    }

    /// Bytes were read from a WAN connection.
    pub fn wire(&mut self, key: &RowKey, reason: WanReason, bytes: u64) {
        if bytes > 0 {
            let row = self.row(key);
            row.totals.wan_wire += bytes;
            *row.reasons.entry(reason).or_default() += bytes;
        }
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

    /// Marks a row to be written down again.
    pub fn touch(&mut self, key: &RowKey) {
        self.changed.insert(key.clone());
    }

    /// The rows from this hour on, oldest first.
    pub fn since(&self, hour: u32) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.range(RowKey { hour, package: String::new() }..)
    }

    /// Drops rows before this hour; returns which.
    pub fn forget_before(&mut self, hour: u32) -> Vec<RowKey> {
        let kept = self.rows.split_off(&RowKey { hour, package: String::new() });
        std::mem::replace(&mut self.rows, kept).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(hour: u32) -> RowKey {
        RowKey { hour, package: "p@1".into() }
    }

    #[test]
    fn content_moves_from_preloaded_to_delivered() {
        let mut ledger = Ledger::default();
        let mut arrival = ledger.arrived(key(1), Source::Wan, 100);
        ledger.delivered(&key(2), Some(&mut arrival), 60);
        ledger.delivered(&key(2), Some(&mut arrival), 60);
        let rows: Vec<_> = ledger.since(0).map(|(_, row)| row.totals).collect();
        assert_eq!(rows[0], Totals { delivered: 100, wan: 100, ..Totals::default() });
        assert_eq!(rows[1], Totals { delivered: 20, local: 20, ..Totals::default() });
        assert_eq!(ledger.take_changed().len(), 2);
        assert_eq!(ledger.take_changed().len(), 0);
        assert_eq!(ledger.forget_before(2), [key(1)]);
    }

    proptest! {
        #[test]
        fn always_balances(steps in proptest::collection::vec((0u32..3, 0u8..4, 0u64..100), 0..60)) {
            let mut ledger = Ledger::default();
            let mut arrivals = Vec::new();
            let (mut came, mut handed) = (0, 0);
            for (hour, what, bytes) in steps {
                match what {
                    0 => { arrivals.push(ledger.arrived(key(hour), Source::Wan, bytes)); came += bytes; }
                    1 => { arrivals.push(ledger.arrived(key(hour), Source::Peer, bytes)); came += bytes; }
                    2 if bytes % 3 == 0 => if let Some(arrival) = arrivals.last_mut() { ledger.reclaim(arrival, bytes) },
                    2 => { ledger.delivered(&key(hour), arrivals.last_mut(), bytes); handed += bytes; }
                    _ => { ledger.delivered(&key(hour), None, bytes); handed += bytes; }
                }
            }
            let mut sum = Totals::default();
            for (_, row) in ledger.since(0) {
                prop_assert!(row.totals.balances());
                sum.add(&row.totals);
            }
            prop_assert_eq!(sum.delivered, handed);
            prop_assert_eq!(sum.wan + sum.peer + sum.preloaded_wan + sum.preloaded_peer, came);
        }
    }
}
