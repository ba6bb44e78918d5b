//! Where an origin is: a folder, `http(s)://...`, or `s3://BUCKET/PREFIX`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// The address of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A folder of this machine (or one that it mounts).
    Folder(PathBuf),
    /// A tree on any web server that answers range requests.
    Web(Url),
    /// A bucket; endpoint and credentials come from the usual `AWS_*` variables.
    Bucket {
        /// Its name.
        bucket: String,
        /// The folder in it, without slashes at its ends.
        prefix: String,
    },
}

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: give a folder, an http:// or https:// address, or s3://BUCKET/PREFIX")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(invalid()) } else { Ok(Self::Folder(PathBuf::from(text))) };
        };
        match scheme {
            "file" => Ok(Self::Folder(PathBuf::from(rest))),
            "http" | "https" => {
                let url = Url::parse(text).map_err(|_| invalid())?;
                if url.host_str().is_none() { Err(invalid()) } else { Ok(Self::Web(url)) }
            }
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(invalid());
                }
                Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            // A password in the address stays out of logs.
            Self::Web(url) if url.password().is_some() => {
                let mut url = url.clone();
                url.set_password(None).ok();
                write!(f, "{url}")
            }
            Self::Web(url) => write!(f, "{url}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_scheme() {
        assert_eq!("/srv/origin".parse(), Ok(Address::Folder("/srv/origin".into())));
        assert_eq!("file:///srv".parse(), Ok(Address::Folder("/srv".into())));
        assert!(matches!("https://a.example/b/".parse(), Ok(Address::Web(_))));
        let bucket = Address::Bucket { bucket: "b".into(), prefix: "c/d".into() };
        assert_eq!("s3://b/c/d/".parse(), Ok(bucket));
        for bad in ["", "ftp://x", "http://", "s3:///x"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let with_password: Address = "http://user:secret@a.example/".parse().expect("valid");
        assert!(!with_password.to_string().contains("secret"));
    }
}
