//! The ordered chunk list of a blob, with everything needed to check it and to find it.
//!
//! A manifest comes from an origin, from a peer or from a disk, so [`Manifest::decode`] believes
//! nothing: what it returns is consistent, bounded, and named by the hash that the signed
//! catalog gave. Format: `proto/manifest.proto`.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use super::chunker::MAX_CHUNK;
use super::chunkset::MAX_CHUNKS;
use super::id::{BlobId, ChunkId, ManifestId, PackId};
use super::wire::manifest as proto;

/// The longest encoding that is read, in bytes: some 100 GB of content.
pub const MAX_MANIFEST: usize = 64 << 20;

/// Why an encoding is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not the ones that were asked for.
    #[error("the manifest's hash is {found}, not {expected}: it was altered or cut on its way")]
    WrongId {
        /// What the catalog says.
        expected: ManifestId,
        /// What arrived.
        found: ManifestId,
    },
    /// The bytes are as signed, and yet make no sense.
    #[error("the manifest is malformed: {0}")]
    Malformed(&'static str),
    /// Written by a newer Branchline.
    #[error("the manifest has format {0}, which this version does not know: upgrade the agent")]
    UnknownFormat(u32),
}

/// One chunk's place in the blob and at the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The hash of its content.
    pub id: ChunkId,
    /// Where it starts in the blob, in bytes.
    pub offset: u64,
    /// Its length, in bytes.
    pub length: u32,
    /// Index into [`Manifest::packs`].
    pub pack: u32,
    /// Where it lies in that pack, in bytes.
    pub pack_offset: u64,
    /// How long it is there: shorter than `length` means compressed with zstd.
    pub stored: u32,
}

impl Chunk {
    /// Its bytes in the blob.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.length)
    }

    /// Its bytes in the pack.
    pub fn pack_range(&self) -> Range<u64> {
        self.pack_offset..self.pack_offset + u64::from(self.stored)
    }
}

/// A checked manifest. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: ManifestId,
    blob: BlobId,
    sha256: [u8; 32],
    size: u64,
    chunks: Vec<Chunk>,
    packs: Vec<PackId>,
    /// Index -> the first index with the same content; only for chunks that occur again.
    repeats: HashMap<u32, u32>,
    /// The first index -> all of them, in order; only for chunks that occur again.
    places: HashMap<u32, Vec<u32>>,
    encoded: Bytes,
}

impl Manifest {
    /// Puts a manifest together. `chunks` need `id`, `length`, `pack`, `pack_offset` and `stored`.
    ///
    /// # Errors
    /// [`ManifestError::Malformed`] if they do not fit each other.
    pub fn build(
        blob: BlobId,
        sha256: [u8; 32],
        packs: Vec<PackId>,
        chunks: &[Chunk],
    ) -> Result<Self, ManifestError> {
        let list = proto::ChunkList {
            ids: chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect::<Vec<u8>>().into(),
            lengths: chunks.iter().map(|chunk| chunk.length).collect(),
            stored: chunks.iter().map(|chunk| chunk.stored).collect(),
            packs: packs.iter().map(|pack| Bytes::copy_from_slice(pack.as_bytes())).collect(),
            extents: extents(chunks),
        };
        let message = proto::Manifest {
            format: 1,
            size: chunks.iter().map(|chunk| u64::from(chunk.length)).sum(),
            blob: Bytes::copy_from_slice(blob.as_bytes()),
            sha256: Bytes::copy_from_slice(&sha256),
            content: Some(proto::manifest::Content::Chunks(list)),
        };
        let encoded = Bytes::from(message.encode_to_vec());
        Self::decode(ManifestId::of(&encoded), encoded)
    }

    /// Reads an encoding whose id is known from the catalog.
    ///
    /// # Errors
    /// [`ManifestError`], whatever the bytes are; never a panic, never more memory than a small
    /// multiple of the encoding.
    pub fn decode(expected: ManifestId, encoded: Bytes) -> Result<Self, ManifestError> {
        let found = ManifestId::of(&encoded);
        if found != expected {
            return Err(ManifestError::WrongId { expected, found });
        }
        let malformed = ManifestError::Malformed;
        if encoded.len() > MAX_MANIFEST {
            return Err(malformed("it is too long"));
        }
        let message = proto::Manifest::decode(encoded.clone()).map_err(|_| malformed("not protobuf"))?;
        if message.format != 1 {
            return Err(ManifestError::UnknownFormat(message.format));
        }
        let blob = BlobId::from_slice(&message.blob).ok_or(malformed("the blob id has not 32 bytes"))?;
        let sha256 = message.sha256[..].try_into().map_err(|_| malformed("the SHA-256 has not 32 bytes"))?;
        let Some(proto::manifest::Content::Chunks(list)) = message.content else {
            return Err(malformed("it has no content that this version knows"));
        };
        let packs = list.packs.iter().map(|pack| PackId::from_slice(pack)).collect::<Option<Vec<_>>>();
        let packs = packs.ok_or(malformed("a pack id has not 32 bytes"))?;
        let chunks = expand(&list, packs.len())?;
        if chunks.last().map_or(0, |chunk| chunk.range().end) != message.size {
            return Err(malformed("the chunks do not add up to the size"));
        }
        let mut first = HashMap::with_capacity(chunks.len());
        let mut repeats = HashMap::new();
        let mut places: HashMap<u32, Vec<u32>> = HashMap::new();
        for (index, chunk) in (0..).zip(&chunks) {
            match *first.entry(chunk.id).or_insert(index) {
                earlier if earlier == index => {}
                earlier if chunks[earlier as usize].length == chunk.length => {
                    repeats.insert(index, earlier);
                    places.entry(earlier).or_insert_with(|| vec![earlier]).push(index);
                }
                _ => return Err(malformed("one chunk has two lengths")),
            }
        }
        Ok(Self { id: found, blob, sha256, size: message.size, chunks, packs, repeats, places, encoded })
    }

    /// The name of this manifest.
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// The blob that it describes.
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// The SHA-256 of the blob.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The length of the blob, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many chunks it has.
    pub fn count(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// All chunks in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// One chunk, if there is one with this index.
    pub fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.chunks.get(index as usize)
    }

    /// The packs that hold its chunks.
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Whether the same content stands earlier in the blob, so that it needs no transfer.
    pub fn is_repeat(&self, index: u32) -> bool {
        self.repeats.contains_key(&index)
    }

    /// All indices with the content of this one, itself included.
    pub fn places(&self, index: u32) -> Vec<u32> {
        let first = self.repeats.get(&index).copied().unwrap_or(index);
        self.places.get(&first).cloned().unwrap_or_else(|| vec![first])
    }

    /// The index of the chunk that holds this byte of the blob; `None` beyond its end.
    pub fn chunk_at(&self, offset: u64) -> Option<u32> {
        let index = self.chunks.partition_point(|chunk| chunk.range().end <= offset);
        (index < self.chunks.len()).then_some(index as u32)
    }

    /// The chunks that these bytes of the blob are of, and how many bytes of each.
    pub fn pieces(&self, bytes: Range<u64>) -> impl Iterator<Item = (u32, u64)> + '_ {
        let Range { start, end } = bytes;
        let first = self.chunk_at(start).unwrap_or(self.count());
        let chunks = (first..self.count()).map_while(|index| Some((index, self.chunk(index)?.range())));
        chunks
            .take_while(move |(_, place)| place.start < end)
            .map(move |(index, place)| (index, place.end.min(end) - place.start.max(start)))
    }

    /// The bytes that [`Manifest::decode`] reads.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// How many bytes all of it is at the origin.
    pub fn stored(&self) -> u64 {
        let once = (0..self.count()).filter(|&index| !self.is_repeat(index));
        once.filter_map(|index| self.chunk(index)).map(|chunk| u64::from(chunk.stored)).sum()
    }

    /// How many bytes of content these chunks are.
    pub fn bytes_of(&self, indices: impl IntoIterator<Item = u32>) -> u64 {
        indices.into_iter().filter_map(|index| self.chunk(index)).map(|chunk| u64::from(chunk.length)).sum()
    }
}

/// Runs of chunks that lie back to back in one pack.
fn extents(chunks: &[Chunk]) -> Vec<proto::Extent> {
    let mut extents: Vec<proto::Extent> = Vec::new();
    let mut next = None;
    for chunk in chunks {
        match extents.last_mut() {
            Some(extent) if next == Some((chunk.pack, chunk.pack_offset)) => extent.chunks += 1,
            _ => {
                extents.push(proto::Extent { pack: chunk.pack, offset: chunk.pack_offset, chunks: 1 });
            }
        }
        next = Some((chunk.pack, chunk.pack_range().end));
    }
    extents
}

/// The columns as rows, each checked.
fn expand(list: &proto::ChunkList, packs: usize) -> Result<Vec<Chunk>, ManifestError> {
    let malformed = ManifestError::Malformed;
    let count = list.lengths.len();
    if count > MAX_CHUNKS as usize || list.ids.len() != count * 32 || list.stored.len() != count {
        return Err(malformed("its columns differ in length or are too long"));
    }
    let mut chunks = Vec::with_capacity(count);
    let mut offset = 0;
    for extent in &list.extents {
        let mut pack_offset = extent.offset;
        if extent.pack as usize >= packs {
            return Err(malformed("an extent names no pack"));
        }
        for _ in 0..extent.chunks {
            let at = chunks.len();
            if at == count {
                return Err(malformed("the extents name more chunks than there are"));
            }
            let (length, stored) = (list.lengths[at], list.stored[at]);
            if length == 0 || length > MAX_CHUNK || stored == 0 || stored > length {
                return Err(malformed("a chunk's length is out of bounds"));
            }
            let id = ChunkId::from_slice(&list.ids[at * 32..at * 32 + 32])
                .ok_or(malformed("a chunk id has not 32 bytes"))?;
            chunks.push(Chunk { id, offset, length, pack: extent.pack, pack_offset, stored });
            offset += u64::from(length);
            pack_offset = pack_offset
                .checked_add(u64::from(stored))
                .filter(|&end| end <= i64::MAX as u64)
                .ok_or(malformed("a pack offset is out of bounds"))?;
        }
    }
    if chunks.len() != count {
        return Err(malformed("the extents name fewer chunks than there are"));
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(contents: &[u8]) -> Manifest {
        let mut chunks = Vec::new();
        for (at, &content) in contents.iter().enumerate() {
            let id = ChunkId::of(&[content]);
            let length = 100 + u32::from(content);
            let pack_offset = if at > 3 { at as u64 * 1000 } else { at as u64 * 50 };
            chunks.push(Chunk { id, offset: 0, length, pack: 0, pack_offset, stored: 50 });
        }
        Manifest::build(BlobId::of(b""), [1; 32], vec![PackId::of(b"p")], &chunks).expect("consistent")
    }

    #[test]
    fn survives_its_encoding() {
        let manifest = sample(&[1, 2, 1, 3, 1]);
        let again = Manifest::decode(manifest.id(), manifest.encoded().clone()).expect("own encoding");
        assert_eq!(again, manifest);
        assert_eq!(manifest.places(2), [0, 2, 4]);
        assert_eq!(manifest.places(1), [1]);
        assert!(manifest.is_repeat(4) && !manifest.is_repeat(0));
        assert_eq!(manifest.size(), 101 * 3 + 102 + 103);
        assert_eq!(manifest.chunk_at(100), Some(0));
        assert_eq!(manifest.chunk_at(101), Some(1));
        assert_eq!(manifest.chunk_at(manifest.size()), None);
        assert_eq!(sample(&[]).count(), 0);
    }

    #[test]
    fn another_hash_is_refused() {
        let manifest = sample(&[1, 2]);
        let mut bytes = manifest.encoded().to_vec();
        bytes[7] ^= 1;
        let error = Manifest::decode(manifest.id(), bytes.into()).expect_err("altered");
        assert!(matches!(error, ManifestError::WrongId { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_altered_encoding_is_consistent_or_refused(at in 0usize..300, flip in 1u8..=255, cut in 0usize..300) {
            let mut bytes = sample(&[1, 2, 1, 3, 9, 9]).encoded().to_vec();
            let length = bytes.len();
            bytes[at % length] ^= flip;
            bytes.truncate(length - cut % 2 * (cut % length));
            let bytes = Bytes::from(bytes);
            if let Ok(manifest) = Manifest::decode(ManifestId::of(&bytes), bytes) {
                let sum: u64 = manifest.chunks().iter().map(|chunk| u64::from(chunk.length)).sum();
                prop_assert_eq!(sum, manifest.size());
            }
        }
    }
}
