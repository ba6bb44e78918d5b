//! How contents become a file: which of them are compressed again, and how.

use std::fmt;

use super::RecipeError;
use super::deflate;
use super::xz::Xz;
use super::zstd::Zstd;

/// The longest plan that is read, in bytes: what is read takes some thirty times as much memory.
pub const MAX_PLAN: usize = 8 << 20;
/// The deepest nesting that is followed.
const MAX_DEPTH: u32 = 8;
/// One part of a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of the contents, as they are.
    Raw(u64),
    /// What is in it, compressed with deflate: so many bytes of the contents say what its encoder chose, before those
    /// in it.
    Deflate(u64, Vec<Part>),
    /// With xz.
    Xz(Xz, Vec<Part>),
    /// With zstd.
    Zstd(Zstd, Vec<Part>),
}

/// How to put a file together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// Adds a part; raw bytes join those before.
pub(super) fn push(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (_, Part::Raw(0)) => {}
        (Some(Part::Raw(length)), Part::Raw(more)) => *length += more,
        (_, part) => parts.push(part),
    }
}

/// Bytes of contents that these parts take.
pub(super) fn contents(parts: &[Part]) -> u64 {
    let one = |part: &Part| match part {
        Part::Raw(length) => *length,
        Part::Xz(_, inside) | Part::Zstd(_, inside) => contents(inside),
        Part::Deflate(choices, inside) => contents(inside).saturating_add(*choices),
    };
    parts.iter().map(one).fold(0, u64::saturating_add)
}

impl Plan {
    /// Bytes of contents that it takes.
    pub fn contents(&self) -> u64 {
        contents(&self.parts)
    }

    /// What it takes to follow it: bytes that are compressed with deflate, xz and zstd.
    pub fn work(&self) -> [u64; 3] {
        fn add(parts: &[Part], sums: &mut [u64; 3]) {
            for part in parts {
                let (which, inside) = match part {
                    Part::Raw(_) => continue,
                    Part::Deflate(_, inside) => (0, inside),
                    Part::Xz(_, inside) => (1, inside),
                    Part::Zstd(_, inside) => (2, inside),
                };
                // What is packed twice is more work, and longer than its contents.
                sums[which] = sums[which].saturating_add(contents(inside));
                add(inside, sums);
            }
        }
        let mut sums = [0; 3];
        add(&self.parts, &mut sums);
        sums
    }

    /// Bytes of contents that say what encoders chose.
    pub fn choices(&self) -> u64 {
        fn sum(parts: &[Part]) -> u64 {
            let one = |part: &Part| match part {
                Part::Raw(_) => 0,
                Part::Deflate(choices, inside) => choices.saturating_add(sum(inside)),
                Part::Xz(_, inside) | Part::Zstd(_, inside) => sum(inside),
            };
            parts.iter().map(one).fold(0, u64::saturating_add)
        }
        sum(&self.parts)
    }

    /// Whether the contents are the file as it is.
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Raw(_)))
    }

    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::new();
        write_parts(&self.parts, &mut encoded);
        encoded
    }

    /// Reads an encoding; believes nothing.
    ///
    /// # Errors
    /// [`RecipeError::Malformed`].
    pub fn decode(encoded: &[u8]) -> Result<Self, RecipeError> {
        if encoded.len() > MAX_PLAN {
            return Err(RecipeError::Malformed("it is too long"));
        }
        let mut encoded = Read(encoded);
        let parts = read_parts(&mut encoded, 0)?;
        if !encoded.0.is_empty() {
            return Err(RecipeError::Malformed("something follows its end"));
        }
        Ok(Self { parts })
    }
}

const TOO_SHORT: RecipeError = RecipeError::Malformed("it ends early");

/// Seven bits a byte, the lowest first.
pub(super) fn write(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_parts(parts: &[Part], shape: &mut Vec<u8>) {
    write(shape, parts.len() as u64);
    for part in parts {
        let inside = match part {
            Part::Raw(length) => {
                shape.push(0);
                write(shape, *length);
                continue;
            }
            Part::Deflate(choices, inside) => {
                shape.push(1);
                write(shape, *choices);
                inside
            }
            Part::Xz(xz, inside) => {
                shape.push(2);
                for number in xz.numbers() {
                    write(shape, number);
                }
                inside
            }
            Part::Zstd(zstd, inside) => {
                shape.push(3);
                for number in zstd.numbers() {
                    write(shape, number);
                }
                inside
            }
        };
        write_parts(inside, shape);
    }
}

/// Reads what [`write`] wrote.
pub(super) struct Read<'a>(pub(super) &'a [u8]);

impl<'a> Read<'a> {
    pub(super) fn number(&mut self) -> Result<u64, RecipeError> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(TOO_SHORT)?;
            self.0 = rest;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(RecipeError::Malformed("a number is too large"))
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], RecipeError> {
        let length = usize::try_from(length).map_err(|_| TOO_SHORT)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn read_parts(shape: &mut Read, depth: u32) -> Result<Vec<Part>, RecipeError> {
    if depth > MAX_DEPTH {
        return Err(RecipeError::Malformed("it is nested too deeply"));
    }
    let count = shape.number()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let part = match shape.take(1)? {
            [0] => Part::Raw(shape.number()?),
            [1] => {
                let choices = shape.number()?;
                if choices > deflate::MOST {
                    return Err(RecipeError::Malformed("an encoder's choices are too long"));
                }
                Part::Deflate(choices, read_parts(shape, depth + 1)?)
            }
            [2] => {
                let xz = Xz::of([shape.number()?, shape.number()?, shape.number()?, shape.number()?])?;
                Part::Xz(xz, read_parts(shape, depth + 1)?)
            }
            [3] => {
                let zstd = Zstd::of([shape.number()?, shape.number()?, shape.number()?])?;
                Part::Zstd(zstd, read_parts(shape, depth + 1)?)
            }
            _ => return Err(RecipeError::Malformed("there is a part of an unknown kind")),
        };
        parts.push(part);
    }
    Ok(parts)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [deflate, xz, zstd] = self.work();
        write!(f, "{} bytes inside; deflate {deflate}, xz {xz}, zstd {zstd}", self.contents())
    }
}
