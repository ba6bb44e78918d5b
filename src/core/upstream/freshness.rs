//! How long an answer may be used without asking again: RFC 9111, as a shared cache, and the grace of
//! RFC 5861.

use std::time::Duration;

/// An answer of whose age nothing is said, but which says when it was last changed, is taken to be
/// fresh for this part of its age then...
const HEURISTIC: u32 = 10;
/// ... and no longer than this.
const HEURISTIC_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// No lifetime is believed to be longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What an answer's header says about its reuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reuse {
    /// It is fresh for so long; nothing is said if `None`.
    pub lifetime: Option<Duration>,
    /// It is to be checked with the upstream each time.
    pub always_check: bool,
    /// It is not for everybody: `private`, or `no-store`.
    pub no_sharing: bool,
    /// It may be used so much longer if the upstream does not answer; without a limit if `None`.
    pub stale_if_error: Option<Duration>,
    /// It may not be used once it is stale, whatever happens.
    pub must_revalidate: bool,
}

/// Reads the `Cache-Control` of an answer; what it does not know is ignored.
pub fn reuse(cache_control: &str) -> Reuse {
    let mut reuse = Reuse::default();
    let (mut max_age, mut shared) = (None, None);
    for directive in cache_control.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = || value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        match name.trim().to_ascii_lowercase().as_str() {
            "max-age" => max_age = seconds(),
            "s-maxage" => shared = seconds(),
            "no-cache" => reuse.always_check = true,
            "no-store" | "private" => reuse.no_sharing = true,
            "must-revalidate" | "proxy-revalidate" => reuse.must_revalidate = true,
            "stale-if-error" => reuse.stale_if_error = seconds(),
            "immutable" => max_age = max_age.or(Some(LONGEST)),
            _ => {}
        }
    }
    reuse.lifetime = shared.or(max_age).map(|lifetime| lifetime.min(LONGEST));
    reuse
}

/// How long an answer is fresh: what it says, else a part of how long it had not changed by then, else
/// what its protocol's clients expect.
pub fn lifetime(reuse: &Reuse, unchanged: Option<Duration>, expected: Duration) -> Duration {
    if reuse.always_check {
        return Duration::ZERO;
    }
    let heuristic = || unchanged.map(|age| (age / HEURISTIC).min(HEURISTIC_AT_MOST).min(expected));
    reuse.lifetime.or_else(heuristic).unwrap_or(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn shared_caches_go_by_what_is_meant_for_them() {
        let it = reuse("public, max-age=60, s-maxage=\"3600\"");
        assert_eq!(it, Reuse { lifetime: Some(MINUTE * 60), ..Reuse::default() });
        let it = reuse("no-cache, Private ,stale-if-error=60,must-revalidate");
        assert!(it.always_check && it.no_sharing && it.must_revalidate);
        assert_eq!(it.stale_if_error, Some(MINUTE));
        assert_eq!(reuse("max-age=-1, max-age=x, ,=,"), Reuse::default());
        assert_eq!(reuse("max-age=99999999999999").lifetime, Some(LONGEST));
    }

    #[test]
    fn what_says_nothing_is_as_fresh_as_its_protocol_expects() {
        let (said, silent) = (reuse("max-age=600"), Reuse::default());
        assert_eq!(lifetime(&said, None, MINUTE), MINUTE * 10);
        assert_eq!(lifetime(&silent, None, MINUTE), MINUTE);
        assert_eq!(lifetime(&silent, Some(MINUTE * 5), MINUTE), MINUTE / 2);
        assert_eq!(lifetime(&silent, Some(MINUTE * 5000), MINUTE), MINUTE);
        assert_eq!(lifetime(&reuse("no-cache, max-age=9"), None, MINUTE), Duration::ZERO);
    }
}
