//! A recipe's object from the origin, and the chunks that it gives.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::apply::{self, Source};
use super::older;
use super::rebuild::{Busy, Chunks, Stored, Took};
use super::weigh::Chosen;
use crate::core::ledger::{self, WanReason};
use crate::core::recipe::Work;
use crate::node::Node;
use crate::node::flow::{Flow, News};
use crate::node::wan::{Run, WanFlight};
use crate::origin::OriginError;
use crate::store::Blob;

/// Chunks that wait to be booked.
const BOOKED: usize = 64;
/// A line that breaks is taken up again so often, where it broke.
const TRIES: u32 = 3;

/// Brings a recipe and stores what it gives.
///
/// # Errors
/// In words.
pub(super) async fn bring(
    node: &Node,
    wan: &WanFlight,
    blob: &Arc<dyn Blob>,
    run: &Run,
    chosen: &Chosen,
) -> Result<(), String> {
    let path = format!("recipes/{}", chosen.way.recipe);
    let mut object = Object { node, wan, run, path, at: 0, length: chosen.way.bytes, flow: None, tries: 0 };
    let head = apply::head(&mut object).await?;
    if head.blob != run.blob || head.size != blob.manifest().size() {
        return Err("it is for another blob".to_owned());
    }
    let old = match (&head.against, chosen.way.against) {
        (None, None) => None,
        (Some(against), Some(_)) => Some(object.meanwhile(older::contents(node, chosen, against)).await?),
        _ => return Err("it is against another version than the origin says".to_owned()),
    };
    let (stored, booked) = mpsc::channel::<Stored>(BOOKED);
    let busy = Busy::default();
    let target = Chunks::new(blob.clone(), stored, busy.clone());
    let book = node.clone().book(wan.label.clone(), ledger::Source::Wan(run.reason), blob.clone(), booked);
    let took = apply::rebuild(&mut object, head, old, target, busy, book).await?;
    node.learn(&chosen.way.work, took);
    Ok(())
}

/// The object, read from its beginning to its end.
struct Object<'a> {
    node: &'a Node,
    wan: &'a WanFlight,
    run: &'a Run,
    path: String,
    at: u64,
    length: u64,
    flow: Option<Flow<'a>>,
    tries: u32,
}

impl Object<'_> {
    /// The next bytes of it. A line that breaks is taken up again.
    async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        if self.at + length as u64 > self.length {
            return Err("it is longer than the origin says".to_owned());
        }
        loop {
            match self.read(length).await {
                Ok(bytes) => {
                    self.at += length as u64;
                    let (books, label) = (&self.node.inner.books, &self.wan.label);
                    books.recipe(label, length as u64);
                    if self.run.reason == WanReason::Takeover {
                        // The lead before was reading it, too: as far as this, at the most.
                        books.duplicate(label, WanReason::Takeover, length as u64);
                    }
                    return Ok(bytes);
                }
                Err(error) if error.is_transient() && self.tries < TRIES => {
                    self.tries += 1;
                    self.flow = None;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn read(&mut self, length: usize) -> Result<Bytes, OriginError> {
        let flow = match &mut self.flow {
            Some(flow) => flow,
            None => {
                let news = News::new(self.node, self.run.blob);
                let (wan, range) = (self.wan, self.at..self.length);
                let flow = Flow::open(self.node, wan, news, (&self.path, range), self.run.reason).await?;
                self.flow.insert(flow)
            }
        };
        flow.take(length).await
    }
}

impl Source for Object<'_> {
    async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        Object::take(self, length).await
    }

    async fn meanwhile<T: Send>(&mut self, work: impl Future<Output = T> + Send) -> T {
        match &mut self.flow {
            Some(flow) => flow.news.while_held_back(work).await,
            None => News::new(self.node, self.run.blob).while_held_back(work).await,
        }
    }
}

impl Node {
    /// Books chunks that were rebuilt, and tells the coordinator.
    async fn book(
        self,
        label: String,
        source: ledger::Source,
        blob: Arc<dyn Blob>,
        mut stored: mpsc::Receiver<Stored>,
    ) {
        let manifest = blob.manifest().clone();
        while let Some((chunks, places)) = stored.recv().await {
            let new = places.iter().filter(|&&place| !manifest.is_repeat(place));
            let shipped = new.filter_map(|&place| manifest.chunk(place)).map(|chunk| u64::from(chunk.stored));
            self.inner.books.rebuilt(&label, shipped.sum());
            self.stored(&label, source, &manifest, chunks, places).await;
        }
    }

    /// How fast this machine is, as it was seen.
    pub(in crate::node) fn learn(&self, work: &Work, took: Took) {
        let speeds = &mut *self.inner.recipes.speeds();
        let kinds =
            [(work.xz, &mut speeds.xz), (work.zstd, &mut speeds.zstd), (work.deflate, &mut speeds.deflate)];
        // What most of it was: the time of one kind cannot be told from another's.
        if let Some((bytes, speed)) = kinds.into_iter().find(|(bytes, _)| *bytes * 2 > work.contents)
            && !took.rebuilding.is_zero()
        {
            *speed = bytes as f64 / took.rebuilding.as_secs_f64();
        }
        if !took.patching.is_zero() {
            speeds.patch = work.contents as f64 / took.patching.as_secs_f64();
        }
    }
}
