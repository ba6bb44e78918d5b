//! The signed catalog: which package version is which blob.
//!
//! A TUF repository (crate `tough`), so its files prove themselves: they may come from the origin,
//! from any peer, or from this node's own disk. The [`Keeper`] holds the newest that it has
//! verified, with the raw files, to hand on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tough::schema::{Root, Signed, Targets};
use tough::{
    ExpirationEnforcement, RepositoryLoader, Transport, TransportError, TransportErrorKind, TransportStream,
};
use url::Url;

use super::OriginError;
use super::client::Origin;
use crate::core::id::{BlobId, Channel, ManifestId, PackageName, Version};

/// The longest catalog file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The most files of a catalog that a peer may send.
const MAX_FILES: usize = 64;

/// One published version, as the catalog says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The manifest's name.
    pub manifest: ManifestId,
    /// The blob's name.
    pub blob: BlobId,
    /// The blob's length, in bytes.
    pub size: u64,
    /// The blob's SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The channels that point here.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// When it was published.
    pub published: Timestamp,
}

/// A verified catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Counts up with each change.
    pub version: u64,
    /// Until when it is good.
    pub expires: Timestamp,
    packages: BTreeMap<PackageName, BTreeMap<Version, Published>>,
    files: BTreeMap<String, Bytes>,
}

/// Why the catalog has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such package.
    #[error("there is no package {name} in the catalog{hint}")]
    Package {
        /// What was asked for.
        name: String,
        /// The nearest name, as a question.
        hint: String,
    },
    /// No such version or channel of it.
    #[error("package {name} has no version or channel {wanted}; it has {known}")]
    Version {
        /// The package.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
}

impl Catalog {
    /// Every version, by name.
    pub fn packages(&self) -> impl Iterator<Item = (&PackageName, &Version, &Published)> {
        self.packages
            .iter()
            .flat_map(|(name, versions)| versions.iter().map(move |(version, it)| (name, version, it)))
    }

    /// The first version that is this blob, as `NAME@VERSION`.
    pub fn label_of(&self, blob: &BlobId) -> Option<String> {
        let found = self.packages().find(|(_, _, it)| it.blob == *blob);
        found.map(|(name, version, _)| format!("{name}@{version}"))
    }

    /// Whether it is past its time.
    pub fn is_expired(&self) -> bool {
        self.expires < Timestamp::now()
    }

    /// The raw files, to hand on.
    pub fn files(&self) -> &BTreeMap<String, Bytes> {
        &self.files
    }

    /// A version by its own name, else by a channel's; without either, `stable`, else the version
    /// that was published last.
    ///
    /// # Errors
    /// [`Unresolved`], with what there is instead.
    pub fn resolve(
        &self,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<(PackageName, Version, Published), Unresolved> {
        let found = name.parse::<PackageName>().ok().and_then(|name| self.packages.get_key_value(&name));
        let Some((name, versions)) = found else {
            let near = self.packages.keys().map(|known| (strsim::jaro_winkler(known.as_str(), name), known));
            let near = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map_or(String::new(), |(_, known)| format!("; did you mean {known}?"));
            return Err(Unresolved::Package { name: name.chars().take(100).collect(), hint });
        };
        let in_channel = |channel: &str| {
            versions.iter().find(|(_, it)| it.channels.iter().any(|known| known.as_str() == channel))
        };
        let found = match wanted {
            None | Some("latest") => {
                in_channel("stable").or_else(|| versions.iter().max_by_key(|(_, it)| it.published))
            }
            Some(wanted) => {
                versions.iter().find(|(version, _)| version.as_str() == wanted).or_else(|| in_channel(wanted))
            }
        };
        let (version, it) = found.ok_or_else(|| Unresolved::Version {
            name: name.to_string(),
            wanted: wanted.unwrap_or("latest").chars().take(100).collect(),
            known: describe(versions),
        })?;
        Ok((name.clone(), version.clone(), it.clone()))
    }
}

fn describe(versions: &BTreeMap<Version, Published>) -> String {
    let one = |(version, it): (&Version, &Published)| {
        let channels: Vec<&str> = it.channels.iter().map(Channel::as_str).collect();
        if channels.is_empty() { version.to_string() } else { format!("{version} ({})", channels.join(", ")) }
    };
    let mut known: Vec<String> = versions.iter().rev().take(10).map(one).collect();
    if versions.len() > known.len() {
        known.push(format!("and {} more", versions.len() - known.len()));
    }
    known.join(", ")
}

/// Where catalog files come from.
#[derive(Debug, Clone)]
pub enum Fetch {
    /// The origin.
    Origin(Origin),
    /// What a peer, or this node's disk, has of them.
    Files(Arc<BTreeMap<String, Bytes>>),
}

impl Fetch {
    /// A peer's files, if they are few and small enough.
    pub fn from_peer(files: impl IntoIterator<Item = (String, Bytes)>) -> Option<Self> {
        let files: BTreeMap<String, Bytes> = files.into_iter().take(MAX_FILES + 1).collect();
        (files.len() <= MAX_FILES).then(|| Self::Files(Arc::new(files)))
    }

    async fn fetch(&self, name: &str) -> Result<Bytes, OriginError> {
        let path = format!("catalog/{name}");
        match self {
            Self::Origin(origin) => origin.read(&path, MAX_FILE).await,
            Self::Files(files) => files.get(name).cloned().ok_or(OriginError::NotFound { path }),
        }
    }
}

/// A `tough` transport that remembers the raw bytes, and does not fetch again what cannot have
/// changed: files that carry their version in their name.
#[derive(Debug, Clone)]
struct Remembering {
    fetch: Fetch,
    known: Arc<BTreeMap<String, Bytes>>,
    seen: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl Remembering {
    async fn get(&self, url: &Url) -> Result<Bytes, TransportError> {
        let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        let known = self.known.get(name).filter(|_| name.starts_with(|c: char| c.is_ascii_digit()));
        let content = match known {
            Some(content) => content.clone(),
            None => self.fetch.fetch(name).await.map_err(|error| {
                let missing = matches!(error, OriginError::NotFound { .. } | OriginError::Denied { .. });
                let kind = if missing { TransportErrorKind::FileNotFound } else { TransportErrorKind::Other };
                TransportError::new_with_cause(kind, url, error)
            })?,
        };
        if let Ok(mut seen) = self.seen.lock() {
            seen.insert(name.to_owned(), content.clone());
        }
        Ok(content)
    }
}

#[async_trait::async_trait]
impl Transport for Remembering {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        // An error outside the stream would be taken for 'no newer root', whatever it is.
        let result = self.get(&url).await;
        Ok(Box::pin(futures::stream::once(std::future::ready(result))))
    }
}

/// What [`load`] verified.
pub(super) struct Loaded {
    pub(super) root: Signed<Root>,
    pub(super) targets: Targets,
    pub(super) catalog: Catalog,
}

/// Fetches and verifies a catalog. `datastore` keeps what protects against going back.
pub(super) async fn load(
    root: &Bytes,
    fetch: Fetch,
    known: Arc<BTreeMap<String, Bytes>>,
    datastore: Option<&Path>,
    enforce: ExpirationEnforcement,
) -> Result<Loaded, OriginError> {
    let base = Url::parse("catalog:///").map_err(|error| OriginError::Invalid(error.to_string()))?;
    let seen = Arc::default();
    let load = || {
        let transport = Remembering { fetch: fetch.clone(), known: known.clone(), seen: Arc::clone(&seen) };
        let loader = RepositoryLoader::new(root, base.clone(), base.clone())
            .transport(transport)
            .expiration_enforcement(enforce);
        if let Some(datastore) = datastore { loader.datastore(datastore).load() } else { loader.load() }
    };
    let mut loaded = load().await;
    if let (Err(tough::error::Error::SystemTimeSteppedBackward { .. }), Some(datastore)) =
        (&loaded, datastore)
    {
        // A clock that was ahead and has been set right. Going back is prevented by versions, which
        // stay remembered, and not by the clock.
        tracing::warn!("this machine's clock went back since the last catalog check");
        fs::remove_file(datastore.join("latest_known_time.json")).ok();
        loaded = load().await;
    }
    let repository = loaded.map_err(|error| explain(&error))?;
    let targets = repository.targets().signed.clone();
    let expires = [
        repository.root().signed.expires,
        repository.timestamp().signed.expires,
        repository.snapshot().signed.expires,
        targets.expires,
    ];
    let files = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
    let catalog = Catalog {
        version: repository.timestamp().signed.version.get(),
        expires: expires.into_iter().min().unwrap_or(targets.expires),
        packages: packages(&targets),
        files,
    };
    Ok(Loaded { root: repository.root().clone(), targets, catalog })
}

fn packages(targets: &Targets) -> BTreeMap<PackageName, BTreeMap<Version, Published>> {
    let mut packages: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (name, target) in &targets.targets {
        let parsed = name.raw().split_once('/').and_then(|(name, version)| {
            let custom = serde_json::to_value(&target.custom).ok()?;
            let published = serde_json::from_value::<Published>(custom).ok()?;
            Some((name.parse::<PackageName>().ok()?, version.parse::<Version>().ok()?, published))
        });
        match parsed {
            Some((name, version, published)) => {
                packages.entry(name).or_default().insert(version, published);
            }
            None => tracing::warn!(name = name.raw(), "a catalog entry that this version does not know"),
        }
    }
    packages
}

/// What went wrong, what it means, and what to do.
fn explain(error: &tough::error::Error) -> OriginError {
    use std::error::Error as _;
    use tough::error::Error;
    let held = "what this node holds stays usable";
    let text = match error {
        Error::ExpiredMetadata { role, .. } => format!(
            "the catalog has expired ({role}): run 'branchline origin renew' where its keys are, and check this machine's clock; {held}"
        ),
        Error::OlderMetadata { role, current_version, new_version, .. } => format!(
            "refused a catalog that goes back ({role} from version {current_version} to {new_version}): the origin was restored from a backup, or somebody replays an old one; {held}"
        ),
        Error::OlderSnapshotInTimestamp { .. } | Error::SnapshotRoleRollback { .. } | Error::SnapshotRoleMissing { .. } => {
            format!("refused a catalog that goes back: the origin was restored from a backup, or somebody replays an old one; {held}")
        }
        Error::VerifyMetadata { role, .. } => format!(
            "refused a catalog that is not signed by this origin's keys ({role}): check that the --trust file belongs to this origin; {held}"
        ),
        Error::VerifyTrustedMetadata { .. } | Error::ParseTrustedMetadata { .. } => {
            "the --trust file is no root of trust: give the catalog/root.json that 'branchline origin init' made".into()
        }
        Error::Transport { source, .. } => {
            let cause = source.source();
            if let Some(origin) = cause.and_then(|cause| cause.downcast_ref::<OriginError>()) {
                if origin.is_transient() {
                    return OriginError::Failed(format!("the catalog could not be fetched: {origin}"));
                }
                return OriginError::Invalid(format!("the catalog could not be fetched: {origin}"));
            }
            format!("refused a catalog file that was altered or cut; {held}")
        }
        other => format!("refused a malformed catalog ({other}); {held}"),
    };
    OriginError::Invalid(text)
}

/// Keeps the newest verified catalog, in memory and on disk.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    trust: Bytes,
    current: Mutex<Option<Arc<Catalog>>>,
    loading: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Opens what was kept in `dir`; `trust` is the origin's `root.json`.
    ///
    /// # Errors
    /// [`OriginError::Invalid`] if the trust file is no root of trust, or the folder not usable.
    pub async fn open(dir: &Path, trust: Bytes) -> Result<Self, OriginError> {
        let unusable = |error| OriginError::Invalid(format!("cannot use {}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(unusable)?;
        if serde_json::from_slice::<Signed<Root>>(&trust).is_err() {
            let hint = "give the catalog/root.json that 'branchline origin init' made";
            return Err(OriginError::Invalid(format!("the --trust file is no root of trust: {hint}")));
        }
        let keeper = Self {
            dir: dir.to_owned(),
            trust,
            current: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        };
        let files = read_files(&keeper.kept());
        if !files.is_empty() {
            let fetch = Fetch::Files(Arc::new(files));
            // Past its time or not: what it says was true, and callers look at its expiry.
            match keeper.update(fetch, ExpirationEnforcement::Unsafe).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the kept catalog cannot be used; it will be fetched anew")
                }
            }
        }
        Ok(keeper)
    }

    fn kept(&self) -> PathBuf {
        self.dir.join("kept")
    }

    /// The newest catalog that was verified.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.current.lock().ok()?.clone()
    }

    /// Fetches what is newer and verifies it; what was held stays if it is refused.
    ///
    /// # Errors
    /// [`OriginError`], saying why it was refused or could not be fetched.
    pub async fn refresh(&self, fetch: Fetch) -> Result<Arc<Catalog>, OriginError> {
        self.update(fetch, ExpirationEnforcement::Safe).await
    }

    async fn update(
        &self,
        fetch: Fetch,
        enforce: ExpirationEnforcement,
    ) -> Result<Arc<Catalog>, OriginError> {
        let _one_at_a_time = self.loading.lock().await;
        let unusable = |error| OriginError::Invalid(format!("cannot write {}: {error}", self.dir.display()));
        let known = self.current().map(|catalog| catalog.files.clone()).unwrap_or_default();
        // Verified in a copy, which takes the old one's place only as a whole.
        let (kept, next, old) = (self.kept(), self.dir.join("next"), self.dir.join("old"));
        fs::remove_dir_all(&next).ok();
        copy_files(&kept.join("protect"), &next.join("protect")).map_err(unusable)?;
        let trusted = newest_root(&known).or_else(|| newest_root(&read_files(&kept)));
        let trusted = trusted.unwrap_or_else(|| self.trust.clone());
        let loaded =
            load(&trusted, fetch, Arc::new(known.clone()), Some(&next.join("protect")), enforce).await?;
        let mut catalog = loaded.catalog;
        for (name, content) in known.into_iter().filter(|(name, _)| name.ends_with(".root.json")) {
            catalog.files.entry(name).or_insert(content);
        }
        for (name, content) in &catalog.files {
            fs::write(next.join(name), content).map_err(unusable)?;
        }
        fs::remove_dir_all(&old).ok();
        fs::rename(&kept, &old).ok();
        fs::rename(&next, &kept).map_err(unusable)?;
        fs::remove_dir_all(&old).ok();
        let catalog = Arc::new(catalog);
        if let Ok(mut current) = self.current.lock() {
            *current = Some(catalog.clone());
        }
        Ok(catalog)
    }
}

/// The newest root among the files: it was verified against the one before it when it came.
fn newest_root(files: &BTreeMap<String, Bytes>) -> Option<Bytes> {
    let version = |name: &str| name.strip_suffix(".root.json")?.parse::<u64>().ok();
    files
        .iter()
        .filter_map(|(name, content)| Some((version(name)?, content)))
        .max_by_key(|(v, _)| *v)
        .map(|(_, c)| c.clone())
}

fn read_files(dir: &Path) -> BTreeMap<String, Bytes> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let read = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, Bytes::from(fs::read(entry.path()).ok()?)))
    });
    read.collect()
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for (name, content) in read_files(from) {
        fs::write(to.join(name), content)?;
    }
    Ok(())
}

/// How often a site asks the origin for a newer catalog, unless told otherwise.
pub const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use jiff::SignedDuration;

    use super::super::keys::{self, Keys};
    use super::super::sign::{expiry, sign_catalog};
    use super::super::{Address, publish};
    use super::*;

    async fn origin(dir: &Path) -> (Origin, Keys, Bytes) {
        let (tree, keys) = (dir.join("tree"), dir.join("keys"));
        keys::init(&tree, &keys).await.expect("a fresh folder");
        let trust = fs::read(tree.join("catalog/root.json")).expect("made").into();
        (Origin::open(&Address::Folder(tree)).expect("made"), Keys::open(&keys).expect("made"), trust)
    }

    #[tokio::test]
    async fn an_expired_catalog_is_refused_and_the_held_one_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, keys, trust) = origin(dir.path()).await;
        let kept = dir.path().join("kept");
        let keeper = Keeper::open(&kept, trust.clone()).await.expect("a folder");
        let version = keeper.refresh(Fetch::Origin(origin.clone())).await.expect("good").version;
        // The same origin, with a catalog that expired yesterday.
        let root: Signed<Root> = serde_json::from_slice(&trust).expect("a root");
        let past = Timestamp::now() - SignedDuration::from_hours(24);
        let targets = Targets::new("1.0.0".to_owned(), NonZeroU64::MIN, past);
        let number = NonZeroU64::new(9).expect("not 0");
        for (name, content) in
            sign_catalog(&root.signed, targets, &keys, number, past).await.expect("own keys")
        {
            fs::write(dir.path().join("tree/catalog").join(name), content).expect("own folder");
        }
        let error = keeper.refresh(Fetch::Origin(origin.clone())).await.expect_err("expired").to_string();
        assert!(error.contains("has expired") && error.contains("origin renew"), "{error}");
        assert_eq!(keeper.current().map(|catalog| catalog.version), Some(version));
        publish::renew(&origin, &keys).await.expect("own keys");
        assert!(keeper.refresh(Fetch::Origin(origin)).await.expect("renewed").expires > Timestamp::now());
    }

    #[tokio::test]
    async fn a_clock_that_was_a_day_ahead_does_no_harm() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, _keys, trust) = origin(dir.path()).await;
        let kept = dir.path().join("kept");
        let keeper = Keeper::open(&kept, trust.clone()).await.expect("a folder");
        keeper.refresh(Fetch::Origin(origin.clone())).await.expect("good");
        let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
        let file = kept.join("kept/protect/latest_known_time.json");
        fs::write(&file, serde_json::to_vec(&tomorrow).expect("a time")).expect("own folder");
        let keeper = Keeper::open(&kept, trust).await.expect("a folder");
        assert!(keeper.current().is_some());
        keeper.refresh(Fetch::Origin(origin)).await.expect("healed");
        assert!(expiry() > tomorrow);
    }
}
