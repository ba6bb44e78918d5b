//! A part of a file, read at any place; and files for what is unpacked on the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::RecipeError;

/// Read at a time.
const BUFFER: usize = 256 << 10;

/// Bytes of a file.
#[derive(Debug, Clone)]
pub struct Span {
    file: Arc<File>,
    start: u64,
    length: u64,
}

impl Span {
    #[cfg(test)]
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().expect("room");
        io::Write::write_all(&mut file, bytes).expect("room");
        Self::of(file).expect("a file")
    }

    /// A whole file.
    ///
    /// # Errors
    /// If its length cannot be told.
    pub fn of(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, length })
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of it; what lies beyond its end is cut off.
    pub fn part(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        Self { file: self.file.clone(), start: self.start + start, length: length.min(self.length - start) }
    }

    /// All from there on.
    pub fn from(&self, start: u64) -> Self {
        self.part(start, u64::MAX)
    }

    /// These bytes, or as many of them as there are.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn bytes(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        let part = self.part(start, length as u64);
        let mut bytes = vec![0; part.length as usize];
        self.file.read_exact_at(&mut bytes, part.start)?;
        Ok(bytes)
    }

    /// Several parts of it, one after the other.
    ///
    /// # Errors
    /// If they cannot be read, or are not there.
    pub fn ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<u8>> {
        let mut bytes =
            Vec::with_capacity(ranges.iter().map(|range| (range.end - range.start) as usize).sum());
        for range in ranges {
            let part = self.bytes(range.start, (range.end - range.start) as usize)?;
            if part.len() as u64 != range.end - range.start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend(part);
        }
        Ok(bytes)
    }

    /// Reads it from its beginning.
    pub fn reader(&self) -> io::BufReader<Reader> {
        io::BufReader::with_capacity(BUFFER, Reader(self.clone()))
    }
}

/// Reads a span from its beginning.
#[derive(Debug)]
pub struct Reader(Span);

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = (buffer.len() as u64).min(self.0.length) as usize;
        let read = self.0.file.read_at(&mut buffer[..most], self.0.start)?;
        self.0.start += read as u64;
        self.0.length -= read as u64;
        Ok(read)
    }
}

/// A file without a name that takes what is unpacked, up to so many bytes.
pub(super) struct Scratch {
    file: io::BufWriter<File>,
    /// What may still be unpacked, here and elsewhere.
    budget: Arc<AtomicU64>,
    over: bool,
}

impl Scratch {
    pub(super) fn new(folder: &Path, budget: Arc<AtomicU64>) -> Result<Self, RecipeError> {
        let file = io::BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?);
        Ok(Self { file, budget, over: false })
    }

    /// Whether it was given more than it takes.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn close(self) -> Result<Span, RecipeError> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok(Span::of(file)?)
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let spent =
            self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
        if spent.is_err() {
            self.over = true;
            return Err(io::Error::other("it unpacks to more than it may"));
        }
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Compares what is written with what is expected; fails at the first difference.
pub(super) struct Compare {
    expected: io::BufReader<Reader>,
    buffer: Vec<u8>,
}

impl Compare {
    pub(super) fn with(expected: &Span) -> Self {
        Self { expected: expected.reader(), buffer: Vec::new() }
    }

    /// Whether nothing more was expected.
    pub(super) fn at_end(mut self) -> bool {
        self.expected.read(&mut [0]).is_ok_and(|more| more == 0)
    }
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.resize(bytes.len(), 0);
        self.expected.read_exact(&mut self.buffer)?;
        if self.buffer != bytes {
            return Err(io::Error::other("it is not the same"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
