//! `GET /api/v1/savings/audit`: the books, recomputed from what was written down.

use serde::{Deserialize, Serialize};

use super::super::Node;
use super::super::books::Audit;
use super::Scope;
use crate::core::ledger::Totals;

/// The audits of a node, or of its site.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Audits {
    /// Nothing was found.
    pub adds_up: bool,
    /// The sum of all rows that were read.
    pub totals: Totals,
    /// Node by node.
    pub nodes: Vec<NodeAudit>,
    /// Members that did not answer (scope `site`).
    pub unanswered: Vec<String>,
}

/// The audit of one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeAudit {
    /// Which.
    pub node: String,
    /// What came of it.
    #[serde(flatten)]
    pub audit: Audit,
}

impl Node {
    /// Has every node of the scope read its books back from its disk, and add them up.
    pub async fn audit(&self, scope: Scope) -> Audits {
        let answers = self.audits(scope == Scope::Site).await;
        let mut audits = Audits { unanswered: answers.unanswered.clone(), ..Audits::default() };
        for (node, audit) in &answers.nodes {
            audits.totals.add(&audit.totals);
            audits.nodes.push(NodeAudit { node: node.clone(), audit: audit.clone() });
        }
        audits.adds_up = audits.nodes.iter().all(|node| node.audit.faults.is_empty());
        audits
    }
}
