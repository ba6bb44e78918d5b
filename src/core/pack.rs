//! A pack: chunks back to back, then an index, then a footer.
//!
//! The index is inside the object, so a pack is there with its list of contents or not at all,
//! and a publisher that was interrupted finds what it had uploaded. Layout:
//! `chunks... | PackIndex | index length (u32, little endian) | "BRANCHP1"`.

use prost::Message;

use super::chunker::MAX_CHUNK;
use super::id::ChunkId;
use super::wire::manifest::PackIndex;

const MAGIC: &[u8; 8] = b"BRANCHP1";

/// Bytes of the footer.
pub const FOOTER: u64 = 12;
/// The longest index that is read, in bytes.
pub const MAX_INDEX: u32 = 8 << 20;

/// A chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// The hash of its content.
    pub id: ChunkId,
    /// Bytes of content.
    pub length: u32,
    /// Where it lies, in bytes.
    pub offset: u64,
    /// Bytes there; fewer than `length` means zstd.
    pub stored: u32,
}

/// The bytes after the last chunk.
pub fn tail(chunks: &[Packed]) -> Vec<u8> {
    let index = PackIndex {
        ids: chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect::<Vec<u8>>().into(),
        lengths: chunks.iter().map(|chunk| chunk.length).collect(),
        stored: chunks.iter().map(|chunk| chunk.stored).collect(),
    };
    let mut bytes = index.encode_to_vec();
    let length = bytes.len() as u32;
    bytes.extend(length.to_le_bytes());
    bytes.extend(MAGIC);
    bytes
}

/// The length of the index, from the last [`FOOTER`] bytes of a pack; `None` if it is no pack.
pub fn index_length(footer: &[u8]) -> Option<u32> {
    let length = footer.strip_suffix(MAGIC)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    (length <= MAX_INDEX).then_some(length)
}

/// The chunks that an index lists; `None` if it is malformed.
pub fn read_index(index: &[u8]) -> Option<Vec<Packed>> {
    let index = PackIndex::decode(index).ok()?;
    let count = index.lengths.len();
    if index.ids.len() != count * 32 || index.stored.len() != count {
        return None;
    }
    let mut offset = 0;
    let mut chunks = Vec::with_capacity(count);
    for (id, (&length, &stored)) in index.ids.chunks(32).zip(index.lengths.iter().zip(&index.stored)) {
        if length == 0 || length > MAX_CHUNK || stored == 0 || stored > length {
            return None;
        }
        chunks.push(Packed { id: ChunkId::from_slice(id)?, length, offset, stored });
        offset += u64::from(stored);
    }
    Some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_can_be_read_back() {
        let chunks = [
            Packed { id: ChunkId::of(b"a"), length: 10, offset: 0, stored: 10 },
            Packed { id: ChunkId::of(b"b"), length: 20, offset: 10, stored: 7 },
        ];
        let tail = tail(&chunks);
        let (index, footer) = tail.split_at(tail.len() - FOOTER as usize);
        assert_eq!(index_length(footer), Some(index.len() as u32));
        assert_eq!(read_index(index).as_deref(), Some(&chunks[..]));
        assert_eq!(index_length(b"PK\x05\x06PK\x05\x06PK\x05\x06"), None);
        assert_eq!(read_index(&index[1..]), None);
    }
}
