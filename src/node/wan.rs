//! Pulling over the WAN: one run of chunks, or a manifest.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::allowance::Pulling;
use super::books::Books;
use super::driver::local_failure;
use super::flow::{Flow, News, opened};
use super::hurry::Hurry;
use super::passage::{Gate, Passage};
use super::recipes::Course;
use super::toll::Toll;
use super::{Node, blocking};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::{Failure, FailureKind, Input, Urgency, WanEnd};
use crate::core::id::{BlobId, ManifestId};
use crate::core::ledger::{Source, WanReason};
use crate::core::manifest::{Chunk, MAX_MANIFEST, Manifest};
use crate::origin::{Carried, Origin, OriginError};
use crate::store::{Blob, StoreError};

/// The WAN side of one flight: connections of its own, so that its bytes can be billed to it.
#[derive(Debug)]
pub(super) struct WanFlight {
    pub(super) origin: Origin,
    pub(super) label: String,
    /// Why the bytes that come are asked for.
    reason: Arc<Mutex<WanReason>>,
    hurry: Hurry,
    toll: Arc<Toll>,
    /// Another version of the package is here already.
    pub(super) upgrade: bool,
    /// By which way its chunks come.
    pub(super) course: Course,
}

impl WanFlight {
    /// # Errors
    /// As [`Origin::open`].
    pub(super) fn new(
        origin: &Origin,
        books: &Arc<Books>,
        label: String,
        hurry: Hurry,
    ) -> Result<Self, OriginError> {
        let reason = Arc::new(Mutex::new(WanReason::Cold));
        let (books, booked, why) = (books.clone(), label.clone(), reason.clone());
        let toll = Arc::new(Toll::default());
        let counted = toll.clone();
        let sink = move |carried: Carried| {
            counted.carried(&carried);
            books.carried(&booked, *why.lock().unwrap_or_else(PoisonError::into_inner), carried);
        };
        let origin = origin.metered(Arc::new(sink))?;
        Ok(Self { origin, label, reason, hurry, toll, upgrade: false, course: Course::default() })
    }

    /// Why chunks cross that nobody on the site holds, where the coordinator has no better reason.
    pub(super) fn why(&self, reason: WanReason) -> WanReason {
        match reason {
            WanReason::Cold if self.urgency() == Urgency::Background => WanReason::Preload,
            WanReason::Cold if self.upgrade => WanReason::Upgrade,
            reason => reason,
        }
    }

    /// What comes from now on is asked for this reason.
    pub(super) fn is_for(&self, reason: WanReason) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The way of what is about to be asked for.
    pub(super) fn passage(&self, pulling: Pulling) -> Passage {
        let (meter, toll) = (self.origin.meter().clone(), self.toll.clone());
        Passage::begin(pulling, Gate { meter, toll })
    }

    pub(super) fn urgency(&self) -> Urgency {
        self.hurry.now()
    }
}

impl Drop for WanFlight {
    fn drop(&mut self) {
        self.origin.meter().end();
    }
}

/// One run, as the coordinator ordered it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) blob: BlobId,
    pub(super) run: u64,
    pub(super) chunks: Vec<u32>,
    pub(super) reason: WanReason,
    /// Bytes at the origin that are to come over the WAN, in this run and others.
    pub(super) need: u64,
    /// The best that the WAN has given, in bytes per second; 0 if that is not known.
    pub(super) best: u64,
}

fn failure(error: &OriginError) -> Failure {
    let kind = if error.is_transient() { FailureKind::Transient } else { FailureKind::Permanent };
    Failure { why: error.to_string(), kind }
}

/// Fetches a manifest over the WAN, when that is open.
pub(super) async fn manifest(
    node: &Node,
    wan: &WanFlight,
    blob: BlobId,
    id: ManifestId,
) -> Result<Arc<Manifest>, Failure> {
    let mut news = News::new(node, blob);
    let mut passage = opened(node, wan, &mut news, 0).await;
    wan.is_for(WanReason::Manifest);
    let read = wan.origin.read(&format!("manifests/{id}"), MAX_MANIFEST as u64).await;
    let encoded = read.map_err(|error| failure(&error))?;
    // What it took is waited for by what comes next.
    passage.pay(encoded.len() as u64);
    drop(passage);
    let manifest = Manifest::decode(id, encoded);
    manifest.map(Arc::new).map_err(|error| Failure { why: error.to_string(), kind: FailureKind::Permanent })
}

/// Pulls a run and reports how it ended.
pub(super) async fn pull(node: Node, wan: Arc<WanFlight>, blob: Arc<dyn Blob>, run: Run) {
    let end = match pull_run(&node, &wan, &blob, &run).await {
        Ok(()) => WanEnd::Done,
        Err(end) => end,
    };
    node.inner.inputs.send(Input::WanEnded { blob: run.blob, run: run.run, end }).await.ok();
}

async fn pull_run(node: &Node, wan: &WanFlight, blob: &Arc<dyn Blob>, run: &Run) -> Result<(), WanEnd> {
    let failed = |error: &OriginError| WanEnd::Failed(failure(error));
    let manifest = blob.manifest().clone();
    let mut news = News::new(node, run.blob);
    if wan.course.brings(node, wan, blob, run, &mut news).await {
        return Ok(());
    }
    let held = if wan.course.has_brought() { blob.held() } else { ChunkSet::new() };
    let missing = run.chunks.iter().filter(|&&index| !held.contains(index));
    let chunks: Vec<(u32, Chunk)> =
        missing.filter_map(|&index| Some((index, *manifest.chunk(index)?))).collect();
    let (Some((_, first)), Some((_, last))) = (chunks.first(), chunks.last()) else { return Ok(()) };
    let Some(pack) = manifest.packs().get(first.pack as usize) else { return Ok(()) };
    let (path, range) = (format!("packs/{pack}"), first.pack_offset..last.pack_range().end);
    let flow = Flow::open(node, wan, news, (&path, range.clone()), run.reason).await;
    let mut flow = flow.map_err(|error| failed(&error))?;
    let mut at = range.start;
    for (index, chunk) in chunks {
        // What a recipe has brought lies in between, and comes again.
        let between = chunk.pack_offset.saturating_sub(at) as usize;
        flow.take(between).await.map_err(|error| failed(&error))?;
        let stored = flow.take(chunk.stored as usize).await.map_err(|error| failed(&error))?;
        at = chunk.pack_range().end;
        write(node, wan, blob, run, index, &chunk, stored).await?;
    }
    Ok(())
}

/// Unpacks, verifies and stores one chunk.
async fn write(
    node: &Node,
    wan: &WanFlight,
    blob: &Arc<dyn Blob>,
    run: &Run,
    index: u32,
    chunk: &Chunk,
    stored: Bytes,
) -> Result<(), WanEnd> {
    let (target, length, packed) = (blob.clone(), chunk.length as usize, chunk.stored < chunk.length);
    let written = blocking(move || {
        if !packed {
            return target.write(index, &stored);
        }
        let content = zstd::bulk::decompress(&stored, length).map_err(|_| StoreError::WrongHash(index))?;
        target.write(index, &content)
    });
    let places = match written.await {
        Some(Ok(places)) => places,
        Some(Err(StoreError::WrongHash(chunk))) => return Err(WanEnd::Corrupt { chunk }),
        Some(Err(error)) => return Err(WanEnd::Failed(local_failure(&error))),
        None => {
            return Err(WanEnd::Failed(Failure {
                why: "the store stopped".into(),
                kind: FailureKind::Local,
            }));
        }
    };
    let new = !places.is_empty();
    node.inner.books.chunk(&wan.label, chunk.stored.into());
    node.stored(&wan.label, Source::Wan(run.reason), blob.manifest(), vec![index], places).await;
    if run.reason == WanReason::Takeover && new {
        // The lead before was pulling it too.
        node.inner.books.duplicate(&wan.label, WanReason::Takeover, u64::from(chunk.length));
    }
    Ok(())
}

impl Node {
    /// Books chunks that came, and tells the coordinator and the clients. `places` are where the
    /// blob has them and had not before.
    pub(super) async fn stored(
        &self,
        label: &str,
        source: Source,
        manifest: &Manifest,
        chunks: Vec<u32>,
        places: Vec<u32>,
    ) {
        let blob = manifest.blob();
        // Only one of a chunk's places crossed; the others were copied here.
        let new = chunks.iter().filter(|chunk| places.contains(chunk));
        let arrived = new.filter_map(|&index| Some((index, u64::from(manifest.chunk(index)?.length))));
        self.inner.books.arrived(blob, label, source, arrived);
        let mut chunks = chunks;
        chunks.extend(places);
        chunks.sort_unstable();
        chunks.dedup();
        self.inner.inputs.send(Input::Stored { blob, chunks }).await.ok();
    }
}
