//! Opening and taking streams: a libp2p behaviour of our own.
//!
//! libp2p-stream 0.5 takes streams through a queue with one place for all peers and drops the rest
//! (libp2p/rust-libp2p#5651), and its `open_stream` can wait for ever (#6157). Here every queue is
//! bounded, a full one refuses, and a stream is opened on a connection of one's choice.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub(super) const CONTROL: StreamProtocol = StreamProtocol::new("/branchline/control/1");
pub(super) const DATA: StreamProtocol = StreamProtocol::new("/branchline/data/1");

/// Streams that this end opens, and takes, on one connection: together below the multiplexer's.
const MAX_OUT: usize = 16;
const MAX_IN: usize = 24;

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the connection is gone")]
    Closed,
    #[error("the peer took too long")]
    Timeout,
    #[error("the peer does not speak this protocol")]
    Unsupported,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<StreamUpgradeError<Infallible>> for OpenError {
    fn from(error: StreamUpgradeError<Infallible>) -> Self {
        match error {
            StreamUpgradeError::Timeout => Self::Timeout,
            StreamUpgradeError::NegotiationFailed => Self::Unsupported,
            StreamUpgradeError::Io(error) => Self::Io(error),
            StreamUpgradeError::Apply(never) => match never {},
        }
    }
}

#[derive(Debug)]
pub(super) struct OpenRequest {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// Opens streams on one connection.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    requests: mpsc::Sender<OpenRequest>,
    slots: Arc<Semaphore>,
}

impl Opener {
    /// A new stream; keep the permit as long as it.
    pub(super) async fn open(
        &self,
        protocol: StreamProtocol,
    ) -> Result<(Stream, OwnedSemaphorePermit), OpenError> {
        let permit = self.slots.clone().acquire_owned().await.map_err(|_| OpenError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.requests.send(OpenRequest { protocol, reply }).await.map_err(|_| OpenError::Closed)?;
        Ok((answer.await.map_err(|_| OpenError::Closed)??, permit))
    }
}

/// A stream that a member opened.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) protocol: StreamProtocol,
    pub(super) stream: Stream,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Offers both protocols, and tells which one was chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer;

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [CONTROL, DATA]
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

/// One connection's part.
pub(super) struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    requests: mpsc::Receiver<OpenRequest>,
    inbound: mpsc::Sender<Inbound>,
    slots: Arc<Semaphore>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        SubstreamProtocol::new(Offer, ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            if !request.reply.is_closed() {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(request.protocol), request.reply);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let (protocol, stream) = protocol;
                let Ok(permit) = self.slots.clone().try_acquire_owned() else { return };
                let (peer, connection) = (self.peer, self.connection);
                // A full queue drops the stream, which its opener sees as a reset.
                self.inbound.try_send(Inbound { peer, connection, protocol, stream, permit }).ok();
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                info.send(Ok(protocol)).ok();
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                info.send(Err(error.into())).ok();
            }
            _ => {}
        }
    }
}

/// What happens to connections.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection to a member; there may be others to it.
    Up { opener: Opener, endpoint: ConnectedPoint },
    /// It is gone.
    Down { peer: PeerId, connection: ConnectionId },
}

/// The behaviour.
pub(super) struct Streams {
    inbound: mpsc::Sender<Inbound>,
    opening: HashMap<ConnectionId, Opener>,
    events: VecDeque<Event>,
}

impl Streams {
    /// With a queue of so many streams that nobody has taken yet.
    pub(super) fn new(queue: usize) -> (Self, mpsc::Receiver<Inbound>) {
        let (inbound, receiver) = mpsc::channel(queue);
        (Self { inbound, opening: HashMap::new(), events: VecDeque::new() }, receiver)
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let (sender, requests) = mpsc::channel(MAX_OUT);
        let slots = Arc::new(Semaphore::new(MAX_OUT));
        self.opening.insert(connection, Opener { peer, connection, requests: sender, slots });
        let slots = Arc::new(Semaphore::new(MAX_IN));
        Handler { peer, connection, requests, inbound: self.inbound.clone(), slots }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(it) => {
                if let Some(opener) = self.opening.remove(&it.connection_id) {
                    self.events.push_back(Event::Up { opener, endpoint: it.endpoint.clone() });
                }
            }
            FromSwarm::ConnectionClosed(it) => {
                self.events.push_back(Event::Down { peer: it.peer_id, connection: it.connection_id });
            }
            // Denied by another behaviour after this one had agreed.
            FromSwarm::DialFailure(it) => drop(self.opening.remove(&it.connection_id)),
            FromSwarm::ListenFailure(it) => drop(self.opening.remove(&it.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, |event| Poll::Ready(ToSwarm::GenerateEvent(event)))
    }
}
