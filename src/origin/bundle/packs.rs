//! The packs of an origin: by range over the WAN, or from a folder of this machine.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use super::super::{Origin, OriginError};
use crate::core::bundle::{Layout, Pieces, Run};
use crate::core::id::PackId;
use crate::core::manifest::Manifest;

/// Bytes that are asked for in one request, at most.
const REQUEST: u64 = 32 << 20;
/// A request that breaks off is taken up again so often in a row.
const TRIES: u32 = 5;
const WAIT: Duration = Duration::from_secs(1);
/// Runs that are checked in one turn of a thread: to hand a turn over costs as much as to check some 200 kB.
const TURN: usize = 4;
/// Turns of checking while more is read.
const AT_ONCE: usize = 3;

/// The payloads of the runs, checked.
pub(super) fn payloads(
    origin: Origin,
    layout: &Layout,
) -> impl Stream<Item = Result<Bytes, OriginError>> + Send + 'static {
    let runs = stream::try_unfold(Packs::new(origin, layout), async |mut packs| {
        let next = packs.next().await?;
        Ok(next.map(|next| (next, packs)))
    });
    let turns = runs.try_chunks(TURN).map_err(|broken| broken.1);
    let checked = turns.map_ok(|turn| async move {
        let check = |(run, manifest, payload): (Run, Arc<Manifest>, Bytes)| {
            check(&run, &manifest, &payload).map(|()| payload)
        };
        let work = tokio::task::spawn_blocking(move || turn.into_iter().map(check).collect::<Vec<_>>());
        work.await.map(stream::iter).map_err(|error| OriginError::Failed(error.to_string()))
    });
    checked.try_buffered(AT_ONCE).try_flatten()
}

/// Every chunk of a run, hashed.
fn check(run: &Run, manifest: &Manifest, payload: &[u8]) -> Result<(), OriginError> {
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
    Ok(())
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
        let place = |run: &Run| place(self.manifests.get(run.manifest as usize)?, run);
        let mut places = self.runs.iter().map_while(place);
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
fn place(manifest: &Manifest, run: &Run) -> Option<(PackId, Range<u64>)> {
    let first = manifest.chunk(run.first)?;
    let pack = manifest.packs().get(first.pack as usize)?;
    Some((*pack, first.pack_offset..first.pack_offset + u64::from(run.length)))
}

/// The packs of an origin that is a folder of this machine, read by several threads.
pub(super) struct Folder {
    packs: PathBuf,
    /// Runs that follow each other mostly lie in one pack.
    last: Mutex<Option<(PackId, Arc<File>)>>,
}

impl Folder {
    pub(super) fn new(origin: &Path) -> Self {
        Self { packs: origin.join("packs"), last: Mutex::default() }
    }

    /// Reads the payload of a run, checked.
    pub(super) fn read(&self, run: &Run, manifest: &Manifest, payload: &mut [u8]) -> Result<(), OriginError> {
        let nowhere =
            || OriginError::Invalid(format!("a manifest of blob {} without its packs", manifest.blob()));
        let (pack, range) = place(manifest, run).ok_or_else(nowhere)?;
        let read = self.open(pack).and_then(|file| file.read_exact_at(payload, range.start));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OriginError::NotFound { path: format!("packs/{pack}") },
            _ => OriginError::Failed(format!("pack {pack}: {error}")),
        })?;
        check(run, manifest, payload)
    }

    fn open(&self, pack: PackId) -> io::Result<Arc<File>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, file)) = &*last
            && *known == pack
        {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.packs.join(pack.to_string()))?);
        *last = Some((pack, file.clone()));
        Ok(file)
    }
}
