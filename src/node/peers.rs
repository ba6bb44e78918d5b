//! Fetching from members: a batch of chunks, or a manifest.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::dealings::Outcome;
use crate::core::chunkset::ChunkSet;
use crate::core::flight::{Failure, FailureKind, Input};
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::ledger::Source;
use crate::core::manifest::{MAX_MANIFEST, Manifest};
use crate::core::swarm::BatchEnd;
use crate::core::wire::message::{Chunks, ManifestRequest, Request, Runs, request, response};
use crate::net::AskError;
use crate::store::{Blob, Buffer, PIECE, StoreError};

pub(super) fn bytes_of(id: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(id)
}

/// Fetches a manifest from a member.
pub(super) async fn manifest(
    node: &Node,
    from: NodeId,
    blob: BlobId,
    id: ManifestId,
) -> Result<Arc<Manifest>, Failure> {
    let transient = |why: String| Failure { why, kind: FailureKind::Transient };
    let body = ManifestRequest { blob: bytes_of(blob.as_bytes()), manifest: bytes_of(id.as_bytes()) };
    let request = Request { body: Some(request::Body::Manifest(body)) };
    let answer = node.inner.net.ask(&from, &request).await.map_err(|error| transient(error.to_string()))?;
    if answer.response.status() != response::Status::Ok {
        return Err(transient(format!("node {} has no manifest", from.short())));
    }
    let encoded = answer.read_all(MAX_MANIFEST as u64).await.map_err(|error| transient(error.to_string()))?;
    match Manifest::decode(id, encoded.into()) {
        Ok(manifest) => Ok(Arc::new(manifest)),
        Err(error) => {
            tracing::warn!(node = %from, %error, "sent a wrong manifest; disconnecting");
            node.inner.net.ban(&from);
            Err(transient(error.to_string()))
        }
    }
}

/// A batch as the coordinator ordered it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) batch: u64,
    pub(super) source: NodeId,
    pub(super) chunks: ChunkSet,
    /// Its source is too slow: what has not come is asked of another.
    pub(super) abort: CancellationToken,
}

/// Fetches a batch and reports how it ended.
pub(super) async fn fetch(node: Node, blob: Arc<dyn Blob>, order: Order) {
    let (began, source) = (Instant::now(), order.source);
    let label = node.label(&blob.manifest().blob());
    let mut batch = Batch { node: &node, source, label, blob, came: 0 };
    let end = match batch.fetch(&order).await {
        Ok(end) => end,
        Err(error) => {
            tracing::debug!(node = %source, %error, "a batch failed");
            BatchEnd::Failed
        }
    };
    let outcome = match end {
        BatchEnd::Done => Outcome::Answered,
        BatchEnd::Busy => Outcome::Busy,
        BatchEnd::Slow => Outcome::Slow,
        BatchEnd::Failed | BatchEnd::Lied => Outcome::Fault,
    };
    node.inner.dealings.batch(source, outcome, batch.came, began.elapsed());
    if end == BatchEnd::Lied {
        tracing::warn!(node = %source, "sent wrong bytes; disconnecting");
        node.inner.net.ban(&source);
    }
    let blob = batch.blob.manifest().blob();
    node.inner.inputs.send(Input::PeerEnded { blob, batch: order.batch, end }).await.ok();
}

/// Chunks that were read together, being hashed and written on a thread that may block.
type Writing = JoinHandle<Result<Vec<u32>, StoreError>>;

struct Batch<'a> {
    node: &'a Node,
    source: NodeId,
    blob: Arc<dyn Blob>,
    label: String,
    came: u64,
}

impl Batch<'_> {
    /// Reads piece after piece; while one is hashed and written, the next one is read.
    async fn fetch(&mut self, order: &Order) -> Result<BatchEnd, AskError> {
        let manifest = self.blob.manifest().clone();
        let body = Chunks {
            blob: bytes_of(manifest.blob().as_bytes()),
            manifest: bytes_of(manifest.id().as_bytes()),
            indices: Some(Runs { spans: order.chunks.to_spans() }),
            ..Chunks::default()
        };
        let request = Request { body: Some(request::Body::Chunks(body)) };
        let bytes = manifest.bytes_of(order.chunks.iter());
        let asked = self.node.inner.net.ask_for_content(&order.source, &request, bytes);
        let asked = order.abort.run_until_cancelled(asked);
        let Some(answer) = asked.await else { return Ok(BatchEnd::Slow) };
        let mut answer = answer?;
        match answer.response.status() {
            response::Status::Ok => {}
            response::Status::Busy => return Ok(BatchEnd::Busy),
            _ => return Ok(BatchEnd::Failed),
        }
        let mut writing: Option<(Vec<u32>, Writing)> = None;
        // In ascending order, which is how a set goes over the wire.
        for piece in pieces(&manifest, &order.chunks) {
            let mut content = Buffer::of(manifest.bytes_of(piece.iter().copied()) as usize);
            let read = order.abort.run_until_cancelled(answer.read(&mut content)).await;
            if let Some((chunks, work)) = writing.take()
                && let Some(end) = self.written(chunks, work).await
            {
                return Ok(end);
            }
            let Some(read) = read else { return Ok(BatchEnd::Slow) };
            read?;
            let (blob, chunks) = (self.blob.clone(), piece.clone());
            writing = Some((piece, tokio::task::spawn_blocking(move || write(&*blob, &chunks, &content))));
        }
        if let Some((chunks, work)) = writing
            && let Some(end) = self.written(chunks, work).await
        {
            return Ok(end);
        }
        answer.done();
        Ok(BatchEnd::Done)
    }

    /// Reports a piece that was written; how the batch ends, if it was not.
    async fn written(&mut self, chunks: Vec<u32>, work: Writing) -> Option<BatchEnd> {
        let manifest = self.blob.manifest();
        match work.await {
            Ok(Ok(places)) => {
                self.came += manifest.bytes_of(chunks.iter().copied());
                self.node.stored(&self.label, Source::Peer(self.source), manifest, chunks, places).await;
                None
            }
            Ok(Err(StoreError::WrongHash(_))) => Some(BatchEnd::Lied),
            // That says something of this node, and nothing of its source.
            Ok(Err(error)) => {
                let input = Input::Unwritable { blob: manifest.blob(), why: error.to_string() };
                self.node.inner.inputs.send(input).await.ok();
                Some(BatchEnd::Busy)
            }
            Err(_) => Some(BatchEnd::Busy),
        }
    }
}

/// Cuts a batch into what is read, hashed and written at a time.
fn pieces(manifest: &Manifest, chunks: &ChunkSet) -> Vec<Vec<u32>> {
    let mut pieces: Vec<Vec<u32>> = Vec::new();
    let mut bytes = 0;
    for index in chunks.iter() {
        let length = manifest.chunk(index).map_or(0, |chunk| u64::from(chunk.length));
        bytes += length;
        match pieces.last_mut() {
            Some(piece) if bytes <= PIECE as u64 => piece.push(index),
            _ => (bytes, _) = (length, pieces.push(vec![index])),
        }
    }
    pieces
}

/// Writes chunks, whose content lies back to back, run by run.
fn write(blob: &dyn Blob, chunks: &[u32], mut content: &[u8]) -> Result<Vec<u32>, StoreError> {
    let mut places = Vec::new();
    for run in chunks.chunk_by(|a, b| a + 1 == *b) {
        let length = blob.manifest().bytes_of(run.iter().copied()) as usize;
        let (run_content, rest) = content.split_at_checked(length).ok_or(StoreError::WrongHash(run[0]))?;
        places.extend(blob.write(run[0], run_content)?);
        content = rest;
    }
    Ok(places)
}
