//! The bytes of a bundle: as a client sends them, or from a file that it has opened.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::core::bundle::Pieces;

/// A client that sends nothing for so long has forgotten us; a tape may be changed in less.
const SILENCE: Duration = Duration::from_secs(900);

/// So many bytes are read of a file at a time.
const PIECE: usize = 1 << 20;

/// What may go wrong with a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a bundle comes from.
pub enum Source {
    /// Over a line, piece by piece.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// A file, from where it stands.
    File(File),
}

/// A source as it is read: whoever hands over a file may go on using it, so it is shared.
enum Line {
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    File(Arc<File>),
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
            Source::File(file) => Line::File(Arc::new(file)),
        };
        Self { line, pieces: Pieces::default(), over: false }
    }

    /// The next bytes; fewer at the end of the stream.
    ///
    /// # Errors
    /// In words: the client is gone, or silent.
    pub(super) async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        while self.pieces.len() < length && self.more().await? {}
        Ok(self.pieces.take(length))
    }

    /// Reads the next bytes into their place; how many there were.
    ///
    /// # Errors
    /// As [`Feed::take`].
    pub(super) async fn fill(&mut self, target: &mut [u8]) -> Result<usize, String> {
        let mut done = self.pieces.fill(target);
        while done < target.len() && self.more().await? {
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
        if let (Line::File(file), true) = (&self.line, done < length) {
            let (file, rest) = (file.clone(), (length - done) as u64);
            let passed = blocking(move || pass_over(&file, rest)).await;
            return passed.map(|passed| done + passed as usize);
        }
        while done < length {
            if self.pieces.is_empty() && !self.more().await? {
                break;
            }
            done += self.pieces.take((length - done).min(self.pieces.len())).len();
        }
        Ok(done)
    }

    async fn more(&mut self) -> Result<bool, String> {
        if self.over {
            return Ok(false);
        }
        let stream = match &mut self.line {
            Line::Stream(stream) => stream,
            Line::File(file) => {
                let file = file.clone();
                let piece = blocking(move || {
                    let mut piece = Vec::with_capacity(PIECE);
                    (&*file).take(PIECE as u64).read_to_end(&mut piece)?;
                    Ok(piece)
                });
                let piece = piece.await?;
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = crate::node::blocking(work).await.ok_or("the agent is stopping")?;
    done.map_err(|error| format!("cannot read the bundle: {error}"))
}

/// Passes over bytes of a file; how many there were.
fn pass_over(mut file: &File, bytes: u64) -> std::io::Result<u64> {
    let at = file.stream_position()?;
    let left = file.metadata()?.len().saturating_sub(at);
    let passed = bytes.min(left);
    file.seek(SeekFrom::Start(at + passed))?;
    Ok(passed)
}
