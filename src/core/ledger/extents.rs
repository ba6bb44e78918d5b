//! Which bytes of a blob clients were handed before, so that each is counted once.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The most separate extents that are kept of one blob. Beyond it the smallest gap is taken for
/// handed, which claims too little and never too much.
const MOST: usize = 256;

/// A set of bytes, as extents that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extents {
    ends: BTreeMap<u64, u64>,
}

impl Extents {
    /// Adds a range; how many of its bytes are new.
    pub fn add(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let (mut start, mut end, mut covered) = (range.start, range.end, 0);
        // From the back, all that overlap or touch it become one with it.
        while let Some((&first, &last)) = self.ends.range(..=range.end).next_back() {
            if last < range.start {
                break;
            }
            covered += last.min(range.end).saturating_sub(first.max(range.start));
            (start, end) = (start.min(first), end.max(last));
            self.ends.remove(&first);
        }
        self.ends.insert(start, end);
        if self.ends.len() > MOST {
            self.close_smallest_gap();
        }
        range.end - range.start - covered
    }

    fn close_smallest_gap(&mut self) {
        let pairs = self.ends.iter().zip(self.ends.iter().skip(1));
        let Some(((&first, _), (&second, &end))) = pairs.min_by_key(|((_, end), (start, _))| *start - *end)
        else {
            return;
        };
        self.ends.remove(&second);
        self.ends.insert(first, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_stays_small() {
        let mut extents = Extents::default();
        for n in 0..10_000u64 {
            assert_eq!(extents.add(n * 100..n * 100 + 1), 1);
        }
        assert!(extents.ends.len() <= MOST);
    }

    proptest! {
        #[test]
        fn each_byte_is_new_once(ranges in proptest::collection::vec((0u64..200, 0u64..50), 0..60)) {
            let (mut extents, mut bytes) = (Extents::default(), std::collections::BTreeSet::new());
            for (start, length) in ranges {
                let before = bytes.len();
                bytes.extend(start..start + length);
                prop_assert_eq!(extents.add(start..start + length), (bytes.len() - before) as u64);
            }
        }
    }
}
