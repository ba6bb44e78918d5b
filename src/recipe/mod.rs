//! Looks inside packages as they are shipped, and puts them together again bit for bit.
//!
//! [`open`] takes a file apart into its *contents*: all that is inside, unpacked, one after the other, with
//! what holds it together (headers, padding, directories) in between. A [`Plan`] says what of the contents is
//! compressed again, and how; [`rebuild`] follows it. [`delta`] describes contents by those of an older
//! version.
//!
//! The contents of a file depend on nothing but its bytes and on [`PARSE`]: the publisher opens an older
//! version to write patches against it, and an agent opens the same version to apply them.

mod ar;
mod deflate;
pub mod delta;
mod gzip;
mod look;
mod open;
mod plan;
mod rebuild;
mod span;
mod tar;
mod write;
mod xz;
mod zip;
mod zstd;

pub use open::{How, Member, Opened, is_known, open};
pub use plan::{MAX_PLAN, Part, Plan};
pub use rebuild::rebuild;
pub use span::Span;
pub use write::{Contents, Older, Written, write};

/// The rules by which files are opened. Another number, other contents.
pub const PARSE: u32 = 1;
/// The same, with what encoders of deflate chose among the contents.
pub const PARSE_CHOICES: u32 = 2;

/// What opening and rebuilding may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of contents, and of anything that is unpacked on the way.
    pub contents: u64,
    /// Archives within archives.
    pub depth: u32,
    /// Members of all archives together.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { contents: 8 << 30, depth: 5, members: 1 << 20 }
    }
}

/// Why a file was not opened or not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It is larger inside than it may be.
    #[error("there is more inside than the {0} bytes that are unpacked at the most")]
    TooMuch(u64),
    /// It has more members than it may have.
    #[error("there are more than {0} files inside")]
    TooMany(usize),
    /// A plan that makes no sense.
    #[error("the plan is malformed: {0}")]
    Malformed(&'static str),
    /// A compressor failed, or does not do what the plan says.
    #[error("{0}")]
    Codec(String),
    /// A file could not be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
