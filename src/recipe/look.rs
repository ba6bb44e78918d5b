//! Looking into one compressed stream: what is in it, and how it can be compressed again.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::open::How;
use super::plan::Part;
use super::span::{Scratch, Span};
use super::{Limits, RecipeError, deflate, xz, zstd};

/// Choices that are more than this part of a stream are dear.
const DEAR: u64 = 8;
/// Streams beside each other are looked into on so many cores at the most.
const CORES: usize = 4;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Deflate,
    Xz,
    Zstd,
}

/// How a stream can be compressed again.
#[derive(Debug)]
pub(super) enum Learned {
    /// With what its encoder chose.
    Deflate(Span),
    Xz(xz::Xz),
    Zstd(zstd::Zstd),
    /// Nobody has asked.
    Nothing,
}

impl Learned {
    pub(super) fn with(self, inside: Vec<Part>) -> Vec<Part> {
        match self {
            Self::Deflate(choices) => vec![Part::Deflate(choices.len(), inside)],
            Self::Xz(xz) => vec![Part::Xz(xz, inside)],
            Self::Zstd(zstd) => vec![Part::Zstd(zstd, inside)],
            Self::Nothing => inside,
        }
    }
}

/// A stream that was looked into.
#[derive(Debug)]
pub(super) struct Looked {
    /// What is in it.
    pub(super) contents: Span,
    /// How long the stream is, in bytes.
    pub(super) length: u64,
    /// How it can be compressed again, or why that is not known.
    pub(super) learned: Result<Learned, String>,
}

/// How streams are looked into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) how: How,
    pub(super) limits: &'a Limits,
    /// Where what is unpacked lies.
    pub(super) folder: &'a Path,
}

type MaybeLooked = Result<Option<Looked>, RecipeError>;

impl Look<'_> {
    /// A stream that is all of a span; none if it cannot be unpacked.
    pub(super) fn whole(&self, span: &Span, kind: Kind) -> MaybeLooked {
        self.look(span, kind, &self.budget())
    }

    /// Several of deflate, on several cores. Together they unpack to no more than one may.
    pub(super) fn many(&self, spans: &[Span]) -> Vec<MaybeLooked> {
        let budget = self.budget();
        let done: Vec<Mutex<Option<MaybeLooked>>> = spans.iter().map(|_| Mutex::default()).collect();
        // The longest first, so that no core waits for another at the end.
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(spans[at].len()));
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let looked = self.look(&spans[at], Kind::Deflate, &budget);
                if let Ok(mut done) = done[at].lock() {
                    *done = Some(looked);
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(CORES).min(spans.len());
        std::thread::scope(|scope| {
            (1..cores).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let died = || RecipeError::Codec("a thread that unpacks died".to_owned());
        done.into_iter().map(|it| it.into_inner().ok().flatten().unwrap_or_else(|| Err(died()))).collect()
    }

    /// A stream of deflate that begins here, and ends somewhere.
    pub(super) fn beginning(&self, span: &Span) -> MaybeLooked {
        let mut scratch = Scratch::new(self.folder, self.budget())?;
        let length = deflate::unpack(span, &mut scratch);
        let (Some(length), contents) = self.unpacked(length, scratch)? else { return Ok(None) };
        let learned = self.learn(&span.part(0, length), &contents, Kind::Deflate)?;
        Ok(Some(Looked { contents, length, learned }))
    }

    fn budget(&self) -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(self.limits.contents))
    }

    fn look(&self, span: &Span, kind: Kind, budget: &Arc<AtomicU64>) -> MaybeLooked {
        let mut scratch = Scratch::new(self.folder, budget.clone())?;
        let whole = match kind {
            Kind::Deflate => deflate::unpack(span, &mut scratch).map(|length| length == Some(span.len())),
            Kind::Xz => xz::unpack(span, &mut scratch),
            Kind::Zstd => zstd::unpack(span, &mut scratch),
        };
        let (true, contents) = self.unpacked(whole, scratch)? else { return Ok(None) };
        let learned = self.learn(span, &contents, kind)?;
        Ok(Some(Looked { contents, length: span.len(), learned }))
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

    fn learn(
        &self,
        span: &Span,
        contents: &Span,
        kind: Kind,
    ) -> Result<Result<Learned, String>, RecipeError> {
        if let How::ToRead { choices } = self.how {
            let choices = if choices && kind == Kind::Deflate { self.choices(span, contents)? } else { None };
            return Ok(Ok(choices.map_or(Learned::Nothing, Learned::Deflate)));
        }
        Ok(match kind {
            Kind::Deflate => match self.choices(span, contents)? {
                // As patches they are little, and else they are what is to be spared.
                Some(choices)
                    if self.how != (How::ToRebuild { slow: true }) && choices.len() * DEAR > span.len() =>
                {
                    Err("its encoder chooses in a way of its own".to_owned())
                }
                Some(choices) => Ok(Learned::Deflate(choices)),
                None => Err("it has blocks that no encoder is known to write".to_owned()),
            },
            Kind::Xz => xz::learn(span, contents)?.map(Learned::Xz),
            Kind::Zstd => zstd::learn(span, contents)?.map(Learned::Zstd),
        })
    }

    /// What the encoder of a deflate stream chose, if that gives the stream again.
    fn choices(&self, span: &Span, contents: &Span) -> Result<Option<Span>, RecipeError> {
        let mut scratch = Scratch::new(self.folder, Arc::new(AtomicU64::new(deflate::MOST)))?;
        let proved = deflate::proved(span, contents, &mut scratch);
        if scratch.is_over() || !proved? {
            return Ok(None);
        }
        Ok(Some(scratch.close()?))
    }
}
