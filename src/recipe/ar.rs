//! ar, and so Debian packages: where the members lie.

use super::RecipeError;
use super::open::Item;
use super::span::Span;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The members, in order; what follows the last that makes sense belongs to none.
///
/// # Errors
/// [`RecipeError::TooMany`], [`RecipeError::Io`].
pub(super) fn items(span: &Span, most: usize) -> Result<Vec<Item>, RecipeError> {
    let (mut items, mut at) = (Vec::new(), MAGIC.len() as u64);
    loop {
        let header = span.bytes(at, HEADER as usize)?;
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<u64>().ok();
        let Some(length) = header.get(48..58).and_then(number).filter(|_| header.ends_with(b"`\n")) else {
            return Ok(items);
        };
        let start = at + HEADER;
        if length > span.len().saturating_sub(start) {
            return Ok(items);
        }
        let name = String::from_utf8_lossy(&header[..16]).trim_end_matches([' ', '/']).to_owned();
        items.push(Item { start, length, name, deflated: false });
        if items.len() > most {
            return Err(RecipeError::TooMany(most));
        }
        at = start + length + length % 2;
    }
}
