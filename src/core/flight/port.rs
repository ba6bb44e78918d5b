//! The coordinator's two sides: what it is told, and what it wants done.

use std::sync::Arc;

use super::message::Message;
use super::urgency::Urgency;
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ManifestId, NodeId};
use crate::core::ledger::WanReason;
use crate::core::manifest::Manifest;
use crate::core::swarm::BatchEnd;

/// What happens.
#[derive(Debug, Clone)]
pub enum Input {
    /// A member can be talked to, or its weight has changed.
    Joined {
        /// Who.
        node: NodeId,
        /// Its weight in the ranking of leads.
        weight: u32,
    },
    /// This node's own weight in the ranking of leads has changed.
    Weight {
        /// What it is now.
        weight: u32,
    },
    /// A member cannot be talked to any more.
    Left {
        /// Who.
        node: NodeId,
    },
    /// A member says something about a flight.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A client of this node waits for a blob.
    Want {
        /// Which.
        blob: BlobId,
        /// By the signed catalog.
        manifest: ManifestId,
        /// Whether others go first on the WAN.
        urgency: Urgency,
    },
    /// No client of this node waits for it any more.
    Unwant {
        /// Which.
        blob: BlobId,
    },
    /// A client is about to read this chunk.
    Reading {
        /// Of which blob.
        blob: BlobId,
        /// Its index.
        chunk: u32,
    },
    /// [`Effect::FetchManifest`] ended.
    Manifest {
        /// Whose.
        blob: BlobId,
        /// The manifest and what of the blob this node holds, or why there is none.
        result: Result<(Arc<Manifest>, ChunkSet), Failure>,
    },
    /// Chunks are verified and in the store.
    Stored {
        /// Of which blob.
        blob: BlobId,
        /// Their indices.
        chunks: Vec<u32>,
    },
    /// A chunk that was in the store is there no more.
    Lost {
        /// Of which blob.
        blob: BlobId,
        /// Its index.
        chunk: u32,
    },
    /// Bytes of this flight have come over the WAN.
    WanBytes {
        /// For which blob.
        blob: BlobId,
        /// How many, since the last time; 0 while they are held back.
        bytes: u64,
        /// The site's WAN limit held them back.
        held_back: bool,
    },
    /// [`Effect::FetchWan`] ended.
    WanEnded {
        /// For which blob.
        blob: BlobId,
        /// Its number.
        run: u64,
        /// How.
        end: WanEnd,
    },
    /// This node cannot store what comes.
    Unwritable {
        /// Of which blob.
        blob: BlobId,
        /// In words, for the client.
        why: String,
    },
    /// [`Effect::FetchPeer`] ended.
    PeerEnded {
        /// For which blob.
        blob: BlobId,
        /// Its number.
        batch: u64,
        /// How.
        end: BatchEnd,
    },
    /// Time has passed; see [`Coordinator::deadline`](super::Coordinator::deadline).
    Tick,
}

/// Why something could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words, for the client.
    pub why: String,
    /// What that means for the flight.
    pub kind: FailureKind,
}

/// Whom a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Trying again may help.
    Transient,
    /// No node of the site will fare better.
    Permanent,
    /// Another node may fare better: this one's disk is full, say.
    Local,
}

impl Failure {
    /// That no node of the site will fare better with.
    pub fn permanent(why: impl ToString) -> Self {
        Self { why: why.to_string(), kind: FailureKind::Permanent }
    }

    /// That another node may fare better with.
    pub fn local(why: impl ToString) -> Self {
        Self { why: why.to_string(), kind: FailureKind::Local }
    }
}

/// How a run over the WAN ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WanEnd {
    /// All chunks are stored.
    Done,
    /// It broke off.
    Failed(Failure),
    /// The origin sent bytes that are not this chunk.
    Corrupt {
        /// Its index.
        chunk: u32,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Say something to a member.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Connect to nodes of the site, if that can be done: [`Input::Joined`] follows for each that was
    /// reached, and nothing for the others.
    Connect {
        /// Whom.
        nodes: Vec<NodeId>,
    },
    /// Get the manifest and open the blob in the store. Answer: [`Input::Manifest`].
    FetchManifest {
        /// Whose.
        blob: BlobId,
        /// Which.
        manifest: ManifestId,
        /// From a member, or over the WAN.
        from: Option<NodeId>,
    },
    /// Pull chunks that lie back to back in one pack. Answers: [`Input::Stored`] for each,
    /// [`Input::WanBytes`] now and then, [`Input::WanEnded`].
    FetchWan {
        /// Of which blob.
        blob: BlobId,
        /// A number of its own.
        run: u64,
        /// In the order of the pack.
        chunks: Vec<u32>,
        /// For the ledger.
        reason: WanReason,
        /// What of the blob is to come over the WAN, these chunks and all others: bytes at the origin.
        need: u64,
        /// The best that the WAN has given, in bytes per second; 0 if that is not known.
        best: u64,
    },
    /// How urgent what is pulled for this blob is; said when it changes, and at first.
    Urgency {
        /// Of which blob.
        blob: BlobId,
        /// Of the most urgent client, here or behind a follower.
        urgency: Urgency,
    },
    /// End all WAN transfers of this blob at once.
    StopWan {
        /// Which.
        blob: BlobId,
    },
    /// Fetch chunks from a member. Answers: [`Input::Stored`] for each, [`Input::PeerEnded`].
    FetchPeer {
        /// Of which blob.
        blob: BlobId,
        /// A number of its own.
        batch: u64,
        /// From whom.
        source: NodeId,
        /// Which.
        chunks: Vec<u32>,
    },
    /// End a batch whose source is too slow: its chunks are asked of another one. What still comes
    /// of it is welcome.
    AbortPeer {
        /// Of which blob.
        blob: BlobId,
        /// Its number.
        batch: u64,
    },
    /// For the ledger: content that crossed the WAN although the site held it or was pulling it.
    Duplicate {
        /// Of which blob.
        blob: BlobId,
        /// How much, in bytes.
        bytes: u64,
        /// Why.
        reason: WanReason,
    },
    /// The clients of this node that wait for a blob can have it, or cannot.
    Ended {
        /// Which.
        blob: BlobId,
        /// Whole and verified, or why not.
        result: Result<(), Failure>,
    },
    /// The flight is over for this node: end what is under way for it.
    Over {
        /// Which.
        blob: BlobId,
    },
}
