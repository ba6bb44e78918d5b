//! Bundles: packages on a disk, a stick or a pipe, for sites that are to have them without the WAN.
//!
//! A bundle is one file that is written and read from its start to its end. All numbers are little
//! endian. It is the magic `BRANCHB1` and then records, each a head of 24 bytes ([`Head`]) and as many
//! bytes of payload as that says:
//!
//! | record | payload |
//! |---|---|
//! | contents | `Contents` of `proto/bundle.proto`: the packages, and how much follows |
//! | catalog | `CatalogBundle` of `proto/wire.proto`: the signed files, which prove themselves |
//! | manifest, one for each that the contents name | as at the origin; it proves itself by its name |
//! | run, as many as the contents say | consecutive chunks of one manifest ([`Run`]), each of them as in a pack (compressed or not) or each as it is; they prove themselves by the manifest |
//! | end | how many records and bytes came before, and the digest |
//!
//! The **digest** is the BLAKE3 hash of the magic, of all heads before the end, and of all payloads but those
//! of runs. Every byte of a run is covered by the hash of its chunk, in a manifest that the digest
//! covers; to hash it twice would tell nothing more, and whoever knows that it holds a run already can
//! pass over it without reading it and still check the digest. In such a stream a run's head says *held*, and no
//! payload follows; the digest is that of the whole bundle.
//!
//! Nothing in a bundle is believed: the catalog is checked against the reader's own root of trust, the
//! manifests against the catalog, the chunks against the manifests. What the digest adds is that a
//! bundle which was cut or altered is known as such. A head carries a check of its own, so that a
//! damaged chunk costs that chunk, and no length is believed that was altered.

mod contents;
mod head;
mod layout;
mod pieces;
mod reader;
mod run;
#[cfg(test)]
mod tests;
mod writer;

pub use contents::{Contents, Entry};
pub use head::{HEAD, Head, Kind};
pub use layout::{Item, Layout};
pub use pieces::Pieces;
pub use reader::{Reader, Step};
pub use run::{Form, Piece, Run};
pub use writer::Writer;

use super::manifest::MAX_MANIFEST;

/// How a bundle begins.
pub const MAGIC: &[u8; 8] = b"BRANCHB1";
/// The longest content of a run, in bytes; one chunk is always less.
pub const MAX_RUN: u32 = 512 << 10;
/// The longest list of contents, in bytes.
const MAX_CONTENTS: u32 = 4 << 20;
/// The longest catalog, in bytes.
const MAX_CATALOG: u32 = 64 << 20;
/// The most packages.
pub const MAX_PACKAGES: usize = 4096;
/// The most bytes of all manifests together: they are kept in memory while a bundle is read.
pub const MAX_MANIFESTS: u64 = 4 * MAX_MANIFEST as u64;

/// Why bytes are no bundle, or no more of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Something else altogether.
    #[error("this is no bundle: it does not begin with BRANCHB1; 'branchline export' makes one")]
    NoBundle,
    /// Written by a newer Branchline.
    #[error("the bundle has format {0}, which this version does not know: upgrade Branchline here")]
    UnknownFormat(u32),
    /// It ends before its end.
    #[error("the bundle is cut: it ends after {at} bytes, with {share} % of its content; copy it again")]
    Cut {
        /// Where, in bytes.
        at: u64,
        /// Of the content, how much came.
        share: u64,
    },
    /// Bytes between the chunks are not what was written.
    #[error("the bundle is damaged at byte {at} ({what}); what follows there cannot be read: copy it again")]
    Damaged {
        /// Where, in bytes.
        at: u64,
        /// What was found.
        what: &'static str,
    },
    /// It could not be written.
    #[error("this is too much for one bundle: {0}; export it as several")]
    TooMuch(&'static str),
}
