//! What members say, and the streams that they open.

use std::sync::PoisonError;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::bulk::Arrived;
use super::control::{self, Heard};
use super::data::Line;
use super::handle::Event;
use super::site::{Connection, Site};
use super::streams::{CONTROL, Inbound};
use super::{data, node_id};

impl Site {
    pub(super) fn on_stream(&mut self, inbound: Inbound) {
        let Some(connection) = self.connections.get(&inbound.connection) else { return };
        let (cancel, id) = (connection.cancel.clone(), inbound.connection);
        let from = node_id(&inbound.peer);
        if inbound.protocol == CONTROL {
            let (reports, permit) = (self.reports.clone(), inbound.permit);
            let read = control::read(inbound.stream.compat(), id, self.net.slack.clone(), reports);
            tokio::spawn(async move {
                cancel.run_until_cancelled(read).await;
                drop(permit);
            });
        } else {
            connection.pulse.touch();
            let line = Line::stream(inbound.stream, id, inbound.permit);
            let serve = data::serve(line, from, self.serve.clone());
            tokio::spawn(async move { cancel.run_until_cancelled(serve).await });
        }
    }

    /// Who is no member any more, or has as many as it may, is refused.
    pub(super) fn on_bulk(&mut self, arrived: Arrived) {
        let known =
            |it: &&Connection| it.peer == arrived.peer && it.hello.is_some() && !it.cancel.is_cancelled();
        let known = self.connections.values().filter(known);
        // Not one that is closed in a moment, since there are two.
        let Some(connection) = known.max_by_key(|it| it.preferred) else { return };
        let Ok(place) = connection.bulk.clone().try_acquire_owned() else { return };
        let (cancel, from) = (connection.cancel.clone(), node_id(&arrived.peer));
        connection.pulse.touch();
        let line = Line::arrived(arrived, connection.opener.connection, place);
        let serve = data::serve(line, from, self.serve.clone());
        tokio::spawn(async move { cancel.run_until_cancelled(serve).await });
    }

    pub(super) fn on_heard(&mut self, id: ConnectionId, heard: Heard) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let peer = connection.peer;
        match heard {
            Heard::Hello(hello) => {
                let listening = reachable(&hello.addresses, &connection.address);
                let before = connection.hello.replace(hello.clone());
                if before.is_none() {
                    self.shape_changed();
                }
                if before.as_ref().is_none_or(|before| before.addresses != hello.addresses) {
                    self.learn(peer, listening);
                }
                // Now it is in the book, also if it is this node's first word of it.
                self.weigh(peer, hello.weight);
                if before.is_some() {
                    return self.refresh_member(peer); // only something of it has changed
                }
                self.close_doubles(peer);
                self.refresh_member(peer);
                self.introduce(id);
            }
            Heard::Contacts(contacts, members) => {
                if members > 0 {
                    connection.members = members;
                }
                for it in contacts {
                    let Some(peer) = super::peer_id(&it.node) else { continue };
                    self.note(peer, it.addresses, false);
                    self.hear_weight(peer, it.weight);
                }
                self.shape_changed();
                if !self.shape.is_large() {
                    self.dial_due(); // else with what others say in the next moment: it looks at all there are
                }
            }
            Heard::Find(nodes) => self.find(id, &nodes),
            Heard::Flight(message) => {
                connection.pulse.touch();
                self.outbox.push_back(Event::Message { from: node_id(&peer), message });
            }
            Heard::Orders(digest) => {
                self.outbox.push_back(Event::Orders { from: node_id(&peer), digest });
            }
            Heard::Budget(word) => {
                connection.pulse.touch();
                self.outbox.push_back(Event::Budget { from: node_id(&peer), word });
            }
            Heard::Beat(number, pace_ms) => {
                connection.pulse.asked(pace_ms);
                if number > 0 {
                    connection.control.try_send(control::encode_answer(number)).ok();
                }
            }
            Heard::Latency(latency) => {
                let mut members = self.net.members.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(member) = members.get_mut(&node_id(&peer)) {
                    member.contact.latency = Some(latency);
                }
            }
            Heard::Over(why) => {
                tracing::debug!(node = %node_id(&peer), why, "the control stream is over");
                self.close(id);
                self.refresh_member(peer);
            }
        }
    }

    /// Introduces this node anew, on every connection: its weight has changed.
    pub(super) fn tell_weight(&mut self, weight: u32) {
        self.hello.weight = weight;
        self.shape_changed();
        let hello = control::encode_hello(&self.hello);
        let full = |queue: &Sender<_>| matches!(queue.try_send(hello.clone()), Err(TrySendError::Full(_)));
        let deaf = self.connections.values().filter(|connection| full(&connection.control));
        // Who does not read what it is told would go by the old weight.
        for peer in deaf.map(|connection| connection.peer).collect::<Vec<_>>() {
            self.break_with(peer);
        }
    }
}

/// The addresses of a member as seen from here: those that it names, and its ports at the address
/// that its connection came from.
pub(super) fn reachable(named: &[Multiaddr], seen: &Multiaddr) -> Vec<Multiaddr> {
    let ip = seen.iter().next();
    let ports =
        named.iter().flat_map(|address| address.iter().collect::<Vec<_>>()).filter_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
    let observed = ports.take(1).filter_map(|port| {
        let ip = ip.clone().filter(|ip| matches!(ip, Protocol::Ip4(_) | Protocol::Ip6(_)))?;
        Some(Multiaddr::empty().with(ip).with(Protocol::Tcp(port)))
    });
    let mut all: Vec<Multiaddr> = observed.collect();
    for address in named {
        if !all.contains(address) {
            all.push(address.clone());
        }
    }
    all
}
