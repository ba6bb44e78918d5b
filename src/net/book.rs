//! Who could be a member, and when to dial them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId};
use libp2p::{Multiaddr, PeerId};

use super::causes;
use super::control::USUAL_WEIGHT;
use super::site::{HANDSHAKE, POLITE, REDIAL, Site};

/// A member that was only heard of is forgotten after so many failed dials.
const FORGET_AFTER: u32 = 12;
const MAX_BOOK: usize = 2048;
/// Dials under way at a time.
const MAX_DIALS: usize = 16;
/// Of them, to nodes that flights need: a large flight begins everywhere at once, and has work to do.
const MAX_WELCOME: usize = 4;
/// Dials of those that a large site's members tell of are spread over this.
const JITTER: Duration = Duration::from_secs(1);
/// How long nobody looks whom to dial, at the longest and at the shortest.
const LOOK: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(100);

/// A member that may be connected or not.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) configured: bool,
    pub(super) failures: u32,
    pub(super) dial_at: Instant,
    /// In the ranking of leads, as it said itself, or as others say.
    pub(super) weight: u32,
    /// When it was last told of.
    pub(super) heard: Instant,
}

/// A configured address whose owner is not known until it is reached.
#[derive(Debug, Clone)]
pub(super) struct Nameless {
    pub(super) address: Multiaddr,
    pub(super) peer: Option<PeerId>,
    pub(super) failures: u32,
    dial_at: Instant,
}

impl Site {
    pub(super) fn configure(&mut self, mut address: Multiaddr) {
        match address.pop() {
            Some(Protocol::P2p(peer)) => self.learn_as(peer, vec![address], true),
            Some(other) => self.nameless.push(Nameless {
                address: address.with(other),
                peer: None,
                failures: 0,
                dial_at: Instant::now(),
            }),
            None => {}
        }
    }

    pub(super) fn learn(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.learn_as(peer, addresses, false);
    }

    pub(super) fn learn_as(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, configured: bool) {
        self.note(peer, addresses, configured);
        self.dial_due();
    }

    /// Notes where a member is, without dialing yet.
    pub(super) fn note(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, configured: bool) {
        if peer == self.me || (self.book.len() >= MAX_BOOK && !self.book.contains_key(&peer)) {
            return;
        }
        let now = Instant::now();
        let mut wait = if self.me < peer { Duration::ZERO } else { POLITE };
        if self.shape.is_large() && self.shape.wants(now, &peer) != Some(0) {
            // A site that is switched on together does not fall upon its hubs together.
            wait += JITTER.mul_f64(rand::random());
        }
        if !self.book.contains_key(&peer) {
            self.shape_changed();
        }
        let known = self.book.entry(peer).or_insert(Known {
            addresses: Vec::new(),
            configured,
            failures: 0,
            dial_at: now + wait,
            weight: USUAL_WEIGHT,
            heard: now,
        });
        known.configured |= configured;
        known.heard = now;
        for address in addresses {
            if !known.addresses.contains(&address) && known.addresses.len() < 16 {
                known.addresses.push(address);
                known.dial_at = known.dial_at.min(now + wait);
            }
        }
    }

    /// A member says its weight.
    pub(super) fn weigh(&mut self, peer: PeerId, weight: u32) {
        if let Some(known) = self.book.get_mut(&peer)
            && std::mem::replace(&mut known.weight, weight) != weight
        {
            self.shape_changed();
        }
    }

    /// Another says a member's weight: it may have heard it long ago, and counts where the member itself
    /// has said nothing.
    pub(super) fn hear_weight(&mut self, peer: PeerId, weight: u32) {
        if !self.connections.values().any(|it| it.peer == peer && it.hello.is_some()) {
            self.weigh(peer, weight);
        }
    }

    /// Dials whom this node wants and has not, the most wanted first; few at a time.
    pub(super) fn dial_due(&mut self) {
        self.reshape();
        let now = Instant::now();
        let connected: HashSet<PeerId> = self.connections.values().map(|it| it.peer).collect();
        let mut waiting: Vec<(Instant, u8, PeerId)> = self
            .book
            .iter()
            .filter(|(peer, _)| !connected.contains(*peer))
            .filter(|(peer, _)| self.banned.get(*peer).is_none_or(|until| *until <= now))
            .filter_map(|(peer, known)| {
                let wants = self.shape.wants(now, peer).or(known.configured.then_some(1))?;
                Some((known.dial_at, wants, *peer))
            })
            .collect();
        let next = waiting.iter().map(|(at, ..)| *at).min().unwrap_or(now + LOOK).min(now + LOOK);
        self.wake_at = next.max(now + SHORT);
        waiting.retain(|(at, ..)| *at <= now);
        waiting.sort_unstable_by_key(|(at, wants, _)| (*wants, *at));
        let pending = self.swarm.network_info().connection_counters().num_pending_outgoing() as usize;
        let mut room = MAX_DIALS.saturating_sub(pending);
        // Whom flights need come first, and yet are only welcome: they get what is left of a share.
        let mut welcome = MAX_WELCOME.saturating_sub(pending);
        for (_, wants, peer) in waiting {
            let share = if wants == 0 { &mut welcome } else { &mut room };
            if *share == 0 {
                continue;
            }
            *share -= 1;
            let Some(known) = self.book.get_mut(&peer) else { continue };
            known.dial_at = now + REDIAL[(known.failures as usize).min(REDIAL.len() - 1)].max(HANDSHAKE / 4);
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(known.addresses.clone())
                .allocate_new_port()
                .build();
            self.swarm.dial(options).ok();
        }
        for index in 0..self.nameless.len() {
            let Nameless { address, peer, dial_at, .. } = self.nameless[index].clone();
            if dial_at > now || peer.is_some_and(|peer| peer == self.me || connected.contains(&peer)) {
                continue;
            }
            self.nameless[index].dial_at = now + HANDSHAKE;
            let options = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
            let id = options.connection_id();
            self.dialing.insert(id, index);
            if self.swarm.dial(options).is_err() {
                self.dialing.remove(&id); // no event follows
            }
        }
    }

    pub(super) fn on_dial_failed(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        error: &swarm::DialError,
    ) {
        if let Some(index) = self.dialing.remove(&id) {
            let address = self.nameless[index].address.clone();
            if matches!(error, swarm::DialError::LocalPeerId { .. }) {
                self.nameless[index].peer = Some(self.me);
                return;
            }
            let entry = &mut self.nameless[index];
            entry.failures += 1;
            // A whole site knocks here: not all at once, and less often the longer it lasts.
            let wait = REDIAL[(entry.failures as usize).min(REDIAL.len() - 1)];
            entry.dial_at = Instant::now() + wait.mul_f64(0.75 + rand::random::<f64>() / 2.0);
            tracing::info!(%address, error = %causes(error), "a configured peer cannot be reached");
            self.net.doors.closed(address.to_string(), vec![address], causes(error));
        }
        let Some(peer) = peer else { return };
        tracing::debug!(%peer, error = %causes(error), "dialing failed");
        self.shape_changed();
        if let Some(known) = self.book.get_mut(&peer) {
            self.net.doors.closed(peer.to_string(), known.addresses.clone(), causes(error));
            known.failures += 1;
            known.dial_at = Instant::now() + REDIAL[(known.failures as usize - 1).min(REDIAL.len() - 1)];
            if known.failures >= FORGET_AFTER && !known.configured {
                self.book.remove(&peer);
            }
        }
    }
}
