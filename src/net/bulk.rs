//! Bulk connections: TLS on a socket of their own, beside the multiplexed connection to the same member.
//!
//! Multiplexing costs a fifth to a quarter of the CPU time of all that is done to a byte on its way
//! (README, *What was measured*), and what is said on the control stream waits behind the bulk that was
//! written before it.
//! So a member that brings much is given connections for that alone. They come to the swarm's one
//! port: libp2p begins with the name of its negotiation, and these with TLS, so the first byte tells
//! them apart. A member that cannot be dialed (because it alone can dial) is asked on streams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::multiaddr::Protocol;
use libp2p::tcp::tokio::TcpStream;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::counted::Counted;
use super::member::{MemberUpgrade, Secure};
use super::site::HANDSHAKE;

/// What a TLS handshake begins with (RFC 8446, 5.1); libp2p's negotiation begins with a length of 19.
const TLS_HANDSHAKE: u8 = 22;
/// Bulk connections of this node, by who dialed them: what memory and files they may take.
const DIALED: usize = 48;
const TAKEN: usize = 96;
/// Addresses of a member that are tried, and for how long each.
const ADDRESSES: usize = 3;
const CONNECT: Duration = Duration::from_secs(2);
/// Arrived, and not taken up by the site yet.
const QUEUE: usize = 32;

/// The bytes of a bulk connection.
pub(super) type Wire = Compat<Secure<Counted<TcpStream>>>;

/// Makes and takes bulk connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bulk {
    member: MemberUpgrade,
    /// Bytes that they brought.
    read: Arc<AtomicU64>,
    arrived: mpsc::Sender<Arrived>,
    dialed: Arc<Semaphore>,
    taken: Arc<Semaphore>,
}

/// A bulk connection that a member made.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) peer: PeerId,
    pub(super) wire: Wire,
    /// Its place among those that may be.
    pub(super) place: OwnedSemaphorePermit,
}

impl Bulk {
    pub(super) fn new(member: MemberUpgrade, read: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Arrived>) {
        let (arrived, receiver) = mpsc::channel(QUEUE);
        let [dialed, taken] = [DIALED, TAKEN].map(|places| Arc::new(Semaphore::new(places)));
        (Self { member, read, arrived, dialed, taken }, receiver)
    }

    /// Lets connections for the multiplexer pass, and takes those for bulk out of its way.
    ///
    /// # Errors
    /// For those, too: to libp2p they are over.
    pub(super) async fn sort(
        self,
        socket: TcpStream,
        endpoint: ConnectedPoint,
    ) -> io::Result<Counted<TcpStream>> {
        let mut first = [0];
        if endpoint.is_listener() && socket.0.peek(&mut first).await? > 0 && first == [TLS_HANDSHAKE] {
            self.take(socket);
            return Err(io::Error::other("it is for bulk"));
        }
        Ok(Counted::new(socket, self.read))
    }

    fn take(self, socket: TcpStream) {
        // Who is refused asks on streams.
        let Ok(place) = self.taken.clone().try_acquire_owned() else { return };
        let secure = self.member.upgrade_inbound(Counted::new(socket, self.read), "");
        let arrived = self.arrived;
        tokio::spawn(async move {
            match timeout(HANDSHAKE, secure).await {
                Ok(Ok((peer, wire))) => {
                    arrived.try_send(Arrived { peer, wire: wire.compat(), place }).ok();
                }
                Ok(Err(error)) => tracing::debug!(%error, "a bulk connection was refused"),
                Err(_) => tracing::debug!("a bulk connection took too long"),
            }
        });
    }

    /// A place for one more that this node dials.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.dialed.clone().try_acquire_owned().ok()
    }

    /// Connects to a member that listens at one of these addresses.
    ///
    /// # Errors
    /// If it is at none of them, or somebody else is.
    pub(super) async fn dial(&self, peer: PeerId, addresses: &[Multiaddr]) -> io::Result<Wire> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter().filter_map(socket_address).take(ADDRESSES) {
            let connect = timeout(CONNECT, tokio::net::TcpStream::connect(address));
            match connect.await.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => return self.secure(peer, socket).await,
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn secure(&self, peer: PeerId, socket: tokio::net::TcpStream) -> io::Result<Wire> {
        socket.set_nodelay(true)?;
        let socket = Counted::new(TcpStream(socket), self.read.clone());
        let secure = timeout(HANDSHAKE, self.member.clone().upgrade_outbound(socket, ""));
        let (found, wire) = secure.await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
        if found != peer {
            return Err(io::Error::other("another member has its address now"));
        }
        Ok(wire.compat())
    }
}

pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}
