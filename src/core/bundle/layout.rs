//! Which chunks a bundle has, and in which order.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::contents::{Contents, Entry};
use super::head::HEAD;
use super::run::{Form, Run};
use super::writer::{END, Writer};
use super::{BundleError, MAX_MANIFESTS, MAX_PACKAGES, MAX_RUN};
use crate::core::chunkset::ChunkSet;
use crate::core::id::ChunkId;
use crate::core::manifest::{Chunk, Manifest};

/// A package that goes into a bundle.
#[derive(Debug, Clone)]
pub struct Item {
    /// What the bundle says of it.
    pub entry: Entry,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// The manifest of the older version whose chunks are left out.
    pub without: Option<Arc<Manifest>>,
}

/// A bundle, laid out: all but the payload of its runs.
#[derive(Debug)]
pub struct Layout {
    /// The bundle's first bytes: all before the runs.
    pub beginning: Bytes,
    /// What follows, in this order.
    pub runs: Vec<Run>,
    /// What the runs' heads and the end are written with.
    pub writer: Writer,
    /// The manifests that the runs are of.
    pub manifests: Vec<Arc<Manifest>>,
    /// What is in it.
    pub contents: Contents,
}

impl Layout {
    /// Lays out a bundle: each chunk is in it once, whatever has it. `origin` and `root` are for people; see
    /// [`Contents`].
    ///
    /// # Errors
    /// [`BundleError::TooMuch`].
    pub fn new(
        (origin, root): (String, [u8; 32]),
        catalog: impl IntoIterator<Item = (String, Bytes)>,
        items: Vec<Item>,
        form: Form,
    ) -> Result<Self, BundleError> {
        if items.len() > MAX_PACKAGES {
            return Err(BundleError::TooMuch("there are more than 4096 packages"));
        }
        let (mut runs, mut manifests, mut there) = (Vec::new(), Vec::<Arc<Manifest>>::new(), HashSet::new());
        for item in &items {
            let number = manifests.iter().position(|known| known.id() == item.manifest.id());
            let number = number.unwrap_or_else(|| {
                manifests.push(item.manifest.clone());
                manifests.len() - 1
            });
            let wanted = wanted(item, &mut there);
            cut(number as u32, &item.manifest, &wanted, form, &mut runs);
        }
        if manifests.iter().map(|it| it.encoded().len() as u64).sum::<u64>() > MAX_MANIFESTS {
            return Err(BundleError::TooMuch("their manifests have more than 256 MiB"));
        }
        let contents = Contents {
            origin,
            root,
            packages: items.into_iter().map(|item| item.entry).collect(),
            runs: runs.len() as u64,
            bytes: runs.iter().map(|run| u64::from(run.length)).sum(),
        };
        let (mut writer, mut beginning) = Writer::begin(&contents, catalog)?;
        manifests.iter().for_each(|manifest| beginning.extend(writer.manifest(manifest)));
        Ok(Self { beginning: beginning.into(), runs, writer, manifests, contents })
    }
}

impl Layout {
    /// How long the bundle is, in bytes.
    pub fn length(&self) -> u64 {
        let heads = (self.runs.len() as u64 + 1) * HEAD as u64;
        self.beginning.len() as u64 + heads + self.contents.bytes + u64::from(END)
    }
}

/// The chunks of a package that neither its older version has nor the bundle so far.
fn wanted(item: &Item, there: &mut HashSet<ChunkId>) -> ChunkSet {
    let older: HashSet<ChunkId> =
        item.without.iter().flat_map(|without| without.chunks()).map(|chunk| chunk.id).collect();
    let chunks = (0..).zip(item.manifest.chunks()).filter(|(_, chunk)| !older.contains(&chunk.id));
    chunks.filter(|(_, chunk)| there.insert(chunk.id)).map(|(index, _)| index).collect()
}

/// Cuts chunks into runs: consecutive, not too long, and for a packed form back to back in one pack.
fn cut(number: u32, manifest: &Manifest, wanted: &ChunkSet, form: Form, runs: &mut Vec<Run>) {
    let mut last: Option<(u32, Chunk)> = None;
    let mut content = 0;
    for index in wanted.iter() {
        let Some(&chunk) = manifest.chunk(index) else { continue };
        let length = if form == Form::Packed { chunk.stored } else { chunk.length };
        let follows = last.is_some_and(|(before, it)| {
            let packed = (it.pack, it.pack_range().end) == (chunk.pack, chunk.pack_offset);
            before + 1 == index && (form == Form::Plain || packed)
        });
        match runs.last_mut() {
            Some(run) if follows && content + chunk.length <= MAX_RUN => {
                (run.count, run.length) = (run.count + 1, run.length + length);
                content += chunk.length;
            }
            _ => {
                runs.push(Run { manifest: number, first: index, count: 1, length, form });
                content = chunk.length;
            }
        }
        last = Some((index, chunk));
    }
}
