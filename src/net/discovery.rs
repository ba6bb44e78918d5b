//! Finding members by multicast DNS.
//!
//! Standard mDNS packets (RFC 6762) on a schedule of our own. libp2p's mDNS asks once at its start,
//! so nodes that start in the same instant miss each other's question and meet after 4 to 15 s
//! (measured). Here a node listens before it speaks, announces itself *and* asks five times within
//! three seconds, and answers at once: whoever of two starts later is heard by the other.
//!
//! The service name is a keyed hash of the site, so a stranger learns that there is a Branchline
//! node, and not of which site.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// When to announce and ask after the start; later every [`EVERY`].
const BURST_MS: [u64; 6] = [0, 50, 150, 400, 1000, 3000];
const EVERY: Duration = Duration::from_secs(60);
/// Answers are not given more often than this.
const ANSWER_GAP: Duration = Duration::from_millis(40);
const TTL_SECONDS: u32 = 120;
pub(super) const MAX_PACKET: usize = 9000;
/// Under this agents of all sites answer, so that one can tell another site from silence.
const ANY_SITE: &str = "_branchline._tcp.local";
/// ... and under this most machines that know multicast DNS (RFC 6763, section 9).
const ANYBODY: &str = "_services._dns-sd._udp.local";

/// A member that was heard of.
pub(super) type Found = (PeerId, Multiaddr);

/// Announces this node and reports others until the receiver is gone.
///
/// # Errors
/// If no multicast socket can be opened.
pub(super) fn start(
    tag: [u8; 32],
    me: PeerId,
    listen: SocketAddr,
    found: mpsc::Sender<Found>,
) -> io::Result<()> {
    tokio::spawn(Discovery::new(tag, me, listen)?.run(found));
    Ok(())
}

pub(super) struct Discovery {
    pub(super) socket: UdpSocket,
    name: String,
    me: PeerId,
    listen: SocketAddr,
    pub(super) joined: BTreeSet<Ipv4Addr>,
}

/// What a packet says.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// It asks for members of this site, or of any.
    asks: bool,
    /// Members that it tells of, this node among them.
    pub(super) found: Vec<Found>,
    /// It tells of agents of another site.
    pub(super) of_another_site: bool,
}

fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(socket2::Protocol::UDP))?;
    // Other responders on this machine use the same port, and so may other agents.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

impl Discovery {
    pub(super) fn new(tag: [u8; 32], me: PeerId, listen: SocketAddr) -> io::Result<Self> {
        let name = format!("_{}.{ANY_SITE}", &blake3::Hash::from_bytes(tag).to_hex()[..16]);
        Ok(Self { socket: open()?, name, me, listen, joined: BTreeSet::new() })
    }

    async fn run(mut self, found: mpsc::Sender<Found>) {
        self.join();
        let start = Instant::now();
        let mut burst = BURST_MS.iter().map(|&ms| start + Duration::from_millis(ms));
        let mut speak_at = burst.next().unwrap_or(start);
        let mut answered = start;
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let Ok((length, _)) = received else { continue };
                    let heard = self.understand(&buffer[..length]);
                    for found_one in heard.found.into_iter().filter(|(peer, _)| *peer != self.me) {
                        if found.send(found_one).await.is_err() {
                            return;
                        }
                    }
                    if heard.asks && answered.elapsed() >= ANSWER_GAP {
                        answered = Instant::now();
                        self.speak(false).await;
                    }
                }
                () = tokio::time::sleep_until(speak_at.into()) => {
                    if found.is_closed() {
                        return;
                    }
                    self.join();
                    self.speak(true).await;
                    speak_at = burst.next().unwrap_or_else(|| Instant::now() + EVERY);
                }
            }
        }
    }

    /// The interfaces of this machine: the loopback one only if there is no other, or if the node
    /// listens there alone.
    fn interfaces(&self) -> Vec<Ipv4Addr> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let (loopback, real): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) = all
            .iter()
            .filter_map(|interface| match interface.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .partition(|ip| ip.is_loopback());
        if self.listen.ip().is_loopback() || real.is_empty() { loopback } else { real }
    }

    /// Listens on interfaces that have come since the last time.
    pub(super) fn join(&mut self) {
        let now: BTreeSet<Ipv4Addr> = self.interfaces().into_iter().collect();
        for interface in now.difference(&self.joined) {
            if let Err(error) = self.socket.join_multicast_v4(GROUP, *interface) {
                tracing::debug!(%interface, %error, "no multicast on this interface");
            }
        }
        self.joined = now;
    }

    /// Sends who this node is, and asks who else there is, on every interface.
    async fn speak(&self, ask: bool) {
        for &interface in &self.joined {
            let packets = [self.announcement(interface), question(&[&self.name]).filter(|_| ask)];
            self.send(interface, packets.into_iter().flatten()).await;
        }
    }

    /// Asks for members, for agents of any site, and for anybody, on every interface.
    pub(super) async fn ask_everybody(&self) {
        let packet = question(&[&self.name, ANY_SITE, ANYBODY]);
        for &interface in &self.joined {
            self.send(interface, packet.clone().into_iter()).await;
        }
    }

    async fn send(&self, interface: Ipv4Addr, packets: impl Iterator<Item = Vec<u8>>) {
        if socket2::SockRef::from(&self.socket).set_multicast_if_v4(&interface).is_err() {
            return;
        }
        for packet in packets {
            if let Err(error) = self.socket.send_to(&packet, SocketAddrV4::new(GROUP, PORT)).await {
                tracing::debug!(%interface, %error, "cannot send multicast");
            }
        }
    }

    fn address(&self, interface: Ipv4Addr) -> Multiaddr {
        let ip = if self.listen.ip().is_unspecified() { interface.into() } else { self.listen.ip() };
        Multiaddr::empty()
            .with(ip.into())
            .with(Protocol::Tcp(self.listen.port()))
            .with(Protocol::P2p(self.me))
    }

    fn announcement(&self, interface: Ipv4Addr) -> Option<Vec<u8>> {
        let text = format!("dnsaddr={}", self.address(interface));
        let record = TXT::new().with_string(&text).ok()?;
        let mut packet = Packet::new_reply(0);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let name = Name::new(&self.name).ok()?;
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, TTL_SECONDS, RData::TXT(record)));
        packet.build_bytes_vec().ok()
    }

    /// What a packet says of this site, and of others.
    pub(super) fn understand(&self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        let Ok(packet) = Packet::parse(bytes) else { return heard };
        let is = |name: &Name<'_>, other: &str| name.to_string().eq_ignore_ascii_case(other);
        if !packet.has_flags(PacketFlag::RESPONSE) {
            let ours = |name: &Name<'_>| is(name, &self.name) || is(name, ANY_SITE);
            heard.asks = packet.questions.iter().any(|question| ours(&question.qname));
            return heard;
        }
        for record in &packet.answers {
            if !is(&record.name, &self.name) {
                heard.of_another_site |= record.name.to_string().to_ascii_lowercase().ends_with(ANY_SITE);
                continue;
            }
            let RData::TXT(text) = &record.rdata else { continue };
            for (_, value) in text.iter_raw().filter(|(key, _)| *key == b"dnsaddr") {
                let address = value.and_then(|value| std::str::from_utf8(value).ok());
                let Some(mut address) = address.and_then(|address| address.parse::<Multiaddr>().ok()) else {
                    continue;
                };
                if let Some(Protocol::P2p(peer)) = address.pop() {
                    heard.found.push((peer, address));
                }
            }
        }
        heard
    }
}

/// Asks for the texts of these names.
fn question(names: &[&str]) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    for name in names {
        // Whoever answers for services answers with pointers.
        let kind = if *name == ANYBODY { TYPE::PTR } else { TYPE::TXT };
        let question =
            Question::new(Name::new(name).ok()?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
        packet.questions.push(question);
    }
    packet.build_bytes_vec().ok()
}
