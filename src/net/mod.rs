//! The wire between the agents of a site: who is there, and how to talk to them.
//!
//! libp2p over TCP. Every connection is encrypted by TLS 1.3 with libp2p certificates ([`tls`]),
//! and both ends prove that they hold the site key before anything else is answered
//! ([`member`]). On it, yamux ([`mux`]) carries one control stream each way ([`control`]) and data
//! streams ([`data`]); what is large comes over connections of its own ([`bulk`]). Nodes find each
//! other by multicast DNS ([`discovery`]), by configured addresses, and by what members tell of each
//! other ([`site`]). In a small site all are connected to all, in a large one to its hubs ([`shape`]).
//!
//! This layer knows nothing of stores or flights: it hands messages up and requests to whoever
//! serves them ([`Serve`]).

mod book;
mod bulk;
mod census;
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
mod pool;
mod pulse;
mod reach;
mod shape;
mod site;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::core::bitrate::Rate;
use crate::core::id::{NodeId, SiteName};

pub use census::{Census, census};
pub use control::Hello;
pub use data::{Answer, AskError, Reply, Serve};
pub use handle::{Contact, Event, Net};
pub use identity::{known_identity, load_identity, node_id, peer_id};
pub use libp2p::Multiaddr;
pub use member::{SiteKey, SiteKeyError};
pub use reach::{Knock, Obstacle, Unreached, knock, knock_at};

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

/// An error with its causes: libp2p's own display leaves them out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
