//! Where this node's packages come from. A site may have none of its own, and fetch from upstreams only.

use bytes::Bytes;

use super::Config;
use crate::origin::{Address, Origin, OriginError};

/// An origin, and what its catalog is believed by.
#[derive(Debug, Clone)]
pub struct Home {
    /// Where it is.
    pub address: Address,
    /// Its root of trust: `catalog/root.json`.
    pub trust: Bytes,
}

/// What is said where a package, and not an upstream's file, is wanted of a node without an origin.
pub(super) const NONE: &str = "this agent has no origin and fetches from upstreams only; --origin URL and --trust ROOT.json give it one";

/// The origin, or what is said where there is none.
///
/// # Errors
/// [`OriginError::Invalid`] if there is none.
pub(super) fn of(origin: Option<&Origin>) -> Result<&Origin, OriginError> {
    origin.ok_or_else(|| OriginError::Invalid(NONE.to_owned()))
}

impl Config {
    /// Opens the origin, if there is one. Makes no connection yet.
    ///
    /// # Errors
    /// As [`Origin::open`].
    pub(super) fn open_origin(&self) -> Result<Option<Origin>, OriginError> {
        self.home.as_ref().map(|home| Origin::open(&home.address)).transpose()
    }

    /// How a bundle says where it comes from: the address, as text, and the root of trust's digest.
    pub(super) fn provenance(&self) -> Option<(String, [u8; 32])> {
        self.home.as_ref().map(|home| (home.address.to_string(), *blake3::hash(&home.trust).as_bytes()))
    }

    /// Its address, as text.
    pub(super) fn origin(&self) -> Option<String> {
        self.home.as_ref().map(|home| home.address.to_string())
    }
}
