//! Pushing the site's sums to a monitoring system, so that headquarters need not ask every machine
//! over the WAN: one node of the site does, the best-ranked hub that can.
//!
//! Nobody votes. Each node that is told where to push asks those that rank before it whether they do,
//! and does so itself if none says yes. For a moment, or in a partition, two may push: every series
//! names its `pusher`, so that neither writes into the other's, and each counts only what the nodes
//! that it reaches have booked since they were last asked. Adding up over `pusher` is right in a
//! partition, and counts what was booked while both reached the same nodes (an interval at most) twice.
//! What is lost is what a node books between the last time that it was asked and its end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use tokio::time::MissedTickBehavior;

use super::books::hour_now;
use super::figures::{Family, Kind, NodeTally, Sample, SiteSums, site_families};
use super::{Node, blocking, settle};
use crate::core::id::NodeId;
use crate::core::ledger::{Row, WanReason};
use crate::core::rank::rank;
use crate::core::wire::remote_write as wire;
use crate::origin::push::{PushUrl, Pusher, Token};

/// How the ledger calls what is pushed.
const LABEL: &str = "(push)";
/// A member has so long to say whether it pushes, and to tell its sums.
const WORD: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// Members that are asked at a time.
const AT_ONCE: usize = 32;
/// Better-ranked nodes that are asked before this one pushes: dead ones are soon not connected.
const BETTER: usize = 8;
/// Waits between attempts of one turn.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// After so many turns that failed, others may try, for so many turns.
const FAILED: u32 = 3;
const REST: u32 = 10;
/// A series begins with nothing, so long before its first value: else what it begins with would not
/// count as growth.
const BEFORE_MS: i64 = 1000;
/// The value that ends a series, as Prometheus has it.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Where to push, and how often.
#[derive(Debug, Clone)]
pub struct Config {
    /// The receiver.
    pub url: PushUrl,
    /// What it asks of senders.
    pub token: Option<Token>,
    /// How often.
    pub interval: Duration,
}

/// What members may ask about.
#[derive(Debug)]
pub(super) struct State {
    /// Tells this run of the agent from others.
    run: u64,
    /// This node pushes if no better one does.
    can: AtomicBool,
    /// What was booked when a node that pushes last asked.
    told: Mutex<Row>,
}

impl Default for State {
    fn default() -> Self {
        Self { run: rand::random(), can: AtomicBool::new(false), told: Mutex::default() }
    }
}

impl Node {
    /// Whether this node pushes, or would if it ranked first.
    pub(super) fn can_push(&self) -> bool {
        self.inner.push.can.load(Ordering::Relaxed) && self.inner.net.is_hub()
    }

    /// What the node that pushes is told.
    pub(super) async fn tally(&self) -> Option<NodeTally> {
        let node = self.clone();
        blocking(move || node.own_tally()).await
    }

    fn own_tally(&self) -> NodeTally {
        let inner = &self.inner;
        let booked = self.books().booked();
        let mut told = inner.push.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::replace(&mut *told, booked.clone());
        let catalog = self.catalog().current();
        NodeTally {
            run: inner.push.run,
            booked,
            told,
            role: inner.standing.role(),
            nearly_full: inner.store.is_nearly_full(),
            headroom: inner.store.disk_free().map(|free| free.saturating_sub(inner.config.disk_reserve.0)),
            catalog: catalog.map(|it| (it.version, it.expires.as_second().max(0).unsigned_abs())),
            faulty_rows: self.books().health().1 as u64,
            packages: self.books().top_packages(hour_now().saturating_sub(24), NodeTally::PACKAGES),
        }
    }
}

/// Pushes, in turns, for as long as the agent runs.
pub(super) async fn keep(node: Node, config: Config) {
    let books = node.inner.books.clone();
    let sink = move |carried| books.carried(LABEL, WanReason::Push, carried);
    let pusher = Pusher::new(config.url, config.token, std::sync::Arc::new(sink));
    let site = node.inner.config.site.to_string();
    let writer = Writer { site, pusher: node.me().to_string(), begun: HashSet::new() };
    let sums = SiteSums::default();
    tokio::time::sleep(settle(&node.inner.config)).await;
    node.inner.push.can.store(true, Ordering::Relaxed);
    let mut turns = tokio::time::interval(config.interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interval = config.interval;
    let mut shift = Shift { node, pusher, writer, sums, interval, failed: 0, rests: None, last: Vec::new() };
    loop {
        turns.tick().await;
        shift.turn().await;
    }
}

/// A node at its work.
struct Shift {
    node: Node,
    pusher: Pusher,
    writer: Writer,
    sums: SiteSums,
    interval: Duration,
    /// Turns in a row that failed.
    failed: u32,
    rests: Option<Instant>,
    /// What was pushed last, if this node has the task.
    last: Vec<Family>,
}

impl Shift {
    async fn turn(&mut self) {
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.rests = None;
        self.node.inner.push.can.store(true, Ordering::Relaxed);
        if !self.has_the_task().await {
            self.give_up_the_task().await;
            return;
        }
        let (tallies, unanswered) = self.ask_the_site().await;
        let families = site_families(&self.sums.take(&tallies, unanswered));
        let request = self.writer.write(&families, now_ms());
        self.last = families;
        let result = self.send(&request).await;
        self.note(result);
    }

    /// Whether no better-ranked node pushes.
    async fn has_the_task(&self) -> bool {
        let (node, net) = (&self.node, &self.node.inner.net);
        if !net.is_hub() {
            return false;
        }
        let key = *blake3::hash(b"branchline push").as_bytes();
        let hubs = net.contacts().into_iter().filter(|contact| contact.hub);
        let hubs = hubs.map(|contact| (contact.node, contact.weight()));
        let ranked = rank(&key, hubs.chain([(net.me(), node.weight_to_lead())]));
        for better in ranked.into_iter().take_while(|it| *it != net.me()).take(BETTER) {
            if node.ask_report::<bool>(better, "pushes".into(), WORD).await == Some(true) {
                return false;
            }
        }
        true
    }

    /// Another node has it. What this one last said of the site holds no more.
    async fn give_up_the_task(&mut self) {
        self.sums.hand_over();
        if let Some(request) = self.writer.end(&std::mem::take(&mut self.last), now_ms())
            && let Err(error) = self.pusher.push(request).await
        {
            tracing::debug!(%error, "the series of a node that pushes no more end by themselves");
        }
    }

    /// What the nodes of the site have booked, and how many did not say so.
    async fn ask_the_site(&self) -> (Vec<(String, NodeTally)>, usize) {
        let node = &self.node;
        let ask = |member: NodeId| async move {
            (member, node.ask_report::<NodeTally>(member, "tally".into(), PATIENCE).await)
        };
        let asked = node.inner.net.contacts().into_iter().map(|contact| ask(contact.node));
        let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        let asked = answers.len() + 1;
        let mut tallies: Vec<(String, NodeTally)> = answers
            .into_iter()
            .chain([(node.me(), node.tally().await)])
            .filter_map(|(member, tally)| Some((member.to_string(), tally?)))
            .collect();
        tallies.sort_by(|a, b| a.0.cmp(&b.0));
        let unanswered = asked - tallies.len();
        (tallies, unanswered)
    }

    /// Sends the newest sums: what could not be sent before is in them.
    async fn send(&self, request: &Bytes) -> Result<(), crate::origin::push::PushError> {
        for wait in BACKOFF {
            match self.pusher.push(request.clone()).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "pushing the site's sums is tried again");
                    tokio::time::sleep(wait.min(self.interval / 4)).await;
                }
                done => return done,
            }
        }
        self.pusher.push(request.clone()).await
    }

    fn note(&mut self, result: Result<(), crate::origin::push::PushError>) {
        let to = self.pusher.url();
        let Err(error) = result else {
            self.writer.begin(&self.last);
            if self.failed > 0 {
                tracing::info!(%to, "the site's sums are pushed again");
            }
            self.failed = 0;
            return;
        };
        if self.failed == 0 {
            let next = "nothing is lost, the next push has it; this is not said again until one succeeds";
            tracing::warn!(%to, %error, next, "the site's sums could not be pushed");
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed.is_multiple_of(FAILED) {
            // Another node may have a better way there.
            self.node.inner.push.can.store(false, Ordering::Relaxed);
            self.rests = Some(Instant::now() + self.interval * REST);
            self.last.clear();
            self.sums.hand_over();
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Makes write requests, and knows which counters have begun at the receiver.
struct Writer {
    site: String,
    pusher: String,
    begun: HashSet<Vec<(String, String)>>,
}

impl Writer {
    /// A series' labels, sorted by name as the protocol wants them.
    fn labels(&self, family: &Family, sample: &Sample) -> Vec<(String, String)> {
        let fixed = [
            ("__name__", family.full_name()),
            ("instance", self.site.clone()),
            ("job", "branchline-site".to_owned()),
            ("pusher", self.pusher.clone()),
            ("site", self.site.clone()),
        ];
        let all = fixed.into_iter().chain(sample.labels.iter().cloned());
        let mut labels: Vec<_> = all.map(|(name, value)| (name.to_owned(), value)).collect();
        labels.sort();
        labels
    }

    /// Counters that are still nothing are left out: they begin when they grow.
    fn series<'a>(
        &'a self,
        families: &'a [Family],
    ) -> impl Iterator<Item = (Kind, Vec<(String, String)>, u64)> + 'a {
        let samples = families.iter().flat_map(|family| family.samples.iter().map(move |it| (family, it)));
        let told = samples.filter(|(family, sample)| family.kind == Kind::Gauge || sample.value > 0);
        told.map(|(family, sample)| (family.kind, self.labels(family, sample), sample.value))
    }

    fn write(&self, families: &[Family], now: i64) -> Bytes {
        let series = self.series(families).map(|(kind, labels, value)| {
            let mut samples = vec![wire::Sample { value: value as f64, timestamp: now }];
            if kind == Kind::Counter && !self.begun.contains(&labels) {
                samples.insert(0, wire::Sample { value: 0.0, timestamp: now - BEFORE_MS });
            }
            of(labels, samples)
        });
        compress(series.collect())
    }

    /// These were taken in.
    fn begin(&mut self, families: &[Family]) {
        let begun = self.series(families).filter(|(kind, _, _)| *kind == Kind::Counter);
        let begun: Vec<_> = begun.map(|(_, labels, _)| labels).collect();
        self.begun.extend(begun);
    }

    /// Ends the series; `None` if there are none.
    fn end(&self, families: &[Family], now: i64) -> Option<Bytes> {
        let end = wire::Sample { value: f64::from_bits(STALE), timestamp: now };
        let series: Vec<_> = self.series(families).map(|(_, labels, _)| of(labels, vec![end])).collect();
        (!series.is_empty()).then(|| compress(series))
    }
}

fn of(labels: Vec<(String, String)>, samples: Vec<wire::Sample>) -> wire::TimeSeries {
    let labels = labels.into_iter().map(|(name, value)| wire::Label { name, value }).collect();
    wire::TimeSeries { labels, samples }
}

fn compress(timeseries: Vec<wire::TimeSeries>) -> Bytes {
    let plain = wire::WriteRequest { timeseries }.encode_to_vec();
    // It fails for more than 4 GiB alone.
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default();
    tracing::debug!(plain = plain.len(), sent = body.len(), "the site's sums, as they are pushed");
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Bytes) -> Vec<wire::TimeSeries> {
        let plain = snap::raw::Decoder::new().decompress_vec(body).expect("its own");
        wire::WriteRequest::decode(&plain[..]).expect("its own").timeseries
    }

    fn family(kind: Kind, value: u64) -> Family {
        let samples = vec![Sample { labels: vec![("reason", "cold".into())], value }];
        Family { name: "site_x_bytes".into(), kind, help: "", samples }
    }

    #[test]
    fn a_counter_begins_with_nothing_once() {
        let mut writer = Writer { site: "lisbon".into(), pusher: "p".into(), begun: HashSet::new() };
        assert_eq!(read(&writer.write(&[family(Kind::Counter, 0)], 9000)), []);
        let grown = [family(Kind::Counter, 5)];
        for _ in 0..2 {
            let series = read(&writer.write(&grown, 9000));
            let samples: Vec<_> = series[0].samples.iter().map(|it| (it.timestamp, it.value)).collect();
            assert_eq!(samples, [(8000, 0.0), (9000, 5.0)], "until it is taken in");
        }
        writer.begin(&grown);
        assert_eq!(read(&writer.write(&grown, 9000))[0].samples.len(), 1);
        let names: Vec<_> =
            read(&writer.write(&grown, 1))[0].labels.iter().map(|it| it.name.clone()).collect();
        assert_eq!(names, ["__name__", "instance", "job", "pusher", "reason", "site"]);
    }

    /// Every reason, and twenty packages with names as they are.
    #[test]
    fn a_push_is_small_however_large_the_site() {
        use crate::core::ledger::Totals;
        let every = |bytes: u64| WanReason::ALL.into_iter().map(|reason| (reason, bytes)).collect();
        let totals = Totals { wan: 123_456_789, wan_wire: 987_654_321, direct: 7, ..Totals::default() };
        let booked =
            Row { totals, reasons: every(3), content: every(2), duplicates: every(1), ..Row::default() };
        let package = |n: u64| (format!("application-suite-{n}"), Totals { delivered: n << 30, ..totals });
        let tally = NodeTally { booked, packages: (0..60).map(package).collect(), ..NodeTally::default() };
        let tallies: Vec<_> = (0..200).map(|n| (format!("node{n}"), tally.clone())).collect();
        let families = site_families(&SiteSums::default().take(&tallies, 0));
        let pusher = NodeId::from_bytes([7; 32]).to_string();
        let mut writer = Writer { site: "lisbon".into(), pusher, begun: HashSet::new() };
        writer.begin(&families);
        let body = writer.write(&families, 1_700_000_000_000);
        println!("{} series take {} bytes", read(&body).len(), body.len());
        assert!(body.len() < 8 << 10, "{}", body.len());
    }

    #[test]
    fn a_node_that_pushes_no_more_ends_its_series() {
        let writer = Writer { site: "lisbon".into(), pusher: "p".into(), begun: HashSet::new() };
        assert!(writer.end(&[], 1).is_none());
        let body = writer.end(&[family(Kind::Gauge, 0)], 1).expect("a series");
        assert_eq!(read(&body)[0].samples[0].value.to_bits(), STALE);
    }
}
