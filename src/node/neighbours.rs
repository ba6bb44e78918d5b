//! Reports of the other nodes of the site: their ledgers, and what they hold.
//!
//! In a small site every node asks all. In a large one a node is connected to the hubs alone: it
//! asks one of them, which asks all for it.
//!
//! Of each kind of report there is one asking at a time, and whoever came before it began is served
//! by it too: many open dashboards make no storm.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::books::{Audit, Gap};
use super::keeping::Keeping;
use super::recipes::Weighing;
use super::{Node, blocking, doctor};
use crate::core::id::NodeId;
use crate::core::ledger::{Row, RowKey};
use crate::core::wire::message::{ReportRequest, Request, request};

/// The longest report of a member that is read, in bytes.
const MAX_REPORT: u64 = 32 << 20;
/// A member's report is waited for so long, and a hub's on all of them so much longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client waits for these.
const SHORTLY: Duration = Duration::from_secs(1);
const HUB_TAKES: Duration = Duration::from_secs(1);
/// Members that are asked at a time.
const AT_ONCE: usize = 32;
/// Hubs that are asked for the others before only those within reach are.
const HUBS: usize = 2;
/// Reports are kept so long: the books of a large site are many.
const KEPT: Duration = Duration::from_secs(15);
/// What a hub is asked for the reports of all others begins so.
const OF_SITE: &str = "site/";
const INVENTORY: &str = "inventory";
const AUDIT: &str = "audit";
const WAN_RATE: &str = "wan-rate";
const WEIGHINGS: &str = "weighings";
/// Whether a node takes part in a flight of the blob that follows.
pub(super) const IN_FLIGHT: &str = "flight/";
/// An audit reads all rows back from the disk; who asks within so long of another is served by his.
const AUDIT_KEPT: Duration = Duration::from_secs(1);

/// A node's books, as they go over the wire.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct NodeBooks {
    pub(super) rows: Vec<(RowKey, Row)>,
    pub(super) gaps: Vec<Gap>,
}

/// What a node is and holds, as it goes over the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Inventory {
    pub(super) host: String,
    pub(super) version: String,
    pub(super) role: super::Role,
    pub(super) weight: u32,
    pub(super) weight_reasons: Vec<String>,
    pub(super) ready: bool,
    pub(super) hub: bool,
    pub(super) uptime_s: u64,
    pub(super) bytes: u64,
    pub(super) quota: u64,
    pub(super) holds: Vec<Holding>,
    /// Blobs that are held and do not fit into `holds`.
    pub(super) left_out: usize,
    /// Of what is to be kept.
    pub(super) keeps: Vec<Keeping>,
}

/// A blob that a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    /// `NAME@VERSION`, as the ledger calls it.
    pub(super) package: String,
    pub(super) size: u64,
    pub(super) complete: bool,
}

/// Reports by node, and who did not answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answers<T> {
    pub(super) nodes: Vec<(String, T)>,
    pub(super) unanswered: Vec<String>,
}

/// The last answers to one kind of question.
#[derive(Debug)]
pub(super) struct Survey<T> {
    last: Arc<Mutex<Option<Asked<T>>>>,
}

#[derive(Debug)]
struct Asked<T> {
    path: String,
    begun: Instant,
    answers: Arc<Answers<T>>,
}

impl<T> Default for Survey<T> {
    fn default() -> Self {
        Self { last: Arc::default() }
    }
}

impl<T: Send + Sync + 'static> Survey<T> {
    /// The answers to a question, of an asking that began at most `max_age` before this call.
    async fn answers(
        &self,
        path: &str,
        max_age: Duration,
        ask: impl Future<Output = Answers<T>>,
    ) -> Arc<Answers<T>> {
        let called = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(asked) = &*last
            && asked.path == path
            && called.saturating_duration_since(asked.begun) <= max_age
        {
            return asked.answers.clone();
        }
        let begun = Instant::now();
        let answers = Arc::new(ask.await);
        *last = Some(Asked { path: path.to_owned(), begun, answers: answers.clone() });
        drop(last);
        tokio::spawn(forget(self.last.clone(), begun));
        answers
    }
}

/// Lets go of answers that nobody has renewed.
async fn forget<T>(last: Arc<Mutex<Option<Asked<T>>>>, begun: Instant) {
    tokio::time::sleep(KEPT).await;
    let mut last = last.lock().await;
    if last.as_ref().is_some_and(|asked| asked.begun == begun) {
        *last = None;
    }
}

/// What the site was last asked.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    books: Survey<NodeBooks>,
    inventories: Survey<Inventory>,
    audits: Survey<Audit>,
}

impl Node {
    /// This node's books of these hours. What it led before its catalog knew the package's name has it
    /// now.
    pub(super) fn own_books(&self, hours: Range<u32>) -> NodeBooks {
        let mut rows = self.books().rows(hours.clone());
        let catalog = self.catalog().current();
        for (key, _) in &mut rows {
            let nameless = key.package.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
            let named = nameless.zip(catalog.as_ref()).and_then(|(short, it)| it.label_of_short(short));
            key.package = named.unwrap_or(std::mem::take(&mut key.package));
        }
        let then = |gap: &&Gap| u32::try_from(gap.after / 3600).is_ok_and(|hour| hours.contains(&hour));
        let gaps = self.books().gaps().iter().filter(then).cloned().collect();
        NodeBooks { rows, gaps }
    }

    /// An audit of this node's books, and of all others' if that is asked.
    pub(super) async fn audits(&self, site: bool) -> Arc<Answers<Audit>> {
        let ask = async {
            let nothing = Answers { nodes: Vec::new(), unanswered: Vec::new() };
            let mut answers = if site { self.ask_site(AUDIT).await } else { nothing };
            answers.nodes.insert(0, (self.me().to_string(), self.own_audit().await));
            answers
        };
        let path = if site { "site" } else { "node" };
        self.inner.surveys.audits.answers(path, AUDIT_KEPT, ask).await
    }

    async fn own_audit(&self) -> Audit {
        let books = self.inner.books.clone();
        blocking(move || books.audit()).await.unwrap_or_default()
    }

    /// The ledgers of all other nodes of the site, not older than this.
    pub(super) async fn ledgers(&self, hours: Range<u32>, max_age: Duration) -> Arc<Answers<NodeBooks>> {
        let path = format!("rows/{}-{}", hours.start, hours.end);
        self.inner.surveys.books.answers(&path, max_age, self.ask_site(&path)).await
    }

    /// What all other nodes of the site are and hold, not older than this.
    pub(super) async fn inventories(&self, max_age: Duration) -> Arc<Answers<Inventory>> {
        self.inner.surveys.inventories.answers(INVENTORY, max_age, self.ask_site(INVENTORY)).await
    }

    /// What all other nodes of the site take from the WAN now, in bytes per second.
    pub(super) async fn wan_rates(&self) -> Vec<u64> {
        let rates = self.ask_site::<u64>(WAN_RATE).await.nodes;
        rates.into_iter().map(|(_, rate)| rate).collect()
    }

    /// What the other nodes of the site weighed of late.
    pub(super) async fn weighings_of_others(&self) -> Answers<Vec<Weighing>> {
        self.ask_site(WEIGHINGS).await
    }

    /// The reports of all other nodes of the site.
    async fn ask_site<T: DeserializeOwned>(&self, path: &str) -> Answers<T> {
        let request = |of_site: bool| {
            report_request(if of_site { format!("{OF_SITE}{path}") } else { path.to_owned() })
        };
        self.ask_all(request, PATIENCE).await
    }

    /// Asks all other nodes of the site. The request is made for one node alone, or for a hub, which
    /// asks all others.
    pub(super) async fn ask_all<T: DeserializeOwned>(
        &self,
        request: impl Fn(bool) -> Request,
        patience: Duration,
    ) -> Answers<T> {
        if !self.inner.net.is_hub() {
            let hubs = self.inner.net.contacts().into_iter().filter(|contact| contact.hub);
            for hub in hubs.take(HUBS) {
                let answer = self.ask_one::<Answers<T>>(hub.node, &request(true), patience + HUB_TAKES).await;
                if let Some(mut answers) = answer {
                    let me = self.me().to_string();
                    answers.nodes.retain(|(node, _)| *node != me);
                    answers.unanswered.retain(|node| *node != me);
                    return answers;
                }
            }
        }
        self.ask_within_reach(&request(false), None, patience).await
    }

    /// Asks all that this node is connected to, but for one that knows already.
    pub(super) async fn ask_within_reach<T: DeserializeOwned>(
        &self,
        request: &Request,
        but: Option<NodeId>,
        patience: Duration,
    ) -> Answers<T> {
        let contacts = self.inner.net.contacts().into_iter().filter(|contact| Some(contact.node) != but);
        let asked = contacts.map(|contact| async move {
            (contact.node, self.ask_one::<T>(contact.node, request, patience).await)
        });
        let mut reports = Answers { nodes: Vec::new(), unanswered: Vec::new() };
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((node, report)) = answers.next().await {
            match report {
                Some(report) => reports.nodes.push((node.to_string(), report)),
                None => reports.unanswered.push(node.to_string()),
            }
        }
        reports
    }

    /// The reports of those that lead flights, as far as they answer: where one is under way, one of
    /// these knows.
    pub(super) async fn ask_hubs<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let hubs = self.inner.net.contacts().into_iter().filter(|contact| contact.hub);
        let asked = hubs.map(|hub| self.ask_report(hub.node, path.to_owned(), SHORTLY));
        let answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        answers.filter_map(std::future::ready).collect().await
    }

    pub(super) async fn ask_report<T: DeserializeOwned>(
        &self,
        node: NodeId,
        path: String,
        patience: Duration,
    ) -> Option<T> {
        self.ask_one(node, &report_request(path), patience).await
    }

    async fn ask_one<T: DeserializeOwned>(
        &self,
        node: NodeId,
        request: &Request,
        patience: Duration,
    ) -> Option<T> {
        let ask = async {
            let answer = self.inner.net.ask_patiently(&node, request, patience).await.ok()?;
            serde_json::from_slice(&answer.read_all(MAX_REPORT).await.ok()?).ok()
        };
        tokio::time::timeout(patience, ask).await.ok()?
    }

    /// What a member may know of this node, and of a hub's others.
    pub(super) async fn report_to_member(&self, from: NodeId, path: &str) -> Option<String> {
        let (of_site, path) = match path.strip_prefix(OF_SITE) {
            Some(path) => (true, path),
            None => (false, path),
        };
        match path {
            "tally" => return serde_json::to_string(&self.tally().await?).ok(),
            WAN_RATE if !of_site => return Some(self.own_wan_rate().await.to_string()),
            WAN_RATE => return self.report(of_site, path, self.own_wan_rate().await).await,
            doctor::CLOCK => return Some(jiff::Timestamp::now().as_millisecond().to_string()),
            doctor::KNOCK => return serde_json::to_string(&self.inner.net.knock_back(&from).await).ok(),
            "pushes" => return Some(self.can_push().to_string()),
            _ => {}
        }
        if let Some(blob) = path.strip_prefix(IN_FLIGHT) {
            return Some(self.is_in_flight(&blob.parse().ok()?).to_string());
        }
        if path == INVENTORY {
            return self.report(of_site, path, self.own_inventory()).await;
        }
        if path == WEIGHINGS {
            return self.report(of_site, path, self.weighings()).await;
        }
        if path == AUDIT {
            return self.report(of_site, path, self.own_audit().await).await;
        }
        let (start, end) = path.strip_prefix("rows/")?.split_once('-')?;
        let books = self.own_books(start.parse().ok()?..end.parse().ok()?);
        self.report(of_site, path, books).await
    }

    async fn report<T: Serialize + DeserializeOwned>(
        &self,
        of_site: bool,
        path: &str,
        own: T,
    ) -> Option<String> {
        if !of_site {
            return serde_json::to_string(&own).ok();
        }
        if !self.inner.net.is_hub() {
            return None;
        }
        let mut answers = self.ask_within_reach(&report_request(path.to_owned()), None, PATIENCE).await;
        answers.nodes.push((self.me().to_string(), own));
        serde_json::to_string(&answers).ok()
    }
}

fn report_request(path: String) -> Request {
    Request { body: Some(request::Body::Report(ReportRequest { path })) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_ask_together_share_an_asking() {
        let (survey, asked) = (Survey::<usize>::default(), AtomicUsize::new(0));
        let ask = |path: &'static str, max_age: u64| {
            let (survey, asked) = (&survey, &asked);
            async move {
                let ask = async {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    let count = asked.fetch_add(1, Ordering::Relaxed);
                    Answers { nodes: vec![(path.to_owned(), count)], unanswered: Vec::new() }
                };
                survey.answers(path, Duration::from_millis(max_age), ask).await.nodes[0].1
            }
        };
        assert_eq!(futures::future::join_all((0..9).map(|_| ask("a", 1000))).await, [0; 9]);
        assert_eq!((ask("a", 1000).await, ask("a", 0).await), (0, 1), "not what began before the call");
        // Of those who want nothing old, all but the first are served by the second asking.
        let answers = futures::future::join_all((0..9).map(|_| ask("a", 0))).await;
        assert_eq!(answers, [2, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(ask("b", 1000).await, 4, "another question");
    }
}
