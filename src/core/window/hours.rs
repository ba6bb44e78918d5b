//! Days and hours as people write them: `mon-fri`, `sat,sun`, `08:00-18:00`, `22:00-06:00`.

use super::week::{DAY, DAYS};

fn day(text: &str) -> Option<usize> {
    let text = text.trim().to_ascii_lowercase();
    // Whole names too.
    DAYS.iter().position(|day| text.len() >= 3 && text.starts_with(day) && is_day(&text))
}

fn is_day(text: &str) -> bool {
    const WHOLE: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    WHOLE.iter().any(|whole| whole.starts_with(text))
}

/// The days that a text names, 0 for Monday. Over the end of the week, too: `sat-mon`.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn days(text: &str) -> Result<Vec<u32>, String> {
    let mut named = [false; 7];
    for part in text.split(',') {
        let unknown = || format!("{part:?} is no day; write mon-fri, \"sat,sun\" or daily");
        if part.trim() == "daily" {
            named = [true; 7];
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first).ok_or_else(unknown)?, day(last).ok_or_else(unknown)?);
        (0..=(last + 7 - first) % 7).for_each(|ahead| named[(first + ahead) % 7] = true);
    }
    Ok((0..7u32).filter(|&day| named[day as usize]).collect())
}

/// The minute of the day.
fn time(text: &str) -> Option<u32> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

/// The first minute of the day, and how many follow: over midnight if the end is before the start.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn hours(text: &str) -> Result<(u32, u32), String> {
    let unknown =
        || format!("{text:?} are no hours; write 08:00-18:00, 22:00-06:00 (over midnight) or 00:00-24:00");
    let (start, end) = text.split_once('-').ok_or_else(unknown)?;
    let (start, end) = (time(start).ok_or_else(unknown)?, time(end).ok_or_else(unknown)?);
    if start == end || start == DAY {
        return Err(format!("{text:?} never opens: it has no minute; the whole day is 00:00-24:00"));
    }
    Ok((start, if end > start { end - start } else { end + DAY - start }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_as_people_write_them() {
        assert_eq!(days("mon-fri"), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(days("sat, sun"), Ok(vec![5, 6]));
        assert_eq!(days("sat-mon,Wednesday"), Ok(vec![0, 2, 5, 6]));
        assert_eq!(days("daily"), Ok((0..7).collect()));
        for bad in ["", "mo", "mon-", "weekend", "sunny", "mon..fri"] {
            assert!(days(bad).expect_err(bad).contains("is no day"));
        }
    }

    #[test]
    fn hours_as_people_write_them() {
        assert_eq!(hours("08:00-18:00"), Ok((480, 600)));
        assert_eq!(hours("22:30-6:00"), Ok((1350, 450)));
        assert_eq!(hours("00:00-24:00"), Ok((0, DAY)));
        assert_eq!(hours("18:00-00:00"), Ok((1080, 360)));
        for bad in ["", "8-18", "08:00", "08:60-09:00", "24:01-02:00", "+8:00-09:00", "08:00-18:00-20:00"] {
            assert!(hours(bad).expect_err(bad).contains("are no hours"), "{bad}");
        }
        for never in ["08:00-08:00", "24:00-03:00", "24:00-24:00"] {
            assert!(hours(never).expect_err(never).contains("never opens"), "{never}");
        }
    }
}
