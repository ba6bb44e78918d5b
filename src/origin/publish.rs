//! Publishing: a file becomes chunks, packs, a manifest, and last a line in the catalog.
//!
//! The file is read once, as a stream. Chunks that the origin holds already (it says so itself:
//! each pack ends with its list of contents) are not uploaded again, which also makes an
//! interrupted publish go on where it stopped. Readers see nothing of it before the catalog's
//! timestamp is replaced, which is the last step.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::OriginError;
use super::client::{Listed, Origin};
use super::enter::{add, enter};
use super::keys::Keys;
use super::recipes::{self, Made, Wanted};
use crate::core::chunker;
use crate::core::id::{BlobId, Channel, ChunkId, PackId, PackageName, Version};
use crate::core::manifest::{Chunk, Manifest};
use crate::core::pack::{self, Packed};

/// A pack is closed when it has so many bytes: what an interruption can cost.
const PACK_BYTES: u64 = 64 << 20;
/// zstd's level for single chunks; higher ones gain little on 64 KiB.
const ZSTD_LEVEL: i32 = 9;
/// How much of a pack's end is read at once, hoping that it holds the index.
const TAIL_GUESS: u64 = 128 << 10;

/// What to publish.
#[derive(Debug, Clone)]
pub struct Request {
    /// The payload.
    pub file: PathBuf,
    /// Its package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// A channel to point at it.
    pub channel: Option<Channel>,
    /// By whom, for the history; for people.
    pub by: String,
    /// What recipes are made for it.
    pub recipes: Wanted,
}

/// What a publish did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Receipt {
    /// The blob's name.
    pub blob: BlobId,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Its length, in bytes.
    pub size: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Chunks that the origin did not hold.
    pub new_chunks: u32,
    /// Bytes of packs that were uploaded.
    pub uploaded: u64,
    /// The catalog's new version.
    pub catalog: u64,
    /// The cheaper ways that there are for it.
    pub recipes: Made,
}

/// How far a publish is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes of the file were read.
    Read(u64),
    /// What is being done, in words.
    Doing(String),
}

/// Publishes a file. `progress` hears how far it is.
///
/// # Errors
/// [`OriginError`]; nothing of it is visible then, and a new try goes on where this one stopped.
pub async fn publish(
    origin: &Origin,
    keys: &Keys,
    request: &Request,
    progress: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Receipt, OriginError> {
    recipes::check(origin, request).await?;
    let progress = Arc::new(progress);
    let reading = progress.clone();
    let known = known_chunks(origin).await?;
    let (manifest, mut receipt) =
        upload_chunks(origin, known, &request.file, move |bytes| reading(Progress::Read(bytes))).await?;
    origin.put_new(&format!("manifests/{}", manifest.id()), manifest.encoded().clone()).await?;
    receipt.recipes =
        recipes::make(origin, request, &manifest, &|doing| progress(Progress::Doing(doing))).await;
    let offer = receipt.recipes.offer;
    (receipt.catalog, ()) = enter(origin, keys, |targets| add(targets, request, &manifest, offer)).await?;
    Ok(receipt)
}

/// Signs the catalog anew, so that it is good for longer.
///
/// # Errors
/// [`OriginError`].
pub async fn renew(origin: &Origin, keys: &Keys) -> Result<u64, OriginError> {
    let (version, ()) = enter(origin, keys, |_| Ok(())).await?;
    Ok(version)
}

// ---- chunks and packs ----------------------------------------------------------------

type Known = HashMap<ChunkId, (PackId, Packed)>;

/// All chunks that the origin holds, by its own packs' lists.
async fn known_chunks(origin: &Origin) -> Result<Known, OriginError> {
    let mut known = HashMap::new();
    for Listed { name, bytes: size, .. } in origin.list("packs").await? {
        let Ok(id) = name.parse::<PackId>() else { continue };
        let path = format!("packs/{name}");
        let tail = origin.read_range(&path, size.saturating_sub(TAIL_GUESS)..size).await?;
        let footer = tail.len().saturating_sub(pack::FOOTER as usize);
        let Some(length) = pack::index_length(&tail[footer..]) else {
            tracing::warn!(pack = %id, "not a pack; its chunks will be uploaded again");
            continue;
        };
        let index = match footer.checked_sub(length as usize) {
            Some(start) => tail.slice(start..footer),
            None => {
                let end = size - pack::FOOTER;
                origin.read_range(&path, end.saturating_sub(u64::from(length))..end).await?
            }
        };
        for packed in pack::read_index(&index).unwrap_or_default() {
            known.insert(packed.id, (id, packed));
        }
    }
    Ok(known)
}

/// One pack that is being written.
struct Draft {
    file: NamedTempFile,
    hasher: blake3::Hasher,
    chunks: Vec<Packed>,
    bytes: u64,
}

impl Draft {
    fn new() -> std::io::Result<Self> {
        let file = NamedTempFile::new()?;
        Ok(Self { file, hasher: blake3::Hasher::new(), chunks: Vec::new(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn add(&mut self, id: ChunkId, content: &[u8]) -> std::io::Result<()> {
        let compressed = zstd::bulk::compress(content, ZSTD_LEVEL)?;
        // Below 3 % it does not pay for the work of every machine that unpacks it.
        let pays = compressed.len() as u64 * 100 < content.len() as u64 * 97;
        let stored = if pays { &compressed[..] } else { content };
        let packed =
            Packed { id, length: content.len() as u32, offset: self.bytes, stored: stored.len() as u32 };
        self.chunks.push(packed);
        self.write(stored)
    }

    fn close(mut self) -> std::io::Result<(PackId, Self)> {
        let tail = pack::tail(&self.chunks);
        self.write(&tail)?;
        self.file.flush()?;
        Ok((PackId::from_bytes(*self.hasher.finalize().as_bytes()), self))
    }
}

/// What the reading side says: a pack is ready, or that was all.
enum Step {
    Pack(Box<(PackId, Draft)>),
    End(Box<Cut>),
}

/// What reading a file gives.
struct Cut {
    blob: BlobId,
    sha256: [u8; 32],
    /// In order: id and length.
    chunks: Vec<(ChunkId, u32)>,
}

async fn upload_chunks(
    origin: &Origin,
    mut known: Known,
    file: &Path,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<(Manifest, Receipt), OriginError> {
    let source = File::open(file)
        .map_err(|error| OriginError::Invalid(format!("cannot read {}: {error}", file.display())))?;
    let held: std::collections::HashSet<ChunkId> = known.keys().copied().collect();
    // One pack waits while one is uploaded: that bounds the memory and the scratch space.
    let (sender, mut steps) = tokio::sync::mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || cut(source, held, progress, &sender));
    let (mut uploaded, mut new_chunks, mut read) = (0, 0, None);
    while let Some(step) = steps.recv().await {
        match step {
            Step::Pack(ready) => {
                let (id, draft) = *ready;
                origin.upload(&format!("packs/{id}"), draft.file.path()).await?;
                uploaded += draft.bytes;
                new_chunks += draft.chunks.len() as u32;
                known.extend(draft.chunks.into_iter().map(|packed| (packed.id, (id, packed))));
            }
            Step::End(end) => read = Some(*end),
        }
    }
    let failed = |error: &dyn std::fmt::Display| {
        OriginError::Invalid(format!("reading {} failed: {error}", file.display()))
    };
    reading.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let read = read.ok_or_else(|| failed(&"it ended early"))?;
    let manifest = describe(&read, &known)?;
    let receipt = Receipt {
        blob: manifest.blob(),
        sha256: hex(manifest.sha256()),
        size: manifest.size(),
        chunks: manifest.count(),
        new_chunks,
        uploaded,
        catalog: 0,
        recipes: Made::default(),
    };
    Ok((manifest, receipt))
}

/// Reads, cuts, hashes, compresses and packs. Runs on a thread of its own.
fn cut(
    source: File,
    mut held: std::collections::HashSet<ChunkId>,
    progress: impl Fn(u64),
    steps: &tokio::sync::mpsc::Sender<Step>,
) -> std::io::Result<()> {
    let gone = |_| std::io::Error::other("the upload failed");
    let (mut blob, mut sha256) = (blake3::Hasher::new(), Sha256::new());
    let mut chunks = Vec::new();
    let mut draft = Draft::new()?;
    for content in chunker::chunks(std::io::BufReader::with_capacity(1 << 20, source).by_ref()) {
        let content = content?;
        blob.update(&content);
        sha256.update(&content);
        let id = ChunkId::of(&content);
        chunks.push((id, content.len() as u32));
        if held.insert(id) {
            draft.add(id, &content)?;
            if draft.bytes >= PACK_BYTES {
                let full = std::mem::replace(&mut draft, Draft::new()?).close()?;
                steps.blocking_send(Step::Pack(Box::new(full))).map_err(gone)?;
            }
        }
        progress(content.len() as u64);
    }
    if draft.bytes > 0 {
        steps.blocking_send(Step::Pack(Box::new(draft.close()?))).map_err(gone)?;
    }
    let blob = BlobId::from_bytes(*blob.finalize().as_bytes());
    let end = Cut { blob, sha256: sha256.finalize().into(), chunks };
    steps.blocking_send(Step::End(Box::new(end))).map_err(gone)
}

fn describe(read: &Cut, known: &Known) -> Result<Manifest, OriginError> {
    let mut packs: Vec<PackId> = Vec::new();
    let mut at: HashMap<PackId, u32> = HashMap::new();
    let mut offset = 0;
    let mut chunks = Vec::with_capacity(read.chunks.len());
    for (id, length) in &read.chunks {
        let (pack, packed) = known
            .get(id)
            .ok_or_else(|| OriginError::Failed("a pack that was uploaded is not there any more".into()))?;
        let pack = *at.entry(*pack).or_insert_with(|| {
            packs.push(*pack);
            packs.len() as u32 - 1
        });
        chunks.push(Chunk {
            id: *id,
            offset,
            length: *length,
            pack,
            pack_offset: packed.offset,
            stored: packed.stored,
        });
        offset += u64::from(*length);
    }
    Manifest::build(read.blob, read.sha256, packs, &chunks)
        .map_err(|error| OriginError::Invalid(format!("the file cannot be described: {error}")))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
