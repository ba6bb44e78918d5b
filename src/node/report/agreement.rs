//! Whether the books of a site's nodes fit together: who disagrees, and whose are missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::neighbours::NodeBooks;
use crate::core::id::NodeId;
use crate::core::ledger::Row;

/// What a giver and a taker may differ by: what was on its way when a transfer broke off.
const TOLERANCE: f64 = 0.01;
/// Differences below so many bytes are not worth a word.
const SMALL: u64 = 4 << 20;

/// A giver and a taker whose books disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// Who gave.
    pub giver: String,
    /// Who took.
    pub taker: String,
    /// Bytes by the giver's books.
    pub given: u64,
    /// Bytes by the taker's.
    pub taken: u64,
}

/// Pairs of nodes, both of which answered, whose figures differ by more than a transfer that broke off
/// explains.
pub(super) fn disagreements(nodes: &[&(String, NodeBooks)]) -> Vec<Disagreement> {
    let mut pairs: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let answered = |id: &NodeId| {
        let id = id.to_string();
        nodes.iter().any(|it| it.0 == id).then_some(id)
    };
    let mut add = |giver: &str, taker: &str, given: u64, taken: u64| {
        let pair = pairs.entry((giver.to_owned(), taker.to_owned())).or_default();
        *pair = (pair.0 + given, pair.1 + taken);
    };
    for (node, books) in nodes {
        let mut sum = Row::default();
        books.rows.iter().for_each(|(_, row)| sum.add(row));
        for (giver, bytes) in &sum.givers {
            answered(giver).inspect(|giver| add(giver, node, 0, *bytes));
        }
        for (taker, bytes) in &sum.takers {
            answered(taker).inspect(|taker| add(node, taker, *bytes, 0));
        }
    }
    let differ = |given: u64, taken: u64| {
        let difference = given.abs_diff(taken);
        difference > SMALL && difference as f64 > TOLERANCE * given.max(taken) as f64
    };
    let pairs = pairs.into_iter().filter(|(_, (given, taken))| differ(*given, *taken));
    pairs.map(|((giver, taker), (given, taken))| Disagreement { giver, taker, given, taken }).collect()
}

/// Those that did not answer, with those that gave or took content by the books of the others, and whose
/// own are missing: they are switched off, or elsewhere, and nobody asked them.
pub(super) fn with_absent(nodes: &[&(String, NodeBooks)], silent: Vec<String>) -> Vec<String> {
    let rows = nodes.iter().flat_map(|(_, books)| &books.rows);
    let ids: BTreeSet<&NodeId> =
        rows.flat_map(|(_, row)| row.givers.keys().chain(row.takers.keys())).collect();
    let known: BTreeSet<String> = ids.into_iter().map(ToString::to_string).chain(silent).collect();
    known.into_iter().filter(|id| !nodes.iter().any(|it| it.0 == *id)).collect()
}
