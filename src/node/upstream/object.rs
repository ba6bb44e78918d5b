//! A client's way through an object, while the rest is still on its way.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use tokio::sync::watch;

use super::super::Node;
use super::super::reader::{Manner, Place, Reader};
use super::pull::hasher;
use super::{Came, Live, ObjectError, Progress, Wanted, label};
use crate::core::ledger::Front;
use crate::core::upstream::record::{Record, Segment};
use crate::origin::upstream::UpstreamError;

/// A client that has been sent nothing for so long is told.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reads one object for one client.
pub struct Object {
    node: Node,
    wanted: Wanted,
    front: Front,
    live: Arc<Live>,
    progress: watch::Receiver<Progress>,
    /// Which object it has begun to read.
    generation: Option<u64>,
    /// The segment that is read, by number.
    open: Option<(usize, Reader)>,
    /// It was complete, and a piece had gone: it was set out for again.
    again: bool,
    /// All of it was here before this client asked.
    was_here: bool,
    /// What came of it in order, from its beginning on: its hash, and its length.
    hashed: Option<(digest::Context, u64)>,
}

impl Drop for Object {
    fn drop(&mut self) {
        self.live.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Object {
    pub(super) fn new(node: Node, wanted: Wanted, front: Front, live: Arc<Live>) -> Self {
        let progress = live.progress.subscribe();
        let was_here = matches!(live.end(), Some(Ok(())));
        let hashed = wanted.digest.as_ref().map(|digest| (hasher(digest), 0));
        Self {
            node,
            wanted,
            front,
            live,
            progress,
            generation: None,
            open: None,
            again: false,
            was_here,
            hashed,
        }
    }

    /// What was set out for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What is known of it, as soon as something is.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn about(&mut self) -> Result<(Arc<Record>, Came), ObjectError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            if let Some(Err(error)) = now.end {
                return Err(error);
            }
            if let Some(record) = now.record {
                self.generation = Some(now.generation);
                let came = if self.was_here && now.came == Came::Pulled { Came::Held } else { now.came };
                return Ok((record, came));
            }
            self.changed().await?;
        }
    }

    /// What is known of it when all of it has come.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub(in crate::node) async fn complete(&mut self) -> Result<Record, ObjectError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            match (now.end, now.record) {
                (Some(Err(error)), _) => return Err(error),
                (Some(Ok(())), Some(record)) => return Ok(Record::clone(&record)),
                _ => self.changed().await?,
            }
        }
    }

    async fn changed(&mut self) -> Result<(), ObjectError> {
        let stalled = || ObjectError::Failed(format!("nothing came for {} s", PATIENCE.as_secs()));
        let changed = tokio::time::timeout(PATIENCE, self.progress.changed()).await;
        changed.map_err(|_| stalled())?.map_err(|_| stalled())
    }

    /// The next bytes of the range, which moves on by as many; `None` at its end, or at the object's.
    ///
    /// # Errors
    /// [`ObjectError`]; what was handed out before is right all the same.
    pub async fn next(&mut self, range: &mut Range<u64>) -> Result<Option<Bytes>, ObjectError> {
        while !range.is_empty() {
            let Some((number, start, segment)) = self.segment_at(range.start).await? else { return Ok(None) };
            let mut part = range.start - start..segment.size.min(range.end - start);
            if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                let place = Place {
                    blob: segment.blob,
                    manifest: segment.manifest,
                    label: label(&self.wanted.upstream),
                };
                self.open = Some((number, self.node.read_blob(place, self.front, Manner::default())));
            }
            let Some((_, reader)) = &mut self.open else { return Ok(None) };
            match reader.next(&mut part).await {
                Ok(Some(bytes)) => {
                    self.check(range.start, &bytes)?;
                    range.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) if self.again => return Err(ObjectError::Failed(error.to_string())),
                Err(error) => self.set_out_again(&error.to_string(), segment)?,
            }
        }
        Ok(None)
    }

    /// Holds what is read in order against the digest that the client's protocol knows, before the last
    /// byte is handed on: a member's word is not enough. What this node has checked before is not hashed
    /// again, and a part cannot be.
    fn check(&mut self, at: u64, bytes: &Bytes) -> Result<(), ObjectError> {
        let Some(record) = self.progress.borrow().record.clone() else { return Ok(()) };
        if record.digest.is_some() {
            self.hashed = None;
        }
        let (Some((mut hash, length)), Some(wanted)) = (self.hashed.take(), self.wanted.digest) else {
            return Ok(());
        };
        if length != at {
            return Ok(());
        }
        hash.update(bytes);
        let length = at + bytes.len() as u64;
        if !record.complete || record.size != Some(length) {
            self.hashed = Some((hash, length));
            return Ok(());
        }
        let (upstreams, key) = (&self.node.inner.upstreams, self.wanted.key());
        if hash.finish().as_ref() == wanted.bytes() {
            let checked = Record { digest: Some(wanted), ..Record::clone(&record) };
            upstreams.shelf.put(&self.wanted, &checked);
            self.live.progress.send_modify(|progress| progress.record = Some(Arc::new(checked)));
            return Ok(());
        }
        tracing::warn!(path = self.wanted.path, "what a member has of it has another digest; dropped");
        upstreams.shelf.remove(&key);
        upstreams.live().remove(&key);
        let (upstream, path) = (self.wanted.upstream.clone(), self.wanted.path.clone());
        let why = format!("its {} is not the one that its index names", wanted.algorithm());
        Err(UpstreamError::Wrong { upstream, path, why }.into())
    }

    /// The segment that this byte is in, once it has come: its number, where it starts, and it.
    async fn segment_at(&mut self, byte: u64) -> Result<Option<(usize, u64, Segment)>, ObjectError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            if self.generation.is_some_and(|generation| generation != now.generation) {
                return Err(ObjectError::Changed(self.wanted.path.clone()));
            }
            if let Some(record) = &now.record {
                self.generation = Some(now.generation);
                let mut start = 0;
                for (number, segment) in record.segments.iter().enumerate() {
                    if byte < start + segment.size {
                        return Ok(Some((number, start, *segment)));
                    }
                    start += segment.size;
                }
            }
            match now.end {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Err(error),
                None => self.changed().await?,
            }
        }
    }

    /// A piece of what was complete is nowhere on the site any more: the object is brought anew, and goes
    /// on as it was if it is still the same.
    fn set_out_again(&mut self, why: &str, missing: Segment) -> Result<(), ObjectError> {
        let complete = matches!(self.live.end(), Some(Ok(())));
        if !complete {
            return Err(ObjectError::Failed(why.to_owned()));
        }
        tracing::info!(path = self.wanted.path, why, blob = missing.blob.short(), "brought anew");
        self.again = true;
        self.open = None;
        let key = self.wanted.key();
        self.node.inner.upstreams.live().remove(&key);
        self.node.inner.upstreams.shelf.remove(&key);
        let live = self.node.bring(&self.wanted, false);
        live.readers.fetch_add(1, Ordering::Relaxed);
        self.progress = live.progress.subscribe();
        std::mem::replace(&mut self.live, live).readers.fetch_sub(1, Ordering::Relaxed);
        self.generation = None;
        Ok(())
    }
}
