//! `/http/UPSTREAM/...`: files of any web server, by their address.

use super::{Artifact, Asked, NoArtifact, Routed};
use crate::core::ledger::Front;
use crate::node::upstream::Wanted;

/// How long a file is taken to be fresh that does not say it, in seconds.
const FRESH: u64 = 60;

/// The file at a path.
///
/// # Errors
/// None: any path may be a file's.
pub fn route(asked: &Asked) -> Result<Routed, NoArtifact> {
    let wanted = Wanted::mutable(&asked.upstream.name, asked.path.as_str(), asked.fresh(FRESH));
    Ok(Routed::Object(Artifact::of(wanted, Front::Http)))
}
