//! Deflate: unpacked, and compressed again as somebody else did.

use std::io::{self, Read, Write};

use flate2::{Decompress, FlushDecompress, Status};
use preflate_rs::{PreflateConfig, PreflateStreamProcessor, RecreateStreamProcessor};

use super::plan::{MAX_PIECE, Piece};
use super::span::Span;
use super::{RecipeError, guarded};

/// Compressed bytes that are looked at together. A single block of a stream may be longer.
const LOOK: usize = 2 << 20;
const LONGEST_LOOK: usize = 32 << 20;
/// Corrections that are more than this part of a stream spare nothing.
const WORTH: u64 = 8;

/// Unpacks a stream that begins here; returns how long it is. `None`: it is none, or a damaged one.
///
/// # Errors
/// [`RecipeError::Io`] of what it is read from or written to.
pub(super) fn unpack(span: &Span, out: &mut dyn Write) -> Result<Option<u64>, RecipeError> {
    let (mut reader, mut inflate) = (span.reader(), Decompress::new(false));
    let mut buffer = vec![0; 256 << 10];
    let mut input = vec![0; 64 << 10];
    let (mut start, mut end) = (0, 0);
    loop {
        if start == end {
            (start, end) = (0, reader.read(&mut input)?);
        }
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(&input[start..end], &mut buffer, FlushDecompress::None);
        start += (inflate.total_in() - read) as usize;
        let new = (inflate.total_out() - written) as usize;
        out.write_all(&buffer[..new])?;
        match status {
            Ok(Status::StreamEnd) => return Ok(Some(inflate.total_in())),
            Ok(_) if new > 0 || inflate.total_in() > read => {}
            _ => return Ok(None),
        }
    }
}

/// How a stream of this length can be compressed again, proved; `None` if that is not to be found out.
pub(super) fn learn(span: &Span, contents: u64) -> Result<Option<Vec<Piece>>, RecipeError> {
    match guarded("preflate", || learn_pieces(span, contents)) {
        Err(RecipeError::Codec(_)) => Ok(None),
        other => other,
    }
}

fn learn_pieces(span: &Span, contents: u64) -> Result<Option<Vec<Piece>>, RecipeError> {
    let config = PreflateConfig { plain_text_limit: MAX_PIECE as usize, ..PreflateConfig::default() };
    let mut processor = PreflateStreamProcessor::new(&config);
    let (mut pieces, mut at, mut length, mut look, mut long) = (Vec::new(), 0, 0, LOOK, 0);
    while !processor.is_done() {
        let input = span.bytes(at, look)?;
        let chunk = match processor.decompress(&input) {
            Ok(chunk) => chunk,
            Err(_) if input.len() == look && look < LONGEST_LOOK => {
                look *= 2;
                // A processor that has failed is not to be used again, and to begin anew is cheap here only.
                if at > 0 {
                    return Ok(None);
                }
                processor = PreflateStreamProcessor::new(&config);
                continue;
            }
            Err(_) => return Ok(None),
        };
        let new = processor.plain_text().text().len() as u64;
        if chunk.compressed_size == 0 && new == 0 {
            return Ok(None);
        }
        at += chunk.compressed_size as u64;
        length += new;
        long += chunk.corrections.len() as u64;
        pieces.push(Piece { length: new, corrections: chunk.corrections });
        processor.shrink_to_dictionary();
    }
    let whole = at == span.len() && length == contents && long * WORTH < span.len();
    Ok(whole.then_some(pieces))
}

/// Compresses what is written to it, as a plan's pieces say.
pub(super) struct Again<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    piece: Option<&'a Piece>,
    content: Vec<u8>,
    processor: RecreateStreamProcessor,
    out: &'a mut dyn Write,
}

impl<'a> Again<'a> {
    pub(super) fn new(pieces: &'a [Piece], out: &'a mut dyn Write) -> Self {
        let mut pieces = pieces.iter();
        let piece = pieces.next();
        Self { pieces, piece, content: Vec::new(), processor: RecreateStreamProcessor::new(), out }
    }

    /// Compresses the pieces that are there.
    fn compress(&mut self) -> Result<(), RecipeError> {
        while let Some(piece) = self.piece.filter(|piece| piece.length == self.content.len() as u64) {
            let (processor, mut content) = (&mut self.processor, &self.content[..]);
            let compressed = guarded("preflate", || {
                let again = processor.recompress(&mut content, &piece.corrections);
                again
                    .map(|(compressed, _)| compressed)
                    .map_err(|error| RecipeError::Codec(format!("{error:?}")))
            })?;
            self.out.write_all(&compressed)?;
            self.content.clear();
            self.piece = self.pieces.next();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), RecipeError> {
        self.compress()?;
        if self.piece.is_some() || !self.content.is_empty() {
            return Err(RecipeError::Malformed("a deflate stream ends early"));
        }
        Ok(())
    }
}

impl Write for Again<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.compress().map_err(io::Error::other)?;
        let Some(piece) = self.piece else {
            return Err(io::Error::other("a deflate stream goes on beyond its end"));
        };
        let most = (piece.length as usize - self.content.len()).min(bytes.len());
        self.content.extend_from_slice(&bytes[..most]);
        self.compress().map_err(io::Error::other)?;
        Ok(most)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
