//! Taking a file apart.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use super::look::{Kind, Learned, Look, Looked};
use super::plan::{self, Part, Plan};
use super::span::Span;
use super::{Limits, RecipeError, ar, gzip, tar, zip};

/// What is shorter is not looked into.
const SHORTEST: u64 = 64;
/// Contents may be so many times as long as the file, and some more: what unpacks to more is a bomb.
const EXPANDS: u64 = 300;
const AND_MORE: u64 = 64 << 20;
/// Members that are looked into together: so many bytes and so many of them at the most.
const BATCH: u64 = 32 << 20;
const BATCH_ITEMS: usize = 256;
/// Between the names of an archive and of what is in it.
const WITHIN: char = '!';
/// What has no name of its own, and is no archive: all of the file, or all that is in a stream.
const WHOLE: &str = "content";
/// What an encoder chose, as a member.
const CHOICES: &str = "choices";

/// Why a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For its contents alone: all that can be unpacked is. What others write patches against.
    ToRead {
        /// With what encoders of deflate chose among the contents.
        choices: bool,
    },
    /// To rebuild it: what cannot be compressed again, bit for bit, stays as it is.
    ToRebuild {
        /// There is an older version. So look into what takes long to compress, xz and zstd, and into what
        /// only spares something as a patch.
        slow: bool,
    },
}

/// A part of the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name within the archive, after the archive's; empty for what holds an archive together.
    pub path: String,
    /// Where it is in the contents, in bytes.
    pub range: Range<u64>,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// How the contents become the file; only good if it was opened to be rebuilt.
    pub plan: Plan,
    /// The parts of the contents, in order; together they are all of it.
    pub members: Vec<Member>,
    /// What stays as it was shipped, and why.
    pub left: Vec<(String, String)>,
    /// Bytes of contents.
    pub length: u64,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
}

/// A member of an archive: where its bytes are.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) name: String,
    pub(super) deflated: bool,
}

/// Opens a file, and writes its contents to `out`. What is unpacked on the way lies in `folder`.
///
/// # Errors
/// [`RecipeError`]. Whatever the file is, it is not an error that it cannot be opened: its contents are the
/// file then.
pub fn open(
    file: &Span,
    how: How,
    limits: &Limits,
    folder: &Path,
    out: &mut dyn Write,
) -> Result<Opened, RecipeError> {
    let opened =
        Opened { plan: Plan::default(), members: Vec::new(), left: Vec::new(), length: 0, hash: [0; 32] };
    let most = file.len().saturating_mul(EXPANDS).saturating_add(AND_MORE);
    let limits = &Limits { contents: limits.contents.min(most), ..*limits };
    let look = Look { how, limits, folder };
    let mut walk = Walk { look, out, hasher: blake3::Hasher::new(), opened };
    let mut parts = Vec::new();
    walk.any(file, "", 0, &mut parts)?;
    let Walk { mut opened, hasher, .. } = walk;
    opened.plan.parts = parts;
    opened.hash = *hasher.finalize().as_bytes();
    Ok(opened)
}

/// What can be taken apart, by how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    Ar,
    Tar,
    Gzip,
    Xz,
    Zstd,
}

impl Format {
    fn of(span: &Span) -> io::Result<Option<Self>> {
        let head = span.bytes(0, tar::HEAD)?;
        Ok(match () {
            () if zip::is(&head) => Some(Self::Zip),
            () if ar::is(&head) => Some(Self::Ar),
            () if tar::is(&head) => Some(Self::Tar),
            () if gzip::is(&head) => Some(Self::Gzip),
            () if head.starts_with(b"\xfd7zXZ\0") => Some(Self::Xz),
            () if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => Some(Self::Zstd),
            () => None,
        })
    }
}

/// Whether a file begins as something that can be taken apart.
///
/// # Errors
/// If it cannot be read.
pub fn is_known(file: &Span) -> io::Result<bool> {
    Ok(Format::of(file)?.is_some())
}

struct Walk<'a> {
    look: Look<'a>,
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    opened: Opened,
}

impl Walk<'_> {
    /// Something: an archive, a stream, or plain bytes.
    fn any(&mut self, span: &Span, path: &str, depth: u32, parts: &mut Vec<Part>) -> Result<(), RecipeError> {
        let name = if path.is_empty() { WHOLE } else { path };
        if depth >= self.look.limits.depth || span.len() < SHORTEST {
            return self.raw(span, name, parts);
        }
        let room = self.look.limits.members.saturating_sub(self.opened.members.len() / 2);
        match Format::of(span)? {
            Some(Format::Zip) => self.archive(span, zip::items(span, room)?, path, depth, parts),
            Some(Format::Ar) => self.archive(span, ar::items(span, room)?, path, depth, parts),
            Some(Format::Tar) => self.archive(span, tar::items(span, room)?, path, depth, parts),
            Some(Format::Gzip) => self.gzip(span, path, depth, parts),
            Some(Format::Xz) => self.coded(span, path, depth, parts, Kind::Xz),
            Some(Format::Zstd) => self.coded(span, path, depth, parts, Kind::Zstd),
            None => self.raw(span, name, parts),
        }
    }

    /// Bytes as they are.
    fn raw(&mut self, span: &Span, path: &str, parts: &mut Vec<Part>) -> Result<(), RecipeError> {
        if span.is_empty() {
            return Ok(());
        }
        let start = self.opened.length;
        if start.saturating_add(span.len()) > self.look.limits.contents {
            return Err(RecipeError::TooMuch(self.look.limits.contents));
        }
        if self.opened.members.len() >= self.look.limits.members * 2 {
            return Err(RecipeError::TooMany(self.look.limits.members));
        }
        let mut reader = span.reader();
        loop {
            let bytes = io::BufRead::fill_buf(&mut reader)?;
            if bytes.is_empty() {
                break;
            }
            self.hasher.update(bytes);
            self.out.write_all(bytes)?;
            let read = bytes.len();
            io::BufRead::consume(&mut reader, read);
        }
        self.opened.length += span.len();
        let range = start..self.opened.length;
        self.opened.members.push(Member { path: path.to_owned(), range });
        plan::push(parts, Part::Raw(span.len()));
        Ok(())
    }

    fn archive(
        &mut self,
        span: &Span,
        items: Vec<Item>,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
    ) -> Result<(), RecipeError> {
        if items.is_empty() {
            return self.raw(span, path, parts);
        }
        let mut at = 0;
        for batch in batches(&items) {
            let opened = |item: &&Item| item.deflated && item.length >= SHORTEST;
            let streams = batch.iter().filter(opened).map(|item| span.part(item.start, item.length));
            let mut looked = self.look.many(&streams.collect::<Vec<_>>()).into_iter();
            for item in batch {
                self.raw(&span.part(at, item.start - at), "", parts)?;
                let name = format!("{path}{WITHIN}{}", item.name);
                let member = span.part(item.start, item.length);
                match item.deflated {
                    true if opened(&item) => {
                        let looked = looked.next().transpose()?.flatten();
                        self.whole(&member, looked, &name, depth, parts)?;
                    }
                    true => self.raw(&member, &name, parts)?,
                    false => self.any(&member, &name, depth + 1, parts)?,
                }
                at = item.start + item.length;
            }
        }
        self.raw(&span.from(at), "", parts)
    }

    /// Several streams may follow each other.
    fn gzip(
        &mut self,
        span: &Span,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
    ) -> Result<(), RecipeError> {
        let mut at = 0;
        while let Some(header) = gzip::header(&span.from(at))? {
            let body = span.from(at + header);
            let Some(looked) = self.look.beginning(&body)? else { break };
            let length = looked.length;
            self.raw(&span.part(at, header), "", parts)?;
            self.stream(&body.part(0, length), looked, path, depth, parts)?;
            let trailer = body.from(length).part(0, gzip::TRAILER);
            self.raw(&trailer, "", parts)?;
            at += header + length + trailer.len();
        }
        self.raw(&span.from(at), if at == 0 { path } else { "" }, parts)
    }

    /// A stream that is all of a span, and takes long to compress.
    fn coded(
        &mut self,
        span: &Span,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
        kind: Kind,
    ) -> Result<(), RecipeError> {
        if self.look.how == (How::ToRebuild { slow: false }) {
            return self.raw(span, path, parts);
        }
        let looked = self.look.whole(span, kind)?;
        self.whole(span, looked, path, depth, parts)
    }

    /// A stream that is all of a span, or is none.
    fn whole(
        &mut self,
        span: &Span,
        looked: Option<Looked>,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
    ) -> Result<(), RecipeError> {
        match looked {
            Some(looked) => self.stream(span, looked, path, depth, parts),
            None => {
                self.opened.left.push((path.to_owned(), "it cannot be unpacked".to_owned()));
                self.raw(span, path, parts)
            }
        }
    }

    /// A stream and what is in it.
    fn stream(
        &mut self,
        span: &Span,
        looked: Looked,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
    ) -> Result<(), RecipeError> {
        match looked.learned {
            Ok(learned) => {
                let mut inside = Vec::new();
                if let Learned::Deflate(choices) = &learned {
                    // They are no part of the plan: its part for the stream says how long they are.
                    self.raw(choices, &format!("{path}{WITHIN}{CHOICES}"), &mut Vec::new())?;
                }
                self.any(&looked.contents, path, depth + 1, &mut inside)?;
                learned.with(inside).into_iter().for_each(|part| plan::push(parts, part));
                Ok(())
            }
            Err(why) => {
                self.opened.left.push((path.to_owned(), why));
                self.raw(span, path, parts)
            }
        }
    }
}

/// Items that are looked into together: some, and not too much of them.
fn batches(items: &[Item]) -> Vec<&[Item]> {
    let (mut batches, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = |item: &&Item| {
            sum += item.length;
            sum <= BATCH
        };
        let count = rest.iter().take(BATCH_ITEMS).take_while(fits).count().max(1);
        let (batch, after) = rest.split_at(count);
        batches.push(batch);
        rest = after;
    }
    batches
}
