//! Reading a schedule: what is wrong is said by its name, with what would be right.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::Deserialize;

use super::month::{Month, Then};
use super::rule::{Cap, Rule};
use super::{Schedule, Window, hours, week};
use crate::core::bitrate::Size;

/// The longest schedule, in bytes.
pub const LONGEST: usize = 32 << 10;
/// The most windows.
const MOST_WINDOWS: usize = 64;
/// The longest name of a window, in characters.
const LONGEST_NAME: usize = 60;
/// The last day of a month that every month has.
const LAST_DAY: i8 = 28;

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    zone: String,
    #[serde(default)]
    window: Vec<WrittenWindow>,
    #[serde(default)]
    outside: WrittenRule,
    month: Option<WrittenMonth>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWindow {
    name: String,
    days: Option<String>,
    hours: Option<String>,
    foreground: Option<String>,
    background: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    foreground: Option<String>,
    background: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMonth {
    bytes: Size,
    first_day: Option<i8>,
    warn_at: Option<Vec<u32>>,
    #[serde(default)]
    then: Then,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ScheduleError> {
    Err(ScheduleError(why.into()))
}

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > LONGEST {
            return refuse(format!("the schedule takes {} bytes; {LONGEST} are the most", text.len()));
        }
        let written: Written = toml::from_str(text).map_err(|error| {
            let hint = "a schedule has zone, [[window]] (name, days, hours, foreground, background), \
                        [outside] (foreground, background) and [month] (bytes, first_day, warn_at, then)";
            ScheduleError(format!("{}; {hint}", error.to_string().trim_end()))
        })?;
        if written.window.len() > MOST_WINDOWS {
            return refuse(format!(
                "{} windows are too many; {MOST_WINDOWS} are the most",
                written.window.len()
            ));
        }
        let (zone_name, zone) = zone(&written.zone)?;
        let outside =
            rule(&written.outside.foreground, &written.outside.background, Cap::Unlimited, "[outside]")?;
        let windows = written.window.iter().map(window).collect::<Result<Vec<_>, _>>()?;
        contradictions(&windows)?;
        let month = written.month.map(month).transpose()?;
        let opens = windows.iter().map(|window| window.rule).chain([outside]);
        if opens.into_iter().all(|rule| rule.foreground.is_closed()) {
            return refuse(
                "nothing ever opens: every window and [outside] have foreground = \"none\"; give one of them a rate",
            );
        }
        Ok(Self { zone, zone_name, windows, outside, month })
    }
}

/// A zone of the tables that come with this program: the same on every machine.
fn zone(name: &str) -> Result<(String, TimeZone), ScheduleError> {
    let tables = TimeZoneDatabase::bundled();
    if let Ok(zone) = tables.get(name) {
        let proper = zone.iana_name().unwrap_or(name).to_owned();
        return Ok((proper, zone));
    }
    let alike = |known: &str| {
        // A city without its continent is the likeliest mistake.
        let city = known.rsplit('/').next().unwrap_or(known);
        let (name, known, city) = (name.to_lowercase(), known.to_lowercase(), city.to_lowercase());
        strsim::jaro_winkler(&name, &known).max(strsim::jaro_winkler(&name, &city))
    };
    let mut known: Vec<(f64, String)> =
        tables.available().map(|known| (alike(known.as_str()), known.as_str().to_owned())).collect();
    known.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let nearest: Vec<&str> = known.iter().take(3).map(|(_, name)| name.as_str()).collect();
    refuse(format!("zone = {name:?} is no known time zone; did you mean {}?", nearest.join(", ")))
}

fn rule(
    foreground: &Option<String>,
    background: &Option<String>,
    unless_given: Cap,
    whose: &str,
) -> Result<Rule, ScheduleError> {
    let read = |key: &str, text: &Option<String>, other: Cap| match text {
        Some(text) => Cap::read(text).map_err(|why| ScheduleError(format!("{whose}: {key} = {why}"))),
        None => Ok(other),
    };
    let foreground = read("foreground", foreground, unless_given)?;
    let background = read("background", background, foreground)?;
    if background > foreground {
        return refuse(format!(
            "{whose}: background ({background}) is let through more than foreground ({foreground}), which \
             includes it; lower the one or raise the other"
        ));
    }
    Ok(Rule { foreground, background })
}

fn window(written: &WrittenWindow) -> Result<Window, ScheduleError> {
    let name = written.name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return refuse(format!("window {name:?}: a name has 1 to {LONGEST_NAME} characters"));
    }
    let whose = format!("window {name:?}");
    let wrong = |key: &'static str| {
        let whose = whose.clone();
        move |why: String| ScheduleError(format!("{whose}: {key} = {why}"))
    };
    if written.foreground.is_none() && written.background.is_none() {
        return refuse(format!("{whose} changes nothing; give foreground, background or both"));
    }
    let days = hours::days(written.days.as_deref().unwrap_or("daily")).map_err(wrong("days"))?;
    let hours = written.hours.as_deref().unwrap_or("00:00-24:00");
    let (start, minutes) = hours::hours(hours).map_err(wrong("hours"))?;
    let spans = days.into_iter().flat_map(|day| week::spans(day, start, minutes)).collect();
    let rule = rule(&written.foreground, &written.background, Cap::Unlimited, &whose)?;
    Ok(Window { name: name.to_owned(), rule, spans })
}

/// Every minute of the week belongs to one window at most.
fn contradictions(windows: &[Window]) -> Result<(), ScheduleError> {
    for (index, one) in windows.iter().enumerate() {
        for other in &windows[index + 1..] {
            if one.name == other.name {
                return refuse(format!("two windows are called {:?}; give each a name of its own", one.name));
            }
            if let Some(span) = week::common(&one.spans, &other.spans) {
                return refuse(format!(
                    "windows {:?} and {:?} overlap on {}, so that it is not clear which holds; change the \
                     hours or the days of one",
                    one.name,
                    other.name,
                    week::written(&span)
                ));
            }
        }
    }
    Ok(())
}

fn month(written: WrittenMonth) -> Result<Month, ScheduleError> {
    let first_day = written.first_day.unwrap_or(1);
    if !(1..=LAST_DAY).contains(&first_day) {
        return refuse(format!(
            "[month]: first_day = {first_day} is no day that every month has; give 1 to {LAST_DAY}"
        ));
    }
    if written.bytes.0 == 0 {
        return refuse("[month]: bytes = 0 lets nothing through at all; leave [month] out, or give a size");
    }
    let mut warn_at = written.warn_at.unwrap_or_else(|| vec![50, 80, 95]);
    if let Some(wrong) = warn_at.iter().find(|share| !(1..=100).contains(*share)) {
        return refuse(format!("[month]: warn_at = {wrong} is no share; give percents from 1 to 100"));
    }
    warn_at.sort_unstable();
    warn_at.dedup();
    Ok(Month { bytes: written.bytes, first_day, warn_at, then: written.then })
}
