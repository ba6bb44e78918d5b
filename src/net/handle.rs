//! The network as the node sees it: members to talk to, and what happens to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::bulk::Bulk;
use super::control::{self, Hello};
use super::data::{self, Answer, AskError, Line};
use super::hear::reachable;
use super::pool::Pool;
use super::pulse::{Pulse, Slack};
use super::reach::Doors;
use super::streams::Opener;
use crate::core::budget::Word;
use crate::core::flight::Message;
use crate::core::id::NodeId;
use crate::core::wire::message::Request;

/// What the network tells the node.
#[derive(Debug)]
pub enum Event {
    /// A member is there, or something of its introduction has changed.
    Up {
        /// Who.
        node: NodeId,
        /// How it introduces itself.
        hello: Hello,
        /// It is connected to all, and may lead. Told again when it changes.
        hub: bool,
    },
    /// This node has become a hub, or is one no more. At the start it is one.
    Hub {
        /// Which.
        hub: bool,
    },
    /// It is gone.
    Down {
        /// Who.
        node: NodeId,
    },
    /// It says something about a flight.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// It knows orders of this digest.
    Orders {
        /// Who.
        from: NodeId,
        /// Their digest.
        digest: [u8; 32],
    },
    /// It says something about the WAN budget.
    Budget {
        /// Who.
        from: NodeId,
        /// What.
        word: Word,
    },
}

/// A connected member, for people.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Who.
    pub node: NodeId,
    /// How it introduces itself.
    pub hello: Hello,
    /// It is connected to all, and may lead.
    pub hub: bool,
    /// Where it is connected.
    pub address: Multiaddr,
    /// The last measured round trip.
    pub latency: Option<Duration>,
    /// It has made the connection, so that it reaches this node.
    pub inbound: bool,
    /// Since when it is connected.
    pub since: Instant,
}

impl Contact {
    /// Its weight among the nodes that may lead: none if it is no hub.
    pub fn weight(&self) -> u32 {
        if self.hub { self.hello.weight } else { 0 }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) contact: Contact,
    pub(super) opener: Opener,
    pub(super) control: mpsc::Sender<Vec<u8>>,
    pub(super) pulse: Arc<Pulse>,
}

/// The network, to talk through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Net {
    pub(super) me: NodeId,
    pub(super) members: Arc<RwLock<BTreeMap<NodeId, Member>>>,
    pub(super) listening: Arc<RwLock<Vec<Multiaddr>>>,
    pub(super) doors: Arc<Doors>,
    pub(super) pool: Arc<Pool>,
    pub(super) bulk: Bulk,
    pub(super) slack: Arc<Slack>,
    pub(super) hub: Arc<AtomicBool>,
    /// How many connections there are.
    pub(super) connected: Arc<AtomicUsize>,
    /// Bytes that connections brought.
    pub(super) read: Arc<AtomicU64>,
    pub(super) orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
pub(super) enum Order {
    /// Break with a member, and refuse it for a while.
    Ban(PeerId),
    /// A member does not read what it is told.
    Drop(PeerId),
    /// Tell everybody this node's new weight in the ranking of leads.
    Weight(u32),
    /// Connect to nodes that a flight needs.
    Connect(Vec<NodeId>),
    /// Say goodbye to everybody.
    Stop,
}

impl Net {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Whether it is a hub: connected to all, and may lead.
    pub fn is_hub(&self) -> bool {
        self.hub.load(Ordering::Relaxed)
    }

    /// Bytes that were read from members, encryption counted in, since the last call.
    pub fn take_read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.listening.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn member(&self, node: &NodeId) -> Option<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// The connected members.
    pub fn contacts(&self) -> Vec<Contact> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.values().map(|member| member.contact.clone()).collect()
    }

    /// Says something to a member. One that does not listen any more is let go.
    pub fn send(&self, to: &NodeId, message: &Message) {
        self.say(to, control::encode_flight(message));
    }

    /// Says something about the WAN budget to a member.
    pub fn say_budget(&self, to: &NodeId, word: &Word) {
        self.say(to, control::encode_budget(word));
    }

    /// Tells a member what this node knows of the site's orders.
    pub fn say_orders(&self, to: &NodeId, digest: &[u8; 32]) {
        self.say(to, control::encode_orders(digest));
    }

    fn say(&self, to: &NodeId, message: Vec<u8>) {
        let Some(member) = self.member(to) else { return };
        member.pulse.flight();
        // A closed queue is a connection that is going: its end is told by itself.
        if let Err(mpsc::error::TrySendError::Full(_)) = member.control.try_send(message) {
            tracing::warn!(node = %to, "does not read what it is told; disconnecting");
            self.orders.try_send(Order::Drop(member.opener.peer)).ok();
        }
    }

    /// Waits so much longer for members than usual, as this node is behind with its own work.
    pub fn endure(&self, patience: Duration) {
        self.slack.set(patience);
    }

    /// Asks a member for data that it has at hand.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, node: &NodeId, request: &Request) -> Result<Answer, AskError> {
        self.ask_patiently(node, request, data::SILENCE).await
    }

    /// Asks a member for so many bytes of content.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_for_content(
        &self,
        node: &NodeId,
        request: &Request,
        bytes: u64,
    ) -> Result<Answer, AskError> {
        let member = self.member(node).ok_or(AskError::Gone)?;
        self.widen(&member, bytes);
        self.ask_member(member, request, true, data::SILENCE).await
    }

    /// Gives a member that brings much a connection for it. Whoever asks does not wait for that.
    fn widen(&self, member: &Member, bytes: u64) {
        let (peer, home) = (member.opener.peer, member.opener.connection);
        let Some(place) = self.pool.widen(home, bytes) else { return };
        let Some(all) = self.bulk.place() else { return };
        let (bulk, pool) = (self.bulk.clone(), self.pool.clone());
        let addresses = reachable(&member.contact.hello.addresses, &member.contact.address);
        tokio::spawn(async move {
            match bulk.dial(peer, &addresses).await {
                Ok(wire) => pool.give_back(Line::bulk(wire, home, vec![place, all])),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no connection for bulk; it is asked on streams");
                    pool.bar(home);
                }
            }
        });
    }

    /// Asks a member for something that it may have to get first, and waits so long for it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_patiently(
        &self,
        node: &NodeId,
        request: &Request,
        patience: Duration,
    ) -> Result<Answer, AskError> {
        let member = self.member(node).ok_or(AskError::Gone)?;
        self.ask_member(member, request, false, patience).await
    }

    async fn ask_member(
        &self,
        member: Member,
        request: &Request,
        much: bool,
        patience: Duration,
    ) -> Result<Answer, AskError> {
        member.pulse.touch();
        let patience = patience + self.slack.get();
        let answer = data::ask(&member.opener, &self.pool, request, much, patience).await;
        member.pulse.touch();
        answer
    }

    /// Connects to nodes of the site, if that can be done. An order more than the network can take
    /// is dropped: who is not reached is not needed, only welcome.
    pub fn connect(&self, nodes: Vec<NodeId>) {
        self.orders.try_send(Order::Connect(nodes)).ok();
    }

    /// Breaks with a member that lies.
    pub fn ban(&self, node: &NodeId) {
        if let Some(member) = self.member(node) {
            self.orders.try_send(Order::Ban(member.opener.peer)).ok();
        }
    }

    /// Tells all members, now and when they connect, this node's weight in the ranking of leads.
    pub async fn set_weight(&self, weight: u32) {
        self.orders.send(Order::Weight(weight)).await.ok();
    }

    /// Says goodbye to everybody.
    pub async fn stop(&self) {
        self.orders.send(Order::Stop).await.ok();
    }
}
