//! What a client wants of an upstream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::upstream::record::Record;
use crate::core::upstream::{Digest, ObjectKey};
use crate::origin::upstream::Credentials;

/// Who asks within this time after another is answered alike.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);
/// A login that was good for something is taken to be good for it for so long.
const LOGIN_GOOD: Duration = Duration::from_secs(600);

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
    /// The client wants what its upstream was asked for no longer ago than this, in seconds, whatever is said
    /// of its freshness. What has a digest never changes; whether a login is good for it may.
    #[serde(default)]
    pub no_older_s: Option<u64>,
    /// Of the credentials with which it is pulled. Nodes with others, or none, do not share it; it goes over
    /// no wire.
    #[serde(skip)]
    pub(super) realm: Option<[u8; 32]>,
    /// The client's own, with which its upstream is asked; as little.
    #[serde(skip)]
    pub(super) login: Option<Credentials>,
}

impl Wanted {
    /// By which nodes know it.
    pub fn key(&self) -> ObjectKey {
        let variant = self.accept.as_deref().unwrap_or_default();
        let key = match &self.digest {
            Some(digest) => ObjectKey::of_digest(digest),
            None => ObjectKey::of_place(&self.upstream, &self.path, variant),
        };
        self.realm.map_or(key, |realm| key.within(&realm))
    }

    /// Something that never changes, known by its digest if there is one.
    pub fn immutable(upstream: &str, path: &str, digest: Option<Digest>) -> Self {
        let (upstream, path) = (upstream.to_owned(), path.to_owned());
        Self {
            upstream,
            path,
            accept: None,
            digest,
            expected_s: None,
            no_older_s: None,
            realm: None,
            login: None,
        }
    }

    /// Something that may change; fresh for so many seconds, where it does not say itself.
    pub fn mutable(upstream: &str, path: &str, expected_s: u64) -> Self {
        Self { expected_s: Some(expected_s), ..Self::immutable(upstream, path, None) }
    }

    /// The representation of it that this `Accept` asks for.
    pub fn accepting(self, accept: &str) -> Self {
        Self { accept: Some(accept.to_owned()), ..self }
    }

    /// What this login may have of its upstream.
    pub(super) fn with_login(self, login: Credentials) -> Self {
        // The same login may be good at one upstream and not at another.
        let realm = [&login.realm()[..], self.upstream.as_bytes()].concat();
        Self { realm: Some(*blake3::hash(&realm).as_bytes()), login: Some(login), ..self }
    }

    /// Whether what is held may be used without asking the upstream.
    pub(super) fn is_fresh(&self, record: &Record) -> bool {
        let checked = Duration::from_millis(now_ms().abs_diff(record.checked_ms));
        // Many who want it new at the same moment are content with one question.
        let limit = self.no_older_s.map(|limit| Duration::from_secs(limit).max(AT_ONCE));
        if self.digest.is_some() {
            return self.login.is_none() || checked < limit.unwrap_or(LOGIN_GOOD).min(LOGIN_GOOD);
        }
        let expected = self.expected_s.map(Duration::from_secs);
        limit.is_none_or(|limit| checked < limit) && record.is_fresh(now_ms(), unchanged(record), expected)
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
