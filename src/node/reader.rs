//! A client's way through a blob, from one byte to another, while the rest is still on its way.
//!
//! A reader waits for chunks to be in the store, verified; it does not care who brings them. If
//! its client goes away it takes itself out of the flight, and nobody else.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::catalog::{Failing, Resolved};
use super::live::Ticket;
use super::relay::Relay;
use super::windows::Closed;
use super::{Node, blocking};
use crate::core::flight::{FailureKind, Input, Urgency};
use crate::core::id::{BlobId, ManifestId};
use crate::core::ledger::Front;
use crate::core::manifest::Manifest;
use crate::store::{Blob, PIECE, StoreError};

/// A client that has been sent nothing for so long is told.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client that has been sent nothing at all for so long has it looked into whether the origin is out
/// of reach: then it is told, and need not wait for what cannot come. A check takes some seconds more.
const FIRST_PATIENCE: Duration = Duration::from_secs(20);
/// The same where that has been known for a while: neighbours answer sooner than this.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(5);
const A_WHILE: SignedDuration = SignedDuration::from_secs(30);

/// Why a client does not get its bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The flight failed.
    #[error("{0}")]
    Failed(String),
    /// This node has no room for it.
    #[error("{0}")]
    NoRoom(String),
    /// The WAN is closed, and the site does not hold it.
    #[error("{}", .0.text)]
    Closed(Closed),
    /// Nothing came for a long time.
    #[error("nothing came for {} s, from the site or from the origin; see 'branchline status'", PATIENCE.as_secs())]
    Stalled,
    /// The origin is out of reach, and no node of the site has what is asked for.
    #[error(
        "the origin is out of reach since {} ({why}), and no machine of this site that answers holds it; it can be fetched when the line is back. 'branchline status' tells what still works",
        since.strftime("%Y-%m-%d %H:%M UTC")
    )]
    CutOff {
        /// Since when.
        since: Timestamp,
        /// Why the last try failed.
        why: String,
    },
}

/// A client that is sent nothing is told after so long that the WAN is closed: until then the site may turn
/// out to hold it.
pub(super) const CLOSED: Duration = Duration::from_millis(2500);

/// How a client wants to be served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// Whether others go first on the WAN, or it goes through a closed window.
    pub urgency: Urgency,
    /// It waits for the WAN to open, however long that takes.
    pub waits: bool,
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
    manner: Manner,
    /// It has been handed something.
    served: bool,
    ticket: Ticket,
    blob: Option<Arc<dyn Blob>>,
    /// It waits as long as others do: its client got bytes, or the origin is there.
    has_begun: bool,
    /// Since when it waits for its first bytes while no chunk comes, and how many were here then.
    waits: Option<(Instant, u32)>,
    /// Read, and not handed out yet; with its place in the blob, in bytes.
    ready: (u64, Bytes),
    /// Passes bytes through, since there is no room for them here.
    relay: Option<Relay>,
}

impl Node {
    /// Begins to read a version.
    pub fn read(&self, resolved: Resolved, front: Front, manner: Manner) -> Reader {
        let (label, published) = (resolved.label(), resolved.published);
        self.read_blob(Place { blob: published.blob, manifest: published.manifest, label }, front, manner)
    }

    /// Begins to read a blob.
    pub(super) fn read_blob(&self, place: Place, front: Front, manner: Manner) -> Reader {
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
            manner,
            served: false,
            ticket,
            blob: None,
            has_begun: false,
            waits: None,
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
        (self.has_begun, self.served) = (true, true);
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
                self.node.note_damage_in_use().await;
                self.ticket.want(self.place.manifest, self.manner.urgency).await;
                self.ticket.say(Input::Lost { blob: self.id(), chunk }).await;
                Ok(false)
            }
            Some(Err(error)) => Err(ReadError::Failed(error.to_string())),
            None => Err(ReadError::Failed("the agent is stopping".into())),
        }
    }

    fn chunks_held(&self) -> u32 {
        self.blob.as_ref().map_or(0, |blob| blob.held().len())
    }

    /// How long to wait for the next news.
    fn patience(&mut self) -> Duration {
        if self.has_begun {
            return PATIENCE;
        }
        let cut_off = self.node.catalog().failing().filter(|failing| failing.out_of_reach);
        let known = |failing: Failing| Timestamp::now().duration_since(failing.since) > A_WHILE;
        let most = if cut_off.is_some_and(known) { CUT_OFF_PATIENCE } else { FIRST_PATIENCE };
        // Not all news is of chunks: tries that fail are news, too.
        let held = self.chunks_held();
        let (since, before) = *self.waits.get_or_insert((Instant::now(), held));
        if held != before {
            self.waits = Some((Instant::now(), held));
            return most;
        }
        most.saturating_sub(since.elapsed())
    }

    /// Nothing has come yet. A site that is cut off has it from nobody, unless a member is bringing it:
    /// then chunks come. Other news may be of tries that fail.
    async fn look_into_it(&mut self) -> Result<(), ReadError> {
        let catalog = self.node.catalog();
        catalog.probe().await;
        let nothing_came = self.waits.is_none_or(|(_, before)| before == self.chunks_held());
        match catalog.failing() {
            Some(failing) if failing.out_of_reach && nothing_came => {
                Err(ReadError::CutOff { since: failing.since, why: failing.why })
            }
            _ => {
                // It is there, and so only slow, or has to wait for its turn.
                self.has_begun = true;
                Ok(())
            }
        }
    }

    /// Waits for news of the flight, which it starts if there is none.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if !self.ticket.wants() {
            self.ticket.want(self.place.manifest, self.manner.urgency).await;
            // What came between the look into the store and now is seen by the next look.
            return Ok(());
        }
        let end = self.ticket.news.borrow_and_update().end.clone();
        match end {
            Some(Err(failure)) if failure.kind == FailureKind::Local => {
                tracing::warn!(why = failure.why, "passing bytes through, without keeping them");
                let begun = Relay::begin(&self.node, &self.place, self.manner.urgency).await;
                let relay = begun.map_err(|why| match self.node.wan_closed(self.manner.urgency) {
                    Some(closed) => ReadError::Closed(closed),
                    None => ReadError::NoRoom(format!("{}; {why}", failure.why)),
                })?;
                self.relay = Some(relay);
                Ok(())
            }
            Some(Err(failure)) => Err(ReadError::Failed(failure.why)),
            Some(Ok(())) => {
                // It was complete, and yet a chunk may be missing: it went bad since.
                let held =
                    self.blob.as_ref().is_some_and(|blob| blob.held().len() == blob.manifest().count());
                if !held {
                    self.ticket.want(self.place.manifest, self.manner.urgency).await;
                }
                Ok(())
            }
            None => self.wait_for_news().await,
        }
    }

    /// Who has got a part waits for the rest if the WAN opens soon: to tell him is to break off.
    fn sits_out(&self, closed: &Closed) -> bool {
        self.served && closed.retry_after_s <= PATIENCE.as_secs()
    }

    /// Waits until something comes. Whoever waits for a closed WAN and did not say so is told.
    async fn wait_for_news(&mut self) -> Result<(), ReadError> {
        let patience = self.patience();
        let (begun, mut since) = (Instant::now(), Instant::now());
        loop {
            let left = patience.saturating_sub(since.elapsed()).min(CLOSED);
            let closed = self.node.wan_closed(self.manner.urgency);
            let time = if closed.is_some() { CLOSED } else { left };
            if let Ok(changed) = tokio::time::timeout(time, self.ticket.news.changed()).await {
                return changed.map_err(|_| ReadError::Stalled);
            }
            match self.node.wan_closed(self.manner.urgency) {
                Some(_) if self.manner.waits => since = Instant::now(),
                Some(closed) if begun.elapsed() >= CLOSED && !self.sits_out(&closed) => {
                    return Err(ReadError::Closed(closed));
                }
                Some(_) if !self.served => {}
                _ if since.elapsed() < patience => {}
                _ if !self.has_begun => return self.look_into_it().await,
                _ => return Err(ReadError::Stalled),
            }
        }
    }
}
