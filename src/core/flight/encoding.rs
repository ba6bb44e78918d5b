//! What nodes say about a flight, in its form on the wire.

use bytes::Bytes;

use super::message::{Have, Holding, Message, Small, Sources, Step};
use super::urgency::Urgency;
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::wire::message as proto;

/// The most nodes that one message may name.
const MAX_NODES: usize = 1024;
/// The longest explanation that is passed on, in characters.
const MAX_TEXT: usize = 500;

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
            Step::Have(have) => {
                Wire::Have(proto::Have { held: runs(&have.held), heard: have.heard, ago_ms: have.ago_ms })
            }
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
            lag_ms: sources.lag_ms,
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
                urgency: Urgency::of(follow.background, follow.urgent),
                leech: follow.leech,
            },
            Wire::Redirect(redirect) => {
                Step::Redirect { to: NodeId::from_slice(&redirect.to)?, unfit: redirect.unfit }
            }
            Wire::Sources(sources) => Step::Sources(Sources::from_wire(sources)?),
            Wire::Have(have) => {
                Step::Have(Have { held: set(have.held)?, heard: have.heard, ago_ms: have.ago_ms })
            }
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
            lag_ms: sources.lag_ms,
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
                lag_ms: 40,
            }),
            Step::Have(Have { held: held.clone(), heard: 17, ago_ms: 3 }),
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
        let step = proto::flight::Step::Have(proto::Have { held: Some(spans), ..proto::Have::default() });
        assert_eq!(Message::from_wire(proto::Flight { step: Some(step), ..wire }), None);
    }
}
