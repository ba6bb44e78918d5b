//! Making room: for what comes, and when a quota was lowered.

use super::disk::{DiskStore, in_use};
use super::{StoreError, Trimmed};
use crate::core::evict::{self, Candidate, Full, Incoming, Room};

impl DiskStore {
    pub(super) fn disk_free(&self) -> Result<u64, StoreError> {
        rustix::fs::statvfs(&self.folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| StoreError::io("ask for free space")(error.into()))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let entries = self.entries();
        let candidates = entries.iter().map(|(&blob, entry)| Candidate {
            blob,
            bytes: entry.size,
            last_used: entry.record.last_used,
            kept: entry.record.pinned || in_use(entry),
            group: entry.record.group.clone(),
        });
        candidates.collect()
    }

    /// Evicts until so many more bytes fit, of a package if that is known.
    pub(super) fn make_room(&self, bytes: u64, package: Option<&str>) -> Result<(), StoreError> {
        let limits = &self.limits;
        let room = Room { quota: limits.quota, disk_free: self.disk_free()?, reserve: limits.reserve };
        let group = package.and_then(|package| Some((package, limits.packages.of(package)?)));
        let victims = match evict::plan(&self.candidates(), room, Incoming { bytes, group }) {
            Ok(victims) => victims,
            Err(full) => return Err(refusal(full, room, bytes, group)),
        };
        for blob in victims {
            tracing::info!(%blob, "evicted, to make room");
            self.remove(&blob)?;
        }
        Ok(())
    }

    pub(super) fn trim(&self) -> Trimmed {
        let plan = evict::trim(&self.candidates(), &self.limits.packages, self.limits.quota);
        let mut trimmed = Trimmed {
            over: plan.over.into_iter().collect(),
            cache_over: plan.cache_over,
            ..Trimmed::default()
        };
        for blob in plan.blobs {
            match self.remove(&blob) {
                Ok(true) => trimmed.blobs.push(blob),
                Ok(false) => {}
                Err(error) => tracing::warn!(%blob, %error, "what is beyond a quota could not be removed"),
            }
        }
        trimmed
    }
}

pub(super) fn refusal(full: Full, room: Room, needed: u64, group: Option<(&str, u64)>) -> StoreError {
    let why = match (full, group) {
        (Full::Group, Some((package, quota))) => {
            return StoreError::OverQuota { package: package.to_owned(), needed, quota };
        }
        (Full::Disk, _) => {
            format!("the disk has {} bytes free, of which {} stay free", room.disk_free, room.reserve)
        }
        _ => format!("the quota is {} bytes", room.quota),
    };
    StoreError::NoSpace { needed, why }
}
