//! Nodes by names that people know.

use std::collections::BTreeMap;

use super::client::Target;
use crate::node::report::{Peer, Status};

/// Host names by node id, as far as the agent knows them.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<String, String>);

impl Hosts {
    /// Those of the agent's members, and its own. Names only make things easier to read, so that what the
    /// agent does not tell is no failure.
    pub(super) async fn ask(target: &Target, status: Option<&Status>) -> Self {
        let peers: Vec<Peer> = target.json("/api/v1/peers").await.unwrap_or_default();
        let own = status.map(|status| (status.node.clone(), status.host.clone()));
        Self::new(peers.into_iter().map(|peer| (peer.node, peer.host)).chain(own))
    }

    pub(super) fn new(hosts: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(hosts.into_iter().filter(|(_, host)| !host.is_empty()).collect())
    }

    /// The host's name and the end of its id, which tells machines of the same name apart. All ids begin
    /// alike, so that the end says more.
    pub(super) fn name(&self, node: &str) -> String {
        let end = node.char_indices().rev().nth(5).map_or(node, |(at, _)| &node[at..]);
        match self.0.get(node) {
            Some(host) => format!("{host} ({end})"),
            None if end.len() < node.len() => format!("…{end}"),
            None => node.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_go_by_their_hosts() {
        let hosts = Hosts::new([("12D3KooWabcdef".to_owned(), "pc-7".to_owned()), ("x".into(), "".into())]);
        assert_eq!(hosts.name("12D3KooWabcdef"), "pc-7 (abcdef)");
        assert_eq!(hosts.name("12D3KooWghijkl"), "…ghijkl");
        assert_eq!((hosts.name("x"), hosts.name("")), ("x".into(), String::new()));
    }
}
