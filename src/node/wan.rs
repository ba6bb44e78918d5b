//! Pulling over the WAN: one run of chunks, or a manifest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;

use super::allowance::Pulling;
use super::books::Books;
use super::driver::local_failure;
use super::hurry::Hurry;
use super::toll::Toll;
use super::{Node, blocking};
use crate::core::flight::{Failure, FailureKind, Input, Urgency, WanEnd};
use crate::core::id::{BlobId, ManifestId};
use crate::core::ledger::{Source, WanReason};
use crate::core::manifest::{Chunk, MAX_MANIFEST, Manifest};
use crate::origin::{Carried, Origin, OriginError};
use crate::store::{Blob, StoreError};

/// The coordinator hears of bytes this often, at most.
const OFTEN: Duration = Duration::from_millis(200);

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
            counted.crossed(carried.crossed, carried.round_trip);
            books.carried(&booked, *why.lock().unwrap_or_else(PoisonError::into_inner), carried);
        };
        Ok(Self { origin: origin.metered(Arc::new(sink))?, label, reason, hurry, toll, upgrade: false })
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

    /// What is to be waited for now that so much content was read, in bytes as a router counts them.
    pub(super) fn owes(&self, content: u64) -> u64 {
        self.toll.owed(content)
    }

    fn urgency(&self) -> Urgency {
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
    let mut news = News { node, blob, told: Instant::now(), bytes: 0 };
    let pulling = opened(node, wan, &mut news).await;
    wan.is_for(WanReason::Manifest);
    let read = wan.origin.read(&format!("manifests/{id}"), MAX_MANIFEST as u64).await;
    let encoded = read.map_err(|error| failure(&error))?;
    // What it took is waited for by what comes next.
    pulling.throttle().take(wan.owes(encoded.len() as u64));
    drop(pulling);
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

/// What the coordinator hears of a run under way.
struct News<'a> {
    node: &'a Node,
    blob: BlobId,
    told: Instant,
    bytes: u64,
}

impl News<'_> {
    async fn came(&mut self, bytes: u64, gives_way: bool) {
        self.bytes += bytes;
        self.tell(gives_way).await;
    }

    /// The site's limit holds the run back, or it gives way to others: that is no lack of progress.
    async fn held_back(&mut self) {
        self.tell(true).await;
    }

    /// Waits for what comes from the origin. To what gives way it comes late, when the link is full and
    /// packets are lost.
    async fn meanwhile<T>(&mut self, pulling: &Pulling, coming: impl Future<Output = T>) -> T {
        let mut coming = std::pin::pin!(coming);
        loop {
            match tokio::time::timeout(OFTEN, &mut coming).await {
                Ok(came) => return came,
                Err(_) if pulling.gives_way() => self.held_back().await,
                Err(_) => {}
            }
        }
    }

    async fn tell(&mut self, held_back: bool) {
        if self.told.elapsed() < OFTEN {
            return;
        }
        self.told = Instant::now();
        let bytes = std::mem::take(&mut self.bytes);
        let input = Input::WanBytes { blob: self.blob, bytes, held_back };
        self.node.inner.inputs.send(input).await.ok();
    }
}

/// Waits until the WAN is open for what is pulled: no connection is made before.
async fn opened(node: &Node, wan: &WanFlight, news: &mut News<'_>) -> Pulling {
    let mut pulling = node.inner.allowance.begin(wan.urgency());
    while pulling.throttle().is_shut().await {
        news.held_back().await;
        pulling.is_for(wan.urgency());
    }
    pulling
}

async fn pull_run(node: &Node, wan: &WanFlight, blob: &Arc<dyn Blob>, run: &Run) -> Result<(), WanEnd> {
    let failed = |error: &OriginError| WanEnd::Failed(failure(error));
    let manifest = blob.manifest().clone();
    let chunks: Vec<(u32, Chunk)> =
        run.chunks.iter().filter_map(|&index| Some((index, *manifest.chunk(index)?))).collect();
    let (Some((_, first)), Some((_, last))) = (chunks.first(), chunks.last()) else { return Ok(()) };
    let Some(pack) = manifest.packs().get(first.pack as usize) else { return Ok(()) };
    let range = first.pack_offset..last.pack_range().end;
    let mut news = News { node, blob: run.blob, told: Instant::now(), bytes: 0 };
    let mut pulling = opened(node, wan, &mut news).await;
    wan.origin.meter().keep_window(pulling.window(wan.toll.round_trip()));
    wan.is_for(run.reason);
    let path = format!("packs/{pack}");
    let mut stream =
        news.meanwhile(&pulling, wan.origin.stream(&path, range)).await.map_err(|error| failed(&error))?;
    let mut buffer = BytesMut::new();
    for (index, chunk) in chunks {
        while buffer.len() < chunk.stored as usize {
            let piece = match news.meanwhile(&pulling, stream.next()).await {
                Some(piece) => piece.map_err(|error| failed(&error))?,
                None => return Err(failed(&OriginError::Failed("a pack ended early".into()))),
            };
            news.came(piece.len() as u64, pulling.gives_way()).await;
            buffer.extend_from_slice(&piece);
            pulling.is_for(wan.urgency());
            wan.origin.meter().keep_window(pulling.window(wan.toll.round_trip()));
            let mut owed = pulling.throttle().take(wan.owes(piece.len() as u64));
            while pulling.throttle().holds_back(owed).await {
                news.held_back().await;
                if pulling.is_for(wan.urgency()) {
                    owed = pulling.throttle().take(0); // what was waited for is another kind's
                }
            }
        }
        let stored = buffer.copy_to_bytes(chunk.stored as usize);
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
