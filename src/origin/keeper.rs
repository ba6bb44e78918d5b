//! The newest verified catalog, kept in memory and on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tough::ExpirationEnforcement;
use tough::schema::{Root, Signed};

use super::OriginError;
use super::catalog::Catalog;
use super::verify::{Doubt, Fetch, load};
use crate::core::lapse::Lapse;

/// How far past its time a catalog may be that is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Not at all.
    Good,
    /// So far.
    Within(Lapse),
    /// However far: it was taken in before.
    Any,
}

/// Keeps the newest verified catalog, in memory and on disk.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    trust: Option<Bytes>,
    current: Mutex<Option<Arc<Catalog>>>,
    loading: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Opens what was kept in `dir`; `trust` is the origin's `root.json`. Without, no catalog is believed.
    ///
    /// # Errors
    /// [`OriginError::Invalid`] if the trust file is no root of trust, or the folder not usable.
    pub async fn open(dir: &Path, trust: Option<Bytes>) -> Result<Self, OriginError> {
        let unusable = |error| OriginError::Invalid(format!("cannot use {}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(unusable)?;
        let is_root = |trust: &Bytes| serde_json::from_slice::<Signed<Root>>(trust).is_ok();
        if !trust.as_ref().is_none_or(is_root) {
            let hint = "give the catalog/root.json that 'branchline origin init' made";
            return Err(OriginError::Invalid(format!("the --trust file is no root of trust: {hint}")));
        }
        let keeper = Self {
            dir: dir.to_owned(),
            trust,
            current: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        };
        // A crash between the two renames of an update: what was kept has the other name.
        if !keeper.kept().exists() {
            fs::rename(keeper.dir.join("old"), keeper.kept()).ok();
        }
        let files = read_files(&keeper.kept());
        if !files.is_empty() && keeper.trust.is_some() {
            let fetch = Fetch::Files(Arc::new(files));
            // Past its time or not: what it says was true, and callers look at its expiry.
            match keeper.update(fetch, Age::Any).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the kept catalog cannot be used; it will be fetched anew")
                }
            }
        }
        Ok(keeper)
    }

    fn trust(&self) -> Result<Bytes, OriginError> {
        let none = || OriginError::Invalid("there is no root of trust here (--trust ROOT.json)".to_owned());
        self.trust.clone().ok_or_else(none)
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
        self.update(fetch, Age::Good).await
    }

    /// What some files say, if this origin's keys signed them: however old they are, and without
    /// keeping them.
    ///
    /// # Errors
    /// [`OriginError`], if they are signed by others, or are no catalog.
    pub async fn examine(&self, fetch: Fetch) -> Result<Catalog, OriginError> {
        let known = self.current().map(|catalog| catalog.files.clone()).unwrap_or_default();
        let examine = |root: Bytes| {
            let fetch = fetch.clone();
            async move { load(&root, fetch, Arc::default(), None, ExpirationEnforcement::Unsafe).await }
        };
        let trust = self.trust()?;
        let newest = newest_root(&known).unwrap_or_else(|| trust.clone());
        match examine(newest).await {
            Ok(loaded) => Ok(loaded.catalog),
            // Signed before the keys were changed: it can be believed for what it was, not be taken over.
            Err(_) => Ok(examine(trust).await?.catalog),
        }
    }

    /// The same, of a catalog that may be past its time by so much: where nobody can get a newer one.
    ///
    /// # Errors
    /// As [`Keeper::refresh`].
    pub async fn refresh_late(&self, fetch: Fetch, grace: Lapse) -> Result<Arc<Catalog>, OriginError> {
        self.update(fetch, Age::Within(grace)).await
    }

    async fn update(&self, fetch: Fetch, age: Age) -> Result<Arc<Catalog>, OriginError> {
        let _one_at_a_time = self.loading.lock().await;
        let unusable = |error| Doubt::Unkept(format!("cannot write {}: {error}", self.dir.display()));
        let known = self.current().map(|catalog| catalog.files.clone()).unwrap_or_default();
        // Verified in a copy, which takes the old one's place only as a whole.
        let (kept, next, old) = (self.kept(), self.dir.join("next"), self.dir.join("old"));
        fs::remove_dir_all(&next).ok();
        copy_files(&kept.join("protect"), &next.join("protect")).map_err(unusable)?;
        let trusted = newest_root(&known).or_else(|| newest_root(&read_files(&kept)));
        let trusted = trusted.unwrap_or(self.trust()?);
        let enforce = ExpirationEnforcement::from(age == Age::Good);
        let loaded =
            load(&trusted, fetch, Arc::new(known.clone()), Some(&next.join("protect")), enforce).await?;
        let mut catalog = loaded.catalog;
        if let Age::Within(grace) = age
            && !catalog.is_good_within(grace)
        {
            let why = format!("the catalog has expired on {}, longer ago than the grace", catalog.expires);
            return Err(OriginError::Invalid(why));
        }
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use jiff::{SignedDuration, Timestamp};
    use tough::schema::Targets;

    use super::super::keys::{self, Keys};
    use super::super::sign::{expiry, sign_catalog};
    use super::super::{Address, Origin, publish};
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
        let keeper = Keeper::open(&kept, Some(trust.clone())).await.expect("a folder");
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
        // Where nobody has a newer one it is taken for a while longer, and not for ever.
        let joined = Keeper::open(&dir.path().join("joined"), Some(trust)).await.expect("a folder");
        let late = async |days| joined.refresh_late(Fetch::Origin(origin.clone()), Lapse::days(days)).await;
        let error = late(0).await.expect_err("too old").to_string();
        assert!(error.contains("longer ago than the grace") && joined.current().is_none(), "{error}");
        assert!(late(2).await.expect("within the grace").is_expired());
        publish::renew(&origin, &keys).await.expect("own keys");
        assert!(keeper.refresh(Fetch::Origin(origin)).await.expect("renewed").expires > Timestamp::now());
    }

    #[tokio::test]
    async fn a_crash_in_mid_update_keeps_the_catalog_and_its_protection() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, _keys, trust) = origin(dir.path()).await;
        let kept = dir.path().join("kept");
        let keeper = Keeper::open(&kept, Some(trust.clone())).await.expect("a folder");
        let version = keeper.refresh(Fetch::Origin(origin)).await.expect("good").version;
        fs::rename(kept.join("kept"), kept.join("old")).expect("own folder");
        let keeper = Keeper::open(&kept, Some(trust)).await.expect("a folder");
        assert_eq!(keeper.current().map(|catalog| catalog.version), Some(version));
        assert!(kept.join("kept/protect/timestamp.json").exists());
    }

    #[tokio::test]
    async fn a_clock_that_was_a_day_ahead_does_no_harm() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, _keys, trust) = origin(dir.path()).await;
        let kept = dir.path().join("kept");
        let keeper = Keeper::open(&kept, Some(trust.clone())).await.expect("a folder");
        keeper.refresh(Fetch::Origin(origin.clone())).await.expect("good");
        let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
        let file = kept.join("kept/protect/latest_known_time.json");
        fs::write(&file, serde_json::to_vec(&tomorrow).expect("a time")).expect("own folder");
        let keeper = Keeper::open(&kept, Some(trust)).await.expect("a folder");
        assert!(keeper.current().is_some());
        keeper.refresh(Fetch::Origin(origin)).await.expect("healed");
        assert!(expiry() > tomorrow);
    }
}
