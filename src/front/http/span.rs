//! Which hours a question about the books is about: `since=7d`, or `from=2026-11-01&to=2026-11-07`.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::node::books::hour_now;

/// The hours, all of them UTC; `None` if nothing is said.
///
/// # Errors
/// In words, what is wrong with which.
pub(in crate::front) fn hours(
    since: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Option<Range<u32>>, String> {
    if since.is_none() && from.is_none() && to.is_none() {
        return Ok(None);
    }
    if since.is_some() && (from.is_some() || to.is_some()) {
        return Err("give either 'since', or 'from' and 'to'".into());
    }
    let start = match (since, from) {
        (Some(since), _) => hour_now().saturating_sub(length(since)?),
        (_, Some(from)) => hour_of(from, false)?,
        _ => 0,
    };
    let end = to.map(|to| hour_of(to, true)).transpose()?.unwrap_or(u32::MAX);
    if start >= end {
        return Err("'from' is not before 'to'".into());
    }
    Ok(Some(start..end))
}

/// `7d` or `24h`, in hours.
fn length(text: &str) -> Result<u32, String> {
    let unit = |end: char, hours: u32| text.strip_suffix(end)?.parse::<u32>().ok()?.checked_mul(hours);
    unit('d', 24)
        .or_else(|| unit('h', 1))
        .ok_or_else(|| format!("{text:?} is no time span; write it like 7d or 24h"))
}

/// A day, or a time, in hours since 1970. As an `end`, a day counts whole, and so does an hour that has
/// begun.
fn hour_of(text: &str, end: bool) -> Result<u32, String> {
    let wrong =
        || format!("{text:?} is no day and no time; write it like 2026-11-01 or 2026-11-01T08:00:00Z");
    let (at, more) = match text.parse::<Timestamp>() {
        Ok(at) => (at, 3599),
        Err(_) => {
            let day: Date = text.parse().map_err(|_| wrong())?;
            (day.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp(), 86_400)
        }
    };
    let seconds = at.as_second() + if end { more } else { 0 };
    u32::try_from(seconds / 3600).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(hours(None, None, None), Ok(None));
        let since = hours(Some("7d"), None, None).ok().flatten().expect("a span");
        assert!((168..=169).contains(&(hour_now() - since.start)), "{since:?}");
        assert_eq!(since.end, u32::MAX);
        let day = 20_000 * 24;
        assert_eq!(hours(None, Some("2024-10-04"), Some("2024-10-05")), Ok(Some(day..day + 48)));
        let times = hours(None, Some("2024-10-04T01:30:00Z"), Some("2024-10-04T02:30:00Z"));
        assert_eq!(times, Ok(Some(day + 1..day + 3)));
        for (since, from, to) in [
            (Some("7"), None, None),
            (Some("xd"), None, None),
            (Some("7d"), Some("2024-10-04"), None),
            (None, Some("2024-10-05"), Some("2024-10-03")),
            (None, Some("yesterday"), None),
        ] {
            assert!(hours(since, from, to).is_err(), "{since:?} {from:?} {to:?}");
        }
    }
}
