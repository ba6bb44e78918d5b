//! Cutting a stream into segments: blobs of their own, that can be passed on while the rest is on its
//! way.
//!
//! The first ones are small, so that the first bytes are soon with everybody; the later ones are large,
//! so that there are few.

use sha2::Digest as _;

use crate::core::chunker;
use crate::core::id::{BlobId, ChunkId, PackId};
use crate::core::manifest::{Chunk, Manifest, ManifestError};

/// The lengths of the first segments and of all later ones, in bytes.
const LENGTHS: [usize; 4] = [256 << 10, 512 << 10, 1 << 20, 2 << 20];
/// Named instead of a pack by what no origin has.
const NOWHERE: &[u8] = b"branchline: of an upstream, in no pack";

/// How long the segment of this number is, unless the object ends before.
pub fn length(number: usize) -> usize {
    LENGTHS[number.min(LENGTHS.len() - 1)]
}

/// A manifest of bytes that no origin has.
///
/// # Errors
/// [`ManifestError`]: not for any bytes that fit into a segment.
pub fn manifest(content: &[u8]) -> Result<Manifest, ManifestError> {
    let mut offset = 0;
    let chunks: Vec<Chunk> = chunker::chunks(content)
        .map_while(Result::ok)
        .map(|piece| {
            let length = piece.len() as u32;
            let chunk = Chunk {
                id: ChunkId::of(&piece),
                offset,
                length,
                pack: 0,
                pack_offset: offset,
                stored: length,
            };
            offset += u64::from(length);
            chunk
        })
        .collect();
    let sha256 = sha2::Sha256::digest(content).into();
    Manifest::build(BlobId::of(content), sha256, vec![PackId::of(NOWHERE)], &chunks)
}

/// Whether this is a manifest of bytes that no origin has.
pub fn is_of_upstream(manifest: &Manifest) -> bool {
    manifest.packs() == [PackId::of(NOWHERE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_the_same_manifest() {
        let mut content = vec![0; length(9)];
        blake3::Hasher::new().update(b"x").finalize_xof().fill(&mut content);
        let (one, other) = (manifest(&content).expect("built"), manifest(&content).expect("built"));
        assert_eq!(one, other);
        assert_eq!(one.size(), content.len() as u64);
        assert!(is_of_upstream(&one) && is_of_upstream(&manifest(b"").expect("built")));
    }
}
