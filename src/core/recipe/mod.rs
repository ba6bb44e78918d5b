//! Recipes: a blob described by what is inside it, so that an upgrade costs what has changed.
//!
//! Archives as shipped hide how alike two versions are. So an origin may hold, beside a blob's chunks,
//! *recipes* for it: its contents unpacked, either plain or as patches to the contents of an older version,
//! with a plan that puts them together again bit for bit. One object each, `recipes/ID`, which is read from
//! its beginning to its end in one request. The [`Offer`] says which there are; [`choose`] weighs them
//! against the chunks as shipped.
//!
//! Nothing rests on a recipe being true: what is rebuilt is cut into the chunks of the manifest, and each is
//! verified as any other.

mod choice;
mod head;
mod offer;

pub use choice::{Choice, Facts, Place, Prefer, Speeds, Weighed, choose};
pub use head::{BEGINNING, Block, Head, MAX_BLOCK, MAX_HEAD, MAX_REFERENCE, Reference};
pub use offer::{MAX_OFFER, Offer, Way, Work};

/// Why bytes are no recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeFormatError {
    /// Written by a newer Branchline.
    #[error("the recipe has format {0}, which this version does not know")]
    UnknownFormat(u32),
    /// It makes no sense.
    #[error("the recipe is malformed: {0}")]
    Malformed(&'static str),
}

/// The format that this version writes.
const FORMAT: u32 = 1;
