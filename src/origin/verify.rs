//! Fetching a catalog and verifying it, whoever it comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tough::schema::{Root, Signed, Targets};
use tough::{
    ExpirationEnforcement, RepositoryLoader, Transport, TransportError, TransportErrorKind, TransportStream,
};
use url::Url;

use super::catalog::Catalog;
use super::client::Origin;
use super::{OriginError, with_causes};

/// The longest catalog file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The most files of a catalog that a peer may send.
const MAX_FILES: usize = 64;

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
    let version = repository.timestamp().signed.version.get();
    let expires = expires.into_iter().min().unwrap_or(targets.expires);
    let catalog = Catalog::new(version, expires, &targets, files);
    Ok(Loaded { root: repository.root().clone(), targets, catalog })
}

/// Why a catalog is not believed, or not taken over: what that means, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Doubt {
    /// Its time is over.
    #[error(
        "the catalog has expired ({0}): run 'branchline origin renew' where its keys are, and check this machine's clock; {HELD}"
    )]
    Expired(String),
    /// It is older than what was seen before.
    #[error(
        "refused a catalog that goes back{0}: the origin was restored from a backup, or somebody replays an old one; {HELD}"
    )]
    GoesBack(String),
    /// Somebody else signed it.
    #[error(
        "refused a catalog that is not signed by this origin's keys ({0}): check that the --trust file belongs to this origin; {HELD}"
    )]
    Foreign(String),
    /// There is nothing to measure it by.
    #[error(
        "the --trust file is no root of trust: give the catalog/root.json that 'branchline origin init' made"
    )]
    NoRoot,
    /// It is not what was signed.
    #[error("refused a catalog file that was altered or cut; {HELD}")]
    Altered,
    /// It is no catalog.
    #[error("refused a malformed catalog ({0}); {HELD}")]
    Malformed(String),
    /// This machine's disk does not take it.
    #[error("the catalog cannot be kept here: {0}")]
    Unkept(String),
}

const HELD: &str = "what this node holds stays usable";

fn explain(error: &tough::error::Error) -> OriginError {
    use std::error::Error as _;
    use tough::error::Error;
    let doubt = match error {
        Error::ExpiredMetadata { role, .. } => Doubt::Expired(role.to_string()),
        Error::OlderMetadata { role, current_version, new_version, .. } => {
            Doubt::GoesBack(format!(" ({role} from version {current_version} to {new_version})"))
        }
        Error::OlderSnapshotInTimestamp { .. }
        | Error::SnapshotRoleRollback { .. }
        | Error::SnapshotRoleMissing { .. } => Doubt::GoesBack(String::new()),
        Error::VerifyMetadata { role, .. } => Doubt::Foreign(role.to_string()),
        Error::VerifyTrustedMetadata { .. } | Error::ParseTrustedMetadata { .. } => Doubt::NoRoot,
        Error::Transport { source, .. } => {
            let cause = source.source();
            match cause.and_then(|cause| cause.downcast_ref::<OriginError>()) {
                Some(origin) => return origin.clone(),
                None => Doubt::Altered,
            }
        }
        Error::DatastoreInit { .. }
        | Error::DatastoreCreate { .. }
        | Error::DatastoreOpen { .. }
        | Error::DatastoreRemove { .. }
        | Error::DatastoreSerialize { .. } => Doubt::Unkept(with_causes(error)),
        other => Doubt::Malformed(other.to_string()),
    };
    OriginError::Doubt(doubt)
}
