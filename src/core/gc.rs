//! What a node holds that nothing needs, and why.

use std::collections::{BTreeSet, HashSet};

use super::evict::{self, Candidate};
use super::id::BlobId;
use super::quota::Quotas;

/// A part of a blob that nobody has wanted for so long is given up, in milliseconds.
pub const ABANDONED: u64 = 24 * 3600 * 1000;

/// What the catalog says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It is a version that may be fetched.
    Listed,
    /// Its version was taken back.
    Retired,
    /// It is not in the catalog.
    Unlisted,
    /// There is no catalog to look into, or it comes from where no catalog lists it.
    Unknown,
}

/// A blob as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which, what it takes, when it was last used, and whether it must stay.
    pub candidate: Candidate,
    /// All of it is here.
    pub complete: bool,
    /// What the catalog says.
    pub listing: Listing,
}

/// What is asked for beyond what nothing needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Free so many bytes in all, if need be of what might be of use.
    pub free: Option<u64>,
    /// Let go what was not used for so long, in milliseconds.
    pub unused: Option<u64>,
}

/// Why a blob goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A part that nobody fetches.
    Abandoned,
    /// Its version was taken back.
    Retired,
    /// The catalog does not know it.
    Unlisted,
    /// Its package takes more than it may.
    OverQuota,
    /// It was not used for as long as was said.
    Unused,
    /// The least recently used of the rest.
    ToFree,
}

impl Why {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "a part that nobody has fetched for a day",
            Self::Retired => "retired",
            Self::Unlisted => "not in the catalog any more",
            Self::OverQuota => "beyond its package's quota",
            Self::Unused => "not used for long",
            Self::ToFree => "least recently used",
        }
    }
}

/// The blobs that go, each for the first reason that it has.
pub fn plan(held: &[Piece], quotas: &Quotas, now: u64, asked: Asked) -> Vec<(BlobId, Why)> {
    let since = |it: &Piece| now.saturating_sub(it.candidate.last_used);
    let needless = |it: &Piece| match it.listing {
        _ if it.candidate.kept => None,
        Listing::Retired => Some(Why::Retired),
        Listing::Unlisted => Some(Why::Unlisted),
        _ if !it.complete && since(it) >= ABANDONED => Some(Why::Abandoned),
        _ => None,
    };
    let mut gone: Vec<(BlobId, Why)> =
        held.iter().filter_map(|it| Some((it.candidate.blob, needless(it)?))).collect();
    let rest = |gone: &[(BlobId, Why)]| -> Vec<&Piece> {
        let names: HashSet<BlobId> = gone.iter().map(|(blob, _)| *blob).collect();
        held.iter().filter(|it| !names.contains(&it.candidate.blob)).collect()
    };
    let candidates: Vec<Candidate> = rest(&gone).into_iter().map(|it| it.candidate.clone()).collect();
    let trimmed: BTreeSet<BlobId> = evict::trim(&candidates, quotas, u64::MAX).blobs.into_iter().collect();
    gone.extend(trimmed.into_iter().map(|blob| (blob, Why::OverQuota)));
    if let Some(unused) = asked.unused {
        let old = rest(&gone).into_iter().filter(|it| !it.candidate.kept && since(it) >= unused);
        let old: Vec<_> = old.map(|it| (it.candidate.blob, Why::Unused)).collect();
        gone.extend(old);
    }
    if let Some(free) = asked.free {
        let mut rest = rest(&gone);
        let kept: u64 = rest.iter().fold(0, |sum, it| sum.saturating_add(it.candidate.bytes));
        let all = held.iter().fold(0u64, |sum, it| sum.saturating_add(it.candidate.bytes));
        let mut left = free.saturating_sub(all.saturating_sub(kept));
        rest.retain(|it| !it.candidate.kept);
        rest.sort_by_key(|it| (it.candidate.last_used, it.candidate.blob));
        for it in rest {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(it.candidate.bytes);
            gone.push((it.candidate.blob, Why::ToFree));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::bitrate::Size;

    const DAY: u64 = 24 * 3600 * 1000;
    const NOW: u64 = 1000 * DAY;

    fn piece(n: u8, days: u64) -> Piece {
        let candidate = Candidate {
            blob: BlobId::of(&[n]),
            bytes: 10,
            last_used: NOW - days * DAY,
            kept: false,
            group: Some("a".into()),
        };
        Piece { candidate, complete: true, listing: Listing::Listed }
    }

    fn with(n: u8, days: u64, change: impl FnOnce(&mut Piece)) -> Piece {
        let mut it = piece(n, days);
        change(&mut it);
        it
    }

    fn names(held: &[Piece], quotas: &[&str], asked: Asked) -> Vec<(u8, Why)> {
        let written: Vec<_> = quotas.iter().map(|text| text.parse().expect("valid")).collect();
        let quotas = Quotas::new(&written, Size(1000)).expect("valid");
        let name = |blob: BlobId| (0..50).find(|n| BlobId::of(&[*n]) == blob).expect("one of them");
        plan(held, &quotas, NOW, asked).into_iter().map(|(blob, why)| (name(blob), why)).collect()
    }

    #[test]
    fn what_nothing_needs_goes_and_the_rest_only_if_asked() {
        let held = [
            piece(1, 100),
            with(2, 2, |it| it.complete = false),
            with(3, 0, |it| it.complete = false),
            with(4, 0, |it| it.listing = Listing::Retired),
            with(5, 0, |it| it.listing = Listing::Unlisted),
            with(6, 90, |it| (it.candidate.kept, it.listing) = (true, Listing::Unlisted)),
            with(7, 1, |it| it.listing = Listing::Unknown),
        ];
        let needless = [(2, Why::Abandoned), (4, Why::Retired), (5, Why::Unlisted)];
        assert_eq!(names(&held, &[], Asked::default()), needless);
        let unused = Asked { unused: Some(30 * DAY), free: None };
        assert_eq!(names(&held, &[], unused)[3..], [(1, Why::Unused)]);
        let free = |bytes| Asked { free: Some(bytes), unused: None };
        assert_eq!(names(&held, &[], free(30)), needless, "that much goes anyway");
        assert_eq!(names(&held, &[], free(45))[3..], [(1, Why::ToFree), (7, Why::ToFree)]);
        assert_eq!(names(&held, &["a=30"], Asked::default())[3..], [(1, Why::OverQuota)]);
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_and_nothing_goes_twice(
            held in prop::collection::vec((0u64..60, any::<bool>(), any::<bool>(), 0u8..4), 0..20),
            free in prop::option::of(0u64..300), unused in prop::option::of(0u64..60 * DAY), quota in 1u64..200,
        ) {
            let listing = |n| [Listing::Listed, Listing::Retired, Listing::Unlisted, Listing::Unknown][usize::from(n)];
            let held: Vec<Piece> = (0u8..).zip(held).map(|(n, (days, kept, complete, l))| with(n, days, |it| {
                (it.candidate.kept, it.complete, it.listing) = (kept, complete, listing(l));
            })).collect();
            let gone = names(&held, &[&format!("a={quota}")], Asked { free, unused });
            let once: BTreeSet<u8> = gone.iter().map(|(n, _)| *n).collect();
            prop_assert_eq!(once.len(), gone.len());
            prop_assert!(once.iter().all(|n| !held[usize::from(*n)].candidate.kept));
        }
    }
}
