//! What a monitoring system is told: figures with a name, a kind and few labels.
//!
//! A label's values are known beforehand (reasons, sources, roles), so that the number of series is
//! bounded whatever clients ask for: no package and no peer is a label of a node's own figures. Byte
//! counters start at nothing with the process and only grow ([`crate::core::ledger`]'s tally). Content
//! is counted once when it comes (`fetched`) and once when it is handed out (`delivered`): what was
//! fetched ahead of its client has no counter of its own, for it turns into the other.

mod site;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Node, blocking};
use crate::core::ledger::{Row, WanReason};
pub use site::site_names;
pub(super) use site::{NodeTally, SiteSums, site_families};

/// Whether a figure can shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for starting anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One value, with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Names and values, ordered by name.
    pub labels: Vec<(&'static str, String)>,
    /// In the unit that the family's name says.
    pub value: u64,
}

/// Values of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Without `branchline_` and `_total`; with its unit.
    pub name: Cow<'static, str>,
    /// Counter or gauge.
    pub kind: Kind,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// The values.
    pub samples: Vec<Sample>,
}

impl Family {
    fn one(kind: Kind, name: impl Into<Cow<'static, str>>, help: &'static str, value: u64) -> Self {
        Self { name: name.into(), kind, help, samples: vec![Sample { labels: Vec::new(), value }] }
    }

    fn by(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> Self {
        let sample = |(text, value)| Sample { labels: vec![(label, text)], value };
        Self { name: name.into(), kind, help, samples: values.into_iter().map(sample).collect() }
    }

    fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::one(Kind::Gauge, name, help, value)
    }

    /// A gauge that may have no value.
    fn known(name: &'static str, help: &'static str, value: Option<u64>) -> Self {
        let samples = value.into_iter().map(|value| Sample { labels: Vec::new(), value }).collect();
        Self { name: name.into(), kind: Kind::Gauge, help, samples }
    }

    /// As a monitoring system knows it.
    pub fn full_name(&self) -> String {
        let ending = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("branchline_{}{ending}", self.name)
    }
}

/// The sums of the books, as counters whose names begin with `prefix`.
fn traffic(prefix: &'static str, row: &Row) -> Vec<Family> {
    let it = &row.totals;
    let name = |name: &'static str| format!("{prefix}{name}_bytes");
    let one = |text, help, value| Family::one(Kind::Counter, name(text), help, value);
    let sources = |text, help, values: &[(&str, u64)]| {
        let values = values.iter().map(|(source, bytes)| ((*source).to_owned(), *bytes));
        Family::by(Kind::Counter, name(text), help, "source", values)
    };
    let reasons = |text, help, parts: &BTreeMap<WanReason, u64>| {
        let bytes = |reason| parts.get(&reason).copied().unwrap_or(0);
        let values = WanReason::ALL.into_iter().map(|reason| (reason.as_str().to_owned(), bytes(reason)));
        Family::by(Kind::Counter, name(text), help, "reason", values)
    };
    let delivered = [("wan", it.wan), ("peer", it.peer), ("local", it.local)];
    // What members say of themselves may be anything.
    let came = u64::saturating_add;
    let fetched = [
        ("wan", came(it.wan, it.preloaded_wan)),
        ("peer", came(it.peer, it.preloaded_peer)),
        ("media", it.preloaded_media),
    ];
    vec![
        sources("delivered", "Content handed to clients, by where it came from for them.", &delivered),
        sources("fetched", "Content that came to be kept, by where it came from.", &fetched),
        one("reused", "Content copied from other blobs instead of fetched.", it.reused),
        one("direct", "What would have crossed the WAN without Branchline.", it.direct),
        reasons("wan_wire", "Read from WAN connections, by reason, without headers of TCP/IP.", &row.reasons),
        reasons("wan_content", "Content that crossed the WAN, by reason.", &row.content),
        reasons(
            "wan_duplicate",
            "Content that crossed although the site held it, by reason.",
            &row.duplicates,
        ),
        one("wan_chunks", "Of wan_wire, chunks as the origin stores them.", it.wan_chunks),
        one("wan_recipes", "Of wan_chunks, recipes: what blobs were rebuilt from.", it.wan_recipes),
        one(
            "rebuilt",
            "What chunks that were rebuilt from recipes would have been of wan_chunks.",
            it.rebuilt,
        ),
        one("wan_estimated", "Of wan_wire, what a broken connection had on its way.", it.wan_estimated),
        one("wan_headers", "Headers of TCP and IP on packets from the WAN.", it.wan_headers),
        one("wan_sent", "Sent over WAN connections, headers and all.", it.wan_sent),
        one("lan_wire", "Read from members of the site, encryption and all.", it.lan_wire),
        one("served", "Content sent to members of the site.", it.served),
    ]
}

/// Seconds since 1970-01-01 UTC, so long ago.
fn seconds(ago: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_secs()
}

impl Node {
    /// All that `/metrics` says of this node.
    pub async fn figures(&self) -> Vec<Family> {
        let node = self.clone();
        // The disk is asked for its free space, and may be slow.
        blocking(move || node.look_at_figures()).await.unwrap_or_default()
    }

    fn look_at_figures(&self) -> Vec<Family> {
        let version = [(env!("CARGO_PKG_VERSION").to_owned(), 1)];
        let build = Family::by(Kind::Gauge, "build_info", "The software's version.", "version", version);
        let mut families = vec![build, self.about()];
        families.extend(traffic("", &self.books().booked()));
        families.extend(self.now_at());
        families.push(self.recipes());
        families.extend(self.giving_way());
        families.extend(self.store_and_catalog());
        families.extend(self.wan_windows());
        families.extend(self.state_of_books());
        families
    }

    fn about(&self) -> Family {
        let labels = vec![
            ("node", self.me().to_string()),
            ("role", self.inner.standing.role().as_str().to_owned()),
            ("site", self.inner.config.site.to_string()),
        ];
        Family {
            name: "node_info".into(),
            kind: Kind::Gauge,
            help: "This node, its site, and its role there.",
            samples: vec![Sample { labels, value: 1 }],
        }
    }

    /// What the node is doing.
    fn now_at(&self) -> Vec<Family> {
        let inner = &self.inner;
        let flights = inner.views.lock().map(|views| views.len()).unwrap_or_default();
        let gauge = Family::gauge;
        vec![
            gauge("start_time_seconds", "When the agent started.", seconds(inner.started.elapsed())),
            gauge("members", "Connected members of the site.", inner.net.contacts().len() as u64),
            gauge("flights", "Flights under way.", flights as u64),
            gauge("weight", "Its weight when a lead is chosen.", inner.standing.effective_weight().into()),
            gauge("upload_slots", "Answers that members may get at a time.", inner.uploads.slots() as u64),
            gauge("upload_slots_used", "Answers to members under way.", inner.uploads.used() as u64),
        ]
    }

    /// Whether recipes can be relied on.
    fn recipes(&self) -> Family {
        let help = "Recipes that failed: what was missing was pulled as shipped.";
        Family::one(Kind::Counter, "recipe_failures", help, self.recipe_failures())
    }

    /// How the background gives way to others on the WAN.
    fn giving_way(&self) -> Vec<Family> {
        let it = self.yielding_status();
        let queueing = it.queueing_ms.map(|ms| (ms * 1e3) as u64);
        let held_back = "How long the background gave way to others on the WAN.";
        vec![
            Family::known("background_queueing_microseconds", "Wait before the link, as measured.", queueing),
            Family::known(
                "background_rate_bytes_per_second",
                "What the background may take a second.",
                it.rate,
            ),
            Family::one(Kind::Counter, "background_held_back_seconds", held_back, it.held_back_s as u64),
            Family::one(
                Kind::Counter,
                "background_left_bytes",
                "What it left to others in that time.",
                it.left,
            ),
        ]
    }

    fn store_and_catalog(&self) -> Vec<Family> {
        let (inner, gauge, known) = (&self.inner, Family::gauge, Family::known);
        let bytes = inner.store.list().iter().map(|held| held.size).sum();
        let catalog = self.catalog().current();
        let expires = catalog.as_ref().map(|catalog| catalog.expires.as_second().max(0).unsigned_abs());
        let checked = self.catalog().age().map(seconds);
        let version = catalog.map_or(0, |catalog| catalog.version);
        let nearly = u64::from(inner.store.is_nearly_full());
        vec![
            gauge("store_bytes", "Bytes that blobs take when complete.", bytes),
            gauge("store_quota_bytes", "The most that they may take.", inner.config.cache_size.0),
            known("disk_free_bytes", "Free space on the store's disk.", inner.store.disk_free()),
            gauge("disk_reserve_bytes", "What is to stay free there.", inner.config.disk_reserve.0),
            gauge("disk_nearly_full", "Whether little more than that is free (1), or more (0).", nearly),
            gauge("catalog_version", "The catalog's version, 0 if there is none.", version),
            known("catalog_expires_timestamp_seconds", "Until when the catalog is good.", expires),
            known("catalog_checked_timestamp_seconds", "When it was last known to be the newest.", checked),
        ]
    }

    /// What the site may take from the WAN. Nothing is said of what is not bound.
    fn wan_windows(&self) -> Vec<Family> {
        let wan = self.wan();
        let known = Family::known;
        let foreground = wan.foreground.or(wan.limit);
        let month = wan.month.as_ref();
        vec![
            known(
                "wan_allowed_bytes_per_second",
                "What the site may take from the WAN, 0 if closed.",
                foreground,
            ),
            known(
                "wan_allowed_background_bytes_per_second",
                "Of it, what the background may.",
                wan.background,
            ),
            known(
                "wan_month_used_bytes",
                "What has crossed in the site's month.",
                month.and_then(|it| it.used),
            ),
            known("wan_month_budget_bytes", "The most that may.", month.map(|it| it.bytes)),
        ]
    }

    fn state_of_books(&self) -> Vec<Family> {
        let (rows, faulty) = self.books().health();
        let stops = self.books().gaps().len() as u64;
        let help = "How often the agent did not stop as it should, by what its ledger kept.";
        vec![
            Family::gauge("ledger_rows", "Rows of the ledger.", rows as u64),
            Family::gauge("ledger_faulty_rows", "Rows that do not add up: none.", faulty as u64),
            Family::one(Kind::Counter, "unclean_stops", help, stops),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Totals;

    #[test]
    fn no_figure_of_the_ledger_is_forgotten() {
        // They are told by source and by reason.
        let sums = ["delivered", "wan_wire", "wan_duplicate"];
        for name in Totals::NAMES.into_iter().filter(|name| !sums.contains(name)) {
            let totals = serde_json::from_value(serde_json::json!({ name: 7 })).expect("a figure");
            let families = traffic("", &Row { totals, ..Row::default() });
            let told = families.iter().flat_map(|family| &family.samples).any(|sample| sample.value == 7);
            assert!(told, "{name}");
        }
    }
}
