//! The swarm of a node, and where it listens.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, Transport, tcp};

use super::NetError;
use super::bulk::Bulk;
use super::member::MemberUpgrade;
use super::mux::Yamux;
use super::site::{Behaviour, HANDSHAKE};
use super::streams::Streams;

/// The most connections of a node: those of a hub.
const MAX_MEMBERS: u32 = 512;
/// Handshakes that others began; all of a large site may knock at a hub together.
const MAX_KNOCKING: u32 = 256;

pub(super) fn swarm_of(me: PeerId, member: MemberUpgrade, streams: Streams, bulk: Bulk) -> Swarm<Behaviour> {
    let transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .and_then(move |socket, endpoint| bulk.sort(socket, endpoint))
        .upgrade(Version::V1Lazy)
        .authenticate(member)
        .multiplex(Yamux)
        .timeout(HANDSHAKE)
        .boxed();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_KNOCKING))
        .with_max_pending_outgoing(Some(128))
        .with_max_established(Some(MAX_MEMBERS))
        .with_max_established_per_peer(Some(4));
    let behaviour = Behaviour { limits: connection_limits::Behaviour::new(limits), streams };
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(3600))
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    Swarm::new(transport, behaviour, me, settings)
}

/// Listens, and waits until it is known where.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    address: SocketAddr,
) -> Result<SocketAddr, NetError> {
    let failed = |why: String| NetError::Listen { address, why };
    if address.port() != 0 {
        // libp2p would share the port with another agent without a word.
        std::net::TcpListener::bind(address).map_err(|error| failed(error.to_string()))?;
    }
    let target = Multiaddr::empty().with(address.ip().into()).with(Protocol::Tcp(address.port()));
    swarm.listen_on(target).map_err(|error| failed(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address: bound, .. } => {
                let port = bound.iter().find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    _ => None,
                });
                return Ok(SocketAddr::new(address.ip(), port.unwrap_or(address.port())));
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => return Err(failed(error.to_string())),
            _ => {}
        }
    }
}
