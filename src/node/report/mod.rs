//! What the agent tells people and programs about itself: the shapes of `/api/v1`.

mod agreement;
mod audit;
mod catalog_health;
mod events;
mod flights;
mod health;
mod history;
mod kept;
mod outage;
mod savings;
mod site;
mod upkeep;
mod upstreams;
mod wan;
mod wan_health;
mod weighings;
mod yielding;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dealings::Dealings;
use super::{Node, Role};
pub use agreement::Disagreement;
pub use audit::{Audits, NodeAudit};
pub(super) use events::Feed;
pub use events::{Glance, MOST_WATCHERS, Watcher};
pub use flights::Flight;
pub(super) use flights::Speeds;
pub(super) use health::Examined;
pub use health::{Fault, Health, Severity};
pub use history::History;
pub use kept::Kept;
pub use outage::Outage;
pub use savings::{About, By, Grouping, NodeGap, Saved, Savings, SavingsRow, Scope};
pub use site::{Coverage, HeldPackage, Site, SiteNode};
pub use upkeep::{Damage, HookStatus, QuotaUse, Verification, VerifyRun};
pub use upstreams::UpstreamFacts;
pub use wan::{Wan, WanMonth, WanOrder};
pub use weighings::Weighed;
pub use yielding::YieldingStatus;

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// This node's id.
    pub node: String,
    /// Its host name.
    #[serde(default)]
    pub host: String,
    /// Its site.
    pub site: String,
    /// The software's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// It has had time to find its site.
    pub ready: bool,
    /// Where it listens for members.
    pub listening: Vec<String>,
    /// Connected members.
    pub members: usize,
    /// What this node is to its site.
    pub role: Role,
    /// Its weight in the ranking of leads, by its role.
    pub weight: u32,
    /// What the others are told, as its condition leaves it.
    pub effective_weight: u32,
    /// What lowers it, in words.
    pub weight_reasons: Vec<String>,
    /// Where packages come from; none: there are upstreams only.
    pub origin: Option<String>,
    /// The way there is broken; none if it is not known to be.
    #[serde(default)]
    pub outage: Option<Outage>,
    /// The catalog.
    pub catalog: CatalogStatus,
    /// The store.
    pub store: StoreStatus,
    /// What the site may take from the WAN.
    #[serde(default)]
    pub wan: Wan,
    /// What members get from this node.
    pub uploads: UploadStatus,
    /// How its background gives way to others on the WAN.
    pub yielding: YieldingStatus,
    /// Flights under way.
    pub flights: Vec<Flight>,
    /// What was ordered to be kept, and how far it is.
    #[serde(default)]
    pub keeping: Vec<Kept>,
    /// Orders that cannot be followed, and why.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Reading back what is held.
    #[serde(default)]
    pub verification: Verification,
    /// What packages take of their quotas.
    #[serde(default)]
    pub package_quotas: Vec<QuotaUse>,
    /// The command that runs when a followed package has arrived.
    #[serde(default)]
    pub hook: HookStatus,
}

/// The state of the upload slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// Answers under way.
    pub used: usize,
    /// The most at a time.
    pub slots: usize,
}

/// The state of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogStatus {
    /// Its version; 0 if there is none yet.
    pub version: u64,
    /// Until when it is good.
    pub expires: Option<String>,
    /// Past its time.
    pub expired: bool,
    /// Seconds since it was known to be the newest.
    pub age_s: Option<u64>,
    /// Why it could not be brought up to date.
    pub error: Option<String>,
}

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Complete blobs.
    pub complete: usize,
    /// Blobs that are filling, or stopped doing so.
    pub partial: usize,
    /// Bytes that all of them take when complete.
    pub bytes: u64,
    /// The most that they may take.
    pub quota: u64,
}

/// One member, of `GET /api/v1/peers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// Its node id.
    pub node: String,
    /// Its host name.
    pub host: String,
    /// Where it is connected.
    pub address: String,
    /// The last round trip, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Its weight in the ranking of leads.
    pub weight: u32,
    /// It is connected to all, and may lead. In a small site every node is a hub.
    #[serde(default)]
    pub hub: bool,
    /// Its software's version.
    pub version: String,
    /// Seconds since it was connected.
    pub connected_s: u64,
    /// What this node has had to do with it.
    #[serde(flatten)]
    pub dealings: Dealings,
}

/// One version, of `GET /api/v1/packages`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Package {
    /// Its package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The channels that point at it.
    pub channels: Vec<String>,
    /// Its length, in bytes.
    pub size: u64,
    /// The blob.
    pub blob: String,
    /// The SHA-256 of the payload.
    pub sha256: String,
    /// When it was published.
    pub published: String,
    /// Since when it is retired; none if it is not.
    #[serde(default)]
    pub retired: Option<String>,
    /// `complete`, `partial` or `no`: whether this node holds it.
    pub held: String,
}

impl Node {
    /// The status.
    pub async fn status(&self) -> Status {
        Status {
            node: self.me().to_string(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            site: self.inner.config.site.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.inner.started.elapsed().as_secs(),
            ready: self.is_ready(),
            listening: self.inner.net.addresses().iter().map(ToString::to_string).collect(),
            members: self.inner.net.contacts().len(),
            role: self.inner.standing.role(),
            weight: self.inner.standing.weight(),
            effective_weight: self.inner.standing.effective_weight(),
            weight_reasons: self.inner.standing.reasons(),
            origin: self.inner.config.origin(),
            outage: self.outage().await,
            catalog: self.catalog_status(),
            store: self.store_status(),
            wan: self.wan(),
            uploads: self.upload_status(),
            yielding: self.yielding_status(),
            flights: self.flights(),
            keeping: self.kept(),
            troubles: self.order_troubles(),
            verification: self.verification(),
            package_quotas: self.quota_uses(),
            hook: self.hooks().status(),
        }
    }

    fn catalog_status(&self) -> CatalogStatus {
        let catalog = self.catalog().current();
        CatalogStatus {
            version: catalog.as_ref().map_or(0, |catalog| catalog.version),
            expires: catalog.as_ref().map(|catalog| catalog.expires.to_string()),
            expired: catalog.is_some_and(|catalog| catalog.is_expired()),
            age_s: self.catalog().age().map(|age| age.as_secs()),
            error: self.catalog().last_error(),
        }
    }

    fn store_status(&self) -> StoreStatus {
        let held = self.inner.store.list();
        StoreStatus {
            complete: held.iter().filter(|blob| blob.complete).count(),
            partial: held.iter().filter(|blob| !blob.complete).count(),
            bytes: held.iter().map(|blob| blob.size).sum(),
            quota: self.inner.config.cache_size.0,
        }
    }

    fn upload_status(&self) -> UploadStatus {
        UploadStatus { used: self.inner.uploads.used(), slots: self.inner.uploads.slots() }
    }

    /// The connected members.
    pub fn peers(&self) -> Vec<Peer> {
        let contacts = self.inner.net.contacts().into_iter();
        let peers = contacts.map(|contact| Peer {
            node: contact.node.to_string(),
            host: contact.hello.host,
            address: contact.address.to_string(),
            latency_ms: contact.latency.map(|latency| latency.as_secs_f64() * 1e3),
            weight: contact.hello.weight,
            hub: contact.hub,
            version: contact.hello.version,
            connected_s: contact.since.elapsed().as_secs(),
            dealings: self.inner.dealings.with(&contact.node),
        });
        peers.collect()
    }

    /// What the catalog lists, and what of it this node holds.
    pub fn packages(&self) -> Vec<Package> {
        let held: BTreeMap<_, _> =
            self.inner.store.list().into_iter().map(|held| (held.blob, held.complete)).collect();
        let catalog = self.catalog().current();
        let versions = catalog.iter().flat_map(|catalog| catalog.packages());
        let packages = versions.map(|(name, version, it)| Package {
            name: name.to_string(),
            version: version.to_string(),
            channels: it.channels.iter().map(ToString::to_string).collect(),
            size: it.size,
            blob: it.blob.to_string(),
            sha256: it.sha256.clone(),
            published: it.published.to_string(),
            retired: it.retired.map(|at| at.to_string()),
            held: match held.get(&it.blob) {
                Some(true) => "complete",
                Some(false) => "partial",
                None => "no",
            }
            .to_owned(),
        });
        packages.collect()
    }
}
