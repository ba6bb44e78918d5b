//! Who cannot be connected, and why: for people who look for the cause.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::bulk::socket_address;
use super::handle::Net;
use super::hear::reachable;
use crate::core::id::NodeId;

/// A machine of the site that has not answered by then does not.
const KNOCK: Duration = Duration::from_secs(2);
/// Of one machine, so many addresses are tried.
const ADDRESSES: usize = 4;
/// So many that cannot be reached are remembered, and so long: they are tried again sooner.
const MOST: usize = 64;
const RECENT: Duration = Duration::from_secs(60);

/// A machine that should be a member, and could not be connected the last time.
#[derive(Debug, Clone)]
pub struct Unreached {
    /// Where it was tried.
    pub addresses: Vec<Multiaddr>,
    /// In words.
    pub why: String,
    at: Instant,
}

/// Those that could not be connected, by the name under which they are dialed.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<BTreeMap<String, Unreached>>);

impl Doors {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Unreached>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closed(&self, name: String, mut addresses: Vec<Multiaddr>, why: String) {
        let mut all = self.all();
        all.retain(|_, it| it.at.elapsed() < RECENT);
        if all.len() < MOST || all.contains_key(&name) {
            addresses.truncate(ADDRESSES);
            all.insert(name, Unreached { addresses, why, at: Instant::now() });
        }
    }

    pub(super) fn opened(&self, name: &str) {
        self.all().remove(name);
    }

    fn recent(&self) -> Vec<Unreached> {
        self.all().values().filter(|it| it.at.elapsed() < RECENT).cloned().collect()
    }
}

/// Why nothing answers at an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Obstacle {
    /// The machine is there, and nothing listens.
    Refused,
    /// Nothing came back.
    Silent,
    /// There is no way to the machine.
    NoRoute,
    /// Something else, in words.
    Other(String),
}

impl Obstacle {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::TimedOut => Self::Silent,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::NoRoute,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the connection is refused"),
            Self::Silent => f.write_str("nothing comes back"),
            Self::NoRoute => f.write_str("there is no route to it"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// What became of a machine's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// The address.
    pub address: String,
    /// Nothing, if somebody answers there.
    pub obstacle: Option<Obstacle>,
}

/// Opens a TCP connection, and closes it again.
///
/// # Errors
/// [`Obstacle`].
pub async fn knock(address: SocketAddr, patience: Duration) -> Result<(), Obstacle> {
    let connect = tokio::net::TcpStream::connect(address);
    let connected = tokio::time::timeout(patience, connect).await.map_err(|_| Obstacle::Silent)?;
    connected.map(drop).map_err(|error| Obstacle::of(&error))
}

/// Knocks at some addresses of one machine at once.
pub async fn knock_at(addresses: &[Multiaddr]) -> Vec<Knock> {
    let sockets = addresses.iter().filter_map(socket_address).take(ADDRESSES);
    let knocks = sockets.map(|address| async move {
        Knock { address: address.to_string(), obstacle: knock(address, KNOCK).await.err() }
    });
    futures::future::join_all(knocks).await
}

impl Net {
    /// Machines that should be members, and could not be connected of late.
    pub fn unreached(&self) -> Vec<Unreached> {
        self.doors.recent()
    }

    /// Knocks where a member says that it listens, for that member to know.
    pub async fn knock_back(&self, node: &NodeId) -> Vec<Knock> {
        let contact = self.contacts().into_iter().find(|contact| contact.node == *node);
        let Some(contact) = contact else { return Vec::new() };
        knock_at(&reachable(&contact.hello.addresses, &contact.address)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn obstacles_are_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        assert_eq!(knock(address, KNOCK).await, Ok(()));
        drop(listener);
        assert_eq!(knock(address, KNOCK).await, Err(Obstacle::Refused));
        let name = format!("/ip4/127.0.0.1/tcp/{}", address.port());
        let addresses =
            ["/dns4/a.example/tcp/1", "/memory/1", name.as_str()].map(|it| it.parse().expect("valid"));
        let refused = Knock { address: address.to_string(), obstacle: Some(Obstacle::Refused) };
        assert_eq!(knock_at(&addresses).await, [refused]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_when_it_opens() {
        let doors = Doors::default();
        for n in 0..2 * MOST {
            doors.closed(n.to_string(), Vec::new(), "shut".into());
        }
        assert_eq!(doors.recent().len(), MOST);
        doors.opened("0");
        assert_eq!(doors.recent().len(), MOST - 1);
    }
}
