//! Fetching what is to be kept, though no client waits for it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::Node;
use super::super::catalog::Resolved;
use super::wants::{Want, Wants};
use super::{Failures, Part};
use crate::core::flight::Urgency;
use crate::core::id::BlobId;

/// Blobs that are fetched at a time.
const AT_ONCE: usize = 3;
/// What failed is tried again after this, and ever later.
const AGAIN: Duration = Duration::from_secs(10);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);
/// What has to be here by a certain time is in a hurry when no more is left than it takes at this
/// rate, in bytes per second, twice over.
const SLOW_WAN: u64 = 500_000;

struct Fetch {
    task: JoinHandle<()>,
    background: bool,
}

/// A blob whose fetching has failed.
struct Failed {
    times: u32,
    again: Instant,
}

/// What is being fetched, and what failed.
pub(super) struct Fetches {
    node: Node,
    under_way: BTreeMap<BlobId, Fetch>,
    failed: HashMap<BlobId, Failed>,
    failures: Failures,
    ends: (mpsc::Sender<End>, mpsc::Receiver<End>),
    last: Vec<End>,
}

type End = (BlobId, Result<(), String>);

impl Fetches {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            under_way: BTreeMap::new(),
            failed: HashMap::new(),
            failures: Failures::new(),
            ends: mpsc::channel(AT_ONCE * 2),
            last: Vec::new(),
        }
    }

    /// Waits until one has ended.
    pub(super) async fn ended(&mut self) {
        if let Some(end) = self.ends.1.recv().await {
            self.last.push(end);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn is_under_way(&self, blob: &BlobId) -> bool {
        self.under_way.contains_key(blob)
    }

    /// What could not be fetched, and why.
    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Begins what is missing, soonest first, and ends what nobody wants any more.
    pub(super) fn keep_to(&mut self, wants: &Wants, parts: &HashMap<BlobId, Part>) {
        self.note_ends();
        let complete = |blob: &BlobId| parts.get(blob).is_some_and(|part| part.complete);
        let wanted = |blob: &BlobId| {
            wants.by_blob.get(blob).filter(|want| want.fetch && !complete(blob)).map(|want| (*blob, want))
        };
        let hurries =
            |blob: &BlobId, want: &Want| is_urgent(want, parts.get(blob).copied().unwrap_or_default());
        // What has become urgent is begun anew as such; what it has brought stays.
        self.under_way.retain(|blob, fetch| {
            let stays = wanted(blob).is_some_and(|(_, want)| !(fetch.background && hurries(blob, want)));
            if !stays {
                fetch.task.abort();
            }
            stays
        });
        self.failures.retain(|blob, _| wanted(blob).is_some());
        self.failed.retain(|blob, _| wanted(blob).is_some());
        let now = Instant::now();
        let due = |blob: &BlobId| self.failed.get(blob).is_none_or(|failed| failed.again <= now);
        let mut missing: Vec<(BlobId, &Want)> = wants
            .by_blob
            .keys()
            .filter_map(wanted)
            .filter(|(blob, _)| !self.under_way.contains_key(blob) && due(blob))
            .collect();
        missing
            .sort_by_key(|(_, want)| (want.by.unwrap_or(Timestamp::MAX), want.resolved.published.published));
        for (blob, want) in missing.into_iter().take(AT_ONCE.saturating_sub(self.under_way.len())) {
            let background = !hurries(&blob, want);
            tracing::info!(
                package = want.resolved.label(),
                why = want.why.join(", "),
                background,
                "fetching to keep"
            );
            let work = fetch(self.node.clone(), want.resolved.clone(), background, self.ends.0.clone());
            self.under_way.insert(blob, Fetch { task: tokio::spawn(work), background });
        }
    }

    fn note_ends(&mut self) {
        while let Ok(end) = self.ends.1.try_recv() {
            self.last.push(end);
        }
        for (blob, result) in std::mem::take(&mut self.last) {
            self.under_way.remove(&blob);
            match result {
                Ok(()) => {
                    self.failed.remove(&blob);
                    self.failures.remove(&blob);
                }
                Err(why) => {
                    let failed =
                        self.failed.entry(blob).or_insert(Failed { times: 0, again: Instant::now() });
                    failed.again =
                        Instant::now() + (AGAIN * 2u32.pow(failed.times.min(6))).min(AGAIN_AT_MOST);
                    failed.times += 1;
                    self.failures.insert(blob, why);
                }
            }
        }
    }
}

/// Whether it would not be here in time if it went on in the background.
fn is_urgent(want: &Want, part: Part) -> bool {
    let missing = want.resolved.published.size.saturating_sub(part.bytes);
    let takes = SignedDuration::from_secs((2 * missing / SLOW_WAN + 60) as i64);
    want.by.is_some_and(|by| by.duration_since(Timestamp::now()) < takes)
}

async fn fetch(node: Node, resolved: Resolved, background: bool, ends: mpsc::Sender<End>) {
    let blob = resolved.published.blob;
    let mut ticket = node.inner.live.enter_to_keep(blob, node.inner.inputs.clone());
    let urgency = if background { Urgency::Background } else { Urgency::Foreground };
    ticket.want(resolved.published.manifest, urgency).await;
    let result = loop {
        let end = ticket.news.borrow_and_update().end.clone();
        if let Some(end) = end {
            break end.map_err(|failure| failure.why);
        }
        if ticket.news.changed().await.is_err() {
            break Err("the agent is stopping".to_owned());
        }
    };
    ends.send((blob, result)).await.ok();
}
