//! Which old contents each block of the new ones is a patch to.

use std::collections::HashMap;
use std::ops::Range;

use crate::recipe::Member;

/// Blocks are about so long, in bytes: longer ones find more in themselves, and take more memory.
const BLOCK: u64 = 8 << 20;
/// Around the old bytes that are likely the same: how far they may have moved in a member that is longer than
/// a block, in bytes.
const SLACK: u64 = 6 << 20;
/// And so much of what stands around a member: its headers.
const AROUND: u64 = 2 << 10;
/// At most so much of the old contents for one block.
const MOST: u64 = 40 << 20;

/// A block to be: a range of the new contents, and those of the old ones that it is a patch to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Of the new contents.
    pub range: Range<u64>,
    /// Of the old ones, in order; none: there is nothing like it.
    pub from: Vec<Range<u64>>,
}

/// Old members by name.
struct Old<'a> {
    exact: HashMap<&'a str, &'a Range<u64>>,
    /// With numbers left out: the version is often in the path.
    alike: HashMap<String, Vec<&'a Range<u64>>>,
    length: u64,
}

fn without_numbers(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '0'..='9' if plain.ends_with('0') => {}
            '0'..='9' => plain.push('0'),
            c => plain.push(c),
        }
    }
    plain
}

impl<'a> Old<'a> {
    fn new(members: &'a [Member], length: u64) -> Self {
        let named = || members.iter().filter(|member| !member.path.is_empty());
        let mut alike: HashMap<String, Vec<&Range<u64>>> = HashMap::new();
        for member in named() {
            alike.entry(without_numbers(&member.path)).or_default().push(&member.range);
        }
        Self { exact: named().map(|it| (it.path.as_str(), &it.range)).collect(), alike, length }
    }

    /// The old member that a new one was before.
    fn find(&self, new: &Member) -> Option<&Range<u64>> {
        if let Some(range) = self.exact.get(new.path.as_str()) {
            return Some(range);
        }
        let length = |range: &Range<u64>| range.end - range.start;
        let others = self.alike.get(&without_numbers(&new.path))?;
        others.iter().copied().min_by_key(|range| length(range).abs_diff(length(&new.range)))
    }

    /// The old bytes that a part of a member is likely like.
    fn part(&self, new: &Member, part: &Range<u64>) -> Option<Range<u64>> {
        let old = self.find(new)?;
        let whole = new.range.end - new.range.start;
        let scale =
            |at: u64| (u128::from(at) * u128::from(old.end - old.start) / u128::from(whole.max(1))) as u64;
        let (start, end) = (part.start - new.range.start, part.end - new.range.start);
        let slack = if end - start == whole { AROUND } else { SLACK };
        let start = (old.start + scale(start)).saturating_sub(slack).max(old.start.saturating_sub(AROUND));
        let end = (old.start + scale(end)).saturating_add(slack).min(old.end + AROUND).min(self.length);
        Some(start..end.max(start))
    }
}

/// Cuts new contents into blocks.
pub fn pair(new: &[Member], old: &[Member]) -> Vec<Cut> {
    let old = Old::new(old, old.last().map_or(0, |last| last.range.end));
    let (mut cuts, mut from) = (Vec::new(), Vec::new());
    let mut start = 0;
    for member in new {
        let mut at = member.range.start;
        while at < member.range.end {
            let end = member.range.end.min(start + BLOCK);
            from.extend(old.part(member, &(at..end)).filter(|_| !member.path.is_empty()));
            at = end;
            if end == start + BLOCK {
                cuts.push(Cut { range: start..end, from: merged(std::mem::take(&mut from)) });
                start = end;
            }
        }
    }
    let end = new.last().map_or(0, |last| last.range.end);
    if end > start {
        cuts.push(Cut { range: start..end, from: merged(from) });
    }
    cuts
}

/// In order, without overlaps, and not more than may be.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    let mut left = MOST;
    for range in &mut merged {
        range.end = range.end.min(range.start + left);
        left -= range.end - range.start;
    }
    merged.retain(|range| !range.is_empty());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(members: &[(&str, u64)]) -> Vec<Member> {
        let mut at = 0;
        let member = |&(path, length): &(&str, u64)| {
            at += length;
            Member { path: path.to_owned(), range: at - length..at }
        };
        members.iter().map(member).collect()
    }

    #[test]
    fn members_find_their_older_selves() {
        let old = members(&[("", 512), ("b", 100_000), ("lib-1.2.so", 500_000), ("a", 5000)]);
        let new = members(&[("", 512), ("a", 5000), ("", 512), ("lib-1.10.so", 500_000), ("new", 10)]);
        let cuts = pair(&new, &old);
        assert_eq!(cuts.len(), 1);
        assert_eq!(cuts[0].range, 0..506_034);
        assert_eq!(cuts[0].from, vec![100_512 - 2048..605_512; 1], "both, and the headers between");
    }

    #[test]
    fn long_members_are_cut_and_blocks_cover_all() {
        let old = members(&[("big", 50 << 20)]);
        let new = members(&[("x", 100), ("big", 50 << 20)]);
        let cuts = pair(&new, &old);
        let mut end = 0;
        for cut in &cuts {
            assert_eq!(cut.range.start, end);
            end = cut.range.end;
            assert!(cut.from.iter().all(|range| range.end <= 50 << 20));
        }
        assert_eq!(end, 100 + (50 << 20));
        assert_eq!(pair(&new, &[]).len(), cuts.len(), "without an older one, too");
        assert!(pair(&new, &[]).iter().all(|cut| cut.from.is_empty()));
    }
}
