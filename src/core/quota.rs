//! What all versions of one package may take on a node, together.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::bitrate::{InvalidQuantity, Size};
use super::id::{InvalidName, PackageName};

/// Every package that has no quota of its own.
const OTHERS: &str = "*";

/// One quota, as written: `NAME=SIZE`, or `*=SIZE` for every package that is not named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageQuota {
    /// The package; none: each of those that are not named.
    pub package: Option<PackageName>,
    /// The most that its versions take.
    pub size: Size,
}

/// Why quotas cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    /// Not of the form `NAME=SIZE`.
    #[error("{0:?} is not a package quota; write it like firefox=2GiB, or *=5GiB for all that are not named")]
    Form(String),
    /// The package's name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The size.
    #[error(transparent)]
    Size(#[from] InvalidQuantity),
    /// Nothing at all.
    #[error("a package quota of 0 for {0} would keep nothing of it; give it some room, or leave it out")]
    Nothing(String),
    /// The same package twice.
    #[error("two package quotas are given for {0}: {1} and {2}; give one")]
    Twice(String, Size, Size),
    /// More than there is.
    #[error("the package quota {0}={1} is more than the cache takes ({2}); lower it, or raise cache_size")]
    BeyondCache(String, Size, Size),
}

impl FromStr for PackageQuota {
    type Err = InvalidQuota;

    fn from_str(text: &str) -> Result<Self, InvalidQuota> {
        let form = || InvalidQuota::Form(text.chars().take(80).collect());
        let (name, size) = text.split_once('=').ok_or_else(form)?;
        let (name, size) = (name.trim(), size.parse::<Size>()?);
        if size.0 == 0 {
            return Err(InvalidQuota::Nothing(name.to_owned()));
        }
        let package = if name == OTHERS { None } else { Some(name.parse()?) };
        Ok(Self { package, size })
    }
}

impl fmt::Display for PackageQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.size)
    }
}

impl<'de> Deserialize<'de> for PackageQuota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl PackageQuota {
    fn name(&self) -> &str {
        self.package.as_ref().map_or(OTHERS, PackageName::as_str)
    }
}

/// All quotas of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    named: BTreeMap<String, u64>,
    others: Option<u64>,
}

impl Quotas {
    /// No package has one.
    pub const NONE: Self = Self { named: BTreeMap::new(), others: None };

    /// Puts them together, for a cache of this size.
    ///
    /// # Errors
    /// [`InvalidQuota`]: two for one package, or one that the cache could never fill.
    pub fn new(written: &[PackageQuota], cache: Size) -> Result<Self, InvalidQuota> {
        let mut quotas = Self::NONE;
        for it in written {
            let name = it.name().to_owned();
            if it.size > cache {
                return Err(InvalidQuota::BeyondCache(name, it.size, cache));
            }
            let before = match &it.package {
                Some(_) => quotas.named.insert(name.clone(), it.size.0),
                None => quotas.others.replace(it.size.0),
            };
            if let Some(before) = before.filter(|before| *before != it.size.0) {
                return Err(InvalidQuota::Twice(name, Size(before), it.size));
            }
        }
        Ok(quotas)
    }

    /// The most that this package's versions take together, in bytes; `None` if only the cache's size
    /// bounds them.
    pub fn of(&self, package: &str) -> Option<u64> {
        self.named.get(package).copied().or(self.others)
    }

    /// Whether no package has one.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_as_written() {
        let parse = |texts: &[&str]| {
            let written: Result<Vec<PackageQuota>, _> = texts.iter().map(|text| text.parse()).collect();
            Quotas::new(&written?, Size(10_000_000))
        };
        let quotas = parse(&["firefox=2MB", "*=5MB"]).expect("valid");
        assert_eq!((quotas.of("firefox"), quotas.of("other")), (Some(2_000_000), Some(5_000_000)));
        assert_eq!(parse(&["a=1MB"]).expect("valid").of("other"), None);
        assert!(parse(&[]).expect("valid").is_empty());
        assert!(parse(&["a=1MB", "a=1MB"]).is_ok(), "saying it twice is no contradiction");
        for (texts, word) in [
            (&["firefox"][..], "firefox=2GiB"),
            (&["=1MB"], "package name"),
            (&["../x=1MB"], "package name"),
            (&["a=much"], "not a size"),
            (&["a=0"], "keep nothing"),
            (&["a=1MB", "a=2MB"], "two package quotas"),
            (&["*=1MB", "*=2MB"], "two package quotas"),
            (&["a=11MB"], "more than the cache"),
        ] {
            let error = parse(texts).expect_err("nonsense").to_string();
            assert!(error.contains(word), "{texts:?}: {error}");
        }
    }
}
