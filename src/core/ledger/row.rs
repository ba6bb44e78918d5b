//! What a row of the ledger says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::id::NodeId;

/// Why content or bytes crossed the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WanReason {
    /// Nobody on the site held it.
    Cold,
    /// Nobody held it, but an older version of its package was there.
    Upgrade,
    /// It was brought in before a client waited for it.
    Preload,
    /// Another lead was pulling it and was lost.
    Takeover,
    /// What came before did not match its hash.
    HashFailure,
    /// Members hold it, and none could be reached.
    NoPeer,
    /// Members hold it, and had no upload slot free for too long.
    PeerBusy,
    /// This node is set not to wait for its site.
    Policy,
    /// A check whether the catalog is still current.
    Revalidate,
    /// A manifest.
    Manifest,
    /// Another lead, out of reach, pulled it too.
    Partition,
    /// The site's sums, sent to a monitoring system.
    Push,
    /// How long packets wait before the link, measured so that the background can give way.
    Probe,
}

impl WanReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Cold,
        Self::Upgrade,
        Self::Preload,
        Self::Takeover,
        Self::HashFailure,
        Self::NoPeer,
        Self::PeerBusy,
        Self::Policy,
        Self::Revalidate,
        Self::Manifest,
        Self::Partition,
        Self::Push,
        Self::Probe,
    ];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Upgrade => "upgrade",
            Self::Preload => "preload",
            Self::Takeover => "takeover",
            Self::HashFailure => "hash_failure",
            Self::NoPeer => "no_peer",
            Self::PeerBusy => "peer_busy",
            Self::Policy => "policy",
            Self::Revalidate => "revalidate",
            Self::Manifest => "manifest",
            Self::Partition => "partition",
            Self::Push => "push",
            Self::Probe => "probe",
        }
    }
}

/// Through which face of the agent a client asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// None: nobody asked on this node.
    #[default]
    None,
    /// `branchline get`.
    Get,
    /// `/packages` on the gateway.
    Packages,
    /// `/apt`, or as the proxy of apt.
    Apt,
    /// `/pypi`.
    Pypi,
    /// `/npm`.
    Npm,
    /// `/v2`.
    Oci,
    /// `/cargo`.
    Cargo,
    /// `/http`.
    Http,
}

impl Front {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Get,
        Self::Packages,
        Self::Apt,
        Self::Pypi,
        Self::Npm,
        Self::Oci,
        Self::Cargo,
        Self::Http,
    ];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Get => "get",
            Self::Packages => "packages",
            Self::Apt => "apt",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Oci => "oci",
            Self::Cargo => "cargo",
            Self::Http => "http",
        }
    }
}

/// From where content came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Over the WAN.
    Wan(WanReason),
    /// From a member of the site.
    Peer(NodeId),
    /// Copied from another blob that was held.
    Reused,
    /// Read from a bundle, on a disk or a pipe.
    Media,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// Hours since 1970-01-01 UTC; the first hour of the day, where rows were rolled up.
    pub hour: u32,
    /// `NAME@VERSION`; `(catalog)`, `(swarm)`, `(push)` for what belongs to none; `(older)` for packages whose
    /// rows were rolled up.
    pub package: String,
    /// Through which front its clients asked.
    #[serde(default)]
    pub front: Front,
}

/// Declares [`Totals`] from one list, so that no sum, column or metric can forget a figure.
macro_rules! totals {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Sums of bytes. `delivered` is what clients were handed.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Totals {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Totals {
            /// The figures' names, as in JSON.
            pub const NAMES: [&'static str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

            /// The figures, in the order of [`Totals::NAMES`].
            pub fn figures(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),*]
            }

            /// Adds another sum to this one.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }

            /// What was added since it was `before`.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(before.$name),)* }
            }
        }
    };
}

totals! {
    /// Handed to clients of this node.
    delivered,
    /// Of it, fetched over the WAN for that request.
    wan,
    /// Of it, fetched from members for that request.
    peer,
    /// Of it, held before the request.
    local,
    /// Of `local`, copied from another blob, so that it was not fetched.
    reused,
    /// Fetched over the WAN with no client of this node waiting.
    preloaded_wan,
    /// Fetched from members with no client of this node waiting.
    preloaded_peer,
    /// Imported from bundles, which come neither over the WAN nor from members; clients who are handed it
    /// find it held before, also if they were waiting.
    preloaded_media,
    /// What would have crossed the WAN without Branchline: each machine fetching for itself what its
    /// clients asked for, as shipped, and keeping it as long as this node does.
    direct,
    /// Read from WAN connections, as it was on the wire: headers and encryption counted in.
    wan_wire,
    /// Of `wan_wire`, chunks, compressed as the origin stores them; the rest is overhead.
    wan_chunks,
    /// Of `wan_chunks`, recipes: what blobs were rebuilt from.
    wan_recipes,
    /// The chunks that were rebuilt from recipes, as many bytes as they would have been of `wan_chunks`.
    rebuilt,
    /// Of `wan_wire`, what was on its way when a connection broke off, and crossed all the same: by its
    /// rate and its round trip.
    wan_estimated,
    /// TCP and IP headers of the packets that brought `wan_wire`; 0 where the system does not tell.
    wan_headers,
    /// Sent over WAN connections: requests and acknowledgements, all headers counted in.
    wan_sent,
    /// Content that crossed although the site held it or was pulling it.
    wan_duplicate,
    /// Read from members, as it was on the wire: messages and encryption counted in.
    lan_wire,
    /// Content that members were sent.
    served,
}

impl Totals {
    /// Whether the books balance.
    pub fn balances(&self) -> bool {
        self.delivered == self.wan + self.peer + self.local && self.reused <= self.local
    }

    /// What did not have to cross the WAN, of what clients received. Negative if more did.
    pub fn saved_of_delivered(&self) -> i64 {
        difference(self.delivered, self.wan_wire)
    }

    /// What did not have to cross the WAN since it was rebuilt from recipes. Negative if more did.
    pub fn saved_by_recipe(&self) -> i64 {
        difference(self.rebuilt, self.wan_recipes)
    }

    /// What did not have to cross the WAN, of what would have without Branchline. Negative if more did.
    pub fn saved_of_direct(&self) -> i64 {
        difference(self.direct, self.wan_wire)
    }
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(if a > b { i64::MAX } else { i64::MIN })
}

/// One row: sums, and what they are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
    /// `wan_wire` by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<WanReason, u64>,
    /// Content that came over the WAN (`wan` and `preloaded_wan`), by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub content: BTreeMap<WanReason, u64>,
    /// `wan_duplicate` by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub duplicates: BTreeMap<WanReason, u64>,
    /// Content that came from members (`peer` and `preloaded_peer`), by who gave it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub givers: BTreeMap<NodeId, u64>,
    /// `served`, by who was given it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub takers: BTreeMap<NodeId, u64>,
}

impl Row {
    /// Adds another row to this one.
    pub fn add(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        add_all(&mut self.reasons, &other.reasons);
        add_all(&mut self.content, &other.content);
        add_all(&mut self.duplicates, &other.duplicates);
        add_all(&mut self.givers, &other.givers);
        add_all(&mut self.takers, &other.takers);
    }

    /// What is wrong with this row; `None` if it adds up.
    pub fn fault(&self) -> Option<String> {
        let it = &self.totals;
        let sum = |parts: &BTreeMap<WanReason, u64>| parts.values().sum::<u64>();
        let nodes = |parts: &BTreeMap<NodeId, u64>| parts.values().sum::<u64>();
        let checks = [
            ("delivered", it.delivered, "wan + peer + local", it.wan + it.peer + it.local),
            ("wan_wire", it.wan_wire, "its reasons", sum(&self.reasons)),
            ("wan_duplicate", it.wan_duplicate, "its reasons", sum(&self.duplicates)),
            ("wan + preloaded_wan", it.wan + it.preloaded_wan, "its reasons", sum(&self.content)),
            ("peer + preloaded_peer", it.peer + it.preloaded_peer, "its givers", nodes(&self.givers)),
            ("served", it.served, "its takers", nodes(&self.takers)),
        ];
        let wrong = checks.into_iter().find(|(_, total, _, parts)| total != parts);
        wrong.map(|(name, total, of, parts)| format!("{name} is {total}, {of} are {parts} in sum"))
    }
}

fn add_all<K: Ord + Copy>(sums: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, bytes) in more {
        *sums.entry(*key).or_default() += bytes;
    }
}
