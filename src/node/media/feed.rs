//! The bytes of a bundle: as a client sends them, or from a file that it has opened.

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::core::bundle::Pieces;

/// A client that sends nothing for so long has forgotten us; a tape may be changed in less.
const SILENCE: Duration = Duration::from_secs(900);

/// No more of a file is read at a time, in bytes.
const MOST: usize = 1 << 20;

/// The head of a run is not longer than this, in bytes.
const HEAD: usize = 1 << 10;

/// What may go wrong with a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a bundle comes from.
pub enum Source {
    /// Over a line, piece by piece.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// A file, from where it stands.
    File(File),
}

/// A source as it is read.
enum Line {
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    File(Section),
}

/// A file from some place on.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
}

impl Section {
    /// Reads on; how many bytes there were.
    ///
    /// # Errors
    /// In words.
    pub(super) fn fill(&mut self, target: &mut [u8]) -> Result<usize, String> {
        let mut done = 0;
        while done < target.len() {
            match self.file.read_at(&mut target[done..], self.at) {
                Ok(0) => break,
                Ok(more) => (done, self.at) = (done + more, self.at + more as u64),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot read the bundle: {error}")),
            }
        }
        Ok(done)
    }

    /// Reads on as far as the bytes are in memory: a turn of another thread costs more than a few of them.
    fn fill_cached(&mut self, target: &mut [u8]) -> Option<usize> {
        let mut buffers = [std::io::IoSliceMut::new(target)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let came =
            rustix::io::preadv2(&self.file, &mut buffers, self.at, flags).ok().filter(|&came| came > 0)?;
        self.at += came as u64;
        Some(came)
    }

    /// Passes over bytes; how many there were.
    fn skip(&mut self, bytes: u64) -> Result<u64, String> {
        let length = self.file.metadata().map_err(|error| format!("cannot read the bundle: {error}"))?.len();
        let passed = bytes.min(length.saturating_sub(self.at));
        self.at += passed;
        Ok(passed)
    }
}

/// A bundle's bytes, read in the lengths that are wanted.
pub(super) struct Feed {
    line: Line,
    pieces: Pieces,
    over: bool,
}

impl Feed {
    pub(super) fn new(source: Source) -> Self {
        let line = match source {
            Source::Stream(stream) => Line::Stream(stream),
            Source::File(mut file) => {
                let at = file.stream_position().unwrap_or_default();
                Line::File(Section { file: Arc::new(file), at })
            }
        };
        Self { line, pieces: Pieces::default(), over: false }
    }

    /// Whether so many bytes need not be waited for: a line may be silent for long.
    pub(super) fn has(&self, length: usize) -> bool {
        matches!(self.line, Line::File(_)) || self.pieces.len() >= length
    }

    /// The next bytes; fewer at the end of the stream.
    ///
    /// # Errors
    /// In words: the client is gone, or silent.
    pub(super) async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        while self.pieces.len() < length && self.more(length - self.pieces.len()).await? {}
        Ok(self.pieces.take(length))
    }

    /// Reads the next bytes into their place; how many there were.
    ///
    /// # Errors
    /// As [`Feed::take`].
    pub(super) async fn fill(&mut self, target: &mut [u8]) -> Result<usize, String> {
        let mut done = self.pieces.fill(target);
        while done < target.len() && self.more(target.len() - done).await? {
            done += self.pieces.fill(&mut target[done..]);
        }
        Ok(done)
    }

    /// Passes over bytes; how many there were.
    ///
    /// # Errors
    /// As [`Feed::take`].
    pub(super) async fn skip(&mut self, length: usize) -> Result<usize, String> {
        let mut done = self.pieces.take(length.min(self.pieces.len())).len();
        if let Line::File(section) = &mut self.line {
            return Ok(done + section.skip((length - done) as u64)? as usize);
        }
        while done < length {
            if self.pieces.is_empty() && !self.more(length - done).await? {
                break;
            }
            done += self.pieces.take((length - done).min(self.pieces.len())).len();
        }
        Ok(done)
    }

    /// The next bytes of a file, to be read elsewhere; `None` if they come over a line, have come already, or
    /// are not all there.
    pub(super) fn section(&mut self, length: usize) -> Option<Section> {
        let Line::File(section) = &mut self.line else { return None };
        let here = section.clone();
        let whole = self.pieces.is_empty() && section.skip(length as u64).ok()? == length as u64;
        if !whole {
            *section = here;
            return None;
        }
        Some(here)
    }

    /// Of a file so many bytes come, at the most; over a line as many as there are.
    async fn more(&mut self, wanted: usize) -> Result<bool, String> {
        if self.over {
            return Ok(false);
        }
        let stream = match &mut self.line {
            Line::Stream(stream) => stream,
            Line::File(section) => {
                let mut head = [0; HEAD];
                if wanted <= HEAD
                    && let Some(came) = section.fill_cached(&mut head[..wanted])
                {
                    self.pieces.push(Bytes::copy_from_slice(&head[..came]));
                    return Ok(true);
                }
                let mut from = section.clone();
                let read = crate::node::blocking(move || {
                    // Grown as it comes: the length is the bundle's word.
                    let mut piece = vec![0; wanted.min(MOST)];
                    let came = from.fill(&mut piece)?;
                    piece.truncate(came);
                    Ok::<_, String>((from, piece))
                });
                let (after, piece) = read.await.ok_or("the agent is stopping")??;
                *section = after;
                self.over = piece.is_empty();
                self.pieces.push(piece.into());
                return Ok(!self.over);
            }
        };
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => Err(format!("nothing came of the bundle for {} s", SILENCE.as_secs())),
            Ok(None) => {
                self.over = true;
                Ok(false)
            }
            Ok(Some(Ok(piece))) => {
                self.pieces.push(piece);
                Ok(true)
            }
            Ok(Some(Err(error))) => Err(format!("the line to 'branchline import' broke: {error}")),
        }
    }
}
