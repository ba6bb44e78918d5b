//! What nodes say about a flight.

use std::time::Duration;

use bytes::Bytes;

use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::strain;

use super::urgency::Urgency;

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
    Have(Have),
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
    /// How far behind the lead is with what it does.
    pub lag_ms: u64,
}

/// What a follower newly holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// These chunks.
    pub held: ChunkSet,
    /// The number of the last news that it has heard.
    pub heard: u64,
    /// How long ago that was: so the lead sees how long its news take.
    pub ago_ms: u64,
}

impl Step {
    /// What kind of step it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WhoHas { .. } => "who-has",
            Self::Holding(_) => "holding",
            Self::Follow { .. } => "follow",
            Self::Redirect { .. } => "redirect",
            Self::Sources(_) => "sources",
            Self::Have(_) => "have",
            Self::Need(_) => "need",
            Self::Leave { .. } => "leave",
            Self::Lease { .. } => "lease",
            Self::Pulled(_) => "pulled",
        }
    }
}

impl Sources {
    /// How far behind the lead is; no more than can be of use is believed.
    pub(super) fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_ms).min(strain::LATEST)
    }
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
