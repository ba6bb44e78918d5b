//! What is in a stream.

use std::io::{Read, Write};

use flate2::{Decompress, FlushDecompress, Status};

use crate::recipe::RecipeError;
use crate::recipe::span::Span;

/// Unpacks a stream that begins here; returns how long it is. `None`: it is none, or a damaged one.
///
/// # Errors
/// [`RecipeError::Io`] of what it is read from or written to.
pub(in crate::recipe) fn unpack(span: &Span, out: &mut dyn Write) -> Result<Option<u64>, RecipeError> {
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
