//! Rates and sizes as people write them: `50mbit`, `6MB/s`, `20GiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is no rate or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a {kind}; write it like {example}")]
pub struct InvalidQuantity {
    given: String,
    kind: &'static str,
    example: &'static str,
}

/// Bytes per second. Written in bits (`50mbit`, `1gbit`) or bytes (`6MB/s`, `512KiB/s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// Bytes. Written with decimal (`20GB`) or binary (`20GiB`) prefixes, or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A number and the unit after it, in lower case.
fn split(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

fn prefix(text: &str) -> Option<f64> {
    Some(match text {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024f64.powi(2),
        "gi" => 1024f64.powi(3),
        "ti" => 1024f64.powi(4),
        _ => return None,
    })
}

fn whole(bytes: f64) -> Option<u64> {
    (bytes.is_finite() && (0.0..=9e18).contains(&bytes)).then_some(bytes.round() as u64)
}

impl FromStr for Rate {
    type Err = InvalidQuantity;
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let parse = || {
            let (number, unit) = split(text)?;
            let (unit, per_bit) = ["bit/s", "bit", "bps"]
                .iter()
                .find_map(|end| unit.strip_suffix(end).map(|unit| (unit, 8.0)))
                .or_else(|| {
                    ["b/s", "/s", "b"].iter().find_map(|end| unit.strip_suffix(end)).map(|unit| (unit, 1.0))
                })?;
            whole(number * prefix(unit)? / per_bit).filter(|&rate| rate > 0).map(Rate)
        };
        parse().ok_or(InvalidQuantity {
            given: text.to_owned(),
            kind: "rate",
            example: "50mbit (bits per second) or 6MB/s",
        })
    }
}

impl FromStr for Size {
    type Err = InvalidQuantity;
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let parse = || {
            let (number, unit) = split(text)?;
            whole(number * prefix(unit.strip_suffix('b').unwrap_or(&unit))?).map(Size)
        };
        parse().ok_or(InvalidQuantity { given: text.to_owned(), kind: "size", example: "20GiB or 500MB" })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64 * 8.0;
        let (value, unit) = scaled(bits, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
        write!(f, "{value:.1} {unit}")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = scaled(self.0 as f64, &["B", "kB", "MB", "GB", "TB"]);
        if unit == "B" { write!(f, "{value:.0} B") } else { write!(f, "{value:.1} {unit}") }
    }
}

fn scaled<'a>(mut value: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut at = 0;
    while value >= 1000.0 && at + 1 < units.len() {
        value /= 1000.0;
        at += 1;
    }
    (value, units[at])
}

macro_rules! as_text {
    ($name:ident, $unit:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!(concat!("{}", $unit), self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Rate, "B/s");
as_text!(Size, "B");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_as_written() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0).ok();
        assert_eq!(rate("50mbit"), Some(6_250_000));
        assert_eq!(rate("50 Mbit/s"), Some(6_250_000));
        assert_eq!(rate("8kbps"), Some(1000));
        assert_eq!(rate("6MB/s"), Some(6_000_000));
        assert_eq!(rate("512KiB/s"), Some(524_288));
        for bad in ["", "fast", "50", "-1mbit", "0mbit", "1xbit", "1e300mbit", "."] {
            assert_eq!(rate(bad), None, "{bad}");
        }
        let size = |text: &str| text.parse::<Size>().map(|size| size.0).ok();
        assert_eq!(size("20GiB"), Some(20 << 30));
        assert_eq!(size("1.5 kB"), Some(1500));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("many"), None);
        assert_eq!(Size(1_500_000).to_string(), "1.5 MB");
        assert_eq!(Rate(6_250_000).to_string(), "50.0 Mbit/s");
    }
}
