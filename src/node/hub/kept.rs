//! The recipes that a hub has made, on its disk: one file each, and for each object what was tried.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::core::id::{BlobId, RecipeId};
use crate::core::recipe::Way;
use crate::recipe::Written;

/// What is known of the recipes for one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    /// Against these a recipe was made, or does not pay.
    pub(super) against: Vec<Option<BlobId>>,
    /// What was made.
    pub(super) ways: Vec<Way>,
}

/// They are a cache: what is lost is made again.
#[derive(Debug)]
pub(super) struct Kept {
    dir: PathBuf,
    most: u64,
}

impl Kept {
    /// In this folder, so many bytes at the most.
    pub(super) fn new(dir: PathBuf, most: u64) -> Self {
        Self { dir, most }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn recipe(&self, id: &RecipeId) -> PathBuf {
        self.dir.join(format!("{id}.recipe"))
    }

    fn tried(&self, object: &BlobId) -> PathBuf {
        self.dir.join(format!("{object}.json"))
    }

    /// What is known for an object. Recipes that had to make room are not.
    pub(super) fn get(&self, object: &BlobId) -> Tried {
        let read = fs::read(self.tried(object)).ok();
        let mut tried: Tried = read.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let Tried { against, ways } = &mut tried;
        ways.retain(|way| {
            let there = self.recipe(&way.recipe).exists();
            if !there {
                against.retain(|it| *it != way.against.map(|(blob, ..)| blob));
            }
            there
        });
        tried
    }

    /// Keeps what came of a try.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn put(
        &self,
        object: &BlobId,
        against: Option<BlobId>,
        made: Option<Written>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut tried = self.get(object);
        tried.against.push(against);
        if let Some(Written { way, file }) = made {
            // It lies in the same folder already.
            self.make_room()?;
            file.persist(self.recipe(&way.recipe)).map_err(|error| error.error)?;
            tried.ways.push(way);
        }
        let file = NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(file.as_file(), &tried)?;
        file.persist(self.tried(object)).map_err(|error| error.error)?;
        Ok(())
    }

    /// A recipe, which has been used now.
    pub(super) fn open(&self, id: &RecipeId) -> io::Result<File> {
        let file = File::open(self.recipe(id))?;
        file.set_modified(SystemTime::now()).ok();
        Ok(file)
    }

    /// Removes what was used longest ago.
    fn make_room(&self) -> io::Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            all.push((about.modified()?, about.len(), entry.path()));
        }
        let mut sum: u64 = all.iter().map(|(_, length, _)| length).sum();
        all.sort();
        for (_, length, path) in all {
            if sum <= self.most {
                break;
            }
            fs::remove_file(path)?;
            sum -= length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::recipe::Work;

    fn written(kept: &Kept, name: &[u8], bytes: u64, against: Option<BlobId>) -> Written {
        fs::create_dir_all(kept.dir()).expect("room");
        let file = NamedTempFile::new_in(kept.dir()).expect("room");
        file.as_file().set_len(bytes).expect("room");
        let against = against.map(|blob| (blob, 5, 6));
        Written { way: Way { recipe: RecipeId::of(name), bytes, against, work: Work::default() }, file }
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = Kept::new(dir.path().join("hub"), 25_000);
        let (object, old) = (BlobId::of(b"new"), Some(BlobId::of(b"old")));
        assert_eq!(kept.get(&object), Tried::default());
        let made = written(&kept, b"a", 10_000, old);
        kept.put(&object, old, Some(made)).expect("kept");
        kept.put(&object, None, None).expect("kept");
        let tried = kept.get(&object);
        assert_eq!((tried.against, tried.ways.len()), (vec![old, None], 1));
        let other = BlobId::of(b"other");
        std::thread::sleep(std::time::Duration::from_millis(20));
        for name in [b"b", b"c"] {
            let made = written(&kept, name, 10_000, None);
            kept.put(&other, None, Some(made)).expect("kept");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let tried = kept.get(&object);
        assert!(tried.ways.is_empty() && !tried.against.contains(&old), "it is made again: {tried:?}");
        assert_eq!(kept.get(&other).ways.len(), 2);
        assert!(kept.open(&RecipeId::of(b"c")).is_ok() && kept.open(&RecipeId::of(b"a")).is_err());
    }
}
