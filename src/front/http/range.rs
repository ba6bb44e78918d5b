//! `Range` and its conditions (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// Which bytes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of them: no range, one that is not understood, or several.
    Whole,
    /// A part.
    Part(Range<u64>),
    /// A part that does not exist.
    Unsatisfiable,
}

/// Reads the `Range` header of a request for something of this size and this `ETag`.
pub fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Wanted::Whole;
    };
    // A part of something else than what the client has is of no use to it.
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Wanted::Whole;
    }
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are beyond any size.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.trim().is_empty() => first..size,
        (None, Some(suffix)) if first.trim().is_empty() && suffix > 0 => size.saturating_sub(suffix)..size,
        (None, Some(0)) if first.trim().is_empty() => return Wanted::Unsatisfiable,
        _ => return Wanted::Whole,
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Unsatisfiable }
}

/// Whether the client has this already (`If-None-Match`).
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let Some(known) = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

/// Whether the client says that it has a part of this, or all.
pub fn has(headers: &HeaderMap, etag: &str) -> bool {
    let part = headers.get(header::IF_RANGE).is_some_and(|part| part.as_bytes() == etag.as_bytes());
    part || (is_known(headers, etag) && headers.get(header::IF_NONE_MATCH).is_some_and(|it| it != "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().expect("a header"));
        wanted(&headers, size, "\"e\"")
    }

    #[test]
    fn as_the_rfc_has_it() {
        assert_eq!(range("bytes=0-0", 10), Wanted::Part(0..1));
        assert_eq!(range("bytes=2-", 10), Wanted::Part(2..10));
        assert_eq!(range("bytes=-3", 10), Wanted::Part(7..10));
        assert_eq!(range("bytes=-30", 10), Wanted::Part(0..10));
        assert_eq!(range("bytes=5-99999999999999999999999", 10), Wanted::Part(5..10));
        assert_eq!(range("bytes=10-", 10), Wanted::Unsatisfiable);
        assert_eq!(range("bytes=-0", 10), Wanted::Unsatisfiable);
        assert_eq!(range("bytes=0-", 0), Wanted::Unsatisfiable);
        for odd in ["bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "chunks=0-1", "bytes=", "bytes=--1"] {
            assert_eq!(range(odd, 10), Wanted::Whole, "{odd}");
        }
    }

    #[test]
    fn conditions() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-2".parse().expect("a header"));
        headers.insert(header::IF_RANGE, "\"old\"".parse().expect("a header"));
        assert_eq!(wanted(&headers, 10, "\"e\""), Wanted::Whole);
        headers.insert(header::IF_RANGE, "\"e\"".parse().expect("a header"));
        assert_eq!(wanted(&headers, 10, "\"e\""), Wanted::Part(1..3));
        headers.insert(header::IF_NONE_MATCH, "\"a\", W/\"e\"".parse().expect("a header"));
        assert!(is_known(&headers, "\"e\""));
        assert!(!is_known(&headers, "\"f\""));
    }
}
