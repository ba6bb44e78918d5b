//! gzip: where the header ends.

use std::io;

use super::span::Span;

/// Before the checksum and the length.
pub(super) const TRAILER: u64 = 8;
/// Names and comments longer than this are not looked for.
const LONGEST: usize = 64 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

/// How long the header is; `None` if it is none.
pub(super) fn header(span: &Span) -> io::Result<Option<u64>> {
    let head = span.bytes(0, LONGEST)?;
    let read = || {
        let flags = *head.get(3).filter(|&&flags| flags & 0xe0 == 0 && is(&head))?;
        let mut at = 10;
        if flags & 4 != 0 {
            let length = head.get(at..at + 2)?;
            at += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
        }
        for flag in [8, 16] {
            if flags & flag != 0 {
                at += head.get(at..)?.iter().position(|&byte| byte == 0)? + 1;
            }
        }
        if flags & 2 != 0 {
            at += 2;
        }
        Some(at as u64)
    };
    Ok(read())
}
