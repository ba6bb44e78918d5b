//! Reading a bundle: the catalog against this site's root of trust, the manifests against the catalog,
//! the chunks against the manifests, each as it comes.
//!
//! While some runs are hashed and written, the next ones are read. What was verified is in the store at once:
//! members may fetch it while the rest is still to come, and after a kill it is not written again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;

use super::feed::{Feed, Source};
use super::intake::{Target, Written, stopping, targets};
use super::report::{CatalogNews, Imported, ImportedPackage, News};
use super::turn::{Payload, Turn};
use crate::core::bundle::{BundleError, Contents, Reader, Run, Step};
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ChunkId, ManifestId};
use crate::core::manifest::Manifest;
use crate::node::Node;
use crate::origin::Catalog;
use crate::store::{Blob, Buffer, StoreError};

/// Turns of hashing and writing while more is read.
const AT_ONCE: usize = 3;
/// Complete blobs that the import keeps from being evicted for what comes after them.
const KEPT: usize = 256;
/// The client hears of progress this often, at most.
const OFTEN: Duration = Duration::from_millis(200);

/// Why nothing is imported, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no bundle, or is cut or damaged.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It was made from another origin.
    #[error("{why}. The bundle comes from {theirs}, this site's origin is {ours}; nothing was imported")]
    Foreign {
        /// What is wrong with its catalog.
        why: String,
        /// Where it says that it comes from.
        theirs: String,
        /// Where this site's content comes from.
        ours: String,
    },
    /// Nobody can say any more that its catalog is the newest.
    #[error(
        "the bundle's catalog has expired on {0} and there is none here: export it again, or let this site reach its origin once; nothing was imported"
    )]
    Expired(Timestamp),
    /// It cannot be taken.
    #[error("the bundle is refused: {0}; nothing was imported")]
    Refused(String),
    /// The client or the stream.
    #[error("{0}; what was verified is kept: import the bundle again for the rest")]
    Broken(String),
    /// This node's disk.
    #[error("{0}; what was imported is kept: import the bundle again for the rest")]
    Store(#[from] StoreError),
    /// Another import is under way.
    #[error("another import is under way at this agent; wait for its end")]
    Busy,
}

/// Runs of a manifest that are being hashed and written.
type Writing = (u32, JoinHandle<(Written, Result<(), StoreError>)>);

/// A bundle that is being read.
pub struct Import {
    node: Node,
    feed: Feed,
    reader: Reader,
    contents: Contents,
    catalog: Arc<Catalog>,
    catalog_news: CatalogNews,
    /// In the order of the bundle's manifests; or why one is not imported.
    targets: Vec<Result<Target, String>>,
    /// Where the targets that were opened have a chunk.
    donors: HashMap<ChunkId, (BlobId, u32)>,
    /// What the next turn is to do.
    next: Option<Turn>,
    writing: VecDeque<Writing>,
    /// A complete blob that is being made durable.
    finishing: Option<JoinHandle<Result<(), StoreError>>>,
    kept: VecDeque<Arc<dyn Blob>>,
    /// The target that runs are written to.
    at: Option<u32>,
    began: Instant,
    _alone: OwnedMutexGuard<()>,
}

impl Node {
    /// Reads the beginning of a bundle, and verifies its catalog and its manifests.
    ///
    /// # Errors
    /// [`ImportError`], before a chunk was written.
    pub async fn begin_import(&self, source: Source) -> Result<Import, ImportError> {
        let alone = self.inner.importing.clone().try_lock_owned().map_err(|_| ImportError::Busy)?;
        let (mut feed, mut reader) = (Feed::new(source), Reader::default());
        let (mut contents, mut catalog) = (None, None);
        let mut manifests: Vec<(ManifestId, Bytes)> = Vec::new();
        while !reader.is_past_manifests() {
            let bytes = feed.take(reader.wants()).await.map_err(ImportError::Broken)?;
            match (reader.take(bytes)?, &contents) {
                (Step::Contents(found), _) => contents = Some(found),
                (Step::Catalog(files), Some(contents)) => {
                    catalog = Some(self.take_catalog(contents, files).await?);
                }
                (Step::Manifest(id, encoded), _) => manifests.push((id, encoded)),
                _ => {}
            }
        }
        let (contents, (catalog, news)) = contents.zip(catalog).ok_or_else(|| reader.cut())?;
        let targets = targets(&contents, &catalog, manifests);
        if let Some(Err(why)) = targets.first().filter(|_| targets.iter().all(Result::is_err)) {
            return Err(ImportError::Refused(why.clone()));
        }
        Ok(Import {
            node: self.clone(),
            feed,
            reader,
            contents,
            catalog,
            catalog_news: news,
            targets,
            donors: HashMap::new(),
            next: None,
            writing: VecDeque::new(),
            finishing: None,
            kept: VecDeque::new(),
            at: None,
            began: Instant::now(),
            _alone: alone,
        })
    }
}

impl Import {
    /// Reads the chunks, tells `news` of it, and ends with [`News::Done`].
    pub async fn run(mut self, news: mpsc::Sender<News>) {
        news.send(News::Held(self.held().await)).await.ok();
        let mut result = self.take_runs(&news).await;
        self.begin_turn();
        while !self.writing.is_empty() {
            let settled = self.settle().await;
            result = result.and(settled);
        }
        let seconds = self.began.elapsed().as_secs_f64();
        for number in 0..self.targets.len() as u32 {
            let finished = self.finish(number).await;
            result = result.and(finished);
        }
        let finished = self.finish_last().await;
        let error = result.and(finished).err().map(|error| error.to_string());
        if let Some(error) = &error {
            tracing::warn!(error, "an import ended early");
        }
        let report = self.report(seconds, error).await;
        tracing::info!(new_bytes = report.new_bytes, complete = report.is_complete(), "imported a bundle");
        news.send(News::Done(Box::new(report))).await.ok();
    }

    /// What need not be sent, by manifest.
    fn held(&self) -> impl Future<Output = Vec<Vec<u32>>> + Send + use<> {
        let store = self.node.inner.store.clone();
        let wanted =
            self.targets.iter().map(|target| target.as_ref().map(|target| target.manifest.clone()).ok());
        let wanted: Vec<Option<Arc<Manifest>>> = wanted.collect();
        let held = move |manifest: Option<Arc<Manifest>>| {
            let Some(manifest) = manifest else { return vec![0, crate::core::chunkset::MAX_CHUNKS] };
            let blob = store.get(&manifest.blob()).filter(|blob| blob.manifest().id() == manifest.id());
            blob.map(|blob| blob.held().to_spans()).unwrap_or_default()
        };
        let held = crate::node::blocking(move || wanted.into_iter().map(held).collect());
        async move { held.await.unwrap_or_default() }
    }

    async fn take_runs(&mut self, news: &mpsc::Sender<News>) -> Result<(), ImportError> {
        let mut told = Instant::now();
        loop {
            self.begin_turn_unless_more_is_here(self.reader.wants());
            let bytes = self.feed.take(self.reader.wants()).await.map_err(ImportError::Broken)?;
            match self.reader.take(bytes)? {
                Step::Run(run) => self.take_run(run).await?,
                Step::Held(run) => _ = self.open(run.manifest).await?,
                Step::End => break,
                _ => {}
            }
            if told.elapsed() >= OFTEN {
                told = Instant::now();
                let (bytes, of) = self.reader.progress();
                // A client that does not listen is not waited for.
                news.try_send(News::Progress { bytes, of }).ok();
            }
        }
        // Packages of which the bundle had nothing of their own.
        for number in 0..self.targets.len() as u32 {
            self.open(number).await?;
        }
        // The others copy what the last turn brings, too.
        self.settle_all().await?;
        self.help_others().await;
        Ok(())
    }

    async fn take_run(&mut self, run: Run) -> Result<(), ImportError> {
        let length = run.length as usize;
        let blob = self.open(run.manifest).await?;
        let held = matches!(self.targets.get(run.manifest as usize), Some(Ok(target)) if target.holds(&run));
        let Some(blob) = blob.filter(|_| !held) else {
            let passed = self.feed.skip(length).await.map_err(ImportError::Broken)?;
            return if passed < length { Err(self.reader.cut_in_run(&run, passed).into()) } else { Ok(()) };
        };
        let payload = match self.feed.section(length) {
            Some(section) => Payload::There(section),
            None => {
                self.begin_turn_unless_more_is_here(length);
                let mut payload = Buffer::of(length);
                let came = self.feed.fill(&mut payload).await.map_err(ImportError::Broken)?;
                if came < length {
                    return Err(self.reader.cut_in_run(&run, came).into());
                }
                Payload::Here(payload)
            }
        };
        let turn = self.next.get_or_insert_with(|| Turn::new(run.manifest, blob));
        turn.push(run, payload);
        if turn.is_full() {
            self.begin_turn();
        }
        if self.writing.len() >= AT_ONCE { self.settle().await } else { Ok(()) }
    }

    /// What came is verified before a line is waited for.
    fn begin_turn_unless_more_is_here(&mut self, bytes: usize) {
        if !self.feed.has(bytes) {
            self.begin_turn();
        }
    }

    fn begin_turn(&mut self) {
        if let Some(turn) = self.next.take() {
            self.writing.push_back((turn.manifest, tokio::task::spawn_blocking(move || turn.work())));
        }
    }

    /// The blob that runs of this manifest go to; `None` if they are not wanted.
    async fn open(&mut self, number: u32) -> Result<Option<Arc<dyn Blob>>, ImportError> {
        if self.at != Some(number) {
            self.settle_all().await?;
            if let Some(before) = self.at.replace(number) {
                self.finish(before).await?;
            }
        }
        let Some(Ok(target)) = self.targets.get_mut(number as usize) else { return Ok(None) };
        if target.opened {
            return Ok(target.blob.clone());
        }
        let id = target.manifest.blob();
        let beside = self.catalog.versions_beside(&id).map(|published| published.blob).collect();
        let blob = self.node.open_target(target, &self.donors, beside).await?;
        for (index, chunk) in (0..).zip(target.manifest.chunks()) {
            self.donors.entry(chunk.id).or_insert((id, index));
        }
        Ok(Some(blob))
    }

    /// Versions that this node has a part of, perhaps from a bundle that left out what this one brought.
    async fn help_others(&mut self) {
        let ours: HashMap<BlobId, String> = self
            .targets
            .iter()
            .flatten()
            .map(|target| target.manifest.blob())
            .flat_map(|blob| self.catalog.versions_beside(&blob).map(|it| it.blob).collect::<Vec<_>>())
            .filter_map(|blob| Some((blob, self.catalog.label_of(&blob)?)))
            .collect();
        let partial = self.node.inner.store.list().into_iter().filter(|held| !held.complete);
        for (blob, label) in partial.filter_map(|held| Some((held.blob, ours.get(&held.blob)?.clone()))) {
            let store = self.node.inner.store.clone();
            let Some(Some(blob)) = crate::node::blocking(move || store.get(&blob)).await else { continue };
            let mut target = Target::new(label, blob.manifest().clone());
            let opened = self.node.open_target(&mut target, &self.donors, Vec::new()).await;
            if opened.is_ok() && target.is_complete() {
                crate::node::blocking(move || blob.finish()).await;
            }
        }
    }

    /// Waits until all that came is written and booked.
    async fn settle_all(&mut self) -> Result<(), ImportError> {
        self.begin_turn();
        while !self.writing.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// The oldest turn that is under way.
    async fn settle(&mut self) -> Result<(), ImportError> {
        let Some((number, work)) = self.writing.pop_front() else { return Ok(()) };
        let (written, result) = work.await.map_err(|_| stopping())?;
        if let Some(Ok(target)) = self.targets.get_mut(number as usize) {
            self.node.imported(target, written).await;
        }
        Ok(result?)
    }

    /// Makes a complete blob durable, while the next one is read.
    async fn finish(&mut self, number: u32) -> Result<(), ImportError> {
        let Some(Ok(target)) = self.targets.get_mut(number as usize) else { return Ok(()) };
        if !target.is_complete() {
            return Ok(());
        }
        let Some(blob) = target.blob.take() else { return Ok(()) };
        self.finish_last().await?;
        self.kept.push_back(blob.clone());
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        self.finishing = Some(tokio::task::spawn_blocking(move || blob.finish()));
        Ok(())
    }

    async fn finish_last(&mut self) -> Result<(), ImportError> {
        let Some(finishing) = self.finishing.take() else { return Ok(()) };
        Ok(finishing.await.map_err(|_| stopping())??)
    }

    async fn report(&mut self, seconds: f64, error: Option<String>) -> Imported {
        self.look_at_unopened().await;
        let numbers: HashMap<ManifestId, usize> =
            self.contents.manifests().into_iter().enumerate().map(|(number, id)| (id, number)).collect();
        let package = |entry: &crate::core::bundle::Entry| {
            let (package, since) = (entry.label(), entry.since.as_ref().map(ToString::to_string));
            let target = numbers.get(&entry.manifest).and_then(|&number| self.targets.get(number));
            match target {
                Some(Ok(target)) => ImportedPackage { package, since, ..target.report() },
                Some(Err(why)) => ImportedPackage {
                    package,
                    since,
                    refused: Some(why.clone()),
                    ..ImportedPackage::default()
                },
                None => ImportedPackage { package, since, ..ImportedPackage::default() },
            }
        };
        let new = self.targets.iter().flatten().map(|target| target.new_bytes).sum();
        Imported {
            catalog: self.catalog_news.clone(),
            packages: self.contents.packages.iter().map(package).collect(),
            bytes: self.contents.bytes,
            new_bytes: new,
            seconds,
            flush_seconds: self.began.elapsed().as_secs_f64() - seconds,
            error,
        }
    }

    /// An import that ended early has not opened all: something of them may be held from before.
    async fn look_at_unopened(&mut self) {
        let held = self.held().await;
        for (target, held) in self.targets.iter_mut().zip(held) {
            let Ok(target) = target else { continue };
            if !target.opened {
                let held = ChunkSet::from_spans(&held).unwrap_or_default();
                (target.before, target.held) = (held.clone(), held);
            }
        }
    }
}
