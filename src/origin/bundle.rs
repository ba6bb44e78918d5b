//! Bundles made from an origin: packs are read by range, and every chunk is checked on its way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use super::catalog::{Published, Unresolved};
use super::{Catalog, Fetch, Keeper, Origin, OriginError};
use crate::core::bundle::{Entry, Form, Item, Layout, Pieces, Run};
use crate::core::id::{PackId, PackageName, Version};
use crate::core::manifest::{MAX_MANIFEST, Manifest};
use crate::core::orders::Selector;

/// Bytes that are asked for in one request, at most.
const REQUEST: u64 = 32 << 20;
/// A request that breaks off is taken up again so often in a row.
const TRIES: u32 = 5;
const WAIT: Duration = Duration::from_secs(1);
/// Runs that are checked in one turn of a thread: to hand a turn over costs as much as to check some 200 kB.
const TURN: usize = 4;
/// Turns of checking while more is read.
const AT_ONCE: usize = 3;

/// A package that is to go into a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub package: Selector,
    /// Without what this older version of it has.
    pub since: Option<Version>,
}

/// A choice, found in the catalog.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// What the catalog says of it.
    pub published: Published,
    /// The older version that is left out.
    pub since: Option<(Version, Published)>,
}

impl Chosen {
    /// What the bundle says of it.
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            version: self.version.clone(),
            manifest: self.published.manifest,
            since: self.since.as_ref().map(|(version, _)| version.clone()),
        }
    }
}

/// Finds what was chosen; what was chosen twice is there once.
///
/// # Errors
/// [`Unresolved`], with what there is instead.
pub fn choose(catalog: &Catalog, choices: &[Choice]) -> Result<Vec<Chosen>, Unresolved> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for Choice { package, since } in choices {
        let wanted = package.wanted.as_ref().map(Version::as_str);
        let (name, version, published) = catalog.resolve(package.name.as_str(), wanted)?;
        let older = |since: &Version| catalog.resolve(name.as_str(), Some(since.as_str()));
        let since =
            since.as_ref().map(older).transpose()?.map(|(_, version, published)| (version, published));
        if !chosen.iter().any(|known| known.name == name && known.version == version) {
            chosen.push(Chosen { name, version, published, since });
        }
    }
    Ok(chosen)
}

/// A bundle of an origin's packages, as a stream of bytes: whoever writes it down takes them as they come.
///
/// # Errors
/// [`OriginError`]: at once, if the catalog is not signed by the owner of `trust`, or lacks a package; in
/// the stream, if a pack cannot be read or is damaged.
pub async fn export(
    origin: &Origin,
    trust: Bytes,
    choices: &[Choice],
) -> Result<BoxStream<'static, Result<Bytes, OriginError>>, OriginError> {
    let invalid = |error: &dyn std::fmt::Display| OriginError::Invalid(error.to_string());
    let scratch = tempfile::tempdir().map_err(|error| OriginError::Failed(error.to_string()))?;
    let root = *blake3::hash(&trust).as_bytes();
    let keeper = Keeper::open(scratch.path(), Some(trust)).await?;
    let catalog = keeper.refresh(Fetch::Origin(origin.clone())).await?;
    let mut items = Vec::new();
    for chosen in choose(&catalog, choices).map_err(|error| invalid(&error))? {
        let manifest = manifest(origin, &chosen.published).await?;
        let without = match &chosen.since {
            Some((_, published)) => Some(self::manifest(origin, published).await?),
            None => None,
        };
        items.push(Item { entry: chosen.entry(), manifest, without });
    }
    let files = catalog.files().iter().map(|(name, content)| (name.clone(), content.clone()));
    let layout = Layout::new((origin.address().to_string(), root), files, items, Form::Packed);
    let layout = layout.map_err(|error| invalid(&error))?;
    let payloads = payloads(Packs::new(origin.clone(), &layout));
    Ok(assemble(layout, payloads).boxed())
}

async fn manifest(origin: &Origin, published: &Published) -> Result<Arc<Manifest>, OriginError> {
    let id = published.manifest;
    let encoded = origin.read(&format!("manifests/{id}"), MAX_MANIFEST as u64).await?;
    let manifest = Manifest::decode(id, encoded);
    manifest.map(Arc::new).map_err(|error| OriginError::Invalid(error.to_string()))
}

/// A laid-out bundle as a stream of bytes; `payloads` are those of its runs, in their order.
pub fn assemble<E: Send + 'static>(
    layout: Layout,
    payloads: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    let Layout { beginning, runs, writer, .. } = layout;
    let first = stream::once(std::future::ready(Ok(beginning)));
    let rest = stream::try_unfold(
        (writer, runs.into_iter(), payloads.boxed(), false),
        async |(mut writer, mut runs, mut payloads, over)| {
            if over {
                return Ok(None);
            }
            let next = match payloads.next().await {
                Some(payload) => runs.next().zip(Some(payload?)),
                None => None,
            };
            let (parts, over) = match next {
                Some((run, payload)) => ([Bytes::copy_from_slice(&writer.run(&run)), payload], false),
                None => ([writer.clone().end().into(), Bytes::new()], true),
            };
            Ok(Some((parts, (writer, runs, payloads, over))))
        },
    );
    let rest = rest.map_ok(|parts| stream::iter(parts.into_iter().filter(|it| !it.is_empty()).map(Ok)));
    first.chain(rest.try_flatten())
}

/// The payloads of the runs, checked.
fn payloads(packs: Packs) -> impl Stream<Item = Result<Bytes, OriginError>> + Send + 'static {
    let runs = stream::try_unfold(packs, async |mut packs| {
        let next = packs.next().await?;
        Ok(next.map(|next| (next, packs)))
    });
    let turns = runs.try_chunks(TURN).map_err(|broken| broken.1);
    let checked = turns.map_ok(|turn| async move {
        let check = |(run, manifest, payload): (Run, Arc<Manifest>, Bytes)| check(&run, &manifest, payload);
        let work = tokio::task::spawn_blocking(move || turn.into_iter().map(check).collect::<Vec<_>>());
        work.await.map(stream::iter).map_err(|error| OriginError::Failed(error.to_string()))
    });
    checked.try_buffered(AT_ONCE).try_flatten()
}

/// Every chunk of a run, hashed.
fn check(run: &Run, manifest: &Manifest, payload: Bytes) -> Result<Bytes, OriginError> {
    let damaged = |index| {
        let what = "is damaged: restore the packs at the origin from a copy, or publish the file under a new version";
        OriginError::Invalid(format!("chunk {index} of blob {} {what}", manifest.blob()))
    };
    for piece in run.pieces(manifest).ok_or_else(|| damaged(run.first))? {
        let stored = &payload[piece.place.clone()];
        let right = if piece.packed {
            let content = zstd::bulk::decompress(stored, piece.chunk.length as usize);
            content.is_ok_and(|content| piece.is(&content))
        } else {
            piece.is(stored)
        };
        if !right {
            return Err(damaged(piece.index));
        }
    }
    Ok(payload)
}

type Coming = BoxStream<'static, Result<Bytes, OriginError>>;

/// Reads runs from packs, many with one request.
struct Packs {
    origin: Origin,
    manifests: Vec<Arc<Manifest>>,
    runs: VecDeque<Run>,
    /// What was asked for: what comes, what has come, and how many runs are still in it.
    open: Option<(Coming, Pieces, usize)>,
    tries: u32,
}

impl Packs {
    fn new(origin: Origin, layout: &Layout) -> Self {
        let (manifests, runs) = (layout.manifests.clone(), layout.runs.iter().copied().collect());
        Self { origin, manifests, runs, open: None, tries: 0 }
    }

    async fn next(&mut self) -> Result<Option<(Run, Arc<Manifest>, Bytes)>, OriginError> {
        let Some(&run) = self.runs.front() else { return Ok(None) };
        let payload = loop {
            match self.read(run.length as usize).await {
                Ok(payload) => break payload,
                Err(error) if error.is_transient() && self.tries < TRIES => {
                    self.tries += 1;
                    self.open = None;
                    tokio::time::sleep(WAIT).await;
                }
                Err(error) => return Err(error),
            }
        };
        self.tries = 0;
        self.runs.pop_front();
        if let Some((_, _, left)) = &mut self.open {
            *left -= 1;
            if *left == 0 {
                self.open = None;
            }
        }
        let manifest = self.manifests.get(run.manifest as usize).cloned();
        Ok(manifest.map(|manifest| (run, manifest, payload)))
    }

    async fn read(&mut self, length: usize) -> Result<Bytes, OriginError> {
        if self.open.is_none() {
            let (pack, range, runs) = self.request();
            let stream = self.origin.stream_fast(&format!("packs/{pack}"), range).await?;
            self.open = Some((stream, Pieces::default(), runs));
        }
        let Some((stream, pieces, _)) = &mut self.open else { return Ok(Bytes::new()) };
        while pieces.len() < length {
            match stream.next().await {
                Some(piece) => pieces.push(piece?),
                None => return Err(OriginError::Failed("a pack ended early".into())),
            }
        }
        Ok(pieces.take(length))
    }

    /// The next runs that lie back to back in one pack.
    fn request(&self) -> (PackId, Range<u64>, usize) {
        let mut places = self.runs.iter().map_while(|run| place(&self.manifests, run));
        let (pack, mut range) = places.next().unwrap_or((PackId::of(b""), 0..0));
        let mut runs = 1;
        for (other, next) in places {
            if other != pack || next.start != range.end || next.end - range.start > REQUEST {
                break;
            }
            range.end = next.end;
            runs += 1;
        }
        (pack, range, runs)
    }
}

/// Where a run lies at the origin.
fn place(manifests: &[Arc<Manifest>], run: &Run) -> Option<(PackId, Range<u64>)> {
    let manifest = manifests.get(run.manifest as usize)?;
    let first = manifest.chunk(run.first)?;
    let pack = manifest.packs().get(first.pack as usize)?;
    Some((*pack, first.pack_offset..first.pack_offset + u64::from(run.length)))
}
