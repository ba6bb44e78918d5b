//! Answering members: chunks, manifests, the catalog, and reports.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;

use super::{Later, Node, blocking, doctor};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::Urgency;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::wire::message::{
    CatalogRequest, Chunks, ManifestRequest, Request, Response, request, response,
};
use crate::net::{Reply, Serve};
use crate::store::Blob;

/// The most bytes of one answer: bounds what a request can make this node read.
const MAX_ANSWER: u64 = 16 << 20;

/// What a leech says to whoever asks it for content. Its figures are the site's all the same.
const LEECH: &str = "this node is a leech: it serves nothing to others";

/// The answering side; it is needed before the node is there.
#[derive(Default)]
pub(super) struct Server {
    node: Later<Node>,
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
            let content = matches!(
                request.body,
                Some(request::Body::Chunks(_) | request::Body::Manifest(_) | request::Body::Catalog(_))
            );
            if content && !node.inner.standing.role().shares() {
                return reply.header(&status(response::Status::Refused, LEECH)).await;
            }
            match request.body {
                Some(request::Body::Chunks(wanted)) => chunks(node, from, wanted, reply).await,
                Some(request::Body::Manifest(wanted)) => manifest(node, &wanted, reply).await,
                Some(request::Body::Catalog(wanted)) => catalog(node, &wanted, reply).await,
                Some(request::Body::Report(wanted)) => {
                    if let Some(text) = wanted.path.strip_prefix(doctor::SAMPLE) {
                        return doctor::give_sample(node, from, text, reply).await;
                    }
                    let Some(json) = node.report_to_member(from, &wanted.path).await else {
                        return reply.header(&status(response::Status::Refused, "no such report")).await;
                    };
                    send(&mut reply, json.as_bytes(), 0).await
                }
                Some(request::Body::Orders(_)) => send(&mut reply, &node.orders().now().encoded(), 0).await,
                Some(request::Body::Object(asked)) => match node.object_of_member(from, &asked).await {
                    Some(news) => send(&mut reply, &news, 0).await,
                    None => reply.header(&status(response::Status::Refused, "no such upstream here")).await,
                },
                Some(request::Body::Errand(errand)) => {
                    let Some(json) = node.errand_of_member(&errand).await else {
                        return reply.header(&status(response::Status::Refused, "no such errand")).await;
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

async fn held(node: &Node, blob: &Bytes, manifest: &Bytes) -> Option<Arc<dyn Blob>> {
    let (blob, manifest) = (BlobId::from_slice(blob)?, ManifestId::from_slice(manifest)?);
    let store = node.inner.store.clone();
    // What neighbours ask for is of use to the site.
    store.touch(&blob);
    let held = match store.at_hand(&blob) {
        Some(held) => held,
        None => blocking(move || store.get(&blob)).await??,
    };
    (held.manifest().id() == manifest).then_some(held)
}

async fn manifest(node: &Node, wanted: &ManifestRequest, mut reply: Reply<'_>) -> io::Result<()> {
    match held(node, &wanted.blob, &wanted.manifest).await {
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

async fn chunks(node: &Node, from: NodeId, wanted: Chunks, mut reply: Reply<'_>) -> io::Result<()> {
    let uploads = &node.inner.uploads;
    let Some(_slot) = uploads.enter(from) else {
        return reply.header(&status(response::Status::Busy, "")).await;
    };
    let spans = wanted.indices.unwrap_or_default().spans;
    let set = ChunkSet::from_spans(&spans).unwrap_or_default();
    if wanted.fetch
        && let (Some(blob), Some(manifest)) =
            (BlobId::from_slice(&wanted.blob), ManifestId::from_slice(&wanted.manifest))
    {
        let urgency = Urgency::of(wanted.background, wanted.urgent);
        node.fetch_for_member(blob, manifest, &set, urgency).await;
    }
    let blob = held(node, &wanted.blob, &wanted.manifest)
        .await
        .filter(|blob| !set.is_empty() && set.difference(&blob.held()).is_empty());
    let Some(blob) = blob else {
        return reply.header(&status(response::Status::NotHeld, "")).await;
    };
    let (length, label) = (blob.manifest().bytes_of(set.iter()), node.label(&blob.manifest().blob()));
    if length > MAX_ANSWER {
        return reply.header(&status(response::Status::Refused, "too much at once")).await;
    }
    let mut pieces = Pieces::new(blob, &set, uploads.piece());
    // The first piece before the header: a chunk that went bad on disk is not promised.
    let Some(mut piece) = pieces.next().await else {
        return reply.header(&status(response::Status::NotHeld, "")).await;
    };
    reply.header(&Response { length, ..Response::default() }).await?;
    loop {
        uploads.keep_pace(piece.len() as u64).await;
        reply.bytes(&piece).await?;
        node.inner.dealings.sent(from, piece.len() as u64);
        node.inner.books.served(&label, from, piece.len() as u64);
        if pieces.is_over() {
            return Ok(());
        }
        let damaged = || io::Error::other("a chunk went bad on disk");
        piece = pieces.next().await.ok_or_else(damaged)?;
    }
}

/// Chunks of a blob, read run by run.
struct Pieces {
    blob: Arc<dyn Blob>,
    runs: VecDeque<Range<u32>>,
    most: u64,
}

impl Pieces {
    fn new(blob: Arc<dyn Blob>, chunks: &ChunkSet, most: u64) -> Self {
        Self { blob, runs: chunks.runs().into(), most }
    }

    fn is_over(&self) -> bool {
        self.runs.is_empty()
    }

    /// The next bytes; `None` if they cannot be read any more.
    async fn next(&mut self) -> Option<Bytes> {
        let run = self.runs.pop_front()?;
        let left = self.blob.manifest().bytes_of(run.clone());
        let (first, most) = (run.start, self.most.min(left));
        // What is in memory is not worth another thread.
        let content = match self.blob.read_cached(first, most) {
            Some(content) => content,
            None => {
                let blob = self.blob.clone();
                blocking(move || blob.read_run(first, most)).await?.ok()?
            }
        };
        let start = self.blob.manifest().chunk(first)?.offset;
        let next = self.blob.manifest().chunk_at(start + content.len() as u64).unwrap_or(run.end);
        if next < run.end {
            self.runs.push_front(next..run.end);
        }
        Some(content)
    }
}
