//! The bytes of a bundle as a client sends them.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::core::bundle::Pieces;

/// A client that sends nothing for so long has forgotten us; a tape may be changed in less.
const SILENCE: Duration = Duration::from_secs(900);

/// What may go wrong with a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A stream, read in the lengths that are wanted.
pub(super) struct Feed {
    stream: BoxStream<'static, Result<Bytes, BoxError>>,
    pieces: Pieces,
    over: bool,
}

impl Feed {
    pub(super) fn new(stream: BoxStream<'static, Result<Bytes, BoxError>>) -> Self {
        Self { stream, pieces: Pieces::default(), over: false }
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
        let mut done = 0;
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
        match tokio::time::timeout(SILENCE, self.stream.next()).await {
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
