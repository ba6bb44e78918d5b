//! Deflate's bits: read and written, with the codes of its tables (RFC 1951).

use std::io::{self, Read, Write};

use crate::recipe::span::{Reader, Span};

/// The longest code, in bits.
pub(super) const LONGEST: usize = 15;

/// What codes 257 and up stand for: the shortest length, and how many bits are added to it.
pub(super) const LENGTHS: [(u16, u8); 29] = lengths();
/// What codes of distances stand for.
pub(super) const DISTANCES: [(u16, u8); 30] = distances();

const fn lengths() -> [(u16, u8); 29] {
    let (mut table, mut at, mut base) = ([(0, 0); 29], 0, 3);
    while at < 28 {
        let bits = if at < 8 { 0 } else { at as u8 / 4 - 1 };
        table[at] = (base, bits);
        base += 1 << bits;
        at += 1;
    }
    // The last one is for 258 alone, which the one before could say, too.
    table[28] = (258, 0);
    table
}

const fn distances() -> [(u16, u8); 30] {
    let (mut table, mut at, mut base) = ([(0, 0); 30], 0, 1);
    while at < 30 {
        let bits = if at < 4 { 0 } else { at as u8 / 2 - 1 };
        table[at] = (base, bits);
        base += 1 << bits;
        at += 1;
    }
    table
}

/// Reads bits, the lowest of a byte first.
pub(super) struct BitReader {
    reader: io::BufReader<Reader>,
    hold: u64,
    count: u32,
    /// Bytes that were taken in.
    taken: u64,
}

/// What is read is no deflate stream, or ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoStream;

impl BitReader {
    pub(super) fn new(span: &Span) -> Self {
        Self { reader: span.reader(), hold: 0, count: 0, taken: 0 }
    }

    /// At least so many bits, if there are as many.
    fn fill(&mut self, wanted: u32) -> Result<(), NoStream> {
        while self.count < wanted {
            let buffer = io::BufRead::fill_buf(&mut self.reader).map_err(|_| NoStream)?;
            let Some(&byte) = buffer.first() else { return Ok(()) };
            io::BufRead::consume(&mut self.reader, 1);
            self.taken += 1;
            self.hold |= u64::from(byte) << self.count;
            self.count += 8;
        }
        Ok(())
    }

    pub(super) fn bits(&mut self, count: u32) -> Result<u32, NoStream> {
        self.fill(count)?;
        if self.count < count {
            return Err(NoStream);
        }
        let bits = self.hold & ((1 << count) - 1);
        self.hold >>= count;
        self.count -= count;
        Ok(bits as u32)
    }

    pub(super) fn symbol(&mut self, decoder: &Decoder) -> Result<u16, NoStream> {
        self.fill(LONGEST as u32)?;
        let (symbol, length) = decoder.table[(self.hold & ((1 << LONGEST) - 1)) as usize];
        if length == 0 || u32::from(length) > self.count {
            return Err(NoStream);
        }
        self.hold >>= length;
        self.count -= u32::from(length);
        Ok(symbol)
    }

    /// The bits up to the next whole byte.
    pub(super) fn align(&mut self) -> Result<u8, NoStream> {
        Ok(self.bits(self.count % 8)? as u8)
    }

    /// Skips whole bytes.
    pub(super) fn skip(&mut self, mut bytes: usize) -> Result<(), NoStream> {
        while bytes > 0 && self.count >= 8 {
            self.bits(8)?;
            bytes -= 1;
        }
        let skipped = io::copy(&mut self.reader.by_ref().take(bytes as u64), &mut io::sink());
        self.taken += bytes as u64;
        if skipped.is_ok_and(|skipped| skipped == bytes as u64) { Ok(()) } else { Err(NoStream) }
    }

    /// Whole bytes that were read.
    pub(super) fn position(&self) -> u64 {
        self.taken - u64::from(self.count / 8)
    }
}

/// Writes bits.
pub(super) struct BitWriter<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    hold: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, buffer: Vec::with_capacity(64 << 10), hold: 0, count: 0 }
    }

    /// Up to 16 bits.
    pub(super) fn bits(&mut self, bits: u32, count: u32) {
        self.hold |= u64::from(bits & ((1 << count) - 1)) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.buffer.push(self.hold as u8);
            self.hold >>= 8;
            self.count -= 8;
        }
    }

    pub(super) fn symbol(&mut self, codes: &Codes, symbol: usize) {
        let (code, length) = codes.0.get(symbol).copied().unwrap_or_default();
        self.bits(u32::from(code), u32::from(length));
    }

    /// Fills the byte with these bits.
    pub(super) fn align(&mut self, bits: u8) {
        self.bits(u32::from(bits), (8 - self.count % 8) % 8);
    }

    /// Whole bytes, at the beginning of one.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Hands on what is there, if it is much or all.
    pub(super) fn flush(&mut self, all: bool) -> io::Result<()> {
        if all || self.buffer.len() >= 48 << 10 {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The codes of symbols as they are written, and their lengths; 0: it has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Codes(Vec<(u16, u8)>);

impl Codes {
    /// By the lengths of all symbols' codes.
    pub(super) fn new(lengths: &[u8]) -> Self {
        let mut counts = [0u16; LONGEST + 1];
        for &length in lengths.iter().filter(|&&length| length > 0) {
            counts[usize::from(length).min(LONGEST)] += 1;
        }
        let (mut next, mut code) = ([0u16; LONGEST + 1], 0u16);
        for length in 1..=LONGEST {
            code = code.wrapping_add(counts[length - 1]) << 1;
            next[length] = code;
        }
        let code = |&length: &u8| {
            if length == 0 || usize::from(length) > LONGEST {
                return (0, 0);
            }
            let code = next[usize::from(length)];
            next[usize::from(length)] = code.wrapping_add(1);
            (code.reverse_bits() >> (16 - length), length)
        };
        Self(lengths.iter().map(code).collect())
    }
}

/// Symbols by the next bits.
pub(super) struct Decoder {
    table: Vec<(u16, u8)>,
}

impl Decoder {
    /// By the lengths of all symbols' codes.
    pub(super) fn new(lengths: &[u8]) -> Result<Self, NoStream> {
        let room: u32 =
            lengths.iter().filter(|&&it| it > 0).map(|&it| 1 << (LONGEST - usize::from(it))).sum();
        if room > 1 << LONGEST {
            return Err(NoStream);
        }
        let mut table = vec![(0, 0); 1 << LONGEST];
        for (symbol, &(code, length)) in Codes::new(lengths).0.iter().enumerate().filter(|(_, it)| it.1 > 0) {
            for at in (usize::from(code)..1 << LONGEST).step_by(1 << length) {
                table[at] = (symbol as u16, length);
            }
        }
        Ok(Self { table })
    }
}
