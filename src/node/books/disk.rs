//! Where the books are kept: a sled tree of rows, the journal of the last second beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::journal::{Entry, Flying, Journal};
use crate::core::id::BlobId;
use crate::core::ledger::{Extents, Front, Ledger, Row, RowKey};
use crate::store::database;

const CACHE: u64 = 2 << 20;
/// Of the last so many unclean stops is told.
const MOST_GAPS: usize = 1000;
/// Says since when the agent runs, and is gone when it stopped as it should.
const RUNNING: &[u8] = b"running";

/// The agent did not stop as it should: what was booked in the last second before may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last that was written down, as seconds since 1970-01-01 UTC.
    pub after: i64,
    /// When it was noticed.
    pub noticed: i64,
    /// What was on its way over the WAN just then, by estimate: entered, since a router counts it.
    #[serde(default)]
    pub estimated: u64,
}

/// What was read when the books were opened.
pub(super) struct Kept {
    pub(super) ledger: Ledger,
    pub(super) handed: HashMap<BlobId, Extents>,
    pub(super) gaps: Vec<Gap>,
    /// What was on its way over the WAN when the agent was killed.
    pub(super) flying: Vec<Flying>,
}

#[derive(Debug)]
pub(super) struct Disk {
    rows: sled::Tree,
    handed: sled::Tree,
    gaps: sled::Tree,
    db: sled::Db,
    journal: Journal,
    /// Written to the journal, and not to the trees.
    unflushed: BTreeSet<RowKey>,
    unflushed_handed: BTreeSet<BlobId>,
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Rows sort by hour, then package, in the file as in memory.
fn encode(key: &RowKey) -> Vec<u8> {
    let front = key.front.as_str().as_bytes();
    [&key.hour.to_be_bytes()[..], key.package.as_bytes(), b"\0", front].concat()
}

fn decode(key: &[u8]) -> Option<RowKey> {
    let (hour, name) = key.split_at_checked(4)?;
    let hour = u32::from_be_bytes(hour.try_into().ok()?);
    let name = std::str::from_utf8(name).ok()?;
    // Rows of the first release name no front.
    let (package, front) = name.split_once('\0').unwrap_or((name, ""));
    let front = Front::ALL.into_iter().find(|it| it.as_str() == front).unwrap_or_default();
    Some(RowKey { hour, package: package.to_owned(), front })
}

fn as_json<T: Serialize>(value: &T) -> Vec<u8> {
    // These shapes have string keys and integers only, which JSON can always say.
    serde_json::to_vec(value).unwrap_or_default()
}

impl Disk {
    /// Opens the books in a folder; damaged ones are put aside, with a warning, not lost.
    pub(super) fn open(dir: &Path) -> Result<(Self, Kept), String> {
        let db = database::open(dir, CACHE, |error| {
            let aside = dir.with_extension("damaged");
            tracing::error!(%error, kept = %aside.display(), "the ledger is damaged; put aside, and begun anew");
            std::fs::remove_dir_all(&aside).ok();
            std::fs::rename(dir, &aside).ok();
        })?;
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
        let tree = |name: &str| db.open_tree(name).map_err(|error| failed(&error));
        let (handed, gaps) = (tree("handed")?, tree("gaps")?);
        let (journal, entries) = Journal::open(&dir.join("journal")).map_err(|error| failed(&error))?;
        let mut disk = Self {
            rows: (*db).clone(),
            handed,
            gaps,
            db,
            journal,
            unflushed: BTreeSet::new(),
            unflushed_handed: BTreeSet::new(),
        };
        let mut kept = disk.recover(entries);
        let estimated = kept.flying.iter().map(|it| it.bytes).sum();
        kept.gaps.extend(disk.begin(estimated).map_err(|error| failed(&error))?);
        Ok((disk, kept))
    }

    /// The rows in the tree.
    pub(super) fn rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        let rows = self.rows.iter().flatten();
        rows.filter_map(|(key, row)| Some((decode(&key)?, serde_json::from_slice(&row).ok()?)))
    }

    /// The trees, with what the journal says on top.
    fn recover(&mut self, entries: Vec<Entry>) -> Kept {
        let mut rows: BTreeMap<RowKey, Row> = self.rows().collect();
        let handed = self.handed.iter().flatten();
        let mut handed: HashMap<BlobId, Extents> = handed
            .filter_map(|(blob, extents)| {
                Some((BlobId::from_slice(&blob)?, serde_json::from_slice(&extents).ok()?))
            })
            .collect();
        let mut flying = Vec::new();
        for entry in entries {
            match entry {
                Entry::Flying(now) => flying = now,
                Entry::Row(key, row) => {
                    self.unflushed.insert(key.clone());
                    rows.insert(key, *row);
                }
                Entry::Handed(blob, extents) => {
                    self.unflushed_handed.insert(blob);
                    match extents {
                        Some(extents) => handed.insert(blob, extents),
                        None => handed.remove(&blob),
                    };
                }
            }
        }
        let gaps = self.gaps.iter().flatten().filter_map(|(_, gap)| serde_json::from_slice(&gap).ok());
        Kept { gaps: gaps.collect(), ledger: Ledger::restore(rows), handed, flying }
    }

    /// Notes that the agent runs, and whether it did not stop as it should the last time.
    fn begin(&mut self, estimated: u64) -> sled::Result<Option<Gap>> {
        let last = self.db.open_tree("state")?.get(RUNNING)?;
        let gap = last.map(|last| {
            let after = last.as_ref().try_into().map_or(0, i64::from_be_bytes);
            Gap { after, noticed: now(), estimated }
        });
        if let Some(gap) = &gap {
            // More than one in a second has been seen.
            let at = jiff::Timestamp::now().as_microsecond();
            self.gaps.insert(at.to_be_bytes(), as_json(gap))?;
            while self.gaps.len() > MOST_GAPS {
                self.gaps.pop_min()?;
            }
        }
        self.still_running()?;
        self.db.flush()?;
        Ok(gap)
    }

    fn still_running(&self) -> sled::Result<()> {
        self.db.open_tree("state")?.insert(RUNNING, &now().to_be_bytes()).map(drop)
    }

    /// Notes what changed where a kill cannot take it.
    pub(super) fn note(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            match entry {
                Entry::Row(key, _) => drop(self.unflushed.insert(key.clone())),
                Entry::Handed(blob, _) => drop(self.unflushed_handed.insert(*blob)),
                Entry::Flying(_) => {}
            }
        }
        if let Err(error) = self.journal.append(&entries) {
            tracing::warn!(%error, "the ledger's journal cannot be written; a kill would lose up to a second");
        }
    }

    /// Rows that are no more.
    pub(super) fn note_gone(&mut self, rows: Vec<RowKey>) {
        self.unflushed.extend(rows);
    }

    /// What was noted, and is not in the trees yet.
    pub(super) fn unflushed(&self) -> (Vec<RowKey>, Vec<BlobId>) {
        (self.unflushed.iter().cloned().collect(), self.unflushed_handed.iter().copied().collect())
    }

    /// Writes it down for good. What fails stays noted, and is tried again.
    pub(super) fn flush(
        &mut self,
        rows: &[(RowKey, Option<Row>)],
        handed: &[(BlobId, Option<Extents>)],
    ) -> sled::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, row) in rows {
            match row {
                Some(row) => batch.insert(encode(key), as_json(row)),
                None => batch.remove(encode(key)),
            }
        }
        self.rows.apply_batch(batch)?;
        for (blob, extents) in handed {
            match extents {
                Some(extents) => self.handed.insert(blob.as_bytes(), as_json(extents))?,
                None => self.handed.remove(blob.as_bytes())?,
            };
        }
        self.still_running()?;
        self.db.flush()?;
        self.unflushed.clear();
        self.unflushed_handed.clear();
        if let Err(error) = self.journal.clear() {
            tracing::debug!(%error, "the ledger's journal stays longer than it need");
        }
        Ok(())
    }

    /// The agent stops as it should.
    pub(super) fn end(&self) -> sled::Result<()> {
        self.db.open_tree("state")?.remove(RUNNING)?;
        self.db.flush().map(drop)
    }

    /// Changes a figure behind everybody's back.
    #[cfg(test)]
    pub(super) fn spoil(&self) {
        let (key, mut row) = self.rows().find(|(_, row)| row.totals.delivered > 0).expect("a row");
        row.totals.delivered += 1;
        self.rows.insert(encode(&key), as_json(&row)).expect("room");
    }
}
