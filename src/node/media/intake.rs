//! Where the chunks of a bundle go.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::report::ImportedPackage;
use crate::core::bundle::{Contents, Piece, Run};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::Input;
use crate::core::id::{BlobId, ChunkId, ManifestId};
use crate::core::ledger::Source;
use crate::core::manifest::Manifest;
use crate::node::{Node, blocking};
use crate::origin::Catalog;
use crate::store::{Blob, Store, StoreError};

/// One manifest of a bundle, and what has become of its chunks.
pub(super) struct Target {
    pub(super) label: String,
    pub(super) manifest: Arc<Manifest>,
    pub(super) opened: bool,
    /// Until it is complete.
    pub(super) blob: Option<Arc<dyn Blob>>,
    /// Once it was opened: what was held before, and what is held now.
    pub(super) before: ChunkSet,
    pub(super) held: ChunkSet,
    pub(super) copied: u32,
    pub(super) new: u32,
    pub(super) new_bytes: u64,
    pub(super) damaged: ChunkSet,
}

/// What became of runs.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Chunks that were right.
    pub(super) good: Vec<u32>,
    /// Where the blob has them and had not before.
    pub(super) places: Vec<u32>,
    pub(super) damaged: Vec<u32>,
}

impl Written {
    pub(super) fn add(&mut self, more: Self) {
        self.good.extend(more.good);
        self.places.extend(more.places);
        self.damaged.extend(more.damaged);
    }
}

impl Target {
    pub(super) fn new(label: String, manifest: Arc<Manifest>) -> Self {
        Self {
            label,
            manifest,
            opened: false,
            blob: None,
            before: ChunkSet::new(),
            held: ChunkSet::new(),
            copied: 0,
            new: 0,
            new_bytes: 0,
            damaged: ChunkSet::new(),
        }
    }

    /// Whether all chunks of a run are here.
    pub(super) fn holds(&self, run: &Run) -> bool {
        run.chunks().all(|chunk| self.held.contains(chunk))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.held.len() == self.manifest.count()
    }

    /// What is told of it in the end.
    pub(super) fn report(&self) -> ImportedPackage {
        let (count, held) = (self.manifest.count(), self.held.len());
        ImportedPackage {
            package: self.label.clone(),
            size: self.manifest.size(),
            chunks: count,
            held_chunks: self.before.len(),
            new_chunks: self.new,
            copied_chunks: self.copied,
            damaged_chunks: self.damaged.difference(&self.held).len(),
            missing_chunks: count - held,
            missing_bytes: self.manifest.size() - self.manifest.bytes_of(self.held.iter()),
            ..ImportedPackage::default()
        }
    }
}

/// The bundle's manifests as the catalog bears them out.
pub(super) fn targets(
    contents: &Contents,
    catalog: &Catalog,
    manifests: Vec<(ManifestId, Bytes)>,
) -> Vec<Result<Target, String>> {
    let target = |(id, encoded): (ManifestId, Bytes)| {
        let entry = contents.packages.iter().find(|entry| {
            let known = catalog.resolve(entry.name.as_str(), Some(entry.version.as_str()));
            entry.manifest == id
                && known.is_ok_and(|(_, version, it)| version == entry.version && it.manifest == id)
        });
        let Some(entry) = entry else {
            let named = contents.packages.iter().find(|entry| entry.manifest == id);
            let label = named.map(|entry| entry.label()).unwrap_or_default();
            return Err(format!(
                "the catalog (version {}) has no {label} with this content",
                catalog.version
            ));
        };
        let manifest =
            Manifest::decode(id, encoded).map_err(|error| format!("{}: {error}", entry.label()))?;
        Ok(Target::new(entry.label(), Arc::new(manifest)))
    };
    manifests.into_iter().map(target).collect()
}

impl Node {
    /// Opens a blob for what comes, with what is held of it and what can be copied: `donors` tells where
    /// other blobs of the bundle have a chunk, `beside` are other versions of the package.
    pub(super) async fn open_target(
        &self,
        target: &mut Target,
        donors: &HashMap<ChunkId, (BlobId, u32)>,
        beside: Vec<BlobId>,
    ) -> Result<Arc<dyn Blob>, StoreError> {
        let (store, manifest) = (self.inner.store.clone(), target.manifest.clone());
        let id = manifest.blob();
        let package = self.package_of(&id);
        let opened = blocking(move || {
            let new = store.get(&id).is_none();
            let blob = store.open_in(&manifest, package.as_ref())?;
            Ok((new, blob.held(), blob))
        });
        let (new, before, blob) = opened.await.ok_or_else(stopping)??;
        if new {
            self.inner.books.opened(&target.label, blob.manifest(), before.iter());
        }
        // A client may be waiting for the manifest.
        let result = Ok((blob.manifest().clone(), before.clone()));
        self.inner.inputs.send(Input::Manifest { blob: id, result }).await.ok();
        self.inner.live.came(&id);
        (target.held, target.before) = (before.clone(), before);
        (target.blob, target.opened) = (Some(blob.clone()), true);
        // What complete blobs have was copied when it was opened for the first time.
        let beside = if new { Vec::new() } else { beside };
        self.copy_from_others(target, &blob, donors, beside).await?;
        Ok(blob)
    }

    /// Copies chunks that other blobs hold, since the bundle has each chunk once.
    async fn copy_from_others(
        &self,
        target: &mut Target,
        blob: &Arc<dyn Blob>,
        donors: &HashMap<ChunkId, (BlobId, u32)>,
        beside: Vec<BlobId>,
    ) -> Result<(), StoreError> {
        let manifest = target.manifest.clone();
        let missing = ChunkSet::full(manifest.count()).difference(&target.held);
        if missing.is_empty() {
            return Ok(());
        }
        let wanted = |index| {
            let (donor, at) = donors.get(&manifest.chunk(index)?.id)?;
            Some((index, *donor, *at))
        };
        let mut wanted: Vec<(u32, BlobId, u32)> = missing.iter().filter_map(wanted).collect();
        let (store, blob) = (self.inner.store.clone(), blob.clone());
        let copied = blocking(move || {
            let mut places = Vec::new();
            wanted.extend(found_beside(&*store, blob.manifest(), &missing, &beside));
            for (index, donor, at) in wanted {
                let content = store.get(&donor).and_then(|donor| donor.read(at).ok());
                if let Some(content) = content {
                    places.extend(blob.write(index, &content)?);
                }
            }
            Ok(places)
        });
        let places: Vec<u32> = copied.await.ok_or_else(stopping)??;
        if places.is_empty() {
            return Ok(());
        }
        target.copied += places.len() as u32;
        places.iter().for_each(|&place| _ = target.held.insert(place));
        let blob = target.manifest.blob();
        self.inner.inputs.send(Input::Stored { blob, chunks: places }).await.ok();
        Ok(())
    }

    /// Books what was written, and tells the coordinator: members may fetch it.
    pub(super) async fn imported(&self, target: &mut Target, written: Written) {
        let Written { good, places, damaged } = written;
        damaged.iter().for_each(|&chunk| _ = target.damaged.insert(chunk));
        if places.is_empty() {
            return;
        }
        for &place in &places {
            target.held.insert(place);
        }
        let new = good.iter().filter(|chunk| places.contains(chunk)).copied();
        target.new_bytes += target.manifest.bytes_of(new);
        target.new += places.len() as u32;
        let manifest = target.manifest.clone();
        self.stored(&target.label, Source::Media, &manifest, good, places).await;
    }
}

/// Where other blobs have chunks that are missing: the chunk, the blob, and the chunk's index there.
fn found_beside(
    store: &dyn Store,
    manifest: &Manifest,
    missing: &ChunkSet,
    beside: &[BlobId],
) -> Vec<(u32, BlobId, u32)> {
    let ids = missing.iter().filter_map(|index| Some((manifest.chunk(index)?.id, index)));
    let ids: HashMap<ChunkId, u32> = ids.collect();
    let mut found = Vec::new();
    for donor in beside.iter().filter_map(|donor| store.get(donor)) {
        let (laid_out, held) = (donor.manifest(), donor.held());
        let chunks = held.iter().filter_map(|at| Some((at, laid_out.chunk(at)?.id)));
        found.extend(chunks.filter_map(|(at, id)| Some((*ids.get(&id)?, laid_out.blob(), at))));
    }
    found
}

pub(super) fn stopping() -> StoreError {
    StoreError::Unusable("the agent is stopping".into())
}

/// Verifies and writes a run: all at once, and chunk by chunk if something is wrong with it.
pub(super) fn write(blob: &dyn Blob, run: &Run, payload: &[u8]) -> Result<Written, StoreError> {
    let Some(pieces) = run.pieces(blob.manifest()) else {
        return Ok(Written { damaged: run.chunks().collect(), ..Written::default() });
    };
    let unpacked;
    let whole = if pieces.iter().any(|piece| piece.packed) {
        unpacked = pieces.iter().try_fold(Vec::new(), |mut content: Vec<u8>, piece| {
            content.extend_from_slice(&unpack(piece, payload)?);
            Some(content)
        });
        unpacked.as_deref()
    } else {
        Some(payload)
    };
    if let Some(content) = whole {
        match blob.write(run.first, content) {
            Ok(places) => return Ok(Written { good: run.chunks().collect(), places, damaged: Vec::new() }),
            Err(StoreError::WrongHash(_) | StoreError::NotHeld(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut written = Written::default();
    for piece in &pieces {
        let done = unpack(piece, payload).map(|content| blob.write(piece.index, &content));
        match done {
            Some(Ok(places)) => {
                written.good.push(piece.index);
                written.places.extend(places);
            }
            Some(Err(StoreError::WrongHash(_) | StoreError::NotHeld(_))) | None => {
                written.damaged.push(piece.index);
            }
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(written)
}

fn unpack<'a>(piece: &Piece, payload: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
    let stored = payload.get(piece.place.clone())?;
    if !piece.packed {
        return Some(stored.into());
    }
    zstd::bulk::decompress(stored, piece.chunk.length as usize).ok().map(Into::into)
}
