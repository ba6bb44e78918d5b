//! `GET /api/v1/upstreams`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use super::Node;
use crate::origin::upstream::Upstream;

/// A foreign repository that this node brings objects of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamFacts {
    /// How it is called in the gateway's paths.
    pub name: String,
    /// `apt`, `pypi`, `npm`, `oci`, `cargo` or `http`.
    pub kind: String,
    /// Where it is, and its mirrors.
    pub addresses: Vec<String>,
    /// How its tools call it, if not by its address.
    pub called: Option<String>,
}

impl UpstreamFacts {
    /// The hosts of its addresses, without their ports.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        let urls = self.addresses.iter().filter_map(|address| Url::parse(address).ok());
        urls.filter_map(|url| url.host_str().map(str::to_owned))
    }
}

impl Node {
    /// The upstreams, without what they ask of their users.
    pub fn upstream_facts(&self) -> Vec<UpstreamFacts> {
        let facts = |upstream: &Arc<Upstream>| UpstreamFacts {
            name: upstream.name.clone(),
            kind: upstream.kind.as_str().to_owned(),
            addresses: upstream.bases.iter().map(ToString::to_string).collect(),
            called: upstream.called.clone(),
        };
        self.upstreams().map(facts).collect()
    }
}
