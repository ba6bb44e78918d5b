//! Putting what comes of an object into the store, segment by segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::live::Ticket;
use super::super::{Node, blocking};
use super::{Live, Wanted, label};
use crate::core::ledger::{Front, Source};
use crate::core::upstream::record::Segment;
use crate::core::upstream::segment;
use crate::store::StoreError;

/// Puts bytes into the store as a segment. If clients of this node wait for it, the ledger knows that it
/// came for them.
pub(super) async fn store(
    node: &Node,
    wanted: &Wanted,
    live: &Live,
    content: Vec<u8>,
    source: Source,
) -> Result<Segment, StoreError> {
    let store = node.inner.store.clone();
    let front = *live.front.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let front = front.filter(|_| live.readers.load(Ordering::Relaxed) > 0);
    let stopping = || StoreError::Unusable("the agent is stopping".into());
    let cut =
        blocking(move || segment::manifest(&content).map(|manifest| (Arc::new(manifest), content))).await;
    let cut = cut.ok_or_else(stopping)?.map_err(|error| StoreError::Unusable(error.to_string()))?;
    let (manifest, content) = cut;
    live.keep(front.map(|front| enter(node, &manifest, front)));
    let label = label(&wanted.upstream);
    node.inner.upstreams.shelf.note_one(&label, manifest.blob());
    let open = manifest.clone();
    let written = blocking(move || {
        let blob = store.open(&open)?;
        let places = if open.count() == 0 { Vec::new() } else { blob.write(0, &content)? };
        blob.finish()?;
        Ok::<_, StoreError>(places)
    });
    let places = written.await.ok_or_else(stopping)??;
    let chunks = places.iter().copied().filter(|index| !manifest.is_repeat(*index)).collect();
    node.stored(&label, source, &manifest, chunks, places).await;
    Ok(Segment { blob: manifest.blob(), manifest: manifest.id(), size: manifest.size() })
}

fn enter(node: &Node, manifest: &crate::core::manifest::Manifest, front: Front) -> Ticket {
    let blob = manifest.blob();
    let (before, after) = (node.inner.books.clone(), node.inner.books.clone());
    let (first, last) = (move || before.begin(blob, front), move || after.settle(&blob));
    node.inner.live.enter(blob, node.inner.inputs.clone(), first, last)
}
