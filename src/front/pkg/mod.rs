//! The fronts: what a package manager's request means, and what it is to be told. Pure: a route makes an
//! [`Artifact`] of a path, and the gateway does the rest.

pub mod files;
mod path;

use crate::core::ledger::Front;
use crate::node::upstream::Wanted;
use crate::origin::upstream::{Kind, Upstream};

pub use path::Path;

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The object that answers it.
    pub wanted: Wanted,
    /// By which the ledger knows its clients.
    pub front: Front,
}

/// Why a request means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoArtifact {
    /// No upstream of this name and kind is configured.
    #[error(
        "there is no {kind} upstream {name:?} here; the agent's configuration names them: upstream = [\"{name} {kind} https://...\"]"
    )]
    NoUpstream {
        /// What was asked for.
        name: String,
        /// By its path.
        kind: &'static str,
    },
    /// The path leads out of its upstream, or is none.
    #[error("{0:?} is no path here: no '..', no encoded slashes and no control characters")]
    BadPath(String),
    /// The protocol has no such thing.
    #[error("{0}")]
    NoSuch(String),
}

/// The upstream of a path, if it is of this kind.
///
/// # Errors
/// [`NoArtifact::NoUpstream`].
pub fn of_kind(
    found: Option<std::sync::Arc<Upstream>>,
    name: &str,
    kind: Kind,
) -> Result<std::sync::Arc<Upstream>, NoArtifact> {
    let none = || NoArtifact::NoUpstream { name: name.chars().take(64).collect(), kind: kind.as_str() };
    found.filter(|upstream| upstream.kind == kind).ok_or_else(none)
}
