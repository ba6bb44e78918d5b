//! Taking a file apart.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use super::plan::{self, Part, Plan};
use super::span::{Scratch, Span};
use super::{Limits, RecipeError, ar, deflate, gzip, tar, xz, zip, zstd};

/// What is shorter is not looked into.
const SHORTEST: u64 = 64;
/// Contents may be so many times as long as the file, and some more: what unpacks to more is a bomb.
const EXPANDS: u64 = 300;
const AND_MORE: u64 = 64 << 20;
/// Between the names of an archive and of what is in it.
const WITHIN: char = '!';

/// Why a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For its contents alone: all that can be unpacked is. What others write patches against.
    ToRead,
    /// To rebuild it: what cannot be compressed again, bit for bit, stays as it is.
    ToRebuild {
        /// Look into what takes long to compress: xz and zstd.
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
    let mut walk = Walk { how, limits, folder, out, hasher: blake3::Hasher::new(), opened };
    let mut parts = Vec::new();
    walk.any(file, "", 0, &mut parts)?;
    let Walk { mut opened, hasher, .. } = walk;
    opened.plan.parts = parts;
    opened.hash = *hasher.finalize().as_bytes();
    Ok(opened)
}

struct Walk<'a> {
    how: How,
    limits: &'a Limits,
    folder: &'a Path,
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    opened: Opened,
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deflate,
    Xz,
    Zstd,
}

/// How a stream can be compressed again.
enum Learned {
    Deflate(Vec<plan::Piece>),
    Xz(xz::Xz),
    Zstd(zstd::Zstd),
    /// Nobody has asked.
    Nothing,
}

impl Learned {
    fn with(self, inside: Vec<Part>) -> Vec<Part> {
        match self {
            Self::Deflate(pieces) => vec![Part::Deflate(pieces, inside)],
            Self::Xz(xz) => vec![Part::Xz(xz, inside)],
            Self::Zstd(zstd) => vec![Part::Zstd(zstd, inside)],
            Self::Nothing => inside,
        }
    }
}

impl Walk<'_> {
    /// Something: an archive, a stream, or plain bytes.
    fn any(&mut self, span: &Span, path: &str, depth: u32, parts: &mut Vec<Part>) -> Result<(), RecipeError> {
        if depth >= self.limits.depth || span.len() < SHORTEST {
            return self.raw(span, path, parts);
        }
        let head = span.bytes(0, tar::HEAD)?;
        let room = self.limits.members.saturating_sub(self.opened.members.len() / 2);
        match () {
            () if zip::is(&head) => self.archive(span, zip::items(span, room)?, path, depth, parts),
            () if ar::is(&head) => self.archive(span, ar::items(span, room)?, path, depth, parts),
            () if tar::is(&head) => self.archive(span, tar::items(span, room)?, path, depth, parts),
            () if gzip::is(&head) => self.gzip(span, path, depth, parts),
            () if head.starts_with(b"\xfd7zXZ\0") => self.coded(span, path, depth, parts, Kind::Xz),
            () if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => {
                self.coded(span, path, depth, parts, Kind::Zstd)
            }
            () => self.raw(span, path, parts),
        }
    }

    /// Bytes as they are.
    fn raw(&mut self, span: &Span, path: &str, parts: &mut Vec<Part>) -> Result<(), RecipeError> {
        if span.is_empty() {
            return Ok(());
        }
        let start = self.opened.length;
        if start.saturating_add(span.len()) > self.limits.contents {
            return Err(RecipeError::TooMuch(self.limits.contents));
        }
        if self.opened.members.len() >= self.limits.members * 2 {
            return Err(RecipeError::TooMany(self.limits.members));
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
        for item in items {
            self.raw(&span.part(at, item.start - at), "", parts)?;
            let name = format!("{path}{WITHIN}{}", item.name);
            let member = span.part(item.start, item.length);
            if item.deflated {
                self.coded(&member, &name, depth, parts, Kind::Deflate)?;
            } else {
                self.any(&member, &name, depth + 1, parts)?;
            }
            at = item.start + item.length;
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
            let mut scratch = Scratch::new(self.folder, self.limits.contents)?;
            let length = deflate::unpack(&body, &mut scratch);
            let (Some(length), contents) = self.unpacked(length, scratch)? else { break };
            self.raw(&span.part(at, header), "", parts)?;
            self.stream(&body.part(0, length), &contents, Kind::Deflate, path, depth, parts)?;
            let trailer = body.from(length).part(0, gzip::TRAILER);
            self.raw(&trailer, "", parts)?;
            at += header + length + trailer.len();
        }
        self.raw(&span.from(at), if at == 0 { path } else { "" }, parts)
    }

    /// A stream that is all of a span.
    fn coded(
        &mut self,
        span: &Span,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
        kind: Kind,
    ) -> Result<(), RecipeError> {
        let slow = kind != Kind::Deflate;
        if span.len() < SHORTEST || (slow && self.how == How::ToRebuild { slow: false }) {
            return self.raw(span, path, parts);
        }
        let mut scratch = Scratch::new(self.folder, self.limits.contents)?;
        let whole = match kind {
            Kind::Deflate => deflate::unpack(span, &mut scratch).map(|length| length == Some(span.len())),
            Kind::Xz => xz::unpack(span, &mut scratch),
            Kind::Zstd => zstd::unpack(span, &mut scratch),
        };
        match self.unpacked(whole, scratch)? {
            (true, contents) => self.stream(span, &contents, kind, path, depth, parts),
            (false, _) => {
                self.opened.left.push((path.to_owned(), "it cannot be unpacked".to_owned()));
                self.raw(span, path, parts)
            }
        }
    }

    /// What unpacking gave, or that it was more than it may be.
    fn unpacked<T>(
        &self,
        result: Result<T, RecipeError>,
        scratch: Scratch,
    ) -> Result<(T, Span), RecipeError> {
        if scratch.is_over() {
            return Err(RecipeError::TooMuch(self.limits.contents));
        }
        Ok((result?, scratch.close()?))
    }

    /// A stream and what is in it.
    fn stream(
        &mut self,
        span: &Span,
        contents: &Span,
        kind: Kind,
        path: &str,
        depth: u32,
        parts: &mut Vec<Part>,
    ) -> Result<(), RecipeError> {
        match self.learn(span, contents, kind)? {
            Ok(learned) => {
                let mut inside = Vec::new();
                self.any(contents, path, depth + 1, &mut inside)?;
                learned.with(inside).into_iter().for_each(|part| plan::push(parts, part));
                Ok(())
            }
            Err(why) => {
                self.opened.left.push((path.to_owned(), why));
                self.raw(span, path, parts)
            }
        }
    }

    fn learn(
        &self,
        span: &Span,
        contents: &Span,
        kind: Kind,
    ) -> Result<Result<Learned, String>, RecipeError> {
        if self.how == How::ToRead {
            return Ok(Ok(Learned::Nothing));
        }
        Ok(match kind {
            Kind::Deflate => deflate::learn(span, contents.len())?
                .map(Learned::Deflate)
                .ok_or_else(|| "what compressed it is not known".to_owned()),
            Kind::Xz => xz::learn(span, contents)?.map(Learned::Xz),
            Kind::Zstd => zstd::learn(span, contents)?.map(Learned::Zstd),
        })
    }
}
