//! Minutes of the week, counted from Monday 00:00 on the site's clock.

use std::ops::Range;

use jiff::civil::DateTime;

/// Minutes of a day.
pub(super) const DAY: u32 = 24 * 60;
/// Minutes of a week.
pub(super) const WEEK: u32 = 7 * DAY;
/// As people write them.
pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// From a minute to another, the last one excluded; never over the end of the week.
pub(super) type Span = Range<u32>;

/// The minute that a clock shows.
pub(super) fn minute_of(time: DateTime) -> u32 {
    let day = u32::from(time.weekday().to_monday_zero_offset().unsigned_abs());
    day * DAY + u32::from(time.hour().unsigned_abs()) * 60 + u32::from(time.minute().unsigned_abs())
}

/// A window that opens on a day at a minute of it, and lasts for so many. Two spans if it goes over
/// the end of the week.
pub(super) fn spans(day: u32, start: u32, minutes: u32) -> Vec<Span> {
    let start = day * DAY + start;
    let end = start + minutes;
    let spans = [start..end.min(WEEK), 0..end.saturating_sub(WEEK)];
    spans.into_iter().filter(|span| !span.is_empty()).collect()
}

/// The first span that both have.
pub(super) fn common(one: &[Span], other: &[Span]) -> Option<Span> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| a.start.max(b.start)..a.end.min(b.end)));
    pairs.filter(|span| !span.is_empty()).min_by_key(|span| span.start)
}

/// As `mon 17:00-18:00`.
pub(super) fn written(span: &Span) -> String {
    let day = DAYS[(span.start / DAY % 7) as usize];
    let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let end = match span.end % DAY {
        0 => DAY,
        end => end,
    };
    if (span.end - 1) / DAY == span.start / DAY {
        return format!("{day} {}-{}", time(span.start % DAY), time(end));
    }
    format!("{day} {} to {} {}", time(span.start % DAY), DAYS[((span.end - 1) / DAY % 7) as usize], time(end))
}
