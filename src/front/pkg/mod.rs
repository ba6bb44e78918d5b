//! The fronts: what a package manager's request means, and what it is to be told. Pure: a route makes an
//! [`Artifact`] of a path, and the gateway does the rest.

mod accept;
pub mod apt;
pub mod cargo;
pub mod files;
mod html;
pub mod named;
pub mod npm;
pub mod oci;
mod path;
pub mod pypi;
mod splice;

use crate::core::ledger::Front;
use crate::node::upstream::Wanted;
use crate::origin::upstream::{Kind, Upstream};

pub use path::Path;

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Of which upstream.
    pub upstream: &'a Upstream,
    /// Below it.
    pub path: &'a Path,
    /// What the client accepts.
    pub accept: Option<&'a str>,
    /// How the client reaches this upstream here, without a slash at the end:
    /// `http://127.0.0.1:7420/pypi/main`.
    pub base: &'a str,
    /// For links to files that an index names.
    pub seal: &'a named::Seal,
}

impl Asked<'_> {
    /// For how many seconds something is taken to be fresh: as the admin has it, else as is usual.
    pub fn fresh(&self, usual: u64) -> u64 {
        self.upstream.max_age.map_or(usual, |age| age.as_secs())
    }
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub enum Routed {
    /// An object of the upstream.
    Object(Artifact),
    /// An object that a text of the upstream tells where to find.
    Via {
        /// The text.
        text: Artifact,
        /// What it says.
        then: Then,
    },
    /// Something that needs no upstream.
    Text {
        /// The HTTP status.
        status: u16,
        /// `Content-Type`, and other headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
}

/// An object of an upstream, and how it is handed on.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The object.
    pub wanted: Wanted,
    /// By which the ledger knows its clients.
    pub front: Front,
    /// What its text has to become, so that clients come back to the gateway.
    pub rewrite: Option<Rewrite>,
    /// Headers that stand in the place of the upstream's.
    pub headers: Vec<(&'static str, String)>,
}

/// Makes the text that clients get of the text that an upstream has for what was asked.
///
/// # Errors
/// In words, if the text is not what the upstream's protocol has there.
pub type Rewrite = fn(&Asked, &[u8]) -> Result<Vec<u8>, String>;

/// Finds in an upstream's text what a path stands for.
///
/// # Errors
/// In words, if the text is not what the upstream's protocol has there.
pub type Then = fn(&Upstream, &Path, &[u8]) -> Result<Artifact, String>;

impl Artifact {
    /// An object as it is.
    pub fn of(wanted: Wanted, front: Front) -> Self {
        Self { wanted, front, rewrite: None, headers: Vec::new() }
    }

    /// An object whose text is rewritten.
    pub fn rewritten(wanted: Wanted, front: Front, rewrite: Rewrite) -> Self {
        Self { rewrite: Some(rewrite), ..Self::of(wanted, front) }
    }
}

/// How a front is spoken.
pub type Route = fn(&Asked) -> Result<Routed, NoArtifact>;

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
