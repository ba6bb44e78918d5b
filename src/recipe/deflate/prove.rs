//! A stream, read for what its encoder chose, and proved to follow from it.

use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::again::Again;
use super::learn::learn;
use crate::recipe::RecipeError;
use crate::recipe::span::{Compare, Scratch, Span};

/// A stream of so many bytes is proved while it is still read, on another core.
const BESIDE: u64 = 256 << 10;
/// Blocks whose choices wait for the proof.
const WAITING: usize = 64;

/// Writes what the encoder of a stream chose, and compresses `content` again by it. False if that is not the
/// stream.
///
/// # Errors
/// [`RecipeError::Io`] of what is read and written.
pub(in crate::recipe) fn proved(
    stream: &Span,
    content: &Span,
    out: &mut Scratch,
) -> Result<bool, RecipeError> {
    if stream.len() < BESIDE {
        let mut choices = Vec::new();
        let known = learn(stream, content, &mut choices)? && gives(stream, content, &choices[..]);
        out.write_all(&choices)?;
        return Ok(known);
    }
    std::thread::scope(|scope| {
        let (told, choices) = sync_channel(WAITING);
        let proof =
            scope.spawn(|| gives(stream, content, BufReader::new(Told { choices, rest: Vec::new() })));
        let known = learn(stream, content, &mut Telling { out, told });
        // With the sender the choices end, and the proof.
        Ok(known? && proof.join().unwrap_or(false))
    })
}

/// Whether an encoder's choices and the content give the stream.
pub(super) fn gives(stream: &Span, content: &Span, choices: impl Read) -> bool {
    let mut compare = Compare::with(stream);
    let mut again = Again::new(choices, &mut compare);
    let same = io::copy(&mut content.reader(), &mut again).is_ok() && again.finish().is_ok();
    same && compare.at_end()
}

/// Writes, and tells whoever proves it.
struct Telling<'a> {
    out: &'a mut Scratch,
    told: SyncSender<Vec<u8>>,
}

impl Write for Telling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // If nobody listens any more, the proof has failed.
        self.told.send(bytes.to_vec()).ok();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is told.
struct Told {
    choices: Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for Told {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.choices.recv().unwrap_or_default();
        }
        let most = buffer.len().min(self.rest.len());
        buffer[..most].copy_from_slice(&self.rest[..most]);
        self.rest.drain(..most);
        Ok(most)
    }
}
