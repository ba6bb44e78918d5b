//! Passing a blob through to a client of this node when there is no room to keep it.
//!
//! A member is asked for each chunk, and gets it first if it has to: so the WAN still carries one
//! copy. Without members, or when none of them can, the origin is read directly. Every chunk is verified here, as always.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::hurry::Hurry;
use super::peers::{self, bytes_of};
use super::reader::{CLOSED, Place, ReadError};
use super::wan::{self, WanFlight};
use super::{Node, blocking, home};
use crate::core::chunkset::ChunkSet;
use crate::core::flight::Urgency;
use crate::core::id::{BlobId, ChunkId, ManifestId, NodeId};
use crate::core::ledger::{Front, Source, WanReason};
use crate::core::manifest::Manifest;
use crate::core::rank::rank;
use crate::core::upstream::segment;
use crate::core::wire::message::{Chunks, Request, Runs, request, response};

/// Chunks asked for at a time.
const BATCH: u32 = 16;
/// A member has so long to get them.
const PATIENCE: Duration = Duration::from_secs(25);
/// A flight for a member goes on for so long after its last request.
const LINGER: Duration = Duration::from_secs(8);
/// Tries for one batch, each with the next member, before the client is told.
const TRIES: usize = 8;
/// Of them, so many go to the origin even though there are members.
const LAST_TRIES: usize = 2;

/// One client's way around the store.
pub(super) struct Relay {
    node: Node,
    manifest: Arc<Manifest>,
    wan: WanFlight,
    urgency: Urgency,
    ready: VecDeque<(u32, Source, Bytes)>,
    /// Members that give nothing: they are not asked again.
    refused: BTreeSet<NodeId>,
}

impl Relay {
    /// Gets the manifest, from a member if one has it.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn begin(node: &Node, place: &Place, urgency: Urgency) -> Result<Self, String> {
        let (blob, id) = (place.blob, place.manifest);
        let origin = node.inner.config.open_origin().map_err(|error| error.to_string())?.ok_or(home::NONE)?;
        let hurry = Hurry::new(urgency);
        let wan = WanFlight::new(&origin, &node.inner.books, place.label.clone(), hurry);
        let wan = wan.map_err(|error| error.to_string())?;
        let mut held = None;
        for member in members(node, &blob).into_iter().take(3) {
            held = peers::manifest(node, member, blob, id).await.ok();
            if held.is_some() {
                break;
            }
        }
        let manifest = match held {
            Some(manifest) => manifest,
            None if node.is_of_upstream(&blob) => return Err("no machine of the site holds it".into()),
            None => {
                is_open(node, urgency)?;
                wan::manifest(node, &wan, blob, id).await.map_err(|failure| failure.why)?
            }
        };
        let refused = BTreeSet::new();
        Ok(Self { node: node.clone(), manifest, wan, urgency, ready: VecDeque::new(), refused })
    }

    /// The next bytes of the range, which moves on by as many, with the chunk that they are of.
    ///
    /// # Errors
    /// [`ReadError::Failed`] when neither a member nor the origin gives them.
    pub(super) async fn next(
        &mut self,
        range: &mut Range<u64>,
    ) -> Result<Option<(u32, Source, Bytes)>, ReadError> {
        let Some(index) = self.manifest.chunk_at(range.start).filter(|_| !range.is_empty()) else {
            return Ok(None);
        };
        while self.ready.front().is_some_and(|(ready, ..)| *ready != index) {
            self.ready.pop_front();
        }
        if self.ready.is_empty() {
            self.ready = self.fetch(index, range.end).await?;
        }
        let (Some((_, source, content)), Some(chunk)) = (self.ready.pop_front(), self.manifest.chunk(index))
        else {
            return Ok(None);
        };
        let place = chunk.range();
        let (start, end) = (range.start - place.start, range.end.min(place.end) - place.start);
        let bytes = content.slice(start as usize..end as usize);
        range.start += bytes.len() as u64;
        Ok(Some((index, source, bytes)))
    }

    async fn fetch(&mut self, first: u32, end: u64) -> Result<VecDeque<(u32, Source, Bytes)>, ReadError> {
        let last = end.checked_sub(1).and_then(|byte| self.manifest.chunk_at(byte)).unwrap_or(first);
        let indices: Vec<u32> = (first..=last.min(first + BATCH - 1)).collect();
        let mut why = String::new();
        for attempt in 0..TRIES {
            let mut members = members(&self.node, &self.manifest.blob());
            members.retain(|member| !self.refused.contains(member));
            // When no member could, the origin is the last resort.
            let fetched = match members.get(attempt % members.len().max(1)) {
                Some(&member) if attempt + LAST_TRIES < TRIES => self.ask_member(member, &indices).await,
                None => self.read_origin(first, WanReason::Cold).await,
                Some(_) => self.read_origin(first, WanReason::NoPeer).await,
            };
            match fetched {
                Ok(ready) => return Ok(ready),
                Err(error) => why = error,
            }
            if attempt > 0
                && let Some(closed) = self.node.wan_closed(self.urgency)
            {
                return Err(ReadError::Closed(closed));
            }
            tokio::time::sleep(Duration::from_millis(200) * attempt as u32).await;
        }
        Err(ReadError::Failed(why))
    }

    async fn ask_member(
        &mut self,
        member: NodeId,
        indices: &[u32],
    ) -> Result<VecDeque<(u32, Source, Bytes)>, String> {
        let set: ChunkSet = indices.iter().copied().collect();
        let body = Chunks {
            blob: bytes_of(self.manifest.blob().as_bytes()),
            manifest: bytes_of(self.manifest.id().as_bytes()),
            indices: Some(Runs { spans: set.to_spans() }),
            fetch: true,
            background: self.urgency == Urgency::Background,
            urgent: self.urgency == Urgency::Urgent,
        };
        let request = Request { body: Some(request::Body::Chunks(body)) };
        let net = &self.node.inner.net;
        let mut answer =
            net.ask_patiently(&member, &request, PATIENCE).await.map_err(|error| error.to_string())?;
        if answer.response.status() == response::Status::Refused {
            self.refused.insert(member);
        }
        if answer.response.status() != response::Status::Ok {
            return Err(format!("node {} does not have it", member.short()));
        }
        let mut ready = VecDeque::new();
        for &index in indices {
            let Some(chunk) = self.manifest.chunk(index) else { break };
            let mut content = vec![0; chunk.length as usize];
            answer.read(&mut content).await.map_err(|error| error.to_string())?;
            if ChunkId::of(&content) != chunk.id {
                net.ban(&member);
                return Err(format!("node {} sent wrong bytes", member.short()));
            }
            ready.push_back((index, Source::Peer(member), Bytes::from(content)));
        }
        answer.done();
        Ok(ready)
    }

    /// One chunk from the origin: slow, but only for a node that is alone and has no room.
    async fn read_origin(
        &self,
        index: u32,
        reason: WanReason,
    ) -> Result<VecDeque<(u32, Source, Bytes)>, String> {
        let missing = || "the manifest names no such chunk".to_owned();
        if segment::is_of_upstream(&self.manifest) {
            return Err("no machine of the site holds it".into());
        }
        is_open(&self.node, self.urgency)?;
        let chunk = *self.manifest.chunk(index).ok_or_else(missing)?;
        let pack = self.manifest.packs().get(chunk.pack as usize).ok_or_else(missing)?;
        self.wan.is_for(reason);
        let mut passage = self.wan.passage(self.node.inner.allowance.begin(self.urgency));
        passage.waits_its_turn(Some(chunk.stored.into())).await;
        let stream = self.wan.origin.stream(&format!("packs/{pack}"), chunk.pack_range()).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let mut stored = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            passage.pass(piece.len() as u64).await;
            stored.extend_from_slice(&piece);
        }
        self.node.inner.books.chunk(&self.wan.label, chunk.stored.into());
        let content = if chunk.stored < chunk.length {
            let unpacked = blocking(move || zstd::bulk::decompress(&stored, chunk.length as usize)).await;
            unpacked.and_then(Result::ok).unwrap_or_default().into()
        } else {
            stored.freeze()
        };
        if ChunkId::of(&content) != chunk.id {
            return Err("the origin sends wrong bytes: its pack is damaged; publish again".into());
        }
        Ok(VecDeque::from([(index, Source::Wan(reason), content)]))
    }
}

/// # Errors
/// What a client is told if the WAN is closed for it.
fn is_open(node: &Node, urgency: Urgency) -> Result<(), String> {
    node.wan_closed(urgency).map_or(Ok(()), |closed| Err(closed.text))
}

/// The members, the likeliest lead first.
fn members(node: &Node, blob: &BlobId) -> Vec<NodeId> {
    let contacts = node.inner.net.contacts().into_iter();
    rank(blob.as_bytes(), contacts.map(|contact| (contact.node, contact.weight())))
}

impl Node {
    /// Gets chunks for a member that has no room to do so itself, as if a client had asked.
    pub(super) async fn fetch_for_member(
        &self,
        blob: BlobId,
        manifest: ManifestId,
        chunks: &ChunkSet,
        urgency: Urgency,
    ) {
        let store = self.inner.store.clone();
        let held = move || store.get(&blob).is_some_and(|it| chunks_in(&*it, chunks));
        if held() {
            return;
        }
        let (before, after) = (self.inner.books.clone(), self.inner.books.clone());
        let first = move || before.begin(blob, Front::None);
        let last = move || after.settle(&blob);
        let mut ticket = self.inner.live.enter(blob, self.inner.inputs.clone(), first, last);
        ticket.want(manifest, urgency).await;
        // What the site holds comes soon, and more does not.
        let patience = match self.wan_closed(urgency) {
            Some(_) => CLOSED,
            None => PATIENCE - Duration::from_secs(3),
        };
        let end = Instant::now() + patience;
        while !held() && ticket.news.borrow().end.as_ref().is_none_or(Result::is_ok) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, ticket.news.changed()).await.is_err() {
                break;
            }
        }
        // Here or still on its way, the next request follows soon: the flight goes on until then.
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop(ticket);
        });
    }
}

fn chunks_in(blob: &dyn crate::store::Blob, chunks: &ChunkSet) -> bool {
    chunks.difference(&blob.held()).is_empty()
}
