//! An older version, as a file again.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use bytes::{Buf, BytesMut};
use futures::StreamExt;

use super::failed;
use crate::core::manifest::{Chunk, MAX_MANIFEST, Manifest};
use crate::origin::catalog::Published;
use crate::origin::{Origin, OriginError};

/// Bytes that are asked for in one request, at most.
const REQUEST: u64 = 32 << 20;

pub(super) async fn manifest(origin: &Origin, published: &Published) -> Result<Manifest, OriginError> {
    let id = published.manifest;
    let encoded = origin.read(&format!("manifests/{id}"), MAX_MANIFEST as u64).await?;
    Manifest::decode(id, encoded).map_err(|error| OriginError::Invalid(error.to_string()))
}

/// Puts a blob together from the origin's chunks, in a file without a name.
///
/// # Errors
/// [`OriginError`]: the origin cannot be read, or what it has is damaged.
pub(super) async fn file(origin: &Origin, manifest: &Manifest, folder: &Path) -> Result<File, OriginError> {
    let mut file = tempfile::tempfile_in(folder).map_err(|error| failed(&error))?;
    let mut hasher = blake3::Hasher::new();
    let chunks: Vec<Chunk> = (0..manifest.count()).filter_map(|at| manifest.chunk(at).copied()).collect();
    let mut rest = &chunks[..];
    while let Some((run, after)) = next_run(rest) {
        rest = after;
        for content in read(origin, manifest, run).await? {
            hasher.update(&content);
            file.write_all(&content).map_err(|error| failed(&error))?;
        }
    }
    if hasher.finalize().as_bytes() != manifest.blob().as_bytes() {
        let why = format!("blob {} is damaged at the origin: publish it again", manifest.blob());
        return Err(OriginError::Invalid(why));
    }
    Ok(file)
}

/// The first chunks, as far as they lie back to back in one pack, and the rest.
fn next_run(chunks: &[Chunk]) -> Option<(&[Chunk], &[Chunk])> {
    let first = chunks.first()?;
    let follows = |two: &[Chunk]| {
        two[0].pack == two[1].pack
            && two[0].pack_range().end == two[1].pack_offset
            && two[1].pack_range().end - first.pack_offset <= REQUEST
    };
    let length = 1 + chunks.windows(2).take_while(|two| follows(two)).count();
    Some(chunks.split_at(length))
}

async fn read(origin: &Origin, manifest: &Manifest, run: &[Chunk]) -> Result<Vec<Vec<u8>>, OriginError> {
    let damaged = || OriginError::Invalid(format!("blob {} is damaged at the origin", manifest.blob()));
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    let pack = manifest.packs().get(first.pack as usize).ok_or_else(damaged)?;
    let range = first.pack_offset..last.pack_range().end;
    let mut stream = origin.stream_fast(&format!("packs/{pack}"), range).await?;
    let mut buffer = BytesMut::new();
    let mut contents = Vec::with_capacity(run.len());
    for chunk in run {
        while buffer.len() < chunk.stored as usize {
            let piece = stream.next().await.ok_or_else(damaged)??;
            buffer.extend_from_slice(&piece);
        }
        let stored = buffer.copy_to_bytes(chunk.stored as usize);
        let packed = chunk.stored < chunk.length;
        let content = if packed {
            zstd::bulk::decompress(&stored, chunk.length as usize).map_err(|_| damaged())?
        } else {
            stored.to_vec()
        };
        contents.push(content);
    }
    Ok(contents)
}
