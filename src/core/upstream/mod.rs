//! Objects of foreign repositories: what they are called, and when they may be used.
//!
//! An object is known by its digest where the client's protocol knows one, so that mirrors, signed
//! addresses and renamed files are one object; else by its upstream and its path there. It comes as a
//! stream of unknown content, so it cannot have a manifest before it has come: it is cut into
//! [`segments`](segment), each of which is a blob with a manifest of its own as soon as it is here.

pub mod alike;
pub mod freshness;
pub mod hub;
pub mod record;
pub mod segment;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::{BlobId, hash_name};

/// So many nodes more, and one home more for each upstream.
const NODES_A_HOME: usize = 8;

hash_name! {
    /// An object of an upstream.
    ObjectKey, "object key"
}

/// A checksum that a client's protocol knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// SHA-1, of old npm packages: it tells damage, and nothing of an attacker.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// A text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: sha1, sha256 or sha512, a colon, and hexadecimal digits")]
pub struct NoDigest;

impl Digest {
    /// Its algorithm's name.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha1(_) => "sha1",
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// From an algorithm's name and the bytes of a hash.
    ///
    /// # Errors
    /// [`NoDigest`] if the algorithm is not known or the length is not its.
    pub fn new(algorithm: &str, bytes: &[u8]) -> Result<Self, NoDigest> {
        let digest = match algorithm {
            "sha1" => bytes.try_into().ok().map(Self::Sha1),
            "sha256" => bytes.try_into().ok().map(Self::Sha256),
            "sha512" => bytes.try_into().ok().map(Self::Sha512),
            _ => None,
        };
        digest.ok_or(NoDigest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm())?;
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(NoDigest)?;
        if hex.len() % 2 != 0 || hex.len() > 128 {
            return Err(NoDigest);
        }
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(NoDigest);
        let pair = |pair: &[u8]| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        let bytes = hex.as_bytes().chunks_exact(2).map(pair).collect::<Result<Vec<u8>, _>>()?;
        Self::new(algorithm, &bytes)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl ObjectKey {
    /// Of an object whose digest is known, wherever it lies.
    pub fn of_digest(digest: &Digest) -> Self {
        Self::of(format!("digest {digest}").as_bytes())
    }

    /// The same object, as it is known to those alone who have what its realm was made of.
    pub fn within(&self, realm: &[u8; 32]) -> Self {
        Self::of(&[&self.as_bytes()[..], realm].concat())
    }

    /// Of an object that was replaced in its place, by all its bytes.
    pub fn of_content(content: &BlobId) -> Self {
        Self::of(format!("content {content}").as_bytes())
    }

    /// Of an object that is known by its place alone; `variant` tells what of its representations, such
    /// as by `Accept`.
    pub fn of_place(upstream: &str, path: &str, variant: &str) -> Self {
        Self::of(format!("place {upstream}\n{path}\n{variant}").as_bytes())
    }
}

/// By what the nodes of a site are ranked to be an object's home, the one that asks the upstream. The
/// objects of an upstream share a home, or a few on a larger site: what a client fetches one after the other
/// goes over connections that are open and have found their speed, instead of a new one on each node.
pub fn home_key(upstream: &str, key: &ObjectKey, nodes: usize) -> [u8; 32] {
    let homes = nodes.div_ceil(NODES_A_HOME).max(1);
    let number = usize::from(u16::from_le_bytes([key.as_bytes()[0], key.as_bytes()[1]])) % homes;
    *ObjectKey::of(format!("home {number} of {upstream}").as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_upstream_has_a_home_for_every_few_nodes() {
        let homes = |nodes| -> BTreeSet<_> {
            let key = |n: u32| ObjectKey::of(&n.to_le_bytes());
            (0..500).map(|n| home_key("debian", &key(n), nodes)).collect()
        };
        assert_eq!([0, 1, 8, 9, 48].map(|nodes| homes(nodes).len()), [1, 1, 1, 2, 6]);
        assert!(homes(8).is_subset(&homes(48)));
        let key = ObjectKey::of(b"");
        assert_ne!(home_key("a", &key, 1), home_key("b", &key, 1));
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        for (algorithm, length) in [("sha1", 20), ("sha256", 32), ("sha512", 64)] {
            let digest = Digest::new(algorithm, &vec![0xa5; length]).expect("the right length");
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        for bad in
            ["", "sha256:", "sha256:ab", "md5:00", "sha1:zz", "sha256:äääääääääääääääääääääääääääääääää"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
