//! ar, and so Debian packages: where the members lie.

use std::io;

use super::open::Item;
use super::span::Span;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The members, in order; what follows the last that makes sense belongs to none.
pub(super) fn items(span: &Span) -> io::Result<Vec<Item>> {
    let (mut items, mut at) = (Vec::new(), MAGIC.len() as u64);
    loop {
        let header = span.bytes(at, HEADER as usize)?;
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<u64>().ok();
        let Some(length) = header.get(48..58).and_then(number).filter(|_| header.ends_with(b"`\n")) else {
            return Ok(items);
        };
        let start = at + HEADER;
        if length > span.len() - start {
            return Ok(items);
        }
        let name = String::from_utf8_lossy(&header[..16]).trim_end_matches([' ', '/']).to_owned();
        items.push(Item { start, length, name, deflated: false });
        at = start + length + length % 2;
    }
}
