//! What nodes say about a flight, and its form on the wire.

use bytes::Bytes;

use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::wire::message as proto;

use super::urgency::Urgency;

/// The most nodes that one message may name.
const MAX_NODES: usize = 1024;
/// The longest explanation that is passed on, in characters.
const MAX_TEXT: usize = 500;

/// One step of the coordination of a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose flight.
    pub blob: BlobId,
    /// How the blob is put together.
    pub manifest: ManifestId,
    /// What is said.
    pub step: Step,
}

/// See `proto/wire.proto` for who says what to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// 'Who holds chunks of this blob, or leads its flight?'
    WhoHas {
        /// Of the lease that the asker is about to claim.
        term: u64,
    },
    /// The answer to it.
    Holding(Holding),
    /// 'Let me follow.'
    Follow {
        /// What the sender holds already.
        held: ChunkSet,
        /// Leads that failed it.
        suspects: Vec<NodeId>,
        /// It has the manifest.
        manifest: bool,
        /// Of its most urgent client.
        urgency: Urgency,
        /// It passes nothing on, and leads nobody.
        leech: bool,
    },
    /// 'Ask that node instead.'
    Redirect {
        /// Which.
        to: NodeId,
        /// The sender's WAN gives nothing, or little: it is not to be asked again for a while.
        unfit: bool,
    },
    /// From a lead: who holds what.
    Sources(Sources),
    /// From a follower: it now holds these too.
    Have(ChunkSet),
    /// From a follower: it cannot get these from the nodes that hold them.
    Need(ChunkSet),
    /// To a node that has come: what the sender has pulled over the WAN.
    Pulled(ChunkSet),
    /// From a lead, to whom may believe in another.
    Lease {
        /// Of the lease.
        term: u64,
    },
    /// From a follower that needs no more.
    Leave {
        /// It holds the whole blob.
        complete: bool,
    },
}

/// What a node holds and believes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Its chunks.
    pub held: ChunkSet,
    /// It has the manifest.
    pub manifest: bool,
    /// Whom it takes for the lead.
    pub lead: Option<NodeId>,
    /// Of that lead's lease.
    pub term: u64,
    /// If it leads itself: since when no WAN byte has come, in milliseconds.
    pub stalled_ms: u64,
}

/// News from a lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of the lease.
    pub term: u64,
    /// Counts up by one; a gap makes the follower ask anew.
    pub number: u64,
    /// Replaces all that was told before.
    pub whole: bool,
    /// A node, what it holds (besides what was told), and whether it still wants chunks.
    pub nodes: Vec<(NodeId, ChunkSet, bool)>,
    /// Nodes that left.
    pub gone: Vec<NodeId>,
    /// What the lead is pulling over the WAN.
    pub pulling: ChunkSet,
    /// Since when no WAN byte has come, in milliseconds.
    pub stalled_ms: u64,
    /// The best that the site's WAN was seen to give, in bytes per second.
    pub wan_best: u64,
    /// The lead can hand out the manifest.
    pub manifest: bool,
    /// Why the lead cannot go on.
    pub failed: Option<String>,
    /// It alone cannot; another may.
    pub unfit: bool,
    /// The whole blob, if it is small.
    pub small: Option<Box<Small>>,
    /// How many follow: the more, the more seldom each says what it holds.
    pub crowd: u32,
}

/// A small blob, carried inline: on a LAN the round trips for it cost more than its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Small {
    /// The encoded manifest.
    pub manifest: Bytes,
    /// The content.
    pub content: Bytes,
}

impl Small {
    /// The most content that is carried inline, in bytes.
    pub const MOST: u64 = 64 << 10;
}

fn runs(set: &ChunkSet) -> Option<proto::Runs> {
    Some(proto::Runs { spans: set.to_spans() })
}

fn set(runs: Option<proto::Runs>) -> Option<ChunkSet> {
    ChunkSet::from_spans(&runs.unwrap_or_default().spans)
}

fn node_bytes(node: &NodeId) -> Bytes {
    Bytes::copy_from_slice(node.as_bytes())
}

fn nodes(list: &[Bytes]) -> Option<Vec<NodeId>> {
    (list.len() <= MAX_NODES).then(|| list.iter().map(|node| NodeId::from_slice(node)).collect())?
}

impl From<&Message> for proto::Flight {
    fn from(message: &Message) -> Self {
        use proto::flight::Step as Wire;
        let step = match &message.step {
            Step::WhoHas { term } => Wire::WhoHas(proto::WhoHas { term: *term }),
            Step::Holding(holding) => Wire::Holding(proto::Holding {
                held: runs(&holding.held),
                manifest: holding.manifest,
                lead: holding.lead.as_ref().map(node_bytes).unwrap_or_default(),
                term: holding.term,
                stalled_ms: holding.stalled_ms,
            }),
            Step::Follow { held, suspects, manifest, urgency, leech } => Wire::Follow(proto::Follow {
                held: runs(held),
                suspects: suspects.iter().map(node_bytes).collect(),
                manifest: *manifest,
                // Who knows no more than two kinds takes urgent for foreground.
                background: *urgency == Urgency::Background,
                urgent: *urgency == Urgency::Urgent,
                leech: *leech,
            }),
            Step::Redirect { to, unfit } => {
                Wire::Redirect(proto::Redirect { to: node_bytes(to), unfit: *unfit })
            }
            Step::Sources(sources) => Wire::Sources(sources.into()),
            Step::Have(held) => Wire::Have(proto::Have { held: runs(held) }),
            Step::Need(chunks) => Wire::Need(proto::Need { chunks: runs(chunks) }),
            Step::Pulled(chunks) => Wire::Pulled(proto::Pulled { chunks: runs(chunks) }),
            Step::Lease { term } => Wire::Lease(proto::Lease { term: *term }),
            Step::Leave { complete } => Wire::Leave(proto::Leave { complete: *complete }),
        };
        Self {
            blob: Bytes::copy_from_slice(message.blob.as_bytes()),
            manifest: Bytes::copy_from_slice(message.manifest.as_bytes()),
            step: Some(step),
        }
    }
}

impl From<&Sources> for proto::Sources {
    fn from(sources: &Sources) -> Self {
        Self {
            term: sources.term,
            number: sources.number,
            whole: sources.whole,
            nodes: sources
                .nodes
                .iter()
                .map(|(node, held, follower)| proto::Source {
                    node: node_bytes(node),
                    held: runs(held),
                    follower: *follower,
                })
                .collect(),
            gone: sources.gone.iter().map(node_bytes).collect(),
            pulling: runs(&sources.pulling),
            stalled_ms: sources.stalled_ms,
            wan_best: sources.wan_best,
            manifest: sources.manifest,
            failed: sources.failed.clone().unwrap_or_default(),
            unfit: sources.unfit,
            small: sources
                .small
                .as_ref()
                .map(|it| proto::Small { manifest: it.manifest.clone(), content: it.content.clone() }),
            crowd: sources.crowd,
        }
    }
}

impl Message {
    /// From the wire; `None` if a part is missing, malformed, or beyond its bounds.
    pub fn from_wire(flight: proto::Flight) -> Option<Self> {
        use proto::flight::Step as Wire;
        let step = match flight.step? {
            Wire::WhoHas(who) => Step::WhoHas { term: who.term },
            Wire::Holding(holding) => Step::Holding(Holding {
                held: set(holding.held)?,
                manifest: holding.manifest,
                lead: match &holding.lead[..] {
                    [] => None,
                    node => Some(NodeId::from_slice(node)?),
                },
                term: holding.term,
                stalled_ms: holding.stalled_ms,
            }),
            Wire::Follow(follow) => Step::Follow {
                held: set(follow.held)?,
                suspects: nodes(&follow.suspects)?,
                manifest: follow.manifest,
                urgency: match (follow.urgent, follow.background) {
                    (true, _) => Urgency::Urgent,
                    (false, true) => Urgency::Background,
                    (false, false) => Urgency::Foreground,
                },
                leech: follow.leech,
            },
            Wire::Redirect(redirect) => {
                Step::Redirect { to: NodeId::from_slice(&redirect.to)?, unfit: redirect.unfit }
            }
            Wire::Sources(sources) => Step::Sources(Sources::from_wire(sources)?),
            Wire::Have(have) => Step::Have(set(have.held)?),
            Wire::Need(need) => Step::Need(set(need.chunks)?),
            Wire::Pulled(pulled) => Step::Pulled(set(pulled.chunks)?),
            Wire::Lease(lease) => Step::Lease { term: lease.term },
            Wire::Leave(leave) => Step::Leave { complete: leave.complete },
        };
        Some(Self {
            blob: BlobId::from_slice(&flight.blob)?,
            manifest: ManifestId::from_slice(&flight.manifest)?,
            step,
        })
    }
}

impl Sources {
    fn from_wire(sources: proto::Sources) -> Option<Self> {
        if sources.nodes.len() > MAX_NODES {
            return None;
        }
        let node = |source: proto::Source| {
            Some((NodeId::from_slice(&source.node)?, set(source.held)?, source.follower))
        };
        Some(Self {
            term: sources.term,
            number: sources.number,
            whole: sources.whole,
            nodes: sources.nodes.into_iter().map(node).collect::<Option<_>>()?,
            gone: nodes(&sources.gone)?,
            pulling: set(sources.pulling)?,
            stalled_ms: sources.stalled_ms,
            wan_best: sources.wan_best,
            manifest: sources.manifest,
            failed: Some(sources.failed.chars().take(MAX_TEXT).collect())
                .filter(|text: &String| !text.is_empty()),
            unfit: sources.unfit,
            small: sources.small.map(|it| Box::new(Small { manifest: it.manifest, content: it.content })),
            crowd: sources.crowd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_wire() {
        let node = NodeId::from_bytes([3; 32]);
        let held: ChunkSet = [1, 2, 9].into_iter().collect();
        let follow = |urgency| Step::Follow {
            held: [1, 2, 9].into_iter().collect(),
            suspects: vec![node],
            manifest: true,
            urgency,
            leech: true,
        };
        let steps = [
            Step::WhoHas { term: 4 },
            Step::Holding(Holding {
                held: held.clone(),
                manifest: true,
                lead: Some(node),
                term: 2,
                stalled_ms: 7,
            }),
            Step::Holding(Holding::default()),
            follow(Urgency::Background),
            follow(Urgency::Foreground),
            follow(Urgency::Urgent),
            Step::Redirect { to: node, unfit: true },
            Step::Sources(Sources {
                term: 1,
                number: 2,
                whole: true,
                nodes: vec![(node, held.clone(), true)],
                gone: vec![node],
                pulling: held.clone(),
                stalled_ms: 3,
                wan_best: 5,
                manifest: true,
                failed: Some("no".into()),
                unfit: true,
                small: Some(Box::new(Small {
                    manifest: Bytes::from_static(b"m"),
                    content: Bytes::from_static(b"c"),
                })),
                crowd: 30,
            }),
            Step::Have(held.clone()),
            Step::Need(held.clone()),
            Step::Pulled(held),
            Step::Lease { term: 9 },
            Step::Leave { complete: true },
        ];
        for step in steps {
            let message = Message { blob: BlobId::of(b"b"), manifest: ManifestId::of(b"m"), step };
            assert_eq!(Message::from_wire((&message).into()).as_ref(), Some(&message));
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let message = Message {
            blob: BlobId::of(b"b"),
            manifest: ManifestId::of(b"m"),
            step: Step::WhoHas { term: 1 },
        };
        let wire = proto::Flight::from(&message);
        assert_eq!(
            Message::from_wire(proto::Flight { blob: Bytes::from_static(b"short"), ..wire.clone() }),
            None
        );
        assert_eq!(Message::from_wire(proto::Flight { step: None, ..wire.clone() }), None);
        let spans = proto::Runs { spans: vec![5, u32::MAX] };
        let step = proto::flight::Step::Have(proto::Have { held: Some(spans) });
        assert_eq!(Message::from_wire(proto::Flight { step: Some(step), ..wire }), None);
    }
}
