//! A client's way through a blob, from one byte to another, while the rest is still on its way.
//!
//! A reader waits for chunks to be in the store, verified; it does not care who brings them. If
//! its client goes away it takes itself out of the flight, and nobody else.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catalog::Resolved;
use super::live::Ticket;
use super::relay::Relay;
use super::{Node, blocking};
use crate::core::flight::{FailureKind, Input};
use crate::core::id::{BlobId, ManifestId};
use crate::core::ledger::Front;
use crate::core::manifest::Manifest;
use crate::store::{Blob, PIECE, StoreError};

/// A client that has been sent nothing for so long is told.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a client does not get its bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The flight failed.
    #[error("{0}")]
    Failed(String),
    /// This node has no room for it.
    #[error("{0}")]
    NoRoom(String),
    /// Nothing came for a long time.
    #[error("nothing came for {} s, from the site or from the origin; see 'branchline status'", PATIENCE.as_secs())]
    Stalled,
}

/// What is read.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) blob: BlobId,
    pub(super) manifest: ManifestId,
    /// How the ledger calls it.
    pub(super) label: String,
}

/// Reads one blob for one client.
pub struct Reader {
    node: Node,
    place: Place,
    front: Front,
    background: bool,
    ticket: Ticket,
    blob: Option<Arc<dyn Blob>>,
    /// Read, and not handed out yet; with its place in the blob, in bytes.
    ready: (u64, Bytes),
    /// Passes bytes through, since there is no room for them here.
    relay: Option<Relay>,
}

impl Node {
    /// Begins to read a version. In the `background`, others go first on the WAN.
    pub fn read(&self, resolved: Resolved, front: Front, background: bool) -> Reader {
        let (label, published) = (resolved.label(), resolved.published);
        self.read_blob(Place { blob: published.blob, manifest: published.manifest, label }, front, background)
    }

    /// Begins to read a blob.
    pub(super) fn read_blob(&self, place: Place, front: Front, background: bool) -> Reader {
        let blob = place.blob;
        let (before, after) = (self.inner.books.clone(), self.inner.books.clone());
        let inputs = self.inner.inputs.clone();
        // What came before the first client asked was held before; what comes after the last one
        // has left is nobody's.
        let (first, last) = (move || before.begin(blob, front), move || after.settle(&blob));
        let ticket = self.inner.live.enter(blob, inputs, first, last);
        Reader {
            node: self.clone(),
            place,
            front,
            background,
            ticket,
            blob: None,
            ready: (0, Bytes::new()),
            relay: None,
        }
    }
}

impl Reader {
    /// The next bytes of the range, which moves on by as many; `None` at its end.
    ///
    /// # Errors
    /// [`ReadError`]; what was handed out before is right all the same.
    pub async fn next(&mut self, range: &mut Range<u64>) -> Result<Option<Bytes>, ReadError> {
        if range.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some(relay) = &mut self.relay {
                let passed = relay.next(range).await?;
                if let Some((index, source, bytes)) = &passed {
                    let (books, length) = (&self.node.inner.books, bytes.len() as u64);
                    books.passed(self.id(), *index, &self.place.label, self.front, *source, length);
                }
                return Ok(passed.map(|(_, _, bytes)| bytes));
            }
            self.find_blob().await;
            if let Some(blob) = self.blob.clone() {
                if let Some(bytes) = self.hand_out(blob.manifest(), range) {
                    return Ok(Some(bytes));
                }
                let Some(index) = blob.manifest().chunk_at(range.start) else { return Ok(None) };
                if self.read_ahead(blob, index).await? {
                    continue;
                }
            }
            self.wait().await?;
        }
    }

    fn id(&self) -> BlobId {
        self.place.blob
    }

    async fn find_blob(&mut self) {
        if self.blob.is_some() {
            return;
        }
        let (store, id) = (self.node.inner.store.clone(), self.id());
        store.touch(&id);
        self.blob = match store.at_hand(&id) {
            Some(blob) => Some(blob),
            None => blocking(move || store.get(&id)).await.flatten(),
        };
    }

    /// Cuts the range's next bytes out of what was read ahead.
    fn hand_out(&mut self, manifest: &Manifest, range: &mut Range<u64>) -> Option<Bytes> {
        let (start, content) = &self.ready;
        let from = range.start.checked_sub(*start).filter(|from| *from < content.len() as u64)?;
        let to = (range.end - start).min(content.len() as u64);
        let bytes = content.slice(from as usize..to as usize);
        let handed = range.start..range.start + bytes.len() as u64;
        range.start = handed.end;
        self.node.inner.books.delivered(manifest, &self.place.label, self.front, handed);
        Some(bytes)
    }

    /// Reads the chunks from this one on that are there; false if not even the first one is.
    async fn read_ahead(&mut self, blob: Arc<dyn Blob>, index: u32) -> Result<bool, ReadError> {
        let start = blob.manifest().chunk(index).map_or(0, |chunk| chunk.offset);
        if self.ticket.wants() {
            self.node.inner.inputs.try_send(Input::Reading { blob: self.id(), chunk: index }).ok();
        }
        // What is in memory is not worth another thread.
        let read = match blob.read_cached(index, PIECE as u64) {
            Some(content) => Some(Ok(content)),
            None => blocking(move || blob.read_run(index, PIECE as u64)).await,
        };
        match read {
            Some(Ok(content)) => {
                self.ready = (start, content);
                Ok(true)
            }
            Some(Err(StoreError::NotHeld(_))) => Ok(false),
            Some(Err(StoreError::WrongHash(chunk))) => {
                tracing::warn!(blob = %self.id(), chunk, "damaged on disk; it is checked, and fetched anew");
                if let Some(blob) = self.blob.clone() {
                    blocking(move || blob.check()).await;
                }
                self.ticket.want(self.place.manifest, self.background).await;
                self.ticket.say(Input::Lost { blob: self.id(), chunk }).await;
                Ok(false)
            }
            Some(Err(error)) => Err(ReadError::Failed(error.to_string())),
            None => Err(ReadError::Failed("the agent is stopping".into())),
        }
    }

    /// Waits for news of the flight, which it starts if there is none.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if !self.ticket.wants() {
            self.ticket.want(self.place.manifest, self.background).await;
            // What came between the look into the store and now is seen by the next look.
            return Ok(());
        }
        let end = self.ticket.news.borrow_and_update().end.clone();
        match end {
            Some(Err(failure)) if failure.kind == FailureKind::Local => {
                tracing::warn!(why = failure.why, "passing bytes through, without keeping them");
                let relay = Relay::begin(&self.node, &self.place).await;
                self.relay = Some(relay.map_err(|why| ReadError::NoRoom(format!("{}; {why}", failure.why)))?);
                Ok(())
            }
            Some(Err(failure)) => Err(ReadError::Failed(failure.why)),
            Some(Ok(())) => {
                // It was complete, and yet a chunk may be missing: it went bad since.
                let held =
                    self.blob.as_ref().is_some_and(|blob| blob.held().len() == blob.manifest().count());
                if !held {
                    self.ticket.want(self.place.manifest, self.background).await;
                }
                Ok(())
            }
            None => {
                let changed = tokio::time::timeout(PATIENCE, self.ticket.news.changed()).await;
                changed.map_err(|_| ReadError::Stalled)?.map_err(|_| ReadError::Stalled)
            }
        }
    }
}
