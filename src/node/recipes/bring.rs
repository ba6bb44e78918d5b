//! A recipe's object, on its way to the thread that rebuilds the blob.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::older;
use super::rebuild::{self, Busy, Came, Stored, Took};
use super::weigh::Chosen;
use crate::core::ledger::Source;
use crate::core::recipe::{BEGINNING, Head};
use crate::node::flow::{Flow, News};
use crate::node::wan::{Run, WanFlight};
use crate::node::{Node, blocking};
use crate::origin::OriginError;
use crate::recipe::{RecipeError, Span};
use crate::store::Blob;

/// Blocks that wait to be applied.
const WAITING: usize = 3;
/// Chunks that wait to be booked.
const BOOKED: usize = 64;
/// A rebuild that gives nothing for so long, and does not wait for anything, is given up.
const STUCK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);
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
    let head = object.head().await?;
    if head.blob != run.blob || head.size != blob.manifest().size() {
        return Err("it is for another blob".to_owned());
    }
    let old = match (&head.against, chosen.way.against) {
        (None, None) => None,
        (Some(against), Some(_)) => {
            Some(object.while_held_back(older::contents(node, chosen, against)).await?)
        }
        _ => return Err("it is against another version than the origin says".to_owned()),
    };
    object.rebuild(head, old, blob, chosen).await
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
    async fn head(&mut self) -> Result<Head, String> {
        let beginning = self.take(BEGINNING).await?;
        let beginning = beginning[..].try_into().map_err(|_| "it is cut off")?;
        let (stored, length) = Head::lengths(beginning).map_err(|error| error.to_string())?;
        let packed = self.take(stored as usize).await?;
        let unpacked = blocking(move || zstd::bulk::decompress(&packed, length as usize));
        let encoded = unpacked.await.ok_or("the agent is stopping")?.map_err(|error| error.to_string())?;
        Head::decode(encoded.into()).map_err(|error| error.to_string())
    }

    /// The next bytes of it. A line that breaks is taken up again.
    async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        if self.at + length as u64 > self.length {
            return Err("it is longer than the origin says".to_owned());
        }
        loop {
            match self.read(length).await {
                Ok(bytes) => {
                    self.at += length as u64;
                    self.node.inner.books.recipe(&self.wan.label, length as u64);
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

    async fn while_held_back<T>(&mut self, work: impl Future<Output = T>) -> T {
        match &mut self.flow {
            Some(flow) => flow.news.while_held_back(work).await,
            None => News::new(self.node, self.run.blob).while_held_back(work).await,
        }
    }

    /// Hands the blocks to a thread that rebuilds the blob, and books what it stores.
    async fn rebuild(
        mut self,
        head: Head,
        old: Option<Span>,
        blob: &Arc<dyn Blob>,
        chosen: &Chosen,
    ) -> Result<(), String> {
        let (blocks, coming) = mpsc::channel::<Came>(WAITING);
        let (stored, booked) = mpsc::channel::<Stored>(BOOKED);
        let (target, plan, busy) = (blob.clone(), head.clone(), Busy::default());
        let working = busy.clone();
        let (node, chosen) = (self.node.clone(), chosen.clone());
        let work = tokio::task::spawn_blocking(move || {
            let took = rebuild::run(&plan, old, coming, &target, &stored, &working)?;
            node.learn(&chosen, took);
            Ok::<_, RecipeError>(())
        });
        let book = self.node.clone().book(
            self.wan.label.clone(),
            Source::Wan(self.run.reason),
            blob.clone(),
            booked,
        );
        let feed = async {
            for block in head.blocks {
                let bytes = self.take(block.stored as usize).await?;
                // If nobody takes it, the thread has failed, and says why.
                if self.while_held_back(blocks.send((block, bytes))).await.is_err() {
                    break;
                }
            }
            drop(blocks);
            let done = self.while_held_back(work).await.map_err(|error| error.to_string())?;
            done.map_err(|error| error.to_string())
        };
        let stuck = async {
            while busy.time() < STUCK {
                tokio::time::sleep(LOOK).await;
            }
        };
        // A thread cannot be ended: it finds that nobody takes what it gives.
        tokio::select! {
            (done, ()) = async { tokio::join!(feed, book) } => done,
            () = stuck => Err(format!("nothing was rebuilt for {} s", STUCK.as_secs())),
        }
    }
}

impl Node {
    /// Books chunks that were rebuilt, and tells the coordinator.
    async fn book(
        self,
        label: String,
        source: Source,
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
    fn learn(&self, chosen: &Chosen, took: Took) {
        let speeds = &mut *self.inner.recipes.speeds();
        let work = chosen.way.work;
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
