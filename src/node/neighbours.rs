//! The ledgers of the other nodes of the site, for its savings.
//!
//! In a small site every node asks all. In a large one a node is connected to the hubs alone: it
//! asks one of them, which asks all for it.

use std::ops::Range;
use std::time::Duration;

use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Node;
use super::books::Gap;
use crate::core::id::NodeId;
use crate::core::ledger::{Row, RowKey};
use crate::core::wire::message::{ReportRequest, Request, request};

/// The longest report of a member that is read, in bytes.
const MAX_REPORT: u64 = 32 << 20;
/// A member's report is waited for so long, and a hub's on all of them a second longer.
const PATIENCE: Duration = Duration::from_secs(5);
const HUB_PATIENCE: Duration = Duration::from_secs(6);
/// Members that are asked at a time.
const AT_ONCE: usize = 32;
/// Hubs that are asked for the others before only those within reach are.
const HUBS: usize = 2;

/// A node's books, as they go over the wire.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct NodeBooks {
    pub(super) rows: Vec<(RowKey, Row)>,
    pub(super) gaps: Vec<Gap>,
}

/// Ledgers by node, and who did not answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Ledgers {
    pub(super) nodes: Vec<(String, NodeBooks)>,
    pub(super) unanswered: Vec<String>,
}

impl Node {
    /// This node's books of these hours.
    pub(super) fn own_books(&self, hours: Range<u32>) -> NodeBooks {
        NodeBooks { rows: self.books().rows(hours), gaps: self.books().gaps().to_vec() }
    }

    /// The ledgers of all other nodes of the site.
    pub(super) async fn ledgers(&self, hours: Range<u32>) -> Ledgers {
        let span = format!("{}-{}", hours.start, hours.end);
        if !self.inner.net.is_hub() {
            let hubs = self.inner.net.contacts().into_iter().filter(|contact| contact.hub);
            for hub in hubs.take(HUBS) {
                let ledgers =
                    self.ask_report::<Ledgers>(hub.node, format!("site/{span}"), HUB_PATIENCE).await;
                if let Some(mut ledgers) = ledgers {
                    let me = self.me().to_string();
                    ledgers.nodes.retain(|(node, _)| *node != me);
                    ledgers.unanswered.retain(|node| *node != me);
                    return ledgers;
                }
            }
        }
        self.ledgers_within_reach(&span).await
    }

    async fn ledgers_within_reach(&self, span: &str) -> Ledgers {
        let asked = self.inner.net.contacts().into_iter().map(|contact| async move {
            (contact.node, self.ask_report::<NodeBooks>(contact.node, format!("rows/{span}"), PATIENCE).await)
        });
        let mut ledgers = Ledgers::default();
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((node, rows)) = answers.next().await {
            match rows {
                Some(rows) => ledgers.nodes.push((node.to_string(), rows)),
                None => ledgers.unanswered.push(node.to_string()),
            }
        }
        ledgers
    }

    async fn ask_report<T: DeserializeOwned>(
        &self,
        node: NodeId,
        path: String,
        patience: Duration,
    ) -> Option<T> {
        let request = Request { body: Some(request::Body::Report(ReportRequest { path })) };
        let ask = async {
            let answer = self.inner.net.ask_patiently(&node, &request, patience).await.ok()?;
            serde_json::from_slice(&answer.read_all(MAX_REPORT).await.ok()?).ok()
        };
        tokio::time::timeout(patience, ask).await.ok()?
    }

    /// What a member may know of this node, and of a hub's others.
    pub(super) async fn report_to_member(&self, path: &str) -> Option<String> {
        let hours = |span: &str| {
            let (start, end) = span.split_once('-')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        };
        if let Some(span) = path.strip_prefix("site/") {
            let hours = hours(span).filter(|_| self.inner.net.is_hub())?;
            let mut ledgers = self.ledgers_within_reach(span).await;
            ledgers.nodes.push((self.me().to_string(), self.own_books(hours)));
            return serde_json::to_string(&ledgers).ok();
        }
        serde_json::to_string(&self.own_books(hours(path.strip_prefix("rows/")?)?)).ok()
    }
}
