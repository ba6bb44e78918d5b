//! Which way a flight goes.

use std::time::Duration;

use jiff::Timestamp;

use super::log::{Outcome, WayWeighed, Weighing};
use crate::core::id::{BlobId, ManifestId, RecipeId};
use crate::core::recipe::{Choice, Facts, MAX_OFFER, Offer, Place, Prefer, Speeds, Way, choose as weigh};
use crate::node::Node;
use crate::node::flow::{News, opened};
use crate::node::wan::{Run, WanFlight};

/// What is shorter, in bytes at the origin, is pulled at once.
const SHORTEST: u64 = 128 << 10;
/// What others hold may be known from so long ago, and is waited for so long.
const MAX_AGE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);

/// The recipe that was chosen.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) way: Way,
    /// The manifest of the older version that it takes for granted.
    pub(super) older: Option<(BlobId, ManifestId)>,
    pub(super) place: Place,
}

/// Weighs the ways that the origin offers; none if the blob is to be pulled as shipped.
pub(super) async fn choose(node: &Node, wan: &WanFlight, run: &Run, news: &mut News<'_>) -> Option<Chosen> {
    let catalog = news.while_held_back(node.inner.catalog.with(&run.blob)).await?;
    let id = catalog.recipes_of(&run.blob).filter(|_| run.need >= SHORTEST)?;
    // Not before the WAN is open for this flight.
    let passage = opened(node, wan, news, 0).await;
    wan.is_for(run.reason);
    let read = read(wan, id).await;
    drop(passage);
    let offer = match read {
        Ok(offer) => offer,
        Err(why) => {
            tracing::warn!(package = wan.label, why, "the recipes are not known; it is pulled as shipped");
            return None;
        }
    };
    let places = news.while_held_back(node.places(&offer)).await;
    let ways: Vec<(Way, Place)> = offer.ways.into_iter().zip(places).collect();
    let limit = node.inner.allowance.limit();
    let seen = Some(run.best).filter(|&best| best > 0);
    let facts = Facts {
        shipped: run.need,
        rate: limit.into_iter().chain(seen).min(),
        speeds: *node.inner.recipes.speeds(),
        prefer: node.inner.config.prefer,
    };
    let choice = weigh(&ways, &facts);
    let chosen = choice.chosen.checked_sub(1).and_then(|at| ways.get(at)).cloned();
    node.note(wan, run, &ways, &facts, choice);
    let (way, place) = chosen?;
    let older = way.against.and_then(|(blob, ..)| Some((blob, catalog.manifest_of(&blob)?)));
    (way.against.is_none() || older.is_some()).then_some(Chosen { way, older, place })
}

async fn read(wan: &WanFlight, id: RecipeId) -> Result<Offer, String> {
    let encoded = wan.origin.read(&format!("recipes/{id}"), MAX_OFFER).await;
    let encoded = encoded.map_err(|error| error.to_string())?;
    if RecipeId::of(&encoded) != id {
        return Err(format!("recipes/{id} at the origin is damaged"));
    }
    Offer::decode(&encoded).map_err(|error| error.to_string())
}

impl Node {
    /// Where the older versions are that an offer takes for granted, way by way.
    async fn places(&self, offer: &Offer) -> Vec<Place> {
        let older = |way: &Way| way.against.map(|(blob, ..)| blob);
        let here = |blob: &BlobId| self.holds_all_of(blob);
        let all_here = offer.ways.iter().filter_map(older).any(|blob| here(&blob));
        let missing: Vec<BlobId> = match all_here {
            true => Vec::new(),
            false => offer.ways.iter().filter_map(older).collect(),
        };
        let site = if missing.is_empty() { Vec::new() } else { self.held_by_others().await };
        let place = |way: &Way| match older(way) {
            None => Place::Here,
            Some(blob) if here(&blob) => Place::Here,
            Some(blob) if self.catalog_label(&blob).is_some_and(|label| site.contains(&label)) => Place::Site,
            Some(_) => Place::Nowhere,
        };
        offer.ways.iter().map(place).collect()
    }

    fn catalog_label(&self, blob: &BlobId) -> Option<String> {
        self.inner.catalog.current()?.label_of(blob)
    }

    /// What other nodes of the site hold all of, as `NAME@VERSION`.
    async fn held_by_others(&self) -> Vec<String> {
        let Ok(answers) = tokio::time::timeout(PATIENCE, self.inventories(MAX_AGE)).await else {
            return Vec::new();
        };
        let holds = answers.nodes.iter().flat_map(|(_, inventory)| &inventory.holds);
        holds.filter(|it| it.complete).map(|it| it.package.clone()).collect()
    }

    /// All of it is in this node's store.
    pub(in crate::node) fn holds_all_of(&self, blob: &BlobId) -> bool {
        self.inner.store.get(blob).is_some_and(|blob| blob.held().len() == blob.manifest().count())
    }

    fn note(&self, wan: &WanFlight, run: &Run, ways: &[(Way, Place)], facts: &Facts, choice: Choice) {
        let against = |at: usize| {
            let (way, _) = at.checked_sub(1).and_then(|at| ways.get(at))?;
            way.against.map(|(blob, ..)| self.label(&blob))
        };
        let weighed = choice.ways.into_iter().enumerate();
        let ways = weighed.map(|(at, weighed)| WayWeighed { against: against(at), weighed }).collect();
        self.inner.recipes.log.note(Weighing {
            blob: run.blob,
            package: wan.label.clone(),
            at: Timestamp::now(),
            wan_rate: facts.rate,
            prefer: if facts.prefer == Prefer::Time { "time" } else { "bytes" }.to_owned(),
            ways,
            chosen: choice.chosen,
            outcome: if choice.chosen == 0 { Outcome::AsShipped } else { Outcome::UnderWay },
        });
    }

    /// Notes what was weighed elsewhere.
    pub(in crate::node) fn note_weighing(&self, weighing: Weighing) {
        self.inner.recipes.log.note(weighing);
    }

    /// How what was weighed last for a blob has ended.
    pub(in crate::node) fn recipe_ended(&self, blob: &BlobId, result: Result<(), String>) {
        self.inner.recipes.log.ended(blob, result);
    }

    /// How fast this machine is, as it was seen.
    pub(in crate::node) fn recipe_speeds(&self) -> Speeds {
        *self.inner.recipes.speeds()
    }

    /// What this node weighed of late, the last first.
    pub fn weighings(&self) -> Vec<Weighing> {
        self.inner.recipes.log.all()
    }

    /// Recipes that failed here since the start.
    pub fn recipe_failures(&self) -> u64 {
        self.inner.recipes.log.failures()
    }
}
