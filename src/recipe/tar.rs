//! tar: where the members lie.

use super::RecipeError;
use super::open::Item;
use super::span::Span;

const BLOCK: u64 = 512;
/// A long name that is written down in a member of its own.
const MAX_NAME: u64 = 4096;

pub(super) fn is(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar") && checks(head)
}

/// Whether a header's sum is right: the sum of its bytes, with spaces in the place of the sum.
fn checks(header: &[u8]) -> bool {
    let Some(header) = header.get(..BLOCK as usize) else { return false };
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, &byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(byte),
        })
        .sum();
    number(&header[148..156]) == Some(sum)
}

/// Octal digits, or a binary number with the highest bit set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let none = matches!(high.split_first(), Some((0x80, rest)) if rest.iter().all(|&byte| byte == 0));
        return none.then(|| low.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)));
    }
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The regular files, in order; what is behind the last header that makes sense belongs to none.
pub(super) fn items(span: &Span, most: usize) -> Result<Vec<Item>, RecipeError> {
    let (mut items, mut at, mut long) = (Vec::new(), 0, None);
    while at < span.len() {
        let header = span.bytes(at, BLOCK as usize)?;
        if !checks(&header) {
            break;
        }
        let (start, length) = (at + BLOCK, number(&header[124..136]).unwrap_or(u64::MAX));
        if length > span.len().saturating_sub(start) {
            break;
        }
        match header[156] {
            b'L' if length <= MAX_NAME => long = Some(text(&span.bytes(start, length as usize)?)),
            b'x' if length <= MAX_NAME => long = pax_path(&span.bytes(start, length as usize)?).or(long),
            b'0' | 0 => {
                let name = long.take().unwrap_or_else(|| name_of(&header));
                if length > 0 {
                    items.push(Item { start, length, name, deflated: false });
                }
            }
            _ => long = None,
        }
        if items.len() > most {
            return Err(RecipeError::TooMany(most));
        }
        at = (start + length).next_multiple_of(BLOCK);
    }
    Ok(items)
}

fn name_of(header: &[u8]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if prefix.is_empty() || &header[257..263] != b"ustar\0" { name } else { format!("{prefix}/{name}") }
}

/// `LENGTH path=NAME\n`, among others.
fn pax_path(records: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(records);
    text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=").map(str::to_owned))
}

/// Only so much is looked at to tell what a file is.
pub(super) const HEAD: usize = BLOCK as usize;
