//! Who answers by multicast just now, whether they are members or not: for people who look for the cause
//! when a machine finds nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use super::discovery::{Discovery, MAX_PACKET};
use super::{node_id, peer_id};
use crate::core::id::NodeId;

/// When is asked, in milliseconds, and until when answers are waited for.
const ASKED_MS: [u64; 3] = [0, 250, 700];
const LASTS: Duration = Duration::from_millis(1500);
/// So many machines are told apart, and so many addresses of each: anybody can say anything by multicast.
const MOST: usize = 1024;
const ADDRESSES: usize = 16;

/// What was heard.
#[derive(Debug, Default)]
pub struct Census {
    /// Interfaces on which is asked.
    pub interfaces: usize,
    /// This node's own agent was heard: multicast leaves this machine and comes back.
    pub own: bool,
    /// Other agents of the site, and where they say that they are.
    pub members: BTreeMap<NodeId, Vec<Multiaddr>>,
    /// Machines with agents of other sites.
    pub strangers: usize,
    /// Machines that said anything at all.
    pub others: usize,
}

/// Asks who is there, beside the agent that may be running. `tag`, `me` and `listen` are the agent's own.
///
/// # Errors
/// If no multicast socket can be opened.
pub async fn census(tag: [u8; 32], me: NodeId, listen: SocketAddr) -> io::Result<Census> {
    let peer = peer_id(&me).ok_or(io::ErrorKind::InvalidInput)?;
    let mut asking = Discovery::new(tag, peer, listen)?;
    asking.join();
    let own: Vec<IpAddr> = if_addrs::get_if_addrs()?.iter().map(|it| it.ip()).collect();
    let mut census = Census { interfaces: asking.joined.len(), ..Census::default() };
    let (mut strangers, mut others) = (BTreeSet::new(), BTreeSet::new());
    let start = Instant::now();
    let mut asked = ASKED_MS.iter().map(|&ms| start + Duration::from_millis(ms));
    let mut ask_at = asked.next();
    let mut buffer = vec![0; MAX_PACKET];
    while start.elapsed() < LASTS {
        let until = ask_at.unwrap_or(start + LASTS);
        match tokio::time::timeout_at(until.into(), asking.socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (length, from) = received?;
                let heard = asking.understand(&buffer[..length]);
                if !own.contains(&from.ip()) && others.len() < MOST {
                    others.insert(from.ip());
                    if heard.of_another_site {
                        strangers.insert(from.ip());
                    }
                }
                heard.found.into_iter().for_each(|(peer, address)| census.note(me, node_id(&peer), address));
            }
            Err(_) => {
                if ask_at.is_some() {
                    asking.ask_everybody().await;
                }
                ask_at = asked.next();
            }
        }
    }
    (census.strangers, census.others) = (strangers.len(), others.len());
    Ok(census)
}

impl Census {
    fn note(&mut self, me: NodeId, node: NodeId, address: Multiaddr) {
        if node == me {
            self.own = true;
        } else if self.members.len() < MOST || self.members.contains_key(&node) {
            let addresses = self.members.entry(node).or_default();
            if !addresses.contains(&address) && addresses.len() < ADDRESSES {
                addresses.push(address);
            }
        }
    }
}
