//! Recipes for what is published: what is inside it, plain and as patches to versions that branches hold.
//!
//! They are made when everything else of a publish is at the origin, and nothing depends on them: a package
//! that cannot be looked into is published all the same, and the receipt says why.

mod gc;
mod older;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::OriginError;
use super::catalog::Published;
use super::client::Origin;
use super::enter;
use super::publish::Request;
use crate::core::id::{BlobId, RecipeId, Version};
use crate::core::manifest::Manifest;
use crate::core::recipe::{MAX_OFFER, Offer, Way};
use crate::recipe::{self, Contents, How, Older, RecipeError, Span, Written};
pub use gc::{Swept, sweep};

/// So many of the last versions are what branches are likely to hold.
const LAST: usize = 2;
/// What is shorter than this, in bytes, costs less than to ask whether there is a cheaper way.
const SHORTEST: u64 = 256 << 10;
/// What is told of the parts that stay as shipped.
const MOST_LEFT: usize = 20;

/// What recipes are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// None at all.
    pub none: bool,
    /// Patches to these versions, beside the last ones.
    pub against: Vec<Version>,
    /// After so long no more of them are made; none: however long it takes.
    pub within: Option<Duration>,
}

/// What was made, and what it costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Made {
    /// The ways there are now, beside the one as shipped.
    pub ways: Vec<WayMade>,
    /// Bytes that were added to the origin.
    pub uploaded: u64,
    /// Bytes inside the package; 0 if it was not looked into.
    pub contents: u64,
    /// Parts that stay as shipped, and why: the first of them.
    pub left: Vec<Left>,
    /// How many there are.
    pub left_count: usize,
    /// Why there are fewer recipes than was meant, if so.
    pub problem: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What the catalog's entry names.
    #[serde(skip)]
    pub(super) offer: Option<RecipeId>,
}

/// One way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WayMade {
    /// The version that it takes for granted; none: nothing.
    pub against: Option<Version>,
    /// Bytes that cross the WAN.
    pub bytes: u64,
}

/// A part that stays as shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its path.
    pub path: String,
    /// Why.
    pub why: String,
}

/// Refuses what cannot be meant, before anything is uploaded.
pub(super) async fn check(origin: &Origin, request: &Request) -> Result<(), OriginError> {
    let Request { name, recipes, .. } = request;
    if recipes.against.is_empty() {
        return Ok(());
    }
    let catalog = enter::read(origin).await?.catalog;
    let known = |version: &&Version| catalog.versions(name).any(|(known, _)| known == *version);
    match recipes.against.iter().find(|version| !known(version)) {
        None => Ok(()),
        Some(unknown) => {
            let why = format!("there is no version {unknown} of {name} to write a recipe against");
            Err(OriginError::Invalid(format!(
                "{why}; 'branchline packages {name}' lists those that there are"
            )))
        }
    }
}

/// Makes what recipes pay. `tell` hears what is being done.
pub(super) async fn make(
    origin: &Origin,
    request: &Request,
    manifest: &Manifest,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Made {
    let begun = Instant::now();
    let mut making =
        Making { origin, request, manifest, tell, made: Made::default(), offer: Offer::default() };
    let within = request.recipes.within.unwrap_or(Duration::MAX);
    let problem = match tokio::time::timeout(within, making.all()).await {
        Ok(done) => done.err().map(|error| error.to_string()),
        Err(_) => Some(format!(
            "given up after {} s; what was made until then is at the origin (--recipe-time gives it more)",
            within.as_secs()
        )),
    };
    if let Some(problem) = problem {
        tracing::warn!(problem, "not all recipes were made");
        making.made.problem = Some(problem);
    }
    if let Err(error) = making.enter().await {
        making.made.problem = Some(error.to_string());
    }
    let mut made = making.made;
    made.seconds = begun.elapsed().as_secs_f64();
    made
}

struct Making<'a> {
    origin: &'a Origin,
    request: &'a Request,
    manifest: &'a Manifest,
    tell: &'a (dyn Fn(String) + Send + Sync),
    made: Made,
    offer: Offer,
}

impl Making<'_> {
    async fn all(&mut self) -> Result<(), OriginError> {
        let Request { name, recipes, .. } = self.request;
        let catalog = enter::read(self.origin).await?.catalog;
        let versions: Vec<(&Version, &Published)> = catalog.versions(name).collect();
        let older = references(&versions, self.manifest.blob(), &recipes.against);
        self.take_over(&versions).await?;
        if recipes.none || self.manifest.size() < SHORTEST {
            return Ok(());
        }
        let known =
            |blob: &BlobId| self.offer.ways.iter().any(|way| way.against.is_some_and(|it| it.0 == *blob));
        let missing: Vec<_> = older.into_iter().filter(|(_, it)| !known(&it.blob)).collect();
        let cold = !self.offer.ways.iter().any(|way| way.against.is_none());
        if !missing.is_empty() || cold {
            self.look_inside(&missing, cold).await?;
        }
        Ok(())
    }

    /// What an earlier publish of the same version has made stays.
    async fn take_over(&mut self, versions: &[(&Version, &Published)]) -> Result<(), OriginError> {
        let before = versions.iter().find(|(_, it)| it.blob == self.manifest.blob());
        let Some(id) = before.and_then(|(_, it)| it.recipes) else { return Ok(()) };
        self.offer = read_offer(self.origin, id).await?;
        for way in &self.offer.ways {
            let against = way.against.and_then(|(blob, ..)| {
                versions.iter().find(|(_, it)| it.blob == blob).map(|(version, _)| (*version).clone())
            });
            self.made.ways.push(WayMade { against, bytes: way.bytes });
        }
        Ok(())
    }

    async fn look_inside(&mut self, older: &[(Version, Published)], cold: bool) -> Result<(), OriginError> {
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let (file, scratch) = (self.request.file.clone(), folder.path().to_owned());
        let slow = !older.is_empty();
        (self.tell)(format!("looking inside {}", self.request.name));
        let opened = blocking(move || {
            let span = Span::of(std::fs::File::open(file)?)?;
            if !recipe::is_known(&span)? {
                return Ok(None);
            }
            Contents::open(&span, How::ToRebuild { slow }, &scratch).map(Some)
        });
        let Some(new) = opened.await? else { return Ok(()) };
        let new = std::sync::Arc::new(new);
        self.made.contents = new.opened.length;
        self.made.left_count = new.opened.left.len();
        let left = new.opened.left.iter().take(MOST_LEFT);
        self.made.left = left.map(|(path, why)| Left { path: path.clone(), why: why.clone() }).collect();
        if new.opened.plan.is_plain() {
            return Ok(());
        }
        if cold && new.spares_alone() {
            self.write(&new, None, folder.path()).await?;
        }
        for (version, published) in older {
            let manifest = older::manifest(self.origin, published).await?;
            (self.tell)(format!("reading version {version}"));
            let file = older::file(self.origin, &manifest, folder.path()).await?;
            let scratch = folder.path().to_owned();
            let how = How::ToRead { choices: new.has_dear_choices() };
            let old = blocking(move || Contents::open(&Span::of(file)?, how, &scratch)).await?;
            (self.tell)(format!("comparing with version {version}"));
            let old = Older { blob: published.blob, size: published.size, contents: old };
            self.write(&new, Some((version, old)), folder.path()).await?;
        }
        Ok(())
    }

    /// Writes one recipe and uploads it, if it pays.
    async fn write(
        &mut self,
        new: &std::sync::Arc<Contents>,
        older: Option<(&Version, Older)>,
        folder: &Path,
    ) -> Result<(), OriginError> {
        let (new, folder) = (new.clone(), folder.to_owned());
        let (blob, size) = (self.manifest.blob(), self.manifest.size());
        let (version, old) = older.unzip();
        let written = blocking(move || recipe::write(blob, size, &new, old.as_ref(), &folder)).await?;
        let shortest = self.offer.ways.iter().filter(|way| way.against.is_none()).map(|way| way.bytes);
        let replaced = shortest.chain([self.manifest.stored()]).min().unwrap_or(0);
        if !written.pays(replaced) {
            return Ok(());
        }
        let Written { way, file } = written;
        self.origin.upload(&format!("recipes/{}", way.recipe), file.path()).await?;
        self.made.uploaded += way.bytes;
        self.made.ways.push(WayMade { against: version.cloned(), bytes: way.bytes });
        self.offer.ways.push(way);
        Ok(())
    }

    /// Uploads the offer.
    async fn enter(&mut self) -> Result<(), OriginError> {
        if self.offer.ways.is_empty() {
            return Ok(());
        }
        self.made.offer = Some(put_offer(self.origin, &self.offer).await?);
        Ok(())
    }
}

/// The last versions that are not retired, and those that were named.
fn references(
    versions: &[(&Version, &Published)],
    blob: BlobId,
    named: &[Version],
) -> Vec<(Version, Published)> {
    let mut others: Vec<_> = versions.iter().filter(|(_, it)| it.blob != blob).collect();
    others.sort_by_key(|(_, it)| std::cmp::Reverse(it.published));
    let last = others.iter().filter(|(_, it)| it.retired.is_none()).take(LAST);
    let also = others.iter().filter(|(version, _)| named.contains(version));
    let mut chosen: Vec<(Version, Published)> = Vec::new();
    for (version, it) in last.chain(also) {
        if !chosen.iter().any(|(_, known)| known.blob == it.blob) {
            chosen.push(((*version).clone(), (*it).clone()));
        }
    }
    chosen
}

async fn read_offer(origin: &Origin, id: RecipeId) -> Result<Offer, OriginError> {
    let encoded = origin.read(&format!("recipes/{id}"), MAX_OFFER).await?;
    Offer::decode(&encoded).map_err(|error| OriginError::Invalid(error.to_string()))
}

async fn put_offer(origin: &Origin, offer: &Offer) -> Result<RecipeId, OriginError> {
    let encoded = offer.encode();
    let id = RecipeId::of(&encoded);
    origin.put_new(&format!("recipes/{id}"), encoded).await?;
    Ok(id)
}

fn failed(error: &dyn std::fmt::Display) -> OriginError {
    OriginError::Failed(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecipeError> + Send + 'static,
) -> Result<T, OriginError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))?;
    done.map_err(|error| failed(&error))
}

/// Whether a way is against one of these.
fn is_against(way: &Way, blobs: &[BlobId]) -> bool {
    way.against.is_none_or(|(blob, ..)| blobs.contains(&blob))
}
