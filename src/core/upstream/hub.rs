//! What a site's node asks of a hub, and what it is told: an object by recipe, instead of as shipped. Over
//! HTTP, as RFC 3229 has it: `A-IM` in the request, status 226 and `IM` in the answer.

use serde::{Deserialize, Serialize};

use super::record::Segment;
use crate::core::id::BlobId;
use crate::core::recipe::{Choice, Prefer, Speeds, Work};

/// How a recipe is called among the manipulations of `A-IM` and `IM`.
pub const MANIPULATION: &str = "branchline-recipe";
/// The request's header with [`Ask`], as JSON.
pub const ASK: &str = "branchline-ask";
/// An answer by recipe has this status.
pub const USED: u16 = 226;
/// So many older objects are named, at the most.
pub const MOST_HELD: usize = 4;
/// The longest [`ASK`], in bytes.
pub const LONGEST_ASK: usize = 4 << 10;
/// The longest [`Told`], in bytes.
pub const LONGEST_TOLD: usize = 32 << 20;

/// What the asker holds, and how it would weigh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Older objects, by their [content](super::record::Record::content), the likeliest first.
    pub holds: Vec<BlobId>,
    /// What matters more there.
    pub prefer: Prefer,
    /// What its WAN gives, in bytes per second, if that is known.
    pub rate: Option<u64>,
    /// How fast it works.
    pub speeds: Speeds,
}

/// The beginning of an answer by recipe: its length in four bytes, then this as JSON; the recipe's object
/// follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The object's segments: each is held against this as soon as it is rebuilt.
    pub segments: Vec<Segment>,
    /// How long the recipe's object is, in bytes.
    pub bytes: u64,
    /// What it takes to rebuild.
    pub work: Work,
    /// What was weighed.
    pub choice: Choice,
    /// Which of its ways are patches to an older object.
    pub patches: Vec<bool>,
}
