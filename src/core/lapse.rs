//! Lengths of time as people write them: `90s`, `30m`, `12h`, `7d`, `2w`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest, in seconds: a hundred years, so that adding it to a time of today is still a time.
const LONGEST: u64 = 100 * 366 * 86_400;
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// A length of time: whole seconds, at most a hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lapse(u64);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no length of time; write it like 7d, 12h, 30m or 90s")]
pub struct InvalidLapse(String);

impl Lapse {
    /// So many days.
    pub const fn days(days: u32) -> Self {
        Self(days as u64 * 86_400)
    }

    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// In milliseconds.
    pub fn as_ms(self) -> u64 {
        self.0.saturating_mul(1000)
    }

    /// As times of the calendar have it.
    pub fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_secs(self.0.min(LONGEST) as i64)
    }
}

impl From<Duration> for Lapse {
    fn from(duration: Duration) -> Self {
        Self(duration.as_secs().min(LONGEST))
    }
}

impl FromStr for Lapse {
    type Err = InvalidLapse;

    fn from_str(text: &str) -> Result<Self, InvalidLapse> {
        let parse = || {
            let text = text.trim();
            if text == "0" {
                return Some(0);
            }
            let (_, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
            let number = text[..text.len() - 1].trim_end();
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| number.parse::<u64>().ok()?.checked_mul(seconds)).flatten()
        };
        let seconds = parse().filter(|seconds| *seconds <= LONGEST);
        seconds.map(Self).ok_or_else(|| InvalidLapse(text.chars().take(40).collect()))
    }
}

/// In the largest unit of which there are at least two, rounded down: for people.
impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [("d", 86_400), ("h", 3600), ("min", 60)];
        match names.into_iter().find(|(_, seconds)| self.0 >= 2 * seconds) {
            Some((name, seconds)) => write!(f, "{} {name}", self.0 / seconds),
            None => write!(f, "{} s", self.0),
        }
    }
}

/// In seconds: exact, which what people read is not.
impl Serialize for Lapse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0))
    }
}

/// How often something is done: a [`Lapse`], or `never` (or 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Option<Lapse>);

impl FromStr for Interval {
    type Err = InvalidLapse;

    fn from_str(text: &str) -> Result<Self, InvalidLapse> {
        if text.trim() == "never" {
            return Ok(Self(None));
        }
        text.parse::<Lapse>().map(|lapse| Self((lapse.0 > 0).then_some(lapse)))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Lapse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_as_written() {
        let seconds = |text: &str| text.parse::<Lapse>().map(|it| it.duration().as_secs()).ok();
        for (text, right) in
            [("7d", 604_800), ("1w", 604_800), ("12h", 43_200), ("30 m", 1800), ("90s", 90), ("0", 0)]
        {
            assert_eq!(seconds(text), Some(right), "{text}");
        }
        for bad in ["", "7", "d", "-1d", "1.5h", "7 days", "99999999999999999999s", "101w1", "9999999w", "ü"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let shown = |seconds: u64| Lapse::from(Duration::from_secs(seconds)).to_string();
        assert_eq!([shown(7200), shown(7000), shown(90), shown(200_000)], ["2 h", "116 min", "90 s", "2 d"]);
    }

    #[test]
    fn intervals_may_be_never() {
        let interval = |text: &str| text.parse::<Interval>().map(|it| it.0).ok();
        assert_eq!((interval("never"), interval("0"), interval("0d")), (Some(None), Some(None), Some(None)));
        assert_eq!((interval("30d"), interval("often")), (Some(Some(Lapse::days(30))), None));
        let text = serde_json::to_string(&Lapse::days(1)).expect("text");
        assert_eq!(serde_json::from_str::<Lapse>(&text).expect("text"), Lapse::days(1));
    }
}
