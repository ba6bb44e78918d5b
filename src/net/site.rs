//! The members of the site: finding, connecting, keeping, losing.
//!
//! One task owns the swarm and all of this state. Its handlers are plain functions that cannot
//! wait; what takes time runs in tasks that report back through bounded queues.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::connection_limits;
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;

use super::book::{Known, Nameless};
use super::bulk::{Arrived, Bulk};
use super::control::{self, Heard, Hello, Report};
use super::data::Serve;
use super::handle::{Contact, Event, Member, Net, Order};
use super::listen::{listen, swarm_of};
use super::member::MemberUpgrade;
use super::pool::Pool;
use super::pulse::{Pulse, Slack};
use super::shape::Shape;
use super::streams::{self, CONTROL, Inbound, Opener, Streams};
use super::tls::Tls;
use super::{Config, NetError, causes, discovery, node_id};

/// A connection is made within this, or not at all.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(8);
/// The node with the greater id leaves dialing to the other for so long, so that two sockets for
/// one pair stay rare.
pub(super) const POLITE: Duration = Duration::from_millis(300);
pub(super) const REDIAL: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// Bulk connections that one member may make: what it has use for, and some that it has given up.
const BULK_OF_ONE: usize = 6;
const BAN: Duration = Duration::from_secs(600);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, since it may refuse what the other would accept.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) streams: Streams,
}

/// One connection; a peer may have two for a moment.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    pub(super) opener: Opener,
    pub(super) preferred: bool,
    pub(super) dialed: bool,
    pub(super) address: Multiaddr,
    pub(super) control: mpsc::Sender<Vec<u8>>,
    pub(super) cancel: CancellationToken,
    pub(super) hello: Option<Hello>,
    pub(super) pulse: Arc<Pulse>,
    /// Places for bulk connections that the other end makes.
    pub(super) bulk: Arc<Semaphore>,
    /// How many members the other end said that it has.
    pub(super) members: u32,
}

pub(super) struct Site {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) me: PeerId,
    pub(super) hello: Hello,
    pub(super) serve: Arc<dyn Serve>,
    pub(super) net: Net,
    pub(super) events: mpsc::Sender<Event>,
    /// Handed up one after the other, since the node may be slower than the network.
    pub(super) outbox: std::collections::VecDeque<Event>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) book: HashMap<PeerId, Known>,
    /// Configured addresses without a peer id.
    pub(super) nameless: Vec<Nameless>,
    pub(super) dialing: HashMap<ConnectionId, usize>,
    pub(super) banned: HashMap<PeerId, Instant>,
    pub(super) shape: Shape,
    /// When to look whom to dial, at the latest.
    pub(super) wake_at: Instant,
}

pub(super) async fn start(
    keypair: Keypair,
    config: Config,
    serve: Arc<dyn Serve>,
) -> Result<(Net, mpsc::Receiver<Event>), NetError> {
    let me = keypair.public().to_peer_id();
    let (streams, inbound) = Streams::new(256);
    let read = Arc::default();
    let member = MemberUpgrade::new(Tls::new(&keypair)?, &config.key, &config.site, me);
    let (bulk, arrived) = Bulk::new(member.clone(), Arc::clone(&read));
    let mut swarm = swarm_of(me, member, streams, bulk.clone());
    let listen = listen(&mut swarm, config.listen).await?;
    let tag = config.key.derive("discovery", &config.site);
    let (found_sender, found) = mpsc::channel(64);
    if config.mdns
        && let Err(error) = discovery::start(tag, me, listen, found_sender)
    {
        tracing::warn!(%error, "no multicast here; members are found by --peer addresses only");
    }
    let (orders_sender, orders) = mpsc::channel(64);
    let (events_sender, events) = mpsc::channel(256);
    let (reports_sender, reports) = mpsc::channel(256);
    let slack = Arc::<Slack>::default();
    let net = Net {
        me: node_id(&me),
        members: Arc::default(),
        listening: Arc::default(),
        doors: Arc::default(),
        pool: Arc::new(Pool::new(slack.clone())),
        slack,
        bulk,
        hub: Arc::new(true.into()),
        connected: Arc::default(),
        read,
        orders: orders_sender,
    };
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        weight: config.weight,
        addresses: Vec::new(),
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        wan_limit: config.wan_limit,
    };
    let mut site = Site {
        swarm,
        me,
        hello,
        serve,
        net: net.clone(),
        events: events_sender,
        outbox: std::collections::VecDeque::new(),
        reports: reports_sender,
        connections: HashMap::new(),
        book: HashMap::new(),
        nameless: Vec::new(),
        dialing: HashMap::new(),
        banned: HashMap::new(),
        shape: Shape::new(Instant::now()),
        wake_at: Instant::now(),
    };
    site.note_addresses();
    config.peers.into_iter().for_each(|address| site.configure(address));
    tokio::spawn(site.run(inbound, arrived, found, orders, reports));
    Ok((net, events))
}

impl Site {
    async fn run(
        mut self,
        mut inbound: mpsc::Receiver<Inbound>,
        mut arrived: mpsc::Receiver<Arrived>,
        mut found: mpsc::Receiver<discovery::Found>,
        mut orders: mpsc::Receiver<Order>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let events = self.events.clone();
        loop {
            // What the node has not taken yet holds up reports, and so the peers; nothing else.
            let full = !self.outbox.is_empty();
            let wake = tokio::time::sleep_until(self.wake_at.into());
            tokio::select! {
                permit = events.reserve(), if full => match (permit, self.outbox.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => return,
                },
                Some((connection, heard)) = reports.recv(), if !full => self.on_heard(connection, heard),
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(stream) = inbound.recv() => self.on_stream(stream),
                Some(bulk) = arrived.recv() => self.on_bulk(bulk),
                Some((peer, address)) = found.recv() => self.learn(peer, vec![address]),
                order = orders.recv() => match order {
                    Some(Order::Ban(peer)) => self.ban(peer),
                    Some(Order::Drop(peer)) => self.break_with(peer),
                    Some(Order::Weight(weight)) => self.tell_weight(weight),
                    Some(Order::Connect(nodes)) => self.connect(&nodes),
                    Some(Order::Stop) | None => return self.say_goodbye().await,
                },
                () = wake => self.look_around(),
            }
        }
    }

    fn look_around(&mut self) {
        self.dial_due();
        self.close_unused();
        self.net.pool.rest();
        self.announce();
    }

    async fn say_goodbye(&mut self) {
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(connection);
        }
        // The sockets close as the swarm runs on for a moment.
        let leave = async {
            while !self.connections.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm(event);
            }
        };
        tokio::time::timeout(Duration::from_millis(500), leave).await.ok();
    }

    // ---- connections -----------------------------------------------------------------

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Up { opener, endpoint })) => {
                self.on_up(opener, &endpoint);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Down { peer, connection })) => {
                self.on_down(peer, connection);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, error = %causes(&error), "a connection was refused");
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => self.note_addresses(),
            _ => {}
        }
    }

    /// The addresses that others can dial: the loopback ones only if there are no others.
    fn note_addresses(&mut self) {
        let (loopback, real): (Vec<Multiaddr>, Vec<Multiaddr>) =
            self.swarm.listeners().cloned().partition(is_loopback);
        self.hello.addresses = if real.is_empty() { loopback } else { real };
        *self.net.listening.write().unwrap_or_else(PoisonError::into_inner) = self.hello.addresses.clone();
    }

    fn on_up(&mut self, opener: Opener, endpoint: &ConnectedPoint) {
        let (peer, id, dialed) = (opener.peer, opener.connection, endpoint.is_dialer());
        if let Some(index) = self.dialing.remove(&id)
            && let Some(entry) = self.nameless.get_mut(index)
        {
            (entry.peer, entry.failures) = (Some(peer), 0);
            self.net.doors.opened(&entry.address.to_string());
            let mut address = endpoint.get_remote_address().clone();
            if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                address.pop();
            }
            self.learn_as(peer, vec![address], true);
        }
        self.net.doors.opened(&peer.to_string());
        if self.banned.get(&peer).is_some_and(|until| *until > Instant::now()) {
            self.swarm.close_connection(id);
            return;
        }
        // The same connection is kept on both sides: the one that the smaller id dialed.
        let preferred = dialed == (self.me < peer);
        let (control, queue) = mpsc::channel(control::QUEUE);
        let connection = Connection {
            peer,
            opener: opener.clone(),
            preferred,
            dialed,
            address: endpoint.get_remote_address().clone(),
            control,
            cancel: CancellationToken::new(),
            hello: None,
            pulse: Arc::new(Pulse::new(self.net.connected.clone())),
            bulk: Arc::new(Semaphore::new(BULK_OF_ONE)),
            members: 0,
        };
        self.speak_on(&connection, queue);
        self.connections.insert(id, connection);
        self.net.pool.know(id);
        self.net.connected.store(self.connections.len(), Ordering::Relaxed);
    }

    /// Opens the control stream and writes to it until the connection ends.
    fn speak_on(&self, connection: &Connection, queue: mpsc::Receiver<Vec<u8>>) {
        let (opener, cancel) = (connection.opener.clone(), connection.cancel.clone());
        let (hello, reports, pulse) = (self.hello.clone(), self.reports.clone(), connection.pulse.clone());
        tokio::spawn(async move {
            let id = opener.connection;
            let speak = async {
                let (stream, _permit) = opener.open(CONTROL).await.map_err(std::io::Error::other)?;
                control::write(stream.compat(), hello, pulse, queue).await
            };
            tokio::select! {
                result = speak => if let Err(error) = result {
                    reports.send((id, Heard::Over(error.to_string()))).await.ok();
                },
                () = cancel.cancelled() => {}
            }
        });
    }

    /// Closes this end's other connections to a peer, once the one to keep has been introduced.
    pub(super) fn close_doubles(&mut self, peer: PeerId) {
        let keeps = |it: &Connection| it.peer == peer && it.preferred && it.hello.is_some();
        if !self.connections.values().any(keeps) {
            return;
        }
        let doubles: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.peer == peer && !connection.preferred && connection.dialed)
            .map(|(id, _)| *id)
            .collect();
        doubles.into_iter().for_each(|id| self.close(id));
    }

    /// Closes a connection. Its tasks first: yamux does not wake readers of its own closing.
    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            connection.cancel.cancel();
            self.net.pool.forget(id);
        }
        self.swarm.close_connection(id);
    }

    fn on_down(&mut self, peer: PeerId, id: ConnectionId) {
        let mut met = false;
        if let Some(connection) = self.connections.remove(&id) {
            met = connection.hello.is_some();
            connection.cancel.cancel();
            self.net.pool.forget(id);
        }
        self.net.connected.store(self.connections.len(), Ordering::Relaxed);
        if let Some(known) = self.book.get_mut(&peer) {
            // One that hangs up before it says a word is full, or worse.
            known.failures = if met { 0 } else { known.failures + 1 };
            let again = REDIAL[(known.failures as usize).min(REDIAL.len() - 1)];
            known.dial_at = Instant::now() + if self.me < peer { again } else { again + POLITE };
        }
        self.lost(&peer);
        self.refresh_member(peer);
    }

    /// Brings what the node sees of a peer up to date with its connections.
    pub(super) fn refresh_member(&mut self, peer: PeerId) {
        let node = node_id(&peer);
        let best = self
            .connections
            .values()
            .filter(|connection| connection.peer == peer && !connection.cancel.is_cancelled())
            .filter_map(|connection| Some((connection, connection.hello.clone()?)))
            .max_by_key(|(connection, _)| connection.preferred);
        let mut members = self.net.members.write().unwrap_or_else(PoisonError::into_inner);
        match best {
            Some((connection, hello)) => {
                let before = members.get(&node);
                let hub = self.shape.is_hub(&peer);
                let news = before.is_none_or(|it| it.contact.hello != hello || it.contact.hub != hub);
                let contact = Contact {
                    node,
                    hub,
                    hello: hello.clone(),
                    address: connection.address.clone(),
                    inbound: !connection.dialed,
                    latency: before.and_then(|member| member.contact.latency),
                    since: before.map_or_else(Instant::now, |member| member.contact.since),
                };
                let (opener, control) = (connection.opener.clone(), connection.control.clone());
                members.insert(node, Member { contact, opener, control, pulse: connection.pulse.clone() });
                if news {
                    self.outbox.push_back(Event::Up { node, hello, hub });
                }
            }
            None => {
                if members.remove(&node).is_some() {
                    self.outbox.push_back(Event::Down { node });
                }
            }
        }
    }

    pub(super) fn break_with(&mut self, peer: PeerId) {
        let of_peer = self.connections.iter().filter(|(_, connection)| connection.peer == peer);
        for id in of_peer.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
        self.refresh_member(peer);
    }

    fn ban(&mut self, peer: PeerId) {
        self.banned.insert(peer, Instant::now() + BAN);
        self.break_with(peer);
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}
