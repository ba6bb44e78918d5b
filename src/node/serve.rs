//! Answering members: chunks, manifests, the catalog, and reports.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use tokio::sync::Semaphore;

use super::{Later, Node, blocking};
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::wire::message::{
    CatalogRequest, Chunks, ManifestRequest, Request, Response, request, response,
};
use crate::net::{Reply, Serve};
use crate::store::Blob;

/// Requests for chunks that are answered at a time; more are told *busy*.
const UPLOADS: usize = 48;
/// The most bytes of one answer: bounds what a request can make this node read.
const MAX_ANSWER: u64 = 16 << 20;
/// Bytes read from the disk at a time.
const PIECE: u64 = 1 << 20;

/// The answering side; it is needed before the node is there.
pub(super) struct Server {
    node: Later<Node>,
    uploads: Arc<Semaphore>,
}

impl Default for Server {
    fn default() -> Self {
        Self { node: Later::new(), uploads: Arc::new(Semaphore::new(UPLOADS)) }
    }
}

impl Server {
    pub(super) fn attach(&self, node: &Node) {
        self.node.set(node.clone()).ok();
    }
}

fn status(status: response::Status, detail: &str) -> Response {
    Response { status: status.into(), detail: detail.to_owned(), ..Response::default() }
}

impl Serve for Server {
    fn serve<'a>(
        &'a self,
        from: NodeId,
        request: Request,
        mut reply: Reply<'a>,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let Some(node) = self.node.get() else {
                return reply.header(&status(response::Status::Busy, "starting")).await;
            };
            match request.body {
                Some(request::Body::Chunks(chunks)) => self.chunks(node, chunks, reply).await,
                Some(request::Body::Manifest(wanted)) => manifest(node, &wanted, reply).await,
                Some(request::Body::Catalog(wanted)) => catalog(node, &wanted, reply).await,
                Some(request::Body::Report(wanted)) => {
                    let Some(json) = node.report_to_member(&wanted.path).await else {
                        return reply.header(&status(response::Status::Refused, "no such report")).await;
                    };
                    send(&mut reply, json.as_bytes(), 0).await
                }
                None => {
                    tracing::debug!(%from, "asks for something that this version does not know");
                    reply.header(&status(response::Status::Refused, "unknown request")).await
                }
            }
        })
    }
}

async fn send(reply: &mut Reply<'_>, bytes: &[u8], age_ms: u64) -> io::Result<()> {
    let header = Response { length: bytes.len() as u64, age_ms, ..Response::default() };
    reply.header(&header).await?;
    reply.bytes(bytes).await
}

fn held(node: &Node, blob: &Bytes, manifest: &Bytes) -> Option<Arc<dyn Blob>> {
    let (blob, manifest) = (BlobId::from_slice(blob)?, ManifestId::from_slice(manifest)?);
    node.inner.store.get(&blob).filter(|held| held.manifest().id() == manifest)
}

async fn manifest(node: &Node, wanted: &ManifestRequest, mut reply: Reply<'_>) -> io::Result<()> {
    match held(node, &wanted.blob, &wanted.manifest) {
        Some(blob) => send(&mut reply, blob.manifest().encoded(), 0).await,
        None => reply.header(&status(response::Status::NotHeld, "")).await,
    }
}

async fn catalog(node: &Node, wanted: &CatalogRequest, mut reply: Reply<'_>) -> io::Result<()> {
    let max_age = std::time::Duration::from_millis(wanted.max_age_ms);
    match node.catalog().for_member(wanted.timestamp_version, max_age).await {
        Ok((age, Some(bundle))) => send(&mut reply, &bundle.encode_to_vec(), age.as_millis() as u64).await,
        Ok((age, None)) => send(&mut reply, &[], age.as_millis() as u64).await,
        Err(error) => reply.header(&status(response::Status::Refused, &error.to_string())).await,
    }
}

impl Server {
    async fn chunks(&self, node: &Node, wanted: Chunks, mut reply: Reply<'_>) -> io::Result<()> {
        let Ok(_slot) = self.uploads.clone().try_acquire_owned() else {
            return reply.header(&status(response::Status::Busy, "")).await;
        };
        let spans = wanted.indices.unwrap_or_default().spans;
        let set = ChunkSet::from_spans(&spans).unwrap_or_default();
        if wanted.fetch
            && let (Some(blob), Some(manifest)) =
                (BlobId::from_slice(&wanted.blob), ManifestId::from_slice(&wanted.manifest))
        {
            node.fetch_for_member(blob, manifest, &set).await;
        }
        let blob = held(node, &wanted.blob, &wanted.manifest)
            .filter(|blob| !set.is_empty() && set.difference(&blob.held()).is_empty());
        let Some(blob) = blob else {
            return reply.header(&status(response::Status::NotHeld, "")).await;
        };
        let length = blob.manifest().bytes_of(set.iter());
        if length > MAX_ANSWER {
            return reply.header(&status(response::Status::Refused, "too much at once")).await;
        }
        // The first piece before the header: a chunk that went bad on disk is not promised.
        let mut left: Vec<u32> = set.iter().collect();
        left.reverse();
        let Some(mut piece) = read_piece(&blob, &mut left).await else {
            return reply.header(&status(response::Status::NotHeld, "")).await;
        };
        reply.header(&Response { length, ..Response::default() }).await?;
        loop {
            for chunk in &piece {
                reply.bytes(chunk).await?;
            }
            if left.is_empty() {
                return Ok(());
            }
            let damaged = || io::Error::other("a chunk went bad on disk");
            piece = read_piece(&blob, &mut left).await.ok_or_else(damaged)?;
        }
    }
}

/// Reads the next chunks (from the end of the list), up to [`PIECE`] bytes.
async fn read_piece(blob: &Arc<dyn Blob>, left: &mut Vec<u32>) -> Option<Vec<Bytes>> {
    let mut indices = Vec::new();
    let mut bytes = 0;
    while let Some(&index) = left.last() {
        bytes += u64::from(blob.manifest().chunk(index)?.length);
        if bytes > PIECE && !indices.is_empty() {
            break;
        }
        indices.push(index);
        left.pop();
    }
    let blob = blob.clone();
    blocking(move || indices.into_iter().map(|index| blob.read(index)).collect::<Result<Vec<_>, _>>().ok())
        .await?
}
