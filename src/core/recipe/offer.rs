//! What an origin says of the recipes for one blob.

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{FORMAT, RecipeFormatError};
use crate::core::id::{BlobId, RecipeId};
use crate::core::wire::recipe as proto;

/// The longest encoding that is read, in bytes.
pub const MAX_OFFER: u64 = 64 << 10;
/// More ways than this are not believed.
const MAX_WAYS: usize = 256;

/// What a machine does to rebuild a blob, in bytes of content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// All that is inside it.
    pub contents: u64,
    /// Of it, what is compressed again with deflate.
    pub deflate: u64,
    /// With xz.
    pub xz: u64,
    /// With zstd.
    pub zstd: u64,
}

/// One recipe, as far as it has to be known to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The recipe.
    pub recipe: RecipeId,
    /// How long its object is: what crosses the WAN.
    pub bytes: u64,
    /// The blob whose contents it takes for granted, how long it is, and how much is inside it, in bytes.
    pub against: Option<(BlobId, u64, u64)>,
    /// What it takes to rebuild.
    pub work: Work,
}

/// The recipes for one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// In no particular order.
    pub ways: Vec<Way>,
}

impl Offer {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let ways = self.ways.iter().map(|way| proto::Way {
            recipe: Bytes::copy_from_slice(way.recipe.as_bytes()),
            bytes: way.bytes,
            against: way.against.map_or(Bytes::new(), |(blob, ..)| Bytes::copy_from_slice(blob.as_bytes())),
            against_size: way.against.map_or(0, |(_, size, _)| size),
            against_contents: way.against.map_or(0, |(.., contents)| contents),
            contents: way.work.contents,
            deflate: way.work.deflate,
            xz: way.work.xz,
            zstd: way.work.zstd,
        });
        proto::Offer { format: FORMAT, ways: ways.collect() }.encode_to_vec().into()
    }

    /// Reads what was stored; ways that this version cannot go are left out.
    ///
    /// # Errors
    /// [`RecipeFormatError`].
    pub fn decode(encoded: &[u8]) -> Result<Self, RecipeFormatError> {
        let malformed = RecipeFormatError::Malformed;
        let message = proto::Offer::decode(encoded).map_err(|_| malformed("not protobuf"))?;
        if message.format != FORMAT {
            return Err(RecipeFormatError::UnknownFormat(message.format));
        }
        if message.ways.len() > MAX_WAYS {
            return Err(malformed("there are too many ways"));
        }
        let way = |way: &proto::Way| {
            let against = match BlobId::from_slice(&way.against) {
                Some(blob) => Some((blob, way.against_size, way.against_contents)),
                None if way.against.is_empty() => None,
                None => return None,
            };
            let work = Work { contents: way.contents, deflate: way.deflate, xz: way.xz, zstd: way.zstd };
            Some(Way { recipe: RecipeId::from_slice(&way.recipe)?, bytes: way.bytes, against, work })
        };
        Ok(Self { ways: message.ways.iter().filter_map(way).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_encoding() {
        let work = Work { contents: 9, deflate: 4, xz: 3, zstd: 0 };
        let against = Some((BlobId::of(b"old"), 7, 30));
        let way = |against| Way { recipe: RecipeId::of(b"r"), bytes: 5, against, work };
        let offer = Offer { ways: vec![way(None), way(against)] };
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
        assert!(Offer::decode(b"\xff\xff").is_err());
        assert_eq!(Offer::decode(&[8, 9]), Err(RecipeFormatError::UnknownFormat(9)));
    }
}
