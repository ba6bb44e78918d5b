//! Freeing what nothing needs, and keeping packages within their quotas.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::errands::{Item, Outcome};
use super::report::QuotaUse;
use super::{Node, blocking};
use crate::core::bitrate::Size;
use crate::core::evict::Candidate;
use crate::core::gc::{Asked, Listing, Piece, Why, plan};
use crate::core::id::{BlobId, PackageName};
use crate::core::lapse::Lapse;
use crate::store::{Held, Trimmed};

/// Looks at the quotas are so far apart, and the first one comes soon.
const LOOK: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_secs(1);

/// What to free.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gc {
    /// So many bytes in all, if need be of what might be of use.
    pub free: Option<Size>,
    /// What was not used for so long.
    pub unused: Option<Lapse>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What could not be brought within its quota.
#[derive(Debug, Default)]
pub(super) struct View(Mutex<Trimmed>);

impl View {
    fn now(&self) -> Trimmed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn candidate(held: &Held, group: Option<String>) -> Candidate {
    Candidate {
        blob: held.blob,
        bytes: held.size,
        last_used: held.last_used,
        kept: held.pinned || held.in_use,
        group,
    }
}

impl Node {
    /// The package that a blob is a version of, if the catalog knows it.
    pub(super) fn package_of(&self, blob: &BlobId) -> Option<PackageName> {
        let label = self.catalog().current()?.label_of(blob)?;
        label.split_once('@')?.0.parse().ok()
    }

    /// Frees what nothing needs, and what was asked for beyond that.
    pub(super) async fn gc(&self, wanted: &Gc) -> Outcome {
        let (node, wanted) = (self.clone(), wanted.clone());
        let stopping = || Outcome::refused("the agent is stopping");
        blocking(move || node.gc_now(&wanted)).await.unwrap_or_else(stopping)
    }

    fn gc_now(&self, wanted: &Gc) -> Outcome {
        let held = self.inner.store.list();
        let sizes: HashMap<BlobId, u64> = held.iter().map(|it| (it.blob, it.size)).collect();
        let listings = self.listings();
        let pieces: Vec<Piece> = held.iter().map(|it| self.piece(it, listings.as_ref())).collect();
        let asked = Asked { free: wanted.free.map(|it| it.0), unused: wanted.unused.map(Lapse::as_ms) };
        let plan = plan(&pieces, &self.inner.config.package_quotas, now_ms(), asked);
        let mut items: Vec<Item> = Vec::new();
        for (blob, why) in plan {
            let item = Item {
                what: self.label(&blob),
                why: why.as_str().to_owned(),
                bytes: sizes.get(&blob).copied().unwrap_or(0),
            };
            match wanted.dry_run || self.throw_away(&blob, why) {
                true => items.push(item),
                false => tracing::debug!(what = item.what, "is in use since a moment ago, and stays"),
            }
        }
        let leftovers = self.inner.store.leftovers(wanted.dry_run).into_iter();
        items.extend(leftovers.map(|it| Item { what: it.name, why: "left over".into(), bytes: it.bytes }));
        freed(items, wanted)
    }

    /// What the catalog says of the blobs that it knows; none without a catalog. Two versions may be one
    /// blob: that is retired if both are.
    fn listings(&self) -> Option<HashMap<BlobId, Listing>> {
        let catalog = self.catalog().current()?;
        let mut listings = HashMap::new();
        for (_, _, it) in catalog.packages() {
            let listing = listings.entry(it.blob).or_insert(Listing::Retired);
            if it.retired.is_none() {
                *listing = Listing::Listed;
            }
        }
        Some(listings)
    }

    fn piece(&self, held: &Held, listings: Option<&HashMap<BlobId, Listing>>) -> Piece {
        let listing = match listings {
            None => Listing::Unknown,
            Some(listings) => match listings.get(&held.blob) {
                Some(listing) => *listing,
                // No catalog lists what comes from upstreams.
                None if self.is_of_upstream(&held.blob) => Listing::Unknown,
                None => Listing::Unlisted,
            },
        };
        let package = self.package_of(&held.blob).map(|name| name.to_string());
        let group = package.or_else(|| held.group.clone());
        Piece { candidate: candidate(held, group), complete: held.complete, listing }
    }

    fn throw_away(&self, blob: &BlobId, why: Why) -> bool {
        let removed = self.inner.store.remove(blob);
        if let Err(error) = &removed {
            tracing::warn!(%blob, %error, "could not be removed");
        }
        let gone = removed.is_ok_and(|gone| gone);
        if gone {
            tracing::info!(package = self.label(blob), why = why.as_str(), "freed");
        }
        gone
    }

    /// What packages take of their quotas.
    pub(super) fn quota_uses(&self) -> Vec<QuotaUse> {
        let quotas = &self.inner.config.package_quotas;
        if quotas.is_empty() {
            return Vec::new();
        }
        let mut bytes: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for held in self.inner.store.list() {
            if let Some(group) = held.group {
                *bytes.entry(group).or_default() += held.size;
            }
        }
        let over: HashMap<String, u64> = self.inner.quotas.now().over.into_iter().collect();
        let uses = bytes.into_iter().filter_map(|(package, bytes)| {
            let quota = quotas.of(&package)?;
            // As it is now: what was over may have gone since.
            let over = over.get(&package).copied().unwrap_or(0).min(bytes.saturating_sub(quota));
            Some(QuotaUse { package, bytes, quota, over })
        });
        uses.collect()
    }

    fn look_at_quotas(&self, before: &Trimmed) -> Trimmed {
        for held in self.inner.store.list() {
            let package = self.package_of(&held.blob);
            if let Some(package) = package.filter(|it| held.group.as_deref() != Some(it.as_str())) {
                self.inner.store.set_package(&held.blob, &package);
            }
        }
        let trimmed = self.inner.store.trim();
        for blob in &trimmed.blobs {
            tracing::info!(package = self.label(blob), "removed: it was beyond a quota");
        }
        for (package, over) in trimmed.over.iter().filter(|it| !before.over.contains(it)) {
            let over = Size(*over).to_string();
            tracing::warn!(
                package,
                over,
                "takes more than its quota, and what is left of it is kept or in use"
            );
        }
        if trimmed.cache_over > 0 && trimmed.cache_over != before.cache_over {
            let over = Size(trimmed.cache_over).to_string();
            tracing::warn!(over, "what is kept or in use takes more than cache_size");
        }
        trimmed
    }
}

fn freed(items: Vec<Item>, wanted: &Gc) -> Outcome {
    let bytes: u64 = items.iter().map(|it| it.bytes).sum();
    let short = wanted.free.filter(|free| bytes < free.0);
    let verb = if wanted.dry_run { "would free" } else { "freed" };
    let text = match (items.len(), short) {
        (0, None) => "there is nothing to free".to_owned(),
        (_, None) => format!("{verb} {}", Size(bytes)),
        (_, Some(free)) => {
            format!("{verb} {} of the {free} that were asked for: the rest is kept or in use", Size(bytes))
        }
    };
    Outcome { ok: short.is_none(), items, ..Outcome::done(text, bytes) }
}

/// Keeps packages within their quotas, as long as the agent runs: also after a quota was lowered.
pub(super) async fn keep(node: Node) {
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        let known = node.catalog().current().is_some();
        wait = if known { LOOK } else { FIRST };
        let (looking, before) = (node.clone(), node.inner.quotas.now());
        let Some(trimmed) = blocking(move || looking.look_at_quotas(&before)).await else { return };
        *node.inner.quotas.0.lock().unwrap_or_else(PoisonError::into_inner) = trimmed;
    }
}
