//! A hub stands between sites and upstreams. It brings objects as any node does, looks inside them, and hands
//! them to the sites' nodes by recipe, against what a site says that it holds.
//!
//! Making a recipe takes a while. Whoever prefers few bytes waits for it, so long as package managers do;
//! then, and whenever none pays, the object goes as shipped, and the recipe is there for the next site.

mod kept;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::recipes::older;
use super::upstream::{Object, SHORTEST, Wanted};
use super::{Config, Node, Role, blocking};
use crate::core::id::BlobId;
use crate::core::ledger::Front;
use crate::core::recipe::{Facts, Place, Prefer, Way, choose};
use crate::core::upstream::hub::{Ask, MOST_HELD, Told};
use crate::core::upstream::record::Record;
use crate::recipe::{self, Contents, How, Older, RecipeError, Span, Written};
use kept::Kept;

/// A recipe is waited for so long.
const PATIENCE: Duration = Duration::from_secs(100);
/// One that takes longer to make is given up.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Of the cache's size, recipes take this part at the most.
const PART: u64 = 10;

/// An object, and the older one that a recipe for it is against.
type Pair = (BlobId, Option<BlobId>);

/// What a hub has made, and what it is making.
#[derive(Debug)]
pub(super) struct Hub {
    kept: Arc<Kept>,
    /// One recipe is made at a time: it takes all cores, and some hundred megabytes.
    slot: Semaphore,
    making: Mutex<HashMap<Pair, Arc<tokio::sync::Mutex<()>>>>,
}

impl Hub {
    pub(super) fn new(config: &Config) -> Self {
        let kept = Kept::new(config.state_dir.join("hub"), config.cache_size.0 / PART);
        Self { kept: Arc::new(kept), slot: Semaphore::new(1), making: Mutex::default() }
    }

    fn lock(&self, pair: Pair) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        making.entry(pair).or_default().clone()
    }
}

/// An object by recipe.
#[derive(Debug)]
pub struct ByRecipe {
    /// What comes before the recipe.
    pub told: Told,
    /// The recipe's object.
    pub recipe: File,
}

impl Node {
    /// An object by recipe, as a site asks for it; `None` if it goes as shipped.
    pub async fn by_recipe(&self, wanted: &Wanted, ask: &Ask, front: Front) -> Option<ByRecipe> {
        if self.inner.config.role != Role::Hub {
            return None;
        }
        let patience = if ask.prefer == Prefer::Bytes { PATIENCE } else { Duration::ZERO };
        let until = Instant::now() + patience;
        let object = self.object(wanted.clone(), front);
        let (node, holds, path) = (self.clone(), ask.holds.clone(), wanted.path.clone());
        // It goes on when nobody waits any more: the next site will ask for it.
        let prepared = tokio::spawn(async move {
            let prepared = node.prepare(object, &holds, &path).await;
            prepared.map_err(|why| tracing::warn!(path, why, "no recipe was made")).ok()
        });
        let record = timeout_at(until, prepared).await.ok()?.ok()??;
        let kept = self.inner.hub.kept.clone();
        let ask = ask.clone();
        blocking(move || chosen(&kept, record, &ask)).await?
    }

    /// Brings it, and makes what recipes for it pay: against the first of what is held that this node knows,
    /// else against nothing.
    async fn prepare(&self, mut object: Object, holds: &[BlobId], path: &str) -> Result<Record, String> {
        let record = object.complete().await.map_err(|error| error.to_string())?;
        if record.came() < SHORTEST {
            return Ok(record);
        }
        let known = |content: &BlobId| self.object_of_content(content).filter(|it| *it != record);
        let old = holds.iter().take(MOST_HELD).find_map(known);
        let pair = (record.content(), old.as_ref().map(Record::content));
        let lock = self.inner.hub.lock(pair);
        let _making = lock.lock().await;
        let kept = self.inner.hub.kept.clone();
        if blocking(move || kept.get(&pair.0).against.contains(&pair.1)).await == Some(true) {
            return Ok(record);
        }
        let _slot = self.inner.hub.slot.acquire().await.map_err(|error| error.to_string())?;
        let new = self.opened_file(&record).await?;
        let old = match &old {
            Some(old) => Some(self.opened_file(old).await?),
            None => None,
        };
        let (kept, begun) = (self.inner.hub.kept.clone(), Instant::now());
        let made = blocking(move || {
            let written = make(&new, old.as_ref(), kept.dir())?;
            let bytes = written.as_ref().map(|written| written.way.bytes);
            kept.put(&pair.0, pair.1, written)?;
            Ok::<_, RecipeError>(bytes)
        });
        let made = tokio::time::timeout(LONGEST, made).await;
        let made = made.map_err(|_| format!("it took more than {} s", LONGEST.as_secs()))?;
        let made = made.ok_or("the agent is stopping")?.map_err(|error| error.to_string())?;
        let (size, took) = (record.came(), begun.elapsed().as_secs());
        match made {
            Some(bytes) => {
                tracing::info!(path, size, bytes, took, patch = pair.1.is_some(), "a recipe was made")
            }
            None => tracing::info!(path, size, took, "no recipe pays: it goes as shipped"),
        }
        Ok(record)
    }

    async fn opened_file(&self, record: &Record) -> Result<Whole, String> {
        let blobs: Vec<_> = record.segments.iter().map(|it| (it.blob, it.manifest)).collect();
        let file = older::copied(self, &blobs, true).await?;
        let span = Span::of(file).map_err(|error| error.to_string())?;
        Ok(Whole { span, content: record.content() })
    }
}

/// An object in a file.
struct Whole {
    span: Span,
    content: BlobId,
}

/// Makes a recipe; none if none pays.
fn make(new: &Whole, old: Option<&Whole>, folder: &Path) -> Result<Option<Written>, RecipeError> {
    std::fs::create_dir_all(folder)?;
    if !recipe::is_known(&new.span)? {
        return Ok(None);
    }
    let contents = Contents::open(&new.span, How::ToRebuild { slow: old.is_some() }, folder)?;
    let spares = old.is_some() || contents.spares_alone();
    if contents.opened.plan.is_plain() || !spares {
        return Ok(None);
    }
    let choices = contents.has_dear_choices();
    let older = |old: &Whole| {
        let contents = Contents::open(&old.span, How::ToRead { choices }, folder)?;
        Ok::<_, RecipeError>(Older { blob: old.content, size: old.span.len(), contents })
    };
    let older = old.map(older).transpose()?;
    let size = new.span.len();
    let written = recipe::write(new.content, size, &contents, older.as_ref(), folder)?;
    Ok(written.pays(size).then_some(written))
}

/// Weighs for the site what there is.
fn chosen(kept: &Kept, record: Record, ask: &Ask) -> Option<ByRecipe> {
    let place = |way: &Way| match way.against {
        Some((content, ..)) if !ask.holds.contains(&content) => Place::Nowhere,
        _ => Place::Here,
    };
    let ways = kept.get(&record.content()).ways;
    let ways: Vec<(Way, Place)> =
        ways.into_iter().map(|way| (place(&way), way)).map(|(it, way)| (way, it)).collect();
    let facts = Facts { shipped: record.came(), rate: ask.rate, speeds: ask.speeds, prefer: ask.prefer };
    let choice = choose(&ways, &facts);
    let (way, _) = ways.get(choice.chosen.checked_sub(1)?)?;
    let recipe = kept.open(&way.recipe).ok()?;
    // The first way is the one as shipped.
    let patches = std::iter::once(false).chain(ways.iter().map(|(way, _)| way.against.is_some())).collect();
    let told = Told { segments: record.segments, bytes: way.bytes, work: way.work, choice, patches };
    Some(ByRecipe { told, recipe })
}
