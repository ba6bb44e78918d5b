//! Names, parsed once and valid ever after.
//!
//! Content is named by BLAKE3, nodes by their Ed25519 public key (which is what a libp2p
//! `PeerId` wraps), packages by short plain words that are safe in a path and in a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that is not one. Says what was given, what is wrong with it, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a valid {kind}: {problem}")]
pub struct InvalidName {
    kind: &'static str,
    given: String,
    problem: &'static str,
}

fn invalid(kind: &'static str, given: &str, problem: &'static str) -> InvalidName {
    let given = given.chars().take(80).collect();
    InvalidName { kind, given, problem }
}

/// 32 bytes as 64 hexadecimal digits.
pub(crate) fn parse_hex(kind: &'static str, text: &str) -> Result<[u8; 32], InvalidName> {
    const PROBLEM: &str = "it must be 64 hexadecimal digits";
    if text.len() != 64 || !text.is_ascii() {
        return Err(invalid(kind, text, PROBLEM));
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |d: u8| (d as char).to_digit(16).ok_or_else(|| invalid(kind, text, PROBLEM));
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

macro_rules! hash_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The name of these bytes.
            pub fn of(content: &[u8]) -> Self {
                Self(*blake3::hash(content).as_bytes())
            }

            /// A hash that was computed elsewhere.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// From a slice; `None` unless it has 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::core::id::InvalidName;
            fn from_str(text: &str) -> Result<Self, $crate::core::id::InvalidName> {
                $crate::core::id::parse_hex($kind, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_name! {
    /// A content-defined piece of a blob, named by the BLAKE3 hash of its bytes.
    ChunkId, "chunk id"
}
hash_name! {
    /// One immutable file, named by the BLAKE3 hash of its bytes.
    BlobId, "blob id"
}
hash_name! {
    /// A manifest, named by the BLAKE3 hash of its encoding.
    ManifestId, "manifest id"
}
hash_name! {
    /// A pack, named by the BLAKE3 hash of its bytes.
    PackId, "pack id"
}
hash_name! {
    /// A recipe's object, or the offer of several, named by the BLAKE3 hash of its bytes.
    RecipeId, "recipe id"
}

pub(crate) use hash_name;

/// The bytes before an Ed25519 key in a `PeerId`: identity multihash, protobuf key header.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A node of a site: its Ed25519 public key. Shown as the libp2p `PeerId` (base 58).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// From the raw public key.
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// From a slice; `None` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From the bytes of a `PeerId`; `None` if that wraps another kind of key.
    pub fn from_peer_id(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&PEER_ID_PREFIX).and_then(Self::from_slice)
    }

    /// The bytes of the `PeerId`.
    pub fn to_peer_id(self) -> Vec<u8> {
        [&PEER_ID_PREFIX[..], &self.0].concat()
    }

    /// The raw public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The last six characters of the `PeerId` (the first ones are the same for all), for people.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 6..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = bs58::decode(text).into_vec().ok();
        bytes.and_then(|bytes| Self::from_peer_id(&bytes)).ok_or_else(|| {
            invalid("node id", text, "it must be a libp2p peer id of an Ed25519 key (12D3Koo...)")
        })
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $longest:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_plain($kind, text, $longest)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

fn check_plain(kind: &'static str, text: &str, longest: usize) -> Result<(), InvalidName> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-~:".contains(c);
    if text.is_empty() {
        Err(invalid(kind, text, "it is empty"))
    } else if text.len() > longest {
        Err(invalid(kind, text, "it is too long"))
    } else if !text.chars().all(allowed) {
        Err(invalid(kind, text, "only letters, digits and . _ + - ~ : may stand in it"))
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Err(invalid(kind, text, "it must start with a letter or a digit"))
    } else {
        Ok(())
    }
}

plain_name! {
    /// What an admin publishes, such as `firefox`. At most 100 characters.
    PackageName, "package name", 100
}
plain_name! {
    /// A version of a package, such as `128.3.0`. At most 100 characters.
    Version, "version", 100
}
plain_name! {
    /// A moving name for a version, such as `stable`. At most 100 characters.
    Channel, "channel", 100
}
plain_name! {
    /// The name of a site, such as `lisbon`. At most 100 characters.
    SiteName, "site name", 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "-flag", "a b", "a\0b", "ü", "a\\b", "%2e%2e"] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<PackageName>(bad.into()).is_err(), "{bad:?}");
        }
        assert!("x".repeat(101).parse::<Version>().is_err());
        for good in ["firefox", "128.3.0-1~deb12+u1", "2:4.1"] {
            assert_eq!(good.parse::<Version>().expect("good").as_str(), good);
        }
    }

    #[test]
    fn hashes_survive_text() {
        let id = ChunkId::of(b"abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("zz".repeat(32).parse::<ChunkId>().is_err());
        assert!("ab".parse::<ChunkId>().is_err());
    }

    #[test]
    fn nodes_survive_text_and_peer_ids() {
        let node = NodeId::from_bytes([7; 32]);
        assert!(node.to_string().starts_with("12D3Koo"), "{node}");
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(NodeId::from_peer_id(&node.to_peer_id()), Some(node));
        assert!("12D3KooW".parse::<NodeId>().is_err());
    }
}
