//! Fetching from members: a batch of chunks, or a manifest.

use std::sync::Arc;

use bytes::Bytes;

use super::{Node, blocking};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::{Failure, FailureKind, Input};
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::ledger::Source;
use crate::core::manifest::{MAX_MANIFEST, Manifest};
use crate::core::swarm::BatchEnd;
use crate::core::wire::message::{Chunks, ManifestRequest, Request, Runs, request, response};
use crate::net::AskError;
use crate::store::{Blob, StoreError};

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

/// Fetches a batch and reports how it ended.
pub(super) async fn fetch(node: Node, blob: Arc<dyn Blob>, batch: u64, source: NodeId, chunks: Vec<u32>) {
    let end = match fetch_batch(&node, &blob, source, chunks).await {
        Ok(end) => end,
        Err(error) => {
            tracing::debug!(node = %source, %error, "a batch failed");
            BatchEnd::Failed
        }
    };
    if end == BatchEnd::Lied {
        tracing::warn!(node = %source, "sent wrong bytes; disconnecting");
        node.inner.net.ban(&source);
    }
    let blob = blob.manifest().blob();
    node.inner.inputs.send(Input::PeerEnded { blob, batch, end }).await.ok();
}

async fn fetch_batch(
    node: &Node,
    blob: &Arc<dyn Blob>,
    source: NodeId,
    chunks: Vec<u32>,
) -> Result<BatchEnd, AskError> {
    let manifest = blob.manifest().clone();
    let id = manifest.blob();
    let wanted: ChunkSet = chunks.into_iter().collect();
    let body = Chunks {
        blob: bytes_of(id.as_bytes()),
        manifest: bytes_of(manifest.id().as_bytes()),
        indices: Some(Runs { spans: wanted.to_spans() }),
        fetch: false,
    };
    let request = Request { body: Some(request::Body::Chunks(body)) };
    let mut answer = node.inner.net.ask(&source, &request).await?;
    match answer.response.status() {
        response::Status::Ok => {}
        response::Status::Busy => return Ok(BatchEnd::Busy),
        _ => return Ok(BatchEnd::Failed),
    }
    let label = node.label(&id);
    // In ascending order, which is how a set goes over the wire.
    for index in wanted.iter() {
        let Some(chunk) = manifest.chunk(index) else { return Ok(BatchEnd::Failed) };
        let mut content = vec![0; chunk.length as usize];
        answer.read(&mut content).await?;
        let target = blob.clone();
        match blocking(move || target.write(index, &content)).await {
            Some(Ok(places)) => node.stored(id, &label, Source::Peer, &manifest, &places, index).await,
            Some(Err(StoreError::WrongHash(_))) => return Ok(BatchEnd::Lied),
            // That says something of this node, and nothing of its source.
            Some(Err(error)) => {
                node.inner.inputs.send(Input::Unwritable { blob: id, why: error.to_string() }).await.ok();
                return Ok(BatchEnd::Busy);
            }
            None => return Ok(BatchEnd::Busy),
        }
    }
    answer.done();
    Ok(BatchEnd::Done)
}
