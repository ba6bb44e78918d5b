//! The head of a recipe: what is rebuilt, how, against what, and where the blocks lie.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use super::{FORMAT, RecipeFormatError};
use crate::core::id::BlobId;
use crate::core::wire::recipe as proto;

/// An object begins with so many bytes: a mark, and how long the head is, compressed and not.
pub const BEGINNING: usize = 12;
const MARK: &[u8; 4] = b"BLR1";
/// The longest head, in bytes, compressed or not.
pub const MAX_HEAD: u32 = 64 << 20;
/// The most content of one block, in bytes.
pub const MAX_BLOCK: u32 = 16 << 20;
/// The most of the reference that one block is a patch to, in bytes.
pub const MAX_REFERENCE: u64 = 64 << 20;
/// The most blocks, and ranges of all of them.
const MAX_ROWS: usize = 1 << 20;

/// A part of the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Bytes of content.
    pub length: u32,
    /// Bytes in the object.
    pub stored: u32,
    /// What it is a patch to: these ranges of the reference's contents, one after the other. Without any
    /// it is plain content, compressed.
    pub from: Vec<Range<u64>>,
}

/// The contents that a recipe takes for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Of which blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// By which rules it is opened.
    pub parse: u32,
    /// Bytes inside it.
    pub contents: u64,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
}

/// The head of a recipe, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What is rebuilt.
    pub blob: BlobId,
    /// Bytes of it.
    pub size: u64,
    /// How its contents are put together.
    pub plan: Bytes,
    /// What is taken for granted.
    pub against: Option<Reference>,
    /// The contents, in order.
    pub blocks: Vec<Block>,
}

impl Head {
    /// Its encoding, before it is compressed.
    pub fn encode(&self) -> Vec<u8> {
        let against = self.against.as_ref().map(|it| proto::Reference {
            blob: Bytes::copy_from_slice(it.blob.as_bytes()),
            size: it.size,
            parse: it.parse,
            contents: it.contents,
            hash: Bytes::copy_from_slice(&it.hash),
        });
        let ranges = || self.blocks.iter().flat_map(|block| &block.from);
        let message = proto::Recipe {
            format: FORMAT,
            blob: Bytes::copy_from_slice(self.blob.as_bytes()),
            size: self.size,
            plan: self.plan.clone(),
            against,
            lengths: self.blocks.iter().map(|block| block.length).collect(),
            stored: self.blocks.iter().map(|block| block.stored).collect(),
            ranges: self.blocks.iter().map(|block| block.from.len() as u32).collect(),
            starts: ranges().map(|range| range.start).collect(),
            spans: ranges().map(|range| (range.end - range.start) as u32).collect(),
        };
        message.encode_to_vec()
    }

    /// Reads an encoding; believes nothing.
    ///
    /// # Errors
    /// [`RecipeFormatError`].
    pub fn decode(encoded: Bytes) -> Result<Self, RecipeFormatError> {
        let malformed = RecipeFormatError::Malformed;
        let message = proto::Recipe::decode(encoded).map_err(|_| malformed("not protobuf"))?;
        if message.format != FORMAT {
            return Err(RecipeFormatError::UnknownFormat(message.format));
        }
        let blob = BlobId::from_slice(&message.blob).ok_or(malformed("the blob id has not 32 bytes"))?;
        let against = message.against.as_ref().map(reference).transpose()?;
        let blocks = blocks(&message, against.as_ref().map_or(0, |it| it.contents))?;
        Ok(Self { blob, size: message.size, plan: message.plan, against, blocks })
    }

    /// The first bytes of an object whose head is so long.
    pub fn beginning(stored: u32, length: u32) -> [u8; BEGINNING] {
        let mut bytes = [0; BEGINNING];
        bytes[..4].copy_from_slice(MARK);
        bytes[4..8].copy_from_slice(&stored.to_le_bytes());
        bytes[8..].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// How long the head is in the object, and when it is unpacked, in bytes.
    ///
    /// # Errors
    /// [`RecipeFormatError`] if this is no beginning of a recipe.
    pub fn lengths(beginning: &[u8; BEGINNING]) -> Result<(u32, u32), RecipeFormatError> {
        let malformed = RecipeFormatError::Malformed;
        let (mark, lengths) = beginning.split_at(4);
        if mark != MARK {
            return Err(malformed("it does not begin as one"));
        }
        let number = |at: usize| lengths[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (stored, length) = (number(0), number(4));
        if stored == 0 || stored > MAX_HEAD || length > MAX_HEAD {
            return Err(malformed("its head is too long"));
        }
        Ok((stored, length))
    }

    /// Bytes of content in all its blocks.
    pub fn contents(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.length)).sum()
    }
}

fn reference(message: &proto::Reference) -> Result<Reference, RecipeFormatError> {
    let malformed = RecipeFormatError::Malformed;
    Ok(Reference {
        blob: BlobId::from_slice(&message.blob).ok_or(malformed("the reference's id has not 32 bytes"))?,
        size: message.size,
        parse: message.parse,
        contents: message.contents,
        hash: message.hash[..].try_into().map_err(|_| malformed("the reference's hash has not 32 bytes"))?,
    })
}

/// The columns as blocks, each checked.
fn blocks(message: &proto::Recipe, reference: u64) -> Result<Vec<Block>, RecipeFormatError> {
    let malformed = RecipeFormatError::Malformed;
    let count = message.lengths.len();
    let same = message.stored.len() == count && message.ranges.len() == count;
    if !same || message.starts.len() != message.spans.len() || count.max(message.starts.len()) > MAX_ROWS {
        return Err(malformed("its columns differ in length or are too long"));
    }
    let mut ranges = message.starts.iter().zip(&message.spans);
    let mut blocks = Vec::with_capacity(count);
    for at in 0..count {
        let (length, stored) = (message.lengths[at], message.stored[at]);
        // What does not compress becomes a little longer.
        if length == 0 || length > MAX_BLOCK || stored == 0 || stored > MAX_BLOCK + MAX_BLOCK / 16 {
            return Err(malformed("a block's length is out of bounds"));
        }
        let from: Vec<Range<u64>> = ranges
            .by_ref()
            .take(message.ranges[at] as usize)
            .map(|(&start, &span)| start..start.saturating_add(u64::from(span)))
            .collect();
        let sum: u64 = from.iter().map(|range| range.end - range.start).sum();
        if from.len() != message.ranges[at] as usize || sum > MAX_REFERENCE {
            return Err(malformed("a block is against more than it may be"));
        }
        if from.iter().any(|range| range.end > reference) {
            return Err(malformed("a block is against what the reference has not"));
        }
        blocks.push(Block { length, stored, from });
    }
    if ranges.next().is_some() {
        return Err(malformed("there are ranges of no block"));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Head {
        let reference =
            Reference { blob: BlobId::of(b"old"), size: 10, parse: 1, contents: 900, hash: [3; 32] };
        let block = |length, from: &[Range<u64>]| Block { length, stored: 9, from: from.to_vec() };
        Head {
            blob: BlobId::of(b"new"),
            size: 77,
            plan: Bytes::from_static(b"plan"),
            against: Some(reference),
            blocks: vec![block(50, &[0..10, 800..900]), block(20, &[]), block(30, &[5..6, 7..8])],
        }
    }

    #[test]
    fn survives_its_encoding() {
        let head = sample();
        assert_eq!(Head::decode(head.encode().into()), Ok(head.clone()));
        assert_eq!(head.contents(), 100);
        assert_eq!(Head::lengths(&Head::beginning(5, 6)), Ok((5, 6)));
        assert!(Head::lengths(&Head::beginning(5, MAX_HEAD + 1)).is_err());
        assert!(Head::lengths(b"BLR2........").is_err());
    }

    #[test]
    fn what_the_reference_has_not_is_refused() {
        let mut head = sample();
        head.blocks[0].from[1].end = 901;
        assert!(Head::decode(head.encode().into()).is_err());
        let mut head = sample();
        head.against = None;
        assert!(Head::decode(head.encode().into()).is_err());
    }

    proptest! {
        #[test]
        fn any_altered_encoding_is_consistent_or_refused(at in 0usize..200, flip in 1u8..=255, cut in 0usize..200) {
            let mut bytes = sample().encode();
            let length = bytes.len();
            bytes[at % length] ^= flip;
            bytes.truncate(length - cut % 2 * (cut % length));
            if let Ok(head) = Head::decode(bytes.into()) {
                let contents = head.against.as_ref().map_or(0, |it| it.contents);
                prop_assert!(head.blocks.iter().flat_map(|block| &block.from).all(|it| it.end <= contents));
            }
        }
    }
}
