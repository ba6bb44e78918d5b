//! A set of chunk indices, as bits; on the wire as runs.

use std::ops::Range;

/// The most chunks a blob may have: bounds every set and every manifest that a peer sends.
pub const MAX_CHUNKS: u32 = 2_000_000;

/// A set of chunk indices below [`MAX_CHUNKS`]. Grows to the highest index it holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ChunkSet {
    words: Vec<u64>, // the last word is never 0, so that equal sets are equal values
    count: u32,
}

impl ChunkSet {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// All indices below `count`.
    pub fn full(count: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(0..count);
        set
    }

    /// How many indices it holds.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it holds this index.
    pub fn contains(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds an index; false if it was there, or is no possible index.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= MAX_CHUNKS || self.contains(index) {
            return false;
        }
        let word = index as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (index % 64);
        self.count += 1;
        true
    }

    /// Adds a range of indices.
    pub fn insert_range(&mut self, range: Range<u32>) {
        let range = range.start..range.end.min(MAX_CHUNKS);
        let (first, last) = (range.start.next_multiple_of(64), range.end / 64 * 64);
        if first >= last {
            range.for_each(|index| _ = self.insert(index));
            return;
        }
        (range.start..first).chain(last..range.end).for_each(|index| _ = self.insert(index));
        let words = first as usize / 64..last as usize / 64;
        if self.words.len() < words.end {
            self.words.resize(words.end, 0);
        }
        for word in &mut self.words[words] {
            self.count += word.count_zeros();
            *word = u64::MAX;
        }
    }

    /// Takes an index out; false if it was not there.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[index as usize / 64] &= !(1 << (index % 64));
        self.count -= 1;
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
        true
    }

    /// Adds all that `other` holds.
    pub fn union_with(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word |= theirs;
        }
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// What this holds and `other` does not.
    pub fn difference(&self, other: &Self) -> Self {
        let theirs = other.words.iter().chain(std::iter::repeat(&0));
        Self::from_words(self.words.iter().zip(theirs).map(|(word, theirs)| word & !theirs).collect())
    }

    /// What both hold.
    pub fn intersection(&self, other: &Self) -> Self {
        Self::from_words(self.words.iter().zip(&other.words).map(|(word, theirs)| word & theirs).collect())
    }

    fn from_words(mut words: Vec<u64>) -> Self {
        while words.last() == Some(&0) {
            words.pop();
        }
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self { words, count }
    }

    /// The indices in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_from(0)
    }

    /// The indices from this one on, in order.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let skip = first as usize / 64;
        self.words.iter().enumerate().skip(skip).flat_map(move |(at, &word)| {
            let word = if at == skip { word & (!0 << (first % 64)) } else { word };
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|&rest| rest != 0)
                .map(move |rest| at as u32 * 64 + rest.trailing_zeros())
        })
    }

    /// Runs of consecutive indices, in order.
    pub fn runs(&self) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for index in self.iter() {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }

    /// As gap, length, gap, length, ...: small for the sets that occur.
    pub fn to_spans(&self) -> Vec<u32> {
        let mut end = 0;
        let mut spans = Vec::new();
        for run in self.runs() {
            spans.extend([run.start - end, run.end - run.start]);
            end = run.end;
        }
        spans
    }

    /// From spans that a peer sent; `None` if they are not well formed or go beyond
    /// [`MAX_CHUNKS`].
    pub fn from_spans(spans: &[u32]) -> Option<Self> {
        let mut set = Self::new();
        let mut end = 0u32;
        for span in spans.chunks(2) {
            let &[gap, length] = span else { return None };
            let start = end.checked_add(gap)?;
            end = start.checked_add(length)?;
            if end > MAX_CHUNKS || length == 0 {
                return None;
            }
            set.insert_range(start..end);
        }
        Some(set)
    }
}

impl FromIterator<u32> for ChunkSet {
    fn from_iter<I: IntoIterator<Item = u32>>(indices: I) -> Self {
        let mut set = Self::new();
        for index in indices {
            set.insert(index);
        }
        set
    }
}

impl std::fmt::Debug for ChunkSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(add in proptest::collection::vec(0u32..300, 0..200),
                            take in proptest::collection::vec(0u32..300, 0..200)) {
            let mut model: BTreeSet<u32> = add.iter().copied().collect();
            let mut set: ChunkSet = add.into_iter().collect();
            for index in take {
                prop_assert_eq!(set.remove(index), model.remove(&index));
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
            let from = model.len() as u32;
            prop_assert!(set.iter_from(from).eq(model.range(from..).copied()));
            prop_assert_eq!(ChunkSet::from_spans(&set.to_spans()), Some(set));
        }

        #[test]
        fn ranges_are_their_indices(ranges in proptest::collection::vec((0u32..400, 0u32..300), 0..4)) {
            let mut set = ChunkSet::new();
            ranges.iter().for_each(|&(start, length)| set.insert_range(start..start + length));
            prop_assert_eq!(set, ranges.iter().flat_map(|&(start, length)| start..start + length).collect());
        }

        #[test]
        fn set_algebra(a in proptest::collection::btree_set(0u32..200, 0..99),
                       b in proptest::collection::btree_set(0u32..200, 0..99)) {
            let (x, y): (ChunkSet, ChunkSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.difference(&y), a.difference(&b).copied().collect());
            prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect());
            let mut all = x;
            all.union_with(&y);
            prop_assert_eq!(all, a.union(&b).copied().collect());
        }
    }

    #[test]
    fn spans_from_a_peer_are_bounded() {
        assert_eq!(ChunkSet::from_spans(&[0, u32::MAX]), None);
        assert_eq!(ChunkSet::from_spans(&[u32::MAX, 2]), None);
        assert_eq!(ChunkSet::from_spans(&[1]), None);
        assert_eq!(ChunkSet::from_spans(&[1, 0]), None);
    }
}
