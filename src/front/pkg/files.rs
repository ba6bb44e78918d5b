//! `/http/UPSTREAM/...`: files of any web server, by their address.

use super::{Artifact, Path};
use crate::core::ledger::Front;
use crate::node::upstream::Wanted;
use crate::origin::upstream::Upstream;

/// How long a file is taken to be fresh that does not say it, in seconds.
const FRESH: u64 = 60;

/// The file at a path.
pub fn route(upstream: &Upstream, path: &Path) -> Artifact {
    let expected = upstream.max_age.map_or(FRESH, |age| age.as_secs());
    let wanted = Wanted {
        upstream: upstream.name.clone(),
        path: path.as_str().to_owned(),
        accept: None,
        digest: None,
        expected_s: Some(expected),
    };
    Artifact { wanted, front: Front::Http }
}
