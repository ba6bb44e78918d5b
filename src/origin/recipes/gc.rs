//! Recipes that no supported upgrade needs, removed.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;
use tough::schema::Targets;

use super::{failed, is_against, put_offer, read_offer};
use crate::core::id::{BlobId, PackageName, RecipeId, Version};
use crate::core::recipe::Offer;
use crate::origin::catalog::{Published, packages};
use crate::origin::enter::{self, enter, set};
use crate::origin::keys::Keys;
use crate::origin::{Origin, OriginError};

/// What is younger may belong to a publish under way, in seconds.
const YOUNG: i64 = 3600;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Objects that nothing names any more.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Versions that have fewer recipes now.
    pub versions: usize,
    /// The catalog's version.
    pub catalog: u64,
    /// Objects that stay.
    pub kept: usize,
}

/// An entry of the catalog whose offer changes.
struct Change {
    name: PackageName,
    version: Version,
    from: RecipeId,
    to: Option<RecipeId>,
}

/// Drops recipes for retired versions and against them, then all objects that no offer names. With `look`
/// nothing is changed, and it is only told what would be.
///
/// # Errors
/// [`OriginError`]; what was not removed is found by the next try.
pub async fn sweep(origin: &Origin, keys: &Keys, look: bool) -> Result<Swept, OriginError> {
    let read = enter::read(origin).await?;
    let mut swept = Swept { catalog: read.catalog.version, ..Swept::default() };
    let mut named: HashSet<RecipeId> = HashSet::new();
    let mut changes = Vec::new();
    for (name, versions) in packages(&read.targets) {
        let supported: Vec<BlobId> =
            versions.values().filter(|it| it.retired.is_none()).map(|it| it.blob).collect();
        for (version, it) in &versions {
            let Some(from) = it.recipes else { continue };
            let offer = read_offer(origin, from).await?;
            let stays = needed(it, &offer, &supported);
            named.extend(stays.ways.iter().map(|way| way.recipe));
            let to = match stays.ways.is_empty() {
                true => None,
                false if look => Some(RecipeId::of(&stays.encode())),
                false => Some(put_offer(origin, &stays).await?),
            };
            named.extend(to);
            if to != Some(from) {
                changes.push(Change { name: name.clone(), version: version.clone(), from, to });
            }
        }
    }
    swept.versions = changes.len();
    if !look && !changes.is_empty() {
        (swept.catalog, ()) = enter(origin, keys, |targets| apply(targets, &changes)).await?;
    }
    remove(origin, &named, look, &mut swept).await?;
    Ok(swept)
}

/// The ways that a supported upgrade may go.
fn needed(published: &Published, offer: &Offer, supported: &[BlobId]) -> Offer {
    let ways = offer.ways.iter().filter(|way| published.retired.is_none() && is_against(way, supported));
    Offer { ways: ways.cloned().collect() }
}

/// Whoever has published in the meantime is not undone.
fn apply(targets: &mut Targets, changes: &[Change]) -> Result<(), OriginError> {
    let now = packages(targets);
    for change in changes {
        let entry = now.get(&change.name).and_then(|versions| versions.get(&change.version));
        if entry.is_some_and(|it| it.recipes == Some(change.from)) {
            set(targets, (&change.name, &change.version), "recipes", &change.to)?;
        }
    }
    Ok(())
}

async fn remove(
    origin: &Origin,
    named: &HashSet<RecipeId>,
    look: bool,
    swept: &mut Swept,
) -> Result<(), OriginError> {
    let old = Timestamp::now().as_second() - YOUNG;
    for object in origin.list("recipes").await? {
        let needed = object.name.parse::<RecipeId>().map_or(true, |id| named.contains(&id));
        if needed || object.changed > old {
            swept.kept += 1;
            continue;
        }
        if !look {
            origin.remove(&format!("recipes/{}", object.name)).await.map_err(|error| failed(&error))?;
        }
        swept.objects += 1;
        swept.bytes += object.bytes;
    }
    Ok(())
}
