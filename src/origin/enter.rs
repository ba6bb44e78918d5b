//! The last step of a publish: a line in the signed catalog.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tough::ExpirationEnforcement;
use tough::schema::{Hashes, Target, Targets};

use super::OriginError;
use super::address::Address;
use super::catalog::{Published, packages};
use super::channels::{point, refuse_retired};
use super::client::Origin;
use super::history::Act;
use super::keys::Keys;
use super::publish::{Request, hex};
use super::sign::{expiry, sign_catalog};
use super::verify::{Fetch, Loaded, load};
use crate::core::id::{PackageName, RecipeId, Version};
use crate::core::manifest::Manifest;

/// Tries to add to the catalog while others do the same.
const CATALOG_TRIES: u32 = 8;

/// Enters a version, and moves the channel to it.
pub(super) fn add(
    targets: &mut Targets,
    request: &Request,
    manifest: &Manifest,
    recipes: Option<RecipeId>,
) -> Result<(), OriginError> {
    let Request { name, version, channel, by, .. } = request;
    let mut published = Published {
        manifest: manifest.id(),
        blob: manifest.blob(),
        size: manifest.size(),
        sha256: hex(manifest.sha256()),
        channels: Vec::new(),
        published: Timestamp::now(),
        retired: None,
        recipes,
    };
    if let Some(before) = packages(targets).get(name).and_then(|versions| versions.get(version)) {
        if before.blob != published.blob {
            let why = format!("{name}@{version} is published already, with other content");
            let hint = "versions never change: choose another version";
            return Err(OriginError::Invalid(format!("{why}; {hint}")));
        }
        if channel.is_some() {
            refuse_retired(name, version, before.retired)?;
        }
        published.channels = before.channels.clone();
        published.retired = before.retired;
    }
    let custom = serde_json::to_value(&published).and_then(serde_json::from_value);
    let target = Target {
        length: manifest.encoded().len() as u64,
        hashes: Hashes { sha256: Sha256::digest(manifest.encoded()).to_vec().into(), _extra: HashMap::new() },
        custom: custom.map_err(|error| invalid(&error))?,
        _extra: HashMap::new(),
    };
    let target_name = tough::TargetName::new(format!("{name}/{version}")).map_err(|error| invalid(&error))?;
    targets.targets.insert(target_name, target);
    if let Some(channel) = channel {
        point(targets, name, channel, (version, Act::Move), by)?;
    }
    Ok(())
}

/// Sets one field of a version, and leaves those alone that are not known here.
pub(super) fn set(
    targets: &mut Targets,
    (name, version): (&PackageName, &Version),
    field: &str,
    value: &impl Serialize,
) -> Result<(), OriginError> {
    let value = serde_json::to_value(value).map_err(|error| invalid(&error))?;
    let wanted = format!("{name}/{version}");
    for (_, target) in targets.targets.iter_mut().filter(|(name, _)| name.raw() == wanted) {
        match &value {
            serde_json::Value::Null => drop(target.custom.remove(field)),
            value => drop(target.custom.insert(field.to_owned(), value.clone())),
        }
    }
    Ok(())
}

/// What cannot be entered into the catalog.
pub(super) fn invalid(error: &dyn std::fmt::Display) -> OriginError {
    OriginError::Invalid(format!("the catalog: {error}"))
}

/// Changes the catalog and publishes it; begins again if somebody else was faster.
///
/// # Errors
/// [`OriginError`]; what `change` refuses is not entered.
pub(super) async fn enter<T>(
    origin: &Origin,
    keys: &Keys,
    change: impl Fn(&mut Targets) -> Result<T, OriginError>,
) -> Result<(u64, T), OriginError> {
    let _lock = lock(origin.address()).await?;
    let mut version = 0;
    for _ in 0..CATALOG_TRIES {
        let mark = origin.mark("catalog/timestamp.json").await?;
        let loaded = read(origin).await?;
        let mut targets = loaded.targets;
        let changed = change(&mut targets)?;
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
            Ok(()) => return Ok((version, changed)),
            Err(OriginError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(OriginError::Conflict)
}

/// What is published now, by the origin's own root of trust: whoever writes there has its keys.
pub(super) async fn read(origin: &Origin) -> Result<Loaded, OriginError> {
    let trust = match origin.read("catalog/root.json", 1 << 20).await {
        Err(OriginError::NotFound { .. }) => {
            let hint = "begin one with 'branchline origin init --root DIR --keys DIR'";
            return Err(OriginError::Invalid(format!("there is no catalog at {}: {hint}", origin.address())));
        }
        trust => trust?,
    };
    load(&trust, Fetch::Origin(origin.clone()), Arc::default(), None, ExpirationEnforcement::Unsafe).await
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
