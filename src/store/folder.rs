//! The folder of blob files: what lies there, and what does not belong there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::StoreError;
use super::disk::{DiskStore, Entry};
use super::file::{path, sync_folder};
use crate::core::id::{BlobId, ManifestId};
use crate::core::manifest::Manifest;

/// A file without its blob may be on its way to be one: only what is older than this is left over.
const YOUNG: Duration = Duration::from_secs(3600);

/// A file that belongs to no blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
}

impl DiskStore {
    /// Finds what is there. The files decide; the index is brought up to date with them.
    pub(super) fn scan(&self) -> Result<(), StoreError> {
        let listing = fs::read_dir(&self.folder).map_err(StoreError::io("list the blob folder"))?;
        let mut found = HashMap::new();
        for file in listing.flatten() {
            let name = file.file_name();
            let Some((blob, ending)) = name.to_str().and_then(parse) else { continue };
            if matches!(ending, "blob" | "part") {
                let (complete, changed) = found.entry(blob).or_insert((false, 0));
                *complete |= ending == "blob";
                let modified = file.metadata().and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                *changed = since.as_millis() as u64;
            }
        }
        for (blob, (complete, changed)) in found {
            let Some(manifest) = self.read_manifest(&blob) else {
                tracing::warn!(%blob, "dropped: its manifest is gone or damaged");
                self.remove_files(&blob);
                continue;
            };
            let mut record = self.index.record(&blob).unwrap_or_default();
            if complete && !record.indexed {
                self.index.add_chunks(&manifest);
                record.indexed = true;
            }
            // If the index was lost, nobody knows when it was used; then it was not older than its file.
            record.last_used = if record.last_used == 0 { changed } else { record.last_used };
            let entry = Entry { size: manifest.size(), complete, record, touched: false, open: None };
            self.entries().insert(blob, entry);
        }
        Ok(())
    }

    /// The manifest file holds its own id before the encoding, so that damage shows.
    pub(super) fn read_manifest(&self, blob: &BlobId) -> Option<Arc<Manifest>> {
        let bytes = fs::read(path(&self.folder, blob, "manifest")).ok()?;
        let (id, encoded) = bytes.split_at_checked(32)?;
        let manifest = Manifest::decode(ManifestId::from_slice(id)?, encoded.to_vec().into()).ok()?;
        (manifest.blob() == *blob).then(|| Arc::new(manifest))
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest) -> std::io::Result<()> {
        let target = path(&self.folder, &manifest.blob(), "manifest");
        let draft = path(&self.folder, &manifest.blob(), "manifest-new");
        fs::write(&draft, [&manifest.id().as_bytes()[..], manifest.encoded()].concat())?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, target)?;
        sync_folder(&self.folder)
    }

    pub(super) fn remove_files(&self, blob: &BlobId) {
        for ending in ["blob", "part", "manifest"] {
            fs::remove_file(path(&self.folder, blob, ending)).ok();
        }
    }

    /// Drafts of manifests that a crash left, manifests without a blob, a second file of a blob.
    pub(super) fn leftovers(&self, look: bool) -> Vec<Leftover> {
        let Ok(listing) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut left = Vec::new();
        for file in listing.flatten() {
            let (name, Ok(meta)) = (file.file_name(), file.metadata()) else { continue };
            let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let Some((blob, ending)) = name.to_str().and_then(parse) else { continue };
            if !meta.is_file() || age.is_none_or(|age| age < YOUNG) || self.needs(&blob, ending) {
                continue;
            }
            if look || fs::remove_file(file.path()).is_ok() {
                let name = name.to_string_lossy().into_owned();
                left.push(Leftover { name, bytes: meta.blocks().saturating_mul(512) });
            }
        }
        left
    }

    fn needs(&self, blob: &BlobId, ending: &str) -> bool {
        let entries = self.entries();
        let known = entries.get(blob);
        match ending {
            "manifest" | "blob" => known.is_some(),
            // It has one name or the other.
            "part" => known.is_some() && !path(&self.folder, blob, "blob").exists(),
            "manifest-new" => false,
            // Nobody knows what that is.
            _ => true,
        }
    }
}

/// A name in the folder: `HEX.ENDING`.
fn parse(name: &str) -> Option<(BlobId, &str)> {
    let (stem, ending) = name.rsplit_once('.')?;
    Some((stem.parse().ok()?, ending))
}
