//! The control stream of one connection: a task that writes, and one that reads.
//!
//! The first message is [`Hello`], which is said again when it changes. Then whatever the node has to
//! say; when it has nothing, a beat now and then ([`super::pulse`]), so that silence means death even
//! where the system reports none (a machine asleep, a cable out, a process stopped).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame;
use super::pulse::{self, Pulse, Slack, clock};
use crate::core::bitrate::Rate;
use crate::core::budget::{Caps, Rates, Rule, UNLIMITED, Word};
use crate::core::flight::Message;
use crate::core::id::NodeId;
use crate::core::wire::message as proto;

/// The longest control message, in bytes: the chunk set of a 100 GB blob in its worst shape.
const MAX_MESSAGE: usize = 4 << 20;
/// Writing to a member that reads nothing for so long is given up.
const STUCK: Duration = Duration::from_secs(5);
/// Every so many beats one is answered, to know the latency.
const ANSWERED: u64 = 8;
/// Messages that wait for one member; one that falls so far behind is let go.
pub(super) const QUEUE: usize = 1024;

/// How a node introduces itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The version of its software.
    pub version: String,
    /// Its weight in the ranking of leads.
    pub weight: u32,
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// Its host name, for people.
    pub host: String,
    /// What its owner lets the site take from the WAN.
    pub wan_limit: Option<Rate>,
}

/// Where a node is, as another one tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whereabouts {
    pub(super) node: NodeId,
    pub(super) addresses: Vec<Multiaddr>,
    /// In the ranking of leads.
    pub(super) weight: u32,
}

/// The weight of a node that has not said it, and nobody else.
pub(super) const USUAL_WEIGHT: u32 = 100;
const MAX_WEIGHT: u32 = 1_000_000;

const PROTOCOL: u32 = 1;
const MAX_ADDRESSES: usize = 16;
const MAX_CONTACTS: usize = 256;
/// Nodes that are asked for at a time.
pub(super) const MAX_FIND: usize = 32;
/// The largest site that is believed in.
const MAX_SITE: u32 = 4096;

impl Hello {
    fn to_wire(&self) -> proto::Control {
        let hello = proto::Hello {
            protocol: PROTOCOL,
            version: self.version.clone(),
            weight: self.weight,
            addresses: self.addresses.iter().map(|address| Bytes::from(address.to_vec())).collect(),
            host: self.host.clone(),
            wan_limit: self.wan_limit.map_or(0, |limit| limit.0),
        };
        proto::Control { body: Some(proto::control::Body::Hello(hello)) }
    }

    fn from_wire(hello: proto::Hello) -> Option<Self> {
        let text = |text: String| text.chars().filter(|c| !c.is_control()).take(64).collect();
        (hello.protocol == PROTOCOL).then(|| Self {
            version: text(hello.version),
            weight: hello.weight.min(MAX_WEIGHT),
            addresses: addresses(&hello.addresses),
            host: text(hello.host),
            wan_limit: Some(Rate(hello.wan_limit)).filter(|limit| limit.0 > 0),
        })
    }
}

fn addresses(list: &[Bytes]) -> Vec<Multiaddr> {
    list.iter().take(MAX_ADDRESSES).filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect()
}

/// What a control stream brought.
#[derive(Debug)]
pub(super) enum Heard {
    /// The introduction, or a change of it.
    Hello(Hello),
    /// Other members, and how many the sender is connected to.
    Contacts(Vec<Whereabouts>, u32),
    /// It asks where these are.
    Find(Vec<NodeId>),
    /// About a flight.
    Flight(Message),
    /// About the WAN budget.
    Budget(Word),
    /// A digest of the orders that it knows.
    Orders([u8; 32]),
    /// An answered beat: the round trip.
    Latency(Duration),
    /// It lives, and asks for so many milliseconds between beats. A number other than 0 wants an
    /// answer.
    Beat(u64, u32),
    /// The stream is over; so is the connection.
    Over(String),
}

/// Something heard, and on which connection.
pub(super) type Report = (ConnectionId, Heard);

pub(super) fn encode_hello(hello: &Hello) -> Vec<u8> {
    frame::encode(&hello.to_wire())
}

pub(super) fn encode_contacts(contacts: &[Whereabouts], members: u32) -> Vec<u8> {
    let contacts = contacts.iter().take(MAX_CONTACTS).map(|it| proto::Contact {
        node: Bytes::copy_from_slice(it.node.as_bytes()),
        addresses: it.addresses.iter().map(|address| Bytes::from(address.to_vec())).collect(),
        weight: Some(it.weight),
    });
    let peers = proto::Peers { contacts: contacts.collect(), members };
    frame::encode(&proto::Control { body: Some(proto::control::Body::Peers(peers)) })
}

pub(super) fn encode_find(nodes: &[NodeId]) -> Vec<u8> {
    let nodes = nodes.iter().take(MAX_FIND).map(|node| Bytes::copy_from_slice(node.as_bytes()));
    let find = proto::Find { nodes: nodes.collect() };
    frame::encode(&proto::Control { body: Some(proto::control::Body::Find(find)) })
}

pub(super) fn encode_flight(message: &Message) -> Vec<u8> {
    frame::encode(&proto::Control { body: Some(proto::control::Body::Flight(message.into())) })
}

pub(super) fn encode_budget(word: &Word) -> Vec<u8> {
    use proto::wan_budget::Word as Wire;
    let rates = |rates: &Rates| proto::WanRates {
        foreground: rates.foreground,
        background: rates.background,
        urgent: rates.urgent,
    };
    let word = match word {
        Word::Ask { demand, share } => {
            Wire::Ask(proto::WanAsk { demand: Some(rates(demand)), share: Some(rates(share)) })
        }
        Word::Grant(share) => Wire::Grant(rates(share)),
        Word::Rule(Rule { caps, month_used }) => Wire::Rule(proto::WanRule {
            foreground: caps.map_or(0, |caps| caps.foreground),
            background: caps.map_or(0, |caps| caps.background),
            bound: caps.is_some(),
            month_used: month_used.map_or(0, |used| used.saturating_add(1)),
        }),
    };
    let budget = proto::WanBudget { word: Some(word) };
    frame::encode(&proto::Control { body: Some(proto::control::Body::WanBudget(budget)) })
}

fn understand_budget(budget: proto::WanBudget) -> Option<Word> {
    use proto::wan_budget::Word as Wire;
    let rates = |rates: proto::WanRates| Rates {
        urgent: rates.urgent.min(UNLIMITED),
        foreground: rates.foreground.min(UNLIMITED),
        background: rates.background.min(UNLIMITED),
    };
    Some(match budget.word? {
        Wire::Ask(ask) => Word::Ask {
            demand: rates(ask.demand.unwrap_or_default()),
            share: rates(ask.share.unwrap_or_default()),
        },
        Wire::Grant(share) => Word::Grant(rates(share)),
        Wire::Rule(rule) => {
            let (foreground, background) = (rule.foreground.min(UNLIMITED), rule.background.min(UNLIMITED));
            let caps = rule.bound.then_some(Caps { foreground, background });
            Word::Rule(Rule { caps, month_used: rule.month_used.checked_sub(1) })
        }
    })
}

pub(super) fn encode_orders(digest: &[u8; 32]) -> Vec<u8> {
    let orders = proto::Orders { digest: Bytes::copy_from_slice(digest) };
    frame::encode(&proto::Control { body: Some(proto::control::Body::Orders(orders)) })
}

pub(super) fn encode_answer(number: u64) -> Vec<u8> {
    let beat = proto::Beat { number, answer: true, ..proto::Beat::default() };
    frame::encode(&proto::Control { body: Some(proto::control::Body::Beat(beat)) })
}

/// Writes until the queue is dropped or the stream fails.
pub(super) async fn write<W>(
    mut io: W,
    hello: Hello,
    pulse: Arc<Pulse>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    frame::write(&mut io, &hello.to_wire()).await?;
    io.flush().await?;
    let mut beats = 0u64;
    // What was declared holds until the next beat, whatever else is said meanwhile.
    let mut declared = pulse::BEAT;
    let mut said = Instant::now();
    loop {
        let pace = declared.min(pulse.next());
        let next = match tokio::time::timeout(pulse::until_due(pace), queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(_) if said.elapsed() < pace / 2 => continue, // that was as good as a beat
            Err(_) => {
                beats += 1;
                let number = if beats % ANSWERED == 1 { clock().max(1) } else { 0 };
                declared = pulse.next();
                let (next_ms, pace_ms) = (declared.as_millis() as u32, pulse.asks().as_millis() as u32);
                let beat = proto::Beat { number, answer: false, next_ms, pace_ms };
                frame::encode(&proto::Control { body: Some(proto::control::Body::Beat(beat)) })
            }
        };
        let send = async {
            io.write_all(&next).await?;
            // What has gathered meanwhile goes out together.
            while let Ok(more) = queue.try_recv() {
                io.write_all(&more).await?;
            }
            io.flush().await
        };
        tokio::time::timeout(STUCK, send).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        said = Instant::now();
    }
}

/// Reads until the stream ends, fails, falls silent or makes no sense.
pub(super) async fn read<R>(
    mut io: R,
    connection: ConnectionId,
    slack: Arc<Slack>,
    reports: mpsc::Sender<Report>,
) where
    R: AsyncRead + Unpin,
{
    let mut introduced = false;
    let mut silence = pulse::silence(0);
    let why = loop {
        let read = pulse::patiently(silence, &slack, frame::read::<proto::Control, _>(&mut io, MAX_MESSAGE));
        let body = match read.await {
            Err(pulse::Silent) => break "silent for too long".to_owned(),
            Ok(Err(error)) => break error.to_string(),
            Ok(Ok(None)) => break "closed".to_owned(),
            Ok(Ok(Some(control))) => control.body,
        };
        if let Some(proto::control::Body::Beat(beat)) = &body
            && !beat.answer
        {
            silence = pulse::silence(beat.next_ms);
        }
        let heard = match (introduced, body) {
            (false, Some(proto::control::Body::Hello(hello))) => {
                introduced = true;
                match Hello::from_wire(hello) {
                    Some(hello) => Heard::Hello(hello),
                    None => {
                        break "it speaks another version of the protocol; upgrade the older agent"
                            .to_owned();
                    }
                }
            }
            (true, Some(body)) => match understand(body) {
                Some(heard) => heard,
                None => break "it sent a malformed message".to_owned(),
            },
            // A message of a newer version, or none at all.
            (true, None) => continue,
            (false, _) => break "it did not introduce itself".to_owned(),
        };
        if reports.send((connection, heard)).await.is_err() {
            return;
        }
    };
    reports.send((connection, Heard::Over(why))).await.ok();
}

fn understand(body: proto::control::Body) -> Option<Heard> {
    use proto::control::Body;
    Some(match body {
        Body::Hello(hello) => Heard::Hello(Hello::from_wire(hello)?),
        Body::Peers(peers) => {
            let contact = |contact: proto::Contact| {
                let node = NodeId::from_slice(&contact.node)?;
                let weight = contact.weight.unwrap_or(USUAL_WEIGHT).min(MAX_WEIGHT);
                Some(Whereabouts { node, addresses: addresses(&contact.addresses), weight })
            };
            Heard::Contacts(
                peers.contacts.into_iter().take(MAX_CONTACTS).map(contact).collect::<Option<_>>()?,
                peers.members.min(MAX_SITE),
            )
        }
        Body::Find(find) => {
            let nodes = find.nodes.iter().take(MAX_FIND);
            Heard::Find(nodes.map(|node| NodeId::from_slice(node)).collect::<Option<_>>()?)
        }
        Body::Beat(beat) if beat.answer => {
            Heard::Latency(Duration::from_micros(clock().saturating_sub(beat.number)))
        }
        Body::Beat(beat) => Heard::Beat(beat.number, beat.pace_ms),
        Body::Flight(flight) => Heard::Flight(Message::from_wire(flight)?),
        Body::Orders(orders) => Heard::Orders(orders.digest[..].try_into().ok()?),
        Body::WanBudget(budget) => Heard::Budget(understand_budget(budget)?),
    })
}
