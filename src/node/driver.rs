//! The task that owns the coordinator.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::allowance::Keeper;
use super::hurry::Hurry;
use super::wan::WanFlight;
use super::{Node, blocking, home, peers, wan};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::{
    self, Coordinator, Effect, Failure, FailureKind, FlightView, Input, Message, Shelf, Step, WanEnd,
};
use crate::core::id::{BlobId, NodeId};
use crate::core::manifest::Manifest;
use crate::core::strain;
use crate::core::upstream::segment;
use crate::net::Event;
use crate::origin::Origin;
use crate::store::{Blob, Store, StoreError};

/// Inputs handled before others get their turn.
const BURST: usize = 64;

/// Why a piece of an upstream's object has no origin to be pulled from.
const NOWHERE: &str = "no machine of the site holds it any more";

/// Everything that runs for one flight.
#[derive(Default)]
struct Running {
    wan: Option<Arc<WanFlight>>,
    hurry: Hurry,
    runs: Vec<AbortHandle>,
    manifest: Option<AbortHandle>,
    /// Batches under way, by number.
    batches: HashMap<u64, CancellationToken>,
    blob: Option<Arc<dyn Blob>>,
}

/// The coordinator's hands.
pub(super) struct Driver {
    node: Node,
    coordinator: Coordinator,
    origin: Option<Origin>,
    allowance: Keeper,
    running: HashMap<BlobId, Running>,
    views: Arc<Mutex<Vec<FlightView>>>,
    tasks: JoinSet<()>,
}

/// What the store holds, as the coordinator asks for it.
struct Disk<'a>(&'a dyn Store);

impl Shelf for Disk<'_> {
    fn holding(&self, blob: &BlobId) -> Option<(Arc<Manifest>, ChunkSet)> {
        self.0.get(blob).map(|blob| (blob.manifest().clone(), blob.held()))
    }
}

impl Driver {
    pub(super) fn new(node: &Node, settings: flight::Config, origin: Option<Origin>) -> Self {
        let now = Instant::now();
        let limit = node.inner.config.wan_limit;
        Self {
            coordinator: Coordinator::new(now, node.me(), settings),
            origin,
            allowance: Keeper::new(
                node.inner.net.clone(),
                node.inner.allowance.clone(),
                node.inner.windows.clone(),
                limit,
            ),
            running: HashMap::new(),
            views: node.inner.views.clone(),
            node: node.clone(),
            tasks: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut events: mpsc::Receiver<Event>) {
        loop {
            let (deadline, look) = (self.coordinator.deadline(), self.allowance.deadline());
            let begun = self.node.inner.allowance.clone();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return,
                },
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                Some(_) = self.tasks.join_next() => {}
                () = until(deadline) => self.handle(Input::Tick),
                () = until(look) => self.allowance.look(),
                () = begun.begun() => self.allowance.look(),
            }
            for _ in 0..BURST {
                let Ok(input) = inputs.try_recv() else { break };
                self.handle(input);
            }
            self.show();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            // Only hubs lead: they alone are connected to all.
            Event::Up { node, hello, hub } => {
                self.allowance.joined(node, &hello, hub);
                self.node.tell_orders(&node);
                self.handle(Input::Joined { node, weight: if hub { hello.weight } else { 0 } });
            }
            Event::Hub { hub } => {
                self.allowance.is_hub(hub);
                self.handle(Input::Weight { weight: self.node.weight_to_lead() });
            }
            Event::Down { node } => {
                self.allowance.left(node);
                self.handle(Input::Left { node });
            }
            Event::Orders { from, digest } => {
                self.tasks.spawn(self.node.clone().learn_orders(from, digest));
            }
            Event::Budget { from, word } => self.allowance.hear(from, word),
            Event::Message { from, message } => self.on_message(from, message),
        }
    }

    fn on_message(&mut self, from: NodeId, mut message: Message) {
        if let Step::Sources(sources) = &mut message.step
            && sources.small.is_some()
        {
            if self.coordinator.follows(&message.blob, &message.manifest, &from) {
                self.tasks.spawn(self.node.clone().take_small(from, message));
                return;
            }
            sources.small = None; // nobody has asked for it
        }
        self.handle(Input::Message { from, message });
    }

    fn handle(&mut self, input: Input) {
        match &input {
            Input::Stored { blob, .. } => self.node.inner.live.came(blob),
            Input::PeerEnded { blob, batch, .. } => {
                if let Some(running) = self.running.get_mut(blob) {
                    running.batches.remove(batch);
                }
            }
            _ => {}
        }
        let store = self.node.inner.store.clone();
        self.coordinator.handle(Instant::now(), input, &Disk(&*store));
        while let Some(effect) = self.coordinator.poll() {
            self.perform(effect);
        }
    }

    /// For `status` and the API; and for the network, how far behind this node is.
    fn show(&self) {
        self.node.inner.net.endure(strain::patience(self.coordinator.lag()));
        if let Ok(mut views) = self.views.lock() {
            views.clear();
            views.extend(self.coordinator.flights());
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, mut message } => {
                tracing::trace!(%to, blob = message.blob.short(), step = message.step.kind(), "says");
                self.node.add_small(&to, &mut message);
                self.node.inner.net.send(&to, &message);
            }
            Effect::Connect { nodes } => self.node.inner.net.connect(nodes),
            Effect::FetchManifest { blob, manifest, from } => self.fetch_manifest(blob, manifest, from),
            Effect::FetchWan { blob, run, chunks, reason, need, best } => {
                let Some(handle) = self.blob(&blob) else { return self.unwritable(blob) };
                if segment::is_of_upstream(handle.manifest()) {
                    return self.not_here(blob, run, Failure::permanent(NOWHERE));
                }
                let wan = match self.wan(blob) {
                    Ok(wan) => wan,
                    Err(error) => return self.not_here(blob, run, Failure::local(error)),
                };
                let reason = wan.why(reason);
                tracing::debug!(%blob, run, chunks = chunks.len(), reason = reason.as_str(), "pulling over the WAN");
                let order = wan::Run { blob, run, chunks, reason, need, best };
                let work = wan::pull(self.node.clone(), wan, handle, order);
                let abort = self.tasks.spawn(work);
                self.running.entry(blob).or_default().runs.push(abort);
            }
            Effect::Urgency { blob, urgency } => self.running.entry(blob).or_default().hurry.set(urgency),
            Effect::StopWan { blob } => {
                if let Some(running) = self.running.get_mut(&blob) {
                    running.runs.drain(..).for_each(|run| run.abort());
                    // Its connections end with it, so that nothing more comes over them.
                    running.wan = None;
                }
            }
            Effect::FetchPeer { blob, batch, source, chunks } => {
                let Some(handle) = self.blob(&blob) else { return self.unwritable(blob) };
                let abort = CancellationToken::new();
                self.running.entry(blob).or_default().batches.insert(batch, abort.clone());
                let chunks = chunks.into_iter().collect();
                let order = peers::Order { batch, source, chunks, abort };
                self.tasks.spawn(peers::fetch(self.node.clone(), handle, order));
            }
            Effect::AbortPeer { blob, batch } => {
                let batch = self.running.get(&blob).and_then(|running| running.batches.get(&batch));
                batch.inspect(|batch| batch.cancel());
            }
            Effect::Duplicate { blob, bytes, reason } => {
                self.node.inner.books.duplicate(&self.node.label(&blob), reason, bytes)
            }
            Effect::Ended { blob, result } => {
                if let Err(failure) = &result {
                    tracing::warn!(%blob, why = failure.why, "a flight failed");
                }
                self.finish(blob);
                self.node.inner.live.ended(&blob, result);
            }
            Effect::Over { blob } => {
                self.finish(blob);
                if let Some(running) = self.running.remove(&blob) {
                    running.runs.iter().chain(&running.manifest).for_each(AbortHandle::abort);
                    // A batch ends by itself: what it has read is stored first.
                    running.batches.values().for_each(CancellationToken::cancel);
                }
            }
        }
    }

    /// The blob's file has gone from under us. What follows is polled by whoever performs effects.
    fn unwritable(&mut self, blob: BlobId) {
        let store = self.node.inner.store.clone();
        let input = Input::Unwritable { blob, why: "its file is gone from the store".into() };
        self.coordinator.handle(Instant::now(), input, &Disk(&*store));
    }

    /// This node cannot pull it from an origin.
    fn not_here(&mut self, blob: BlobId, run: u64, failure: Failure) {
        let input = Input::WanEnded { blob, run, end: WanEnd::Failed(failure) };
        let store = self.node.inner.store.clone();
        self.coordinator.handle(Instant::now(), input, &Disk(&*store));
    }

    fn blob(&mut self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        let running = self.running.entry(*blob).or_default();
        if running.blob.is_none() {
            running.blob = self.node.inner.store.get(blob);
        }
        running.blob.clone()
    }

    fn wan(&mut self, blob: BlobId) -> Result<Arc<WanFlight>, crate::origin::OriginError> {
        let running = self.running.entry(blob).or_default();
        if let Some(wan) = &running.wan {
            return Ok(wan.clone());
        }
        let (books, label) = (&self.node.inner.books, self.node.label(&blob));
        let origin = home::of(self.origin.as_ref())?;
        let mut wan = WanFlight::new(origin, books, label, running.hurry.clone())?;
        wan.upgrade = self.node.holds_other_version(&blob);
        let wan = Arc::new(wan);
        running.wan = Some(wan.clone());
        Ok(wan)
    }

    /// Makes a complete blob durable, in the background.
    fn finish(&mut self, blob: BlobId) {
        let Some(handle) = self.running.get(&blob).and_then(|running| running.blob.clone()) else { return };
        if handle.held().len() == handle.manifest().count() {
            self.tasks.spawn(async move {
                if let Some(Err(error)) = blocking(move || handle.finish()).await {
                    tracing::error!(%blob, %error, "a complete blob could not be made durable");
                }
            });
        }
    }

    fn fetch_manifest(&mut self, blob: BlobId, id: crate::core::id::ManifestId, from: Option<NodeId>) {
        let node = self.node.clone();
        let nowhere = from.is_none() && node.is_of_upstream(&blob);
        let wan = if from.is_none() { Some(self.wan(blob)) } else { None };
        let work = async move {
            let fetched = match (from, wan) {
                _ if nowhere => Err(Failure::permanent(NOWHERE)),
                (Some(from), _) => peers::manifest(&node, from, blob, id).await,
                (None, Some(Ok(wan))) => wan::manifest(&node, &wan, blob, id).await,
                (None, Some(Err(error))) => Err(Failure::local(error)),
                (None, None) => return,
            };
            let result = match fetched {
                Ok(manifest) => open(&node, manifest).await,
                Err(failure) => Err(failure),
            };
            node.inner.live.came(&blob);
            node.inner.inputs.send(Input::Manifest { blob, result }).await.ok();
        };
        let abort = self.tasks.spawn(work);
        self.running.entry(blob).or_default().manifest = Some(abort);
    }
}

/// Waits for a time that may never come.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Opens the blob in the store, so that chunks have a place to go.
async fn open(node: &Node, manifest: Arc<Manifest>) -> Result<(Arc<Manifest>, ChunkSet), Failure> {
    let (store, id) = (node.inner.store.clone(), manifest.blob());
    let package = node.package_of(&id);
    let opened =
        blocking(move || (store.get(&id).is_none(), store.open_in(&manifest, package.as_ref()))).await;
    let (new, opened) = opened.map_or((false, None), |(new, opened)| (new, Some(opened)));
    match opened {
        Some(Ok(blob)) => {
            let (manifest, held) = (blob.manifest().clone(), blob.held());
            if new {
                node.inner.books.opened(&node.label(&id), &manifest, held.iter());
            }
            Ok((manifest, held))
        }
        Some(Err(error)) => Err(local_failure(&error)),
        None => Err(Failure { why: "the store stopped".into(), kind: FailureKind::Local }),
    }
}

/// A failure of this node's disk: another node may fare better.
pub(super) fn local_failure(error: &StoreError) -> Failure {
    Failure::local(error)
}

impl Node {
    /// Whether another version of the blob's package is complete here.
    fn holds_other_version(&self, blob: &BlobId) -> bool {
        let Some(catalog) = self.inner.catalog.current() else { return false };
        let complete = self.inner.store.list().into_iter().filter(|held| held.complete && held.blob != *blob);
        let complete: HashSet<BlobId> = complete.map(|held| held.blob).collect();
        catalog.versions_beside(blob).any(|published| complete.contains(&published.blob))
    }

    /// How the ledger calls a blob.
    pub(super) fn label(&self, blob: &BlobId) -> String {
        if let Some(label) = self.inner.upstreams.label_of(blob) {
            return label;
        }
        let catalog = self.inner.catalog.current();
        catalog.and_then(|catalog| catalog.label_of(blob)).unwrap_or_else(|| format!("({})", blob.short()))
    }
}
