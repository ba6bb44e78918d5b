//! Putting a file together again.

use std::io::{Read, Write};

use super::plan::{Part, Plan};
use super::{RecipeError, deflate, xz, zstd};

/// Copied at a time.
const BUFFER: u64 = 256 << 10;

/// Writes the file that a plan describes, in order, as its contents come. What it holds in memory is a piece
/// of a deflate stream for each level of nesting, or what the encoder of xz takes.
///
/// # Errors
/// [`RecipeError`]: the contents end early, `out` takes no more, or the plan makes no sense.
pub fn rebuild(plan: &Plan, contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    follow(&plan.parts, contents, out)
}

fn follow(parts: &[Part], contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    for part in parts {
        match part {
            Part::Raw(length) => copy(*length, contents, out)?,
            Part::Deflate(pieces, inside) => {
                let mut again = deflate::Again::new(pieces, out);
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
            Part::Xz(xz, inside) => {
                let mut again = xz::Again::new(xz, out)?;
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
            Part::Zstd(zstd, inside) => {
                let mut again = zstd::Again::new(zstd, out)?;
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
        }
    }
    Ok(())
}

fn copy(mut length: u64, contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    let mut buffer = vec![0; length.min(BUFFER) as usize];
    while length > 0 {
        let piece = &mut buffer[..length.min(BUFFER) as usize];
        contents.read_exact(piece)?;
        out.write_all(piece)?;
        length -= piece.len() as u64;
    }
    Ok(())
}
