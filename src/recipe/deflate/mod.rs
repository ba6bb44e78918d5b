//! Deflate: unpacked, and compressed again as somebody else did, by what its encoder chose.
//!
//! The choices are part of the contents. Most encoders search as zlib does, so what is told is where one has chosen
//! otherwise than [`guess`] would; and the tables of a block, if they are not those that zlib makes ([`tree`]). That is
//! some bytes for zlib, gzip and their kin, and up to half of the stream for others. But the same encoder chooses the
//! same for the same content, and as a patch to the choices of an older version it is next to nothing in any case.
//!
//! First comes a byte for the rules by which is guessed. Then of each block a byte for its kind; how many tokens it
//! has; again and again how many were guessed right and the one that was not (length - 3 in one byte, distance in two;
//! distance 0: a literal, which is in the content); its table. After the last block come the bits that fill its last
//! byte.

mod again;
mod bits;
mod guess;
mod learn;
mod prove;
mod tree;
mod unpack;

pub(super) use again::Again;
use bits::{DISTANCES, LENGTHS};
pub(super) use prove::proved;
pub(super) use unpack::unpack;

/// The end of a block, as a symbol, and the first symbol of a length.
const STOP: usize = 256;
const FIRST_LENGTH: usize = 257;
/// The most that is taken for one stream, in bytes: it is held in memory.
pub(super) const MOST: u64 = 96 << 20;
/// The most tokens of a block.
const MOST_TOKENS: usize = 2 << 20;
/// In which order the lengths of the codes for lengths are sent.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// The kinds of blocks; a mark of the last one; and of one whose tables are those of zlib.
const STORED: u8 = 0;
const FIXED: u8 = 1;
const TABLES: u8 = 2;
const LAST: u8 = 4;
const BY_ZLIB: u8 = 8;

/// What an encoder chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// The next byte as it is.
    Literal,
    /// So many bytes as they were so far back.
    Match { length: u16, distance: u16 },
}

/// The symbol of a length, and of a distance.
fn length_symbol(length: u16) -> usize {
    LENGTHS.partition_point(|(base, _)| *base <= length).max(1) - 1
}

fn distance_symbol(distance: u16) -> usize {
    DISTANCES.partition_point(|(base, _)| *base <= distance).max(1) - 1
}

/// How often each symbol is in a block, of literals and lengths and of distances. `content` is the first byte of
/// each token.
fn often(tokens: &[Token], content: &[u8]) -> ([u32; 286], [u32; 30]) {
    let (mut literals, mut distances) = ([0; 286], [0; 30]);
    for (token, byte) in tokens.iter().zip(content) {
        match *token {
            Token::Literal => literals[usize::from(*byte)] += 1,
            Token::Match { length, distance } => {
                literals[FIRST_LENGTH + length_symbol(length)] += 1;
                distances[distance_symbol(distance)] += 1;
            }
        }
    }
    literals[STOP] = 1;
    (literals, distances)
}

fn fixed() -> (Vec<u8>, Vec<u8>) {
    let literals = (0..288).map(|symbol| match symbol {
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    });
    (literals.collect(), vec![5; 32])
}

/// The lengths of a block's codes, as they are told.
struct Lengths {
    all: Vec<u8>,
    literals: usize,
    count: usize,
}

impl Lengths {
    fn of(counts: &[u8; 3]) -> Self {
        let literals = usize::from(counts[0]) + 257;
        Self { all: Vec::new(), literals, count: literals + usize::from(counts[1]) + 1 }
    }

    fn is_full(&self) -> bool {
        self.all.len() == self.count
    }

    /// How many bits follow such a symbol.
    fn bits(symbol: u8) -> u32 {
        match symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        }
    }

    fn add(&mut self, symbol: u8, more: u8) -> Option<()> {
        let (length, times) = match symbol {
            0..=15 => (symbol, 1),
            16 => (*self.all.last()?, 3 + usize::from(more)),
            17 => (0, 3 + usize::from(more)),
            _ => (0, 11 + usize::from(more)),
        };
        self.all.extend(std::iter::repeat_n(length, times));
        (self.all.len() <= self.count).then_some(())
    }

    fn split(mut self) -> (Vec<u8>, Vec<u8>) {
        let distances = self.all.split_off(self.literals);
        (self.all, distances)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::learn::learn;
    use super::prove::gives;
    use super::*;
    use crate::recipe::span::{Scratch, Span};

    fn deflated(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Text that repeats itself, noise, and one byte.
    fn contents() -> Vec<Vec<u8>> {
        let text = |n: u32| format!("line {} of {} lines\n", n * n % 977, n).into_bytes();
        let noise = |n: u32| blake3::hash(&n.to_le_bytes()).as_bytes().to_vec();
        let long: Vec<u8> = (0..20_000).flat_map(text).collect();
        vec![long, (0..9000).flat_map(noise).collect(), vec![7; 70_000], b"x".to_vec(), Vec::new()]
    }

    #[test]
    fn choices_give_the_stream_again() {
        for content in contents() {
            for level in [0, 1, 6, 9] {
                let (stream, mut choices) = (deflated(&content, level), Vec::new());
                assert!(
                    learn(&Span::of_bytes(&stream), &Span::of_bytes(&content), &mut choices).expect("memory"),
                    "level {level}"
                );
                assert!(gives(&Span::of_bytes(&stream), &Span::of_bytes(&content), &choices[..]));
                let longer = [&stream[..], b"!"].concat();
                assert!(
                    !learn(&Span::of_bytes(&longer), &Span::of_bytes(&content), &mut Vec::new())
                        .expect("memory"),
                    "something follows it"
                );
                let mut cut = Vec::new();
                assert!(
                    !learn(&Span::of_bytes(&stream[..stream.len() - 1]), &Span::of_bytes(&content), &mut cut)
                        .expect("memory"),
                    "it is cut off"
                );
            }
        }
    }

    #[test]
    fn a_long_stream_is_proved_while_it_is_read() {
        let noise = |n: u32| blake3::hash(&(n / 3).to_le_bytes()).as_bytes()[..20].to_vec();
        let content: Vec<u8> = (0..100_000).flat_map(noise).collect();
        let mut stream = deflated(&content, 6);
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = || {
            let room = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(MOST));
            Scratch::new(folder.path(), room).expect("room")
        };
        let mut out = scratch();
        assert!(proved(&Span::of_bytes(&stream), &Span::of_bytes(&content), &mut out).expect("room"));
        let choices = out.close().expect("room");
        let told = choices.bytes(0, choices.len() as usize).expect("told");
        assert!(
            stream.len() > 256 << 10 && gives(&Span::of_bytes(&stream), &Span::of_bytes(&content), &told[..])
        );
        let middle = stream.len() / 2;
        stream[middle] ^= 4;
        assert!(!proved(&Span::of_bytes(&stream), &Span::of_bytes(&content), &mut scratch()).expect("room"));
    }

    #[test]
    fn altered_choices_and_streams_are_refused_or_give_no_more_than_they_may() {
        let content: Vec<u8> = contents().swap_remove(0)[..50_000].to_vec();
        let (stream, mut choices) = (deflated(&content, 6), Vec::new());
        assert!(learn(&Span::of_bytes(&stream), &Span::of_bytes(&content), &mut choices).expect("memory"));
        for n in 0..3000usize {
            let mut altered = choices.clone();
            let at = n * 7919 % altered.len();
            altered[at] ^= 1 << (n % 8);
            altered.truncate(altered.len() - n % 3 * (n % 50));
            let mut out = Vec::new();
            let mut again = Again::new(&altered[..], &mut out);
            if again.write_all(&content).is_ok() {
                again.finish().ok();
            }
            assert!(out.len() < 8 * content.len(), "{n}: {} bytes", out.len());
            if n % 10 > 0 {
                continue; // to find the rules takes longer
            }
            let mut altered = stream.clone();
            let at = n * 104_729 % altered.len();
            altered[at] ^= 1 << (n % 8);
            learn(&Span::of_bytes(&altered), &Span::of_bytes(&content), &mut Vec::new()).expect("memory");
        }
    }
}
