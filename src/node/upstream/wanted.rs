//! What a client wants of an upstream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::upstream::record::Record;
use crate::core::upstream::{Digest, ObjectKey};

/// An object, and what is known of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its upstream's name.
    pub upstream: String,
    /// Where it is there, without a slash at its beginning; or an address that the upstream's index gave.
    pub path: String,
    /// What the client accepts, where that makes a difference.
    pub accept: Option<String>,
    /// Its digest, where the protocol knows it.
    pub digest: Option<Digest>,
    /// If it may change: how long it is taken to be fresh, in seconds, where it does not say itself.
    pub expected_s: Option<u64>,
}

impl Wanted {
    /// By which nodes know it.
    pub fn key(&self) -> ObjectKey {
        match &self.digest {
            Some(digest) => ObjectKey::of_digest(digest),
            None => {
                ObjectKey::of_place(&self.upstream, &self.path, self.accept.as_deref().unwrap_or_default())
            }
        }
    }

    /// Whether what is held may be used without asking the upstream.
    pub(super) fn is_fresh(&self, record: &Record) -> bool {
        let expected = self.expected_s.filter(|_| self.digest.is_none()).map(Duration::from_secs);
        record.is_fresh(now_ms(), unchanged(record), expected)
    }
}

/// Now, in milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// How long it had not changed when its upstream was last asked.
fn unchanged(record: &Record) -> Option<Duration> {
    let modified = jiff::fmt::rfc2822::parse(record.header("last-modified")?).ok()?;
    let modified = u64::try_from(modified.timestamp().as_millisecond()).ok()?;
    record.checked_ms.checked_sub(modified).map(Duration::from_millis)
}
