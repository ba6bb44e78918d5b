//! The shape of the site as seen from here: which nodes are hubs, and whom to be connected to.
//!
//! Up to [`hubs::MESH`] nodes everybody is a hub and connected to everybody. Above it a node keeps
//! its connections to the hubs ([`hubs::choose`]), to configured peers, and for a while to those
//! that a flight needs; a hub takes whoever comes. What is not wanted any more is closed by the end
//! that dialed it, after a minute without use: the other end did not ask for it and will not dial.
//!
//! Nobody has to know everybody. A newcomer is told of the best-ranked members, hubs tell all of a
//! new hub, and whoever sees the size of the site cross a bound says so. Each of these messages is
//! at most 48 contacts of some 90 bytes; a hub that changes costs each hub one contact to each
//! member. Where somebody else is, a hub knows ([`Site::find`]).

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use super::control::{self, Whereabouts};
use super::handle::Event;
use super::hear::reachable;
use super::site::{POLITE, Site};
use super::{node_id, peer_id};
use crate::core::hubs;
use crate::core::id::NodeId;

/// A connection that nothing needs is closed after so long without use.
const UNUSED: Duration = Duration::from_secs(60);
/// A node that was heard of so recently counts for the size of the site.
const RECENT: Duration = Duration::from_secs(600);
/// The shape is looked at again this often even if nothing has happened.
const LOOK: Duration = Duration::from_secs(10);
/// Where a site is large this is work, and connections come by the dozen: not more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Members are not told of hubs more often.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// Connections that flights need at a time.
const MAX_NEEDED: usize = 256;

/// What this node makes of the site.
#[derive(Debug)]
pub(super) struct Shape {
    large: bool,
    hubs: HashSet<PeerId>,
    near: HashSet<PeerId>,
    /// Whom a flight needs, and until when.
    needed: HashMap<PeerId, Instant>,
    stale: bool,
    looked: Instant,
    look_at: Instant,
    announced: (HashSet<PeerId>, usize),
    announce_at: Instant,
}

impl Shape {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            large: false,
            hubs: HashSet::new(),
            near: HashSet::new(),
            needed: HashMap::new(),
            stale: true,
            looked: now,
            look_at: now,
            announced: (HashSet::new(), 0),
            announce_at: now,
        }
    }

    /// The site has hubs.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    pub(super) fn is_hub(&self, peer: &PeerId) -> bool {
        !self.large || self.hubs.contains(peer)
    }

    /// Whether this node should be connected to a peer that was not configured; the lower, the sooner.
    pub(super) fn wants(&self, now: Instant, peer: &PeerId) -> Option<u8> {
        match () {
            () if self.needed.get(peer).is_some_and(|until| *until > now) => Some(0),
            () if self.near.contains(peer) => Some(1),
            () => (!self.large).then_some(2),
        }
    }
}

/// How large a site is, as far as others have to be told.
fn class(nodes: usize) -> usize {
    usize::from(nodes > hubs::SMALL) + usize::from(nodes > hubs::MESH)
}

impl Site {
    /// What the shape depends on has changed.
    pub(super) fn shape_changed(&mut self) {
        self.shape.stale = true;
        self.wake_at = self.wake_at.min(Instant::now() + Duration::from_millis(100));
    }

    /// The members by their connections.
    pub(super) fn connected(&self) -> HashSet<PeerId> {
        self.connections.values().filter(|it| it.hello.is_some()).map(|it| it.peer).collect()
    }

    /// Looks at the shape again, if something has happened.
    pub(super) fn reshape(&mut self) {
        let now = Instant::now();
        let soon = self.shape.large && now < self.shape.looked + PAUSE;
        if soon || (!self.shape.stale && self.shape.look_at > now) {
            return;
        }
        (self.shape.stale, self.shape.looked, self.shape.look_at) = (false, now, now + LOOK);
        let connected = self.connected();
        let recent = self.book.iter().filter(|(peer, known)| {
            let heard = known.failures < hubs::FAILED && now.saturating_duration_since(known.heard) < RECENT;
            heard && !connected.contains(*peer)
        });
        let told = self.connections.values().map(|it| it.members as usize).max().unwrap_or(0);
        let nodes = (1 + connected.len() + recent.count()).max(told);
        self.shape.large = hubs::is_large(nodes, self.shape.large);
        let known = self.book.iter().map(|(peer, it)| {
            (node_id(peer), it.weight, connected.contains(peer) || it.failures < hubs::FAILED)
        });
        let choice = hubs::choose(known.chain([(node_id(&self.me), self.hello.weight, true)]), hubs::HUBS);
        self.shape.hubs = choice.hubs.iter().filter_map(peer_id).collect();
        self.shape.near = choice.near.iter().filter_map(peer_id).collect();
        self.shape.needed.retain(|_, until| *until > now);
        self.show_hubs();
    }

    /// Tells the node of hubs that have become others.
    fn show_hubs(&mut self) {
        let hub = self.shape.is_hub(&self.me);
        if self.net.hub.swap(hub, Ordering::Relaxed) != hub {
            tracing::info!(hub, "this node's part in the site has changed");
            self.outbox.push_back(Event::Hub { hub });
        }
        let mut members = self.net.members.write().unwrap_or_else(PoisonError::into_inner);
        for (node, member) in members.iter_mut() {
            let hub = self.shape.is_hub(&member.opener.peer);
            if member.contact.hub != hub {
                member.contact.hub = hub;
                self.outbox.push_back(Event::Up { node: *node, hello: member.contact.hello.clone(), hub });
            }
        }
    }

    /// Closes what this end dialed and nothing needs any more.
    pub(super) fn close_unused(&mut self) {
        let now = Instant::now();
        if self.shape.is_hub(&self.me) {
            return; // the others want it
        }
        let configured = |peer: &PeerId| self.book.get(peer).is_some_and(|known| known.configured);
        let unused = self.connections.iter().filter(|(_, it)| {
            it.dialed
                && self.shape.wants(now, &it.peer).is_none()
                && !configured(&it.peer)
                && it.pulse.idle() >= UNUSED
        });
        let unused: Vec<ConnectionId> = unused.map(|(id, _)| *id).collect();
        for id in unused {
            tracing::debug!(?id, "nothing needs this connection");
            self.close(id);
        }
    }

    /// A connection is lost. Whom a flight needed is not dialed again for it.
    pub(super) fn lost(&mut self, peer: &PeerId) {
        self.shape.needed.remove(peer);
        self.shape_changed();
    }

    // ---- what members are told -------------------------------------------------------

    /// Tells a new member of the others, the best-ranked first. In a large site whoever knows few has
    /// nothing to tell: neighbours of one flight have met by way of the hubs.
    pub(super) fn introduce(&self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let members = 1 + self.connected().len() as u32;
        if !self.shape.is_hub(&self.me) && members as usize <= hubs::MESH {
            return;
        }
        let contacts = self.contacts(|peer| *peer != connection.peer);
        connection.control.try_send(control::encode_contacts(&contacts, members)).ok();
    }

    /// Tells all members of new hubs, and when the site has grown or shrunk beyond a bound.
    pub(super) fn announce(&mut self) {
        let now = Instant::now();
        if self.shape.announce_at > now {
            return;
        }
        self.shape.announce_at = now + ANNOUNCE;
        let connected = self.connected();
        let class = class(1 + connected.len());
        let hubs: HashSet<PeerId> = self.shape.hubs.intersection(&connected).copied().collect();
        let new: HashSet<PeerId> = hubs.difference(&self.shape.announced.0).copied().collect();
        if class == self.shape.announced.1 && (class == 0 || new.is_empty()) {
            return;
        }
        // What makes a mesh of it again: all meet all.
        let contacts = self.contacts(|peer| class == 0 || new.contains(peer));
        self.shape.announced = (hubs, class);
        let message = control::encode_contacts(&contacts, 1 + connected.len() as u32);
        for connection in self.connections.values().filter(|it| it.hello.is_some()) {
            connection.control.try_send(message.clone()).ok();
        }
    }

    /// At most [`hubs::MESH`] of the connected members that pass, and where they are.
    fn contacts(&self, pass: impl Fn(&PeerId) -> bool) -> Vec<Whereabouts> {
        let introduced = self.connections.values().filter(|it| pass(&it.peer));
        let known = introduced.filter_map(|it| {
            let hello = it.hello.as_ref()?;
            Some((node_id(&it.peer), hello.weight, (reachable(&hello.addresses, &it.address), hello.weight)))
        });
        let mut best = hubs::best_first(known);
        best.dedup_by_key(|(node, _)| *node);
        best.truncate(hubs::MESH);
        let whereabouts = |(node, (addresses, weight))| Whereabouts { node, addresses, weight };
        best.into_iter().map(whereabouts).collect()
    }

    // ---- whom flights need -----------------------------------------------------------

    /// Connects to nodes that a flight needs. Where they are is asked of a hub, if it is not known.
    pub(super) fn connect(&mut self, nodes: &[NodeId]) {
        let now = Instant::now();
        let mut unknown = Vec::new();
        for node in nodes.iter().take(control::MAX_FIND) {
            let Some(peer) = peer_id(node).filter(|peer| *peer != self.me) else { continue };
            if self.shape.needed.len() < MAX_NEEDED {
                self.shape.needed.insert(peer, now + UNUSED);
            }
            // Both ends may have been told to: one of them dials.
            let polite = if self.me < peer { Duration::ZERO } else { POLITE };
            match self.book.get_mut(&peer) {
                Some(known) => known.dial_at = known.dial_at.min(now + polite),
                None => unknown.push(*node),
            }
        }
        let hubs: Vec<_> = self
            .connections
            .values()
            .filter(|it| it.hello.is_some() && self.shape.is_hub(&it.peer))
            .map(|it| &it.control)
            .collect();
        if !unknown.is_empty() && !hubs.is_empty() {
            let any = rand::random::<u32>() as usize % hubs.len();
            hubs[any].try_send(control::encode_find(&unknown)).ok();
        }
        self.dial_due();
    }

    /// Answers where nodes are.
    pub(super) fn find(&self, asker: ConnectionId, nodes: &[NodeId]) {
        let Some(connection) = self.connections.get(&asker) else { return };
        let wanted: HashSet<PeerId> = nodes.iter().filter_map(peer_id).collect();
        let mut contacts = self.contacts(|peer| wanted.contains(peer));
        for peer in wanted {
            if let Some(known) =
                self.book.get(&peer).filter(|_| contacts.iter().all(|it| it.node != node_id(&peer)))
            {
                contacts.push(Whereabouts {
                    node: node_id(&peer),
                    addresses: known.addresses.clone(),
                    weight: known.weight,
                });
            }
        }
        if !contacts.is_empty() {
            connection.control.try_send(control::encode_contacts(&contacts, 0)).ok();
        }
    }
}
