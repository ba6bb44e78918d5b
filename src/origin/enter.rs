//! The last step of a publish: a line in the signed catalog.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tough::ExpirationEnforcement;
use tough::schema::{Hashes, Target, Targets};

use super::OriginError;
use super::address::Address;
use super::catalog::Published;
use super::client::Origin;
use super::keys::Keys;
use super::publish::{Request, hex};
use super::sign::{expiry, sign_catalog};
use super::verify::{Fetch, load};
use crate::core::id::Channel;
use crate::core::manifest::Manifest;

/// Tries to add to the catalog while others do the same.
const CATALOG_TRIES: u32 = 8;

/// Enters a version, and moves the channel to it.
pub(super) fn add(targets: &mut Targets, request: &Request, manifest: &Manifest) -> Result<(), OriginError> {
    let invalid = |error: &dyn std::fmt::Display| OriginError::Invalid(format!("the catalog: {error}"));
    let prefix = format!("{}/", request.name);
    let mut published = Published {
        manifest: manifest.id(),
        blob: manifest.blob(),
        size: manifest.size(),
        sha256: hex(manifest.sha256()),
        channels: request.channel.iter().cloned().collect(),
        published: Timestamp::now(),
    };
    for (name, target) in targets.targets.iter_mut().filter(|(name, _)| name.raw().starts_with(&prefix)) {
        let same = name.raw()[prefix.len()..] == *request.version.as_str();
        let channels: Vec<Channel> = target
            .custom
            .get("channels")
            .and_then(|channels| serde_json::from_value(channels.clone()).ok())
            .unwrap_or_default();
        if same {
            let before = target.custom.get("blob").and_then(|blob| blob.as_str()).unwrap_or_default();
            if before != manifest.blob().to_string() {
                let why =
                    format!("{}@{} is published already, with other content", request.name, request.version);
                return Err(OriginError::Invalid(format!(
                    "{why}; versions never change: choose another version"
                )));
            }
            published.channels.extend(channels.into_iter().filter(|c| Some(c) != request.channel.as_ref()));
        } else if request.channel.as_ref().is_some_and(|channel| channels.contains(channel)) {
            let kept: Vec<Channel> =
                channels.into_iter().filter(|c| Some(c) != request.channel.as_ref()).collect();
            let kept = serde_json::to_value(kept).map_err(|error| invalid(&error))?;
            target.custom.insert("channels".to_owned(), kept);
        }
    }
    let custom = serde_json::to_value(&published).and_then(serde_json::from_value);
    let target = Target {
        length: manifest.encoded().len() as u64,
        hashes: Hashes { sha256: Sha256::digest(manifest.encoded()).to_vec().into(), _extra: HashMap::new() },
        custom: custom.map_err(|error| invalid(&error))?,
        _extra: HashMap::new(),
    };
    let name =
        tough::TargetName::new(format!("{prefix}{}", request.version)).map_err(|error| invalid(&error))?;
    targets.targets.insert(name, target);
    Ok(())
}

/// Changes the catalog and publishes it; begins again if somebody else was faster.
pub(super) async fn enter(
    origin: &Origin,
    keys: &Keys,
    change: impl Fn(&mut Targets) -> Result<(), OriginError>,
) -> Result<u64, OriginError> {
    let _lock = lock(origin.address()).await?;
    let mut version = 0;
    for _ in 0..CATALOG_TRIES {
        let mark = origin.mark("catalog/timestamp.json").await?;
        let trust = match origin.read("catalog/root.json", 1 << 20).await {
            Err(OriginError::NotFound { .. }) => {
                let hint = "begin one with 'branchline origin init --root DIR --keys DIR'";
                return Err(OriginError::Invalid(format!(
                    "there is no catalog at {}: {hint}",
                    origin.address()
                )));
            }
            trust => trust?,
        };
        let fetch = Fetch::Origin(origin.clone());
        let loaded = load(&trust, fetch, Arc::default(), None, ExpirationEnforcement::Unsafe).await?;
        let mut targets = loaded.targets;
        change(&mut targets)?;
        // A number that an interrupted publish has used stays used.
        version = loaded.catalog.version.max(version) + 1;
        let number = NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN);
        let files: BTreeMap<usize, (String, Vec<u8>)> =
            sign_catalog(&loaded.root.signed, targets, keys, number, expiry())
                .await?
                .into_iter()
                .enumerate()
                .collect();
        match write(origin, files.into_values(), mark).await {
            Ok(()) => return Ok(version),
            Err(OriginError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(OriginError::Conflict)
}

async fn write(
    origin: &Origin,
    files: impl Iterator<Item = (String, Vec<u8>)>,
    mark: Option<object_store::UpdateVersion>,
) -> Result<(), OriginError> {
    for (name, content) in files {
        let (path, content) = (format!("catalog/{name}"), Bytes::from(content));
        if name == "timestamp.json" {
            return origin.replace(&path, content, mark).await;
        }
        if !origin.put_new(&path, content).await? {
            return Err(OriginError::Conflict);
        }
    }
    Ok(())
}

/// Publishers to one folder take turns; a bucket's timestamp is replaced conditionally instead.
async fn lock(address: &Address) -> Result<Option<File>, OriginError> {
    let Address::Folder(folder) = address else { return Ok(None) };
    let path = folder.join("catalog").join(".lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    let failed =
        |error: &dyn std::fmt::Display| OriginError::Invalid(format!("cannot lock the catalog: {error}"));
    locked.await.map_err(|error| failed(&error))?.map(Some).map_err(|error| failed(&error))
}
