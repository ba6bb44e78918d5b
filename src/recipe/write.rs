//! One recipe, written into a file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use bytes::Bytes;
use tempfile::NamedTempFile;

use super::delta::{self, Cut};
use super::{How, Limits, Opened, PARSE, PARSE_CHOICES, RecipeError, Span, open};
use crate::core::id::{BlobId, RecipeId};
use crate::core::recipe::{BEGINNING, Block, Head, MAX_HEAD, Reference, Way, Work};

/// Levels of zstd: for what stands alone, which has to keep up; for patches; and for patches of much.
const ALONE: i32 = 9;
const PATCH: i32 = 19;
const LARGE_PATCH: i32 = 12;
/// Contents are much from here on, in bytes.
const LARGE: u64 = 512 << 20;
const HEAD: i32 = 19;
/// What encoders of deflate chose is dear when it is more than this part of the contents.
const DEAR: u64 = 2000;
/// Blocks that are made at a time: each takes some 200 MB at the most.
const AT_ONCE: usize = 2;

/// A file that was opened, with its contents.
#[derive(Debug)]
pub struct Contents {
    /// How it is put together.
    pub opened: Opened,
    contents: Span,
}

impl Contents {
    /// Opens a file; what is inside goes into `folder`.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(file: &Span, how: How, folder: &Path) -> Result<Self, RecipeError> {
        let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?);
        let opened = open(file, how, &Limits::default(), folder, &mut out)?;
        let contents = Span::of(out.into_inner().map_err(io::IntoInnerError::into_error)?)?;
        Ok(Self { opened, contents })
    }

    /// Whether it becomes shorter without an older version: only what deflate has packed does.
    pub fn spares_alone(&self) -> bool {
        self.opened.plan.work()[0] > 0
    }

    /// Whether what encoders chose is so much that it is to be a patch, too.
    pub fn has_dear_choices(&self) -> bool {
        self.opened.plan.choices() * DEAR > self.opened.length
    }
}

/// A recipe has to be shorter than this part of what it replaces, in percent.
const PAYS: u64 = 97;

/// The version that a recipe takes for granted.
#[derive(Debug)]
pub struct Older {
    /// Its name.
    pub blob: BlobId,
    /// Bytes of it.
    pub size: u64,
    /// What is inside it.
    pub contents: Contents,
}

/// A recipe's object, in a file.
#[derive(Debug)]
pub struct Written {
    /// What an offer says of it.
    pub way: Way,
    /// The object.
    pub file: NamedTempFile,
}

impl Written {
    /// Whether it is worth having instead of so many bytes.
    pub fn pays(&self, replaced: u64) -> bool {
        self.way.bytes.saturating_mul(100) < replaced.saturating_mul(PAYS)
    }
}

/// Writes the recipe for a blob.
///
/// # Errors
/// [`RecipeError`]: the scratch space is full, or there is no memory.
pub fn write(
    blob: BlobId,
    size: u64,
    new: &Contents,
    old: Option<&Older>,
    folder: &Path,
) -> Result<Written, RecipeError> {
    let none = Vec::new();
    let cuts = delta::pair(&new.opened.members, old.map_or(&none, |old| &old.contents.opened.members));
    let mut packed = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?);
    let mut blocks = Vec::with_capacity(cuts.len());
    for cuts in cuts.chunks(AT_ONCE) {
        for (cut, stored) in cuts.iter().zip(together(cuts, new, old)?) {
            packed.write_all(&stored)?;
            let length = (cut.range.end - cut.range.start) as u32;
            blocks.push(Block { length, stored: stored.len() as u32, from: cut.from.clone() });
        }
    }
    let mut packed = packed.into_inner().map_err(io::IntoInnerError::into_error)?;
    let against = old.map(|old| Reference {
        blob: old.blob,
        size: old.size,
        parse: if new.has_dear_choices() { PARSE_CHOICES } else { PARSE },
        contents: old.contents.opened.length,
        hash: old.contents.opened.hash,
    });
    let plan = Bytes::from(new.opened.plan.encode());
    let [deflate, xz, zstd] = new.opened.plan.work();
    let work = Work { contents: new.opened.length, deflate, xz, zstd };
    let head = Head { blob, size, plan, against, blocks };
    let (recipe, bytes, file) = assemble(&head, &mut packed, folder)?;
    let against = head.against.map(|it| (it.blob, it.size, it.contents));
    Ok(Written { way: Way { recipe, bytes, against, work }, file })
}

/// Some blocks, each on a thread of its own.
fn together(cuts: &[Cut], new: &Contents, old: Option<&Older>) -> Result<Vec<Vec<u8>>, RecipeError> {
    std::thread::scope(|scope| {
        let work: Vec<_> = cuts.iter().map(|cut| scope.spawn(move || block(cut, new, old))).collect();
        let died = || RecipeError::Codec("a compressor died".to_owned());
        work.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died()))).collect()
    })
}

fn block(cut: &Cut, new: &Contents, old: Option<&Older>) -> Result<Vec<u8>, RecipeError> {
    let content = new.contents.bytes(cut.range.start, (cut.range.end - cut.range.start) as usize)?;
    let level = if new.opened.length > LARGE { LARGE_PATCH } else { PATCH };
    match old {
        Some(old) if !cut.from.is_empty() => {
            delta::make(&content, &old.contents.contents.ranges(&cut.from)?, level)
        }
        Some(_) => delta::compress(&content, level),
        None => delta::compress(&content, ALONE),
    }
}

/// The object: its beginning, its head, its blocks.
fn assemble(
    head: &Head,
    blocks: &mut File,
    folder: &Path,
) -> Result<(RecipeId, u64, NamedTempFile), RecipeError> {
    let encoded = head.encode();
    let packed = zstd::bulk::compress(&encoded, HEAD)?;
    if encoded.len() > MAX_HEAD as usize || packed.len() > MAX_HEAD as usize {
        return Err(RecipeError::Codec("what holds its parts together is too long".to_owned()));
    }
    let file = NamedTempFile::new_in(folder)?;
    let mut out =
        Hashed { out: BufWriter::with_capacity(1 << 20, file.as_file()), hasher: blake3::Hasher::new() };
    out.write_all(&Head::beginning(packed.len() as u32, encoded.len() as u32))?;
    out.write_all(&packed)?;
    blocks.rewind()?;
    let bytes = (BEGINNING + packed.len()) as u64 + io::copy(blocks, &mut out)?;
    out.flush()?;
    let id = RecipeId::from_bytes(*out.hasher.finalize().as_bytes());
    drop(out);
    Ok((id, bytes, file))
}

/// Hashes what is written through it.
struct Hashed<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
