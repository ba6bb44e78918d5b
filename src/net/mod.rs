//! The wire between the agents of a site: who is there, and how to talk to them.
//!
//! libp2p over TCP. Every connection is encrypted by TLS 1.3 with libp2p certificates ([`tls`]),
//! and both ends prove that they hold the site key before anything else is answered
//! ([`member`]). On it, yamux ([`mux`]) carries one control stream each way ([`control`]) and data
//! streams ([`data`]). Nodes find each other by multicast DNS ([`discovery`]), by configured
//! addresses, and by what members tell of each other ([`site`]). In a small site all are connected
//! to all, in a large one to its hubs ([`shape`]).
//!
//! This layer knows nothing of stores or flights: it hands messages up and requests to whoever
//! serves them ([`Serve`]).

mod book;
pub mod control;
mod counted;
pub mod data;
pub mod discovery;
mod frame;
mod handle;
mod hear;
mod identity;
mod listen;
pub mod member;
mod mux;
mod pulse;
mod shape;
mod site;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::core::bitrate::Rate;
use crate::core::id::{NodeId, SiteName};

pub use control::Hello;
pub use data::{Answer, AskError, Reply, Serve};
pub use handle::{Contact, Event, Net};
pub use identity::{load_identity, node_id, peer_id};
pub use libp2p::Multiaddr;
pub use member::{SiteKey, SiteKeyError};

/// What the network needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The site's name; part of the proof of membership.
    pub site: SiteName,
    /// What members share.
    pub key: SiteKey,
    /// The swarm port.
    pub listen: SocketAddr,
    /// Members to reach without multicast.
    pub peers: Vec<Multiaddr>,
    /// Find members by multicast.
    pub mdns: bool,
    /// This node's weight in the ranking of leads.
    pub weight: u32,
    /// What its owner lets the site take from the WAN.
    pub wan_limit: Option<Rate>,
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The port is taken, or may not be used.
    #[error(
        "cannot listen on {address} for the swarm: {why}; is another agent running? Choose another address with --listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// A key or certificate could not be made or read.
    #[error("{0}")]
    Identity(String),
}

/// Starts the network of a node whose identity lies in `state_dir`.
///
/// # Errors
/// [`NetError`].
pub async fn start(
    state_dir: &Path,
    config: Config,
    serve: Arc<dyn Serve>,
) -> Result<(Net, tokio::sync::mpsc::Receiver<Event>), NetError> {
    let keypair = load_identity(state_dir)?;
    site::start(keypair, config, serve).await
}

/// Who this node is, without starting anything.
///
/// # Errors
/// [`NetError::Identity`].
pub fn identity_of(state_dir: &Path) -> Result<NodeId, NetError> {
    Ok(node_id(&load_identity(state_dir)?.public().to_peer_id()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::BoxFuture;
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::core::wire::message::Request;

    /// It has nothing to give.
    struct Nothing;

    impl Serve for Nothing {
        fn serve<'a>(&'a self, _: NodeId, _: Request, _: Reply<'a>) -> BoxFuture<'a, std::io::Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    async fn node(dir: &Path, peers: Vec<Multiaddr>) -> (Net, Receiver<Event>) {
        let config = Config {
            site: "lisbon".parse().expect("a name"),
            key: SiteKey::from_bytes([7; 32]),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers,
            mdns: false,
            weight: 100,
            wan_limit: None,
        };
        start(dir, config, Arc::new(Nothing)).await.expect("a free port")
    }

    async fn next_weight(events: &mut Receiver<Event>) -> u32 {
        let next = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
        match next.expect("an event within 20 s") {
            Some(Event::Up { hello, .. }) => hello.weight,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_new_weight_is_told_to_members_and_nothing_else_changes() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let (first, mut seen_by_first) = node(dirs[0].path(), Vec::new()).await;
        let (second, mut seen_by_second) = node(dirs[1].path(), first.addresses()).await;
        assert_eq!(next_weight(&mut seen_by_second).await, 100);
        assert_eq!(next_weight(&mut seen_by_first).await, 100);
        for weight in [25, 0, 100] {
            first.set_weight(weight).await;
            assert_eq!(next_weight(&mut seen_by_second).await, weight);
            assert_eq!(second.contacts()[0].hello.weight, weight);
        }
        first.set_weight(100).await; // no news
        first.set_weight(7).await;
        assert_eq!(next_weight(&mut seen_by_second).await, 7);
        assert!(seen_by_first.try_recv().is_err(), "its own weight is no event");
    }
}
