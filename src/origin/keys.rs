//! The keys that sign a catalog, and how an origin begins.
//!
//! Two keys: `root.key` says who may sign, and is needed at the beginning and to change keys;
//! `catalog.key` signs every publish. Both are Ed25519, as PKCS#8, mode 0600, and belong apart
//! from the tree.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::{SignedDuration, Timestamp};
use tough::editor::signed::SignedRole;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::{KeyHolder, RoleKeys, RoleType, Root, Targets};

use super::OriginError;
use super::sign::{expiry, sign_catalog};

const ROOT_YEARS: i64 = 10;

/// The folder with an origin's keys.
#[derive(Debug, Clone)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// Keys that are there.
    ///
    /// # Errors
    /// [`OriginError::Invalid`] if the catalog key is not in the folder.
    pub fn open(dir: &Path) -> Result<Self, OriginError> {
        let path = dir.join("catalog.key");
        if !path.is_file() {
            let hint = "give the --keys folder that 'branchline origin init' made";
            return Err(OriginError::Invalid(format!("there is no {}: {hint}", path.display())));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn catalog(&self) -> Vec<Box<dyn KeySource>> {
        vec![Box::new(LocalKeySource { path: self.dir.join("catalog.key") })]
    }
}

/// Makes a new origin: keys, the root of trust, and an empty catalog.
///
/// # Errors
/// [`OriginError::Invalid`] if the tree or the keys are there already.
pub async fn init(tree: &Path, keys_dir: &Path) -> Result<(), OriginError> {
    let catalog = tree.join("catalog");
    let taken = [catalog.join("root.json"), keys_dir.join("root.key"), keys_dir.join("catalog.key")];
    if let Some(taken) = taken.iter().find(|path| path.exists()) {
        let why =
            "is there already; an origin is never overwritten: choose another folder, or remove it yourself";
        return Err(OriginError::Invalid(format!("{} {why}", taken.display())));
    }
    for dir in [&catalog, &tree.join("manifests"), &tree.join("packs"), &keys_dir.to_owned()] {
        fs::create_dir_all(dir).map_err(failed(dir))?;
    }
    let root_key = new_key(&keys_dir.join("root.key"))?;
    let catalog_key = new_key(&keys_dir.join("catalog.key"))?;
    let root = root(&root_key, &catalog_key)?;
    let keys: Vec<Box<dyn KeySource>> = vec![Box::new(LocalKeySource { path: keys_dir.join("root.key") })];
    let holder = KeyHolder::Root(root.clone());
    let signed =
        SignedRole::new(root.clone(), &holder, &keys, &SystemRandom::new()).await.map_err(unsigned)?;
    write(&catalog.join("1.root.json"), signed.buffer())?;
    let keys = Keys { dir: keys_dir.to_owned() };
    let version = NonZeroU64::MIN;
    let targets = Targets::new("1.0.0".to_owned(), version, Timestamp::now());
    for (name, content) in sign_catalog(&root, targets, &keys, version, expiry()).await? {
        write(&catalog.join(name), &content)?;
    }
    // The copy that agents are given; last, since it is what says that the origin is there.
    write(&catalog.join("root.json"), signed.buffer())
}

fn root(root_key: &Ed25519KeyPair, catalog_key: &Ed25519KeyPair) -> Result<Root, OriginError> {
    use tough::sign::Sign;
    let (root_key, catalog_key) = (root_key.tuf_key(), catalog_key.tuf_key());
    let named = |key: &tough::schema::key::Key| {
        key.key_id().map_err(|error| OriginError::Invalid(format!("a key has no id: {error}")))
    };
    let (root_id, catalog_id) = (named(&root_key)?, named(&catalog_key)?);
    let role = |id: &tough::schema::decoded::Decoded<tough::schema::decoded::Hex>| RoleKeys {
        keyids: vec![id.clone()],
        threshold: NonZeroU64::MIN,
        _extra: HashMap::new(),
    };
    Ok(Root {
        spec_version: "1.0.0".to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: Timestamp::now() + SignedDuration::from_hours(24 * 365 * ROOT_YEARS),
        roles: HashMap::from([
            (RoleType::Root, role(&root_id)),
            (RoleType::Targets, role(&catalog_id)),
            (RoleType::Snapshot, role(&catalog_id)),
            (RoleType::Timestamp, role(&catalog_id)),
        ]),
        keys: HashMap::from([(root_id, root_key), (catalog_id, catalog_key)]),
        _extra: HashMap::new(),
    })
}

fn new_key(path: &Path) -> Result<Ed25519KeyPair, OriginError> {
    let broken = |_| OriginError::Invalid("the system could not make a key".into());
    let pair = Ed25519KeyPair::generate().map_err(broken)?;
    let encoded = pair.to_pkcs8v1().map_err(broken)?;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(encoded.as_ref())).map_err(failed(path))?;
    Ok(pair)
}

fn write(path: &Path, content: &[u8]) -> Result<(), OriginError> {
    fs::write(path, content).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> OriginError {
    let path = path.display().to_string();
    move |error| OriginError::Invalid(format!("cannot write {path}: {error}"))
}

fn unsigned(error: tough::error::Error) -> OriginError {
    OriginError::Invalid(format!("the root of trust could not be signed: {error}"))
}
