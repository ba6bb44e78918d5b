//! What orders are about.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::id::{PackageName, Version};
use crate::core::window::Hold;

/// A kind of order.
pub trait Subject: Serialize + DeserializeOwned {
    /// How its names begin.
    const KIND: &'static str;
    /// What tells two orders of this kind apart.
    type Key: FromStr + fmt::Display;

    /// An order's name.
    fn name(key: &Self::Key) -> String {
        format!("{}/{key}", Self::KIND)
    }

    /// The key that a name ends with.
    fn key(text: &str) -> Option<Self::Key> {
        text.parse().ok()
    }
}

/// `NAME@VERSION`, `NAME@CHANNEL`, or `NAME` alone: whatever `get NAME` would fetch. What a channel
/// points at may change, and the order is about that version then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The package.
    pub name: PackageName,
    /// A version or a channel.
    pub wanted: Option<Version>,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, wanted) = match text.split_once('@') {
            Some((name, wanted)) => (name, Some(wanted)),
            None => (text, None),
        };
        let name = name.parse().map_err(|error| format!("{error}"))?;
        let wanted = wanted.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
        Ok(Self { name, wanted })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Some(wanted) => write!(f, "{}@{wanted}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The key of an order of which a site has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole;

impl FromStr for Whole {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "site" { Ok(Self) } else { Err(()) }
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("site")
    }
}

/// How many nodes keep a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Copies {
    /// At least so many.
    AtLeast(u32),
    /// Every node that serves others.
    All,
}

impl FromStr for Copies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "all" => Ok(Self::All),
            Ok(copies @ 1..) => Ok(Self::AtLeast(copies)),
            _ => Err(format!("{text:?} is no number of copies; give 1 or more, or 'all'")),
        }
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(copies) => copies.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// The site brings a package in, and keeps copies of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// How many.
    pub copies: Copies,
    /// When it is to be there.
    #[serde(default)]
    pub by: Option<Timestamp>,
    /// Every copy is kept, also those that clients brought.
    #[serde(default)]
    pub pin: bool,
}

impl Subject for Seed {
    const KIND: &'static str = "seed";
    type Key = Selector;
}

/// Whoever holds a package keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {}

impl Subject for Pin {
    const KIND: &'static str = "pin";
    type Key = Selector;
}

/// When the site may take how much from the WAN, as [`crate::core::window::Schedule`] reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanSchedule {
    /// As the admin wrote it.
    pub toml: String,
}

impl Subject for WanSchedule {
    const KIND: &'static str = "wan-schedule";
    type Key = Whole;
}

impl Subject for Hold {
    const KIND: &'static str = "wan-hold";
    type Key = Whole;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_copies_are_read_as_they_are_written() {
        for text in ["firefox", "firefox@128.3.0", "firefox@stable"] {
            let selector: Selector = text.parse().expect("valid");
            assert_eq!(selector.to_string(), text);
            assert_eq!(serde_json::to_string(&selector).expect("text"), format!("{text:?}"));
        }
        for text in ["", "@1", "a@", "a@b/c", "../x"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        assert_eq!("3".parse(), Ok(Copies::AtLeast(3)));
        assert_eq!("all".parse(), Ok(Copies::All));
        assert!("0".parse::<Copies>().is_err() && "-1".parse::<Copies>().is_err());
    }
}
