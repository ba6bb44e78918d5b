//! zip and its kin (wheel, jar, msix, appx, appv): where the members lie, by the central directory.

use super::RecipeError;
use super::open::Item;
use super::span::Span;

const LOCAL: &[u8] = b"PK\x03\x04";
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// An end of the directory, with the longest comment.
const TAIL: u64 = 22 + (64 << 10);
/// Directories longer than this are not read.
const MAX_DIRECTORY: u64 = 256 << 20;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(LOCAL)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The members that are stored or deflated, in the order of the file. None at all if the directory lies.
///
/// # Errors
/// [`RecipeError::TooMany`], [`RecipeError::Io`].
pub(super) fn items(span: &Span, most: usize) -> Result<Vec<Item>, RecipeError> {
    let Some((start, length)) = directory(span)? else { return Ok(Vec::new()) };
    let directory = span.bytes(start, length as usize)?;
    let (mut items, mut rest) = (Vec::new(), &directory[..]);
    while rest.starts_with(ENTRY) {
        let Some((entry, next)) = entry(rest) else { break };
        if let Some(entry) = entry
            && let Some(item) = place(span, start, entry)?
        {
            items.push(item);
        }
        if items.len() > most {
            return Err(RecipeError::TooMany(most));
        }
        rest = next;
    }
    items.sort_by_key(|item| item.start);
    let apart = items.windows(2).all(|two| two[0].start + two[0].length <= two[1].start);
    Ok(if apart { items } else { Vec::new() })
}

/// Where the central directory is, and how long.
fn directory(span: &Span) -> Result<Option<(u64, u64)>, RecipeError> {
    let before = span.len().saturating_sub(TAIL);
    let tail = span.from(before).bytes(0, TAIL as usize)?;
    let Some(at) = tail.windows(4).rposition(|window| window == END) else { return Ok(None) };
    let (mut length, mut start) = match (u32_at(&tail, at + 12), u32_at(&tail, at + 16)) {
        (Some(length), Some(start)) => (length, start),
        _ => return Ok(None),
    };
    let locator =
        at.checked_sub(20).map(|locator| &tail[locator..at]).filter(|it| it.starts_with(LOCATOR_64));
    if let Some(end) = locator.and_then(|locator| u64_at(locator, 8)) {
        let end = span.bytes(end, 56)?;
        match (u64_at(&end, 40), u64_at(&end, 48)) {
            (Some(long), Some(far)) if end.starts_with(END_64) => (length, start) = (long, far),
            _ => return Ok(None),
        }
    }
    let fits = length <= MAX_DIRECTORY && start.checked_add(length).is_some_and(|end| end <= span.len());
    Ok(fits.then_some((start, length)))
}

/// What the directory says of one member.
struct Entry {
    name: String,
    method: u64,
    length: u64,
    local: u64,
}

/// The first entry, if it is one that can be opened, and what follows; `None` if it is cut off.
fn entry(bytes: &[u8]) -> Option<(Option<Entry>, &[u8])> {
    let (flags, method) = (u16_at(bytes, 8)?, u16_at(bytes, 10)?);
    let (packed, unpacked) = (u32_at(bytes, 20)?, u32_at(bytes, 24)?);
    let sizes = [u16_at(bytes, 28)? as usize, u16_at(bytes, 30)? as usize, u16_at(bytes, 32)? as usize];
    let name = String::from_utf8_lossy(bytes.get(46..46 + sizes[0])?).into_owned();
    let extra = bytes.get(46 + sizes[0]..46 + sizes[0] + sizes[1])?;
    let next = bytes.get(46 + sizes.iter().sum::<usize>()..)?;
    let (mut length, mut local) = (packed, u32_at(bytes, 42)?);
    let long = u64::from(u32::MAX);
    if packed == long || local == long {
        // In this order, and only those that do not fit.
        let mut numbers = extra_64(extra)?;
        let mut number = || {
            let number = u64_at(numbers, 0);
            numbers = numbers.get(8..).unwrap_or_default();
            number
        };
        if unpacked == long {
            number()?;
        }
        if packed == long {
            length = number()?;
        }
        if local == long {
            local = number()?;
        }
    }
    let known = flags & 1 == 0 && (method == 0 || method == 8) && length > 0;
    Some((known.then_some(Entry { name, method, length, local }), next))
}

/// The field with the numbers of zip64.
fn extra_64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, length) = (u16_at(extra, 0)?, u16_at(extra, 2)? as usize);
        if id == 1 {
            return extra.get(4..4 + length);
        }
        extra = extra.get(4 + length..)?;
    }
}

/// Where a member's bytes are: its own header says how long that is.
fn place(span: &Span, directory: u64, entry: Entry) -> Result<Option<Item>, RecipeError> {
    let header = span.bytes(entry.local, 30)?;
    let (Some(name), Some(extra)) = (u16_at(&header, 26), u16_at(&header, 28)) else { return Ok(None) };
    let start = entry.local + 30 + name + extra;
    let fits = header.starts_with(LOCAL) && entry.length <= directory.saturating_sub(start);
    let item = Item { start, length: entry.length, name: entry.name, deflated: entry.method == 8 };
    Ok(fits.then_some(item))
}
