//! What is known of an object: where its bytes are, and what its upstream said of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Digest;
use super::freshness::{self, Reuse};
use crate::core::id::{BlobId, ManifestId};

/// The most segments of an object: 256 GB of the largest ones.
pub const MOST_SEGMENTS: usize = 1 << 16;
/// Headers that are kept, and how long each may be, in bytes.
pub const MOST_HEADERS: usize = 24;
/// The longest value of one.
pub const LONGEST_HEADER: usize = 2048;

/// A piece of an object: a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its bytes.
    pub blob: BlobId,
    /// How they are cut.
    pub manifest: ManifestId,
    /// How many there are.
    pub size: u64,
}

/// An object, as far as it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its segments, in order.
    pub segments: Vec<Segment>,
    /// Its length, in bytes, if its upstream said it, or all of it has come.
    pub size: Option<u64>,
    /// All of it has come, and its digest is right.
    pub complete: bool,
    /// What its upstream said of it that clients are told, in lower case.
    pub headers: Vec<(String, String)>,
    /// When its upstream was last asked, in milliseconds since the epoch.
    pub checked_ms: u64,
    /// How old it was then, by its own account, in seconds.
    #[serde(default)]
    pub age_s: u64,
    /// The digest that it was held against.
    #[serde(default)]
    pub digest: Option<Digest>,
}

impl Record {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Bytes that have come.
    pub fn came(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// A name of all its bytes, once it is complete: the BLAKE3 of its segments' names. Objects are cut alike
    /// wherever they come, so that the same bytes have the same name.
    pub fn content(&self) -> BlobId {
        let mut hasher = blake3::Hasher::new();
        for segment in &self.segments {
            hasher.update(segment.blob.as_bytes());
        }
        BlobId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// What it says about its reuse.
    pub fn reuse(&self) -> Reuse {
        freshness::reuse(self.header("cache-control").unwrap_or_default())
    }

    /// How old it is.
    pub fn age(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.checked_ms)) + Duration::from_secs(self.age_s)
    }

    /// Whether it may be used without asking its upstream. What never changes, always; the rest as it
    /// says, else for as long as is `expected`.
    pub fn is_fresh(&self, now_ms: u64, unchanged: Option<Duration>, expected: Option<Duration>) -> bool {
        let Some(expected) = expected else { return true };
        // A clock that was set back makes nothing younger than new.
        self.checked_ms <= now_ms + 60_000
            && self.age(now_ms) < freshness::lifetime(&self.reuse(), unchanged, expected)
    }

    /// Puts the segments before those that are told that the asker knew: `from` of them. False, and nothing
    /// is done, if it knew fewer.
    #[must_use]
    pub fn continues(&mut self, known: &[Segment], from: usize) -> bool {
        let Some(known) = known.get(..from) else { return false };
        self.segments.splice(0..0, known.iter().copied());
        true
    }

    /// Whether a member's word of it makes sense, once it is whole.
    pub fn is_plausible(&self) -> bool {
        let short = |(name, value): &(String, String)| name.len() <= 64 && value.len() <= LONGEST_HEADER;
        self.segments.len() <= MOST_SEGMENTS
            && self.headers.len() <= MOST_HEADERS
            && self.headers.iter().all(short)
            && self.segments.iter().try_fold(0u64, |sum, it| sum.checked_add(it.size)).is_some()
            && (!self.complete || self.size == Some(self.came()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_as_fresh_as_it_says() {
        let headers = vec![("cache-control".to_owned(), "max-age=100".to_owned())];
        let record = Record { headers, checked_ms: 1_000_000, age_s: 40, ..Record::default() };
        let expected = Some(Duration::from_secs(5));
        assert!(record.is_fresh(1_059_000, None, expected));
        assert!(!record.is_fresh(1_060_000, None, expected));
        assert!(record.is_fresh(9_000_000, None, None), "it never changes");
        assert!(!record.is_fresh(500_000, None, expected), "the clock was set back");
    }

    #[test]
    fn nonsense_is_not_believed() {
        let segment = |size| Segment { blob: BlobId::of(b""), manifest: ManifestId::of(b""), size };
        let of = |segments, size| Record { segments, size, complete: true, ..Record::default() };
        assert!(of(vec![segment(5), segment(4)], Some(9)).is_plausible());
        assert!(!of(vec![segment(5)], Some(9)).is_plausible());
        assert!(!of(vec![segment(u64::MAX), segment(1)], Some(0)).is_plausible());
        // The last news of an object tells of its last segments alone.
        let mut news = of(vec![segment(4)], Some(9));
        assert!(!news.continues(&[segment(5)], 2) && !news.is_plausible());
        assert!(news.continues(&[segment(5), segment(7)], 1) && news.is_plausible());
    }
}
