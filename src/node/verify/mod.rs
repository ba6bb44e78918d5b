//! Reading back from the disk what is held, and hashing it again: a disk that rots is found out before
//! a client asks.
//!
//! By hand at any time, and by itself once in an interval, blob by blob, each at a time of its own
//! ([`crate::core::recheck`]): when a blob was last verified is kept in the index, so a restart costs at
//! most one blob's reading. Damaged chunks are dropped, and what was whole is made whole again in the
//! background, from neighbours if they have it.

mod heal;
mod pass;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{Damage, Verification, VerifyRun};
use super::{Node, blocking, durable};
use crate::core::bitrate::Rate;
use crate::core::id::BlobId;
use crate::core::lapse::Lapse;
use crate::core::orders::Selector;
use crate::core::recheck::due;
use crate::store::Held;

/// What verifies by itself reads no faster, in bytes per second.
const GENTLE: Rate = Rate(20_000_000);
/// Looks for what is due are at most so far apart.
const LOOK: Duration = Duration::from_secs(60);
/// Damage that is remembered.
const KEPT: usize = 50;

/// Now, in milliseconds since the epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What is remembered over a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The last one last.
    damage: VecDeque<Damage>,
}

/// The state of verification.
#[derive(Debug)]
pub(super) struct Verifier {
    file: PathBuf,
    record: Mutex<Record>,
    /// The one by hand, and the one by itself; ended ones stay until the next.
    runs: Mutex<[Option<VerifyRun>; 2]>,
    stop: Arc<AtomicBool>,
}

/// Who has begun it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Hand = 0,
    Schedule = 1,
    /// Nobody: it was found by who needed it.
    Use = 2,
}

impl Verifier {
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("damage.json");
        let record = Mutex::new(durable::read_json(&file));
        Self { file, record, runs: Mutex::default(), stop: Arc::default() }
    }

    /// Ends what is under way.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn runs(&self) -> MutexGuard<'_, [Option<VerifyRun>; 2]> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, by: By, change: impl FnOnce(&mut VerifyRun)) {
        if let Some(Some(run)) = self.runs().get_mut(by as usize) {
            change(run);
        }
    }

    fn is_running(&self, by: By) -> bool {
        self.runs()[by as usize].as_ref().is_some_and(|run| run.ended.is_none())
    }

    /// Damage that was found, the last first.
    pub(super) fn damage(&self) -> Vec<Damage> {
        self.record().damage.iter().rev().cloned().collect()
    }

    /// Remembers damage, or what has become of it; blocks.
    fn note(&self, damage: &Damage) {
        let mut record = self.record();
        record.damage.retain(|it| (&it.at, &it.blob) != (&damage.at, &damage.blob));
        record.damage.push_back(damage.clone());
        let too_many = record.damage.len().saturating_sub(KEPT);
        record.damage.drain(..too_many);
        durable::write_json(&self.file, &*record);
    }
}

/// Which of the blobs is to be read next, and when, in milliseconds since the epoch.
fn next(held: &[Held], interval: Lapse) -> Option<(u64, &Held)> {
    let due = held.iter().map(|it| (due(&it.blob, it.verified, interval.as_ms()), it));
    due.min_by_key(|(at, it)| (*at, it.blob))
}

impl Node {
    /// The state of verification.
    pub fn verification(&self) -> Verification {
        let held = self.inner.store.list();
        let oldest = held.iter().filter(|it| it.complete).map(|it| it.verified).min().filter(|at| *at > 0);
        let text = |ms: u64| Timestamp::from_millisecond(ms as i64).ok().map(|at| at.to_string());
        let verifier = &self.inner.verifier;
        let runs = verifier.runs();
        Verification {
            interval: self.inner.config.verify_interval.map(|it| it.to_string()),
            all_verified_since: oldest.and_then(text),
            by_hand: runs[By::Hand as usize].clone(),
            scheduled: runs[By::Schedule as usize].clone(),
            damage: verifier.damage(),
        }
    }

    /// Begins to verify what is held, or one package of it; as fast as the disk gives if no rate is said.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn begin_verification(
        &self,
        package: Option<&Selector>,
        rate: Option<Rate>,
    ) -> Result<VerifyRun, String> {
        let wanted = package.map(|package| self.catalog().means(package)).transpose();
        let wanted = wanted.map_err(|error| error.to_string())?;
        let store = self.inner.store.clone();
        let held = blocking(move || store.list()).await.ok_or("the agent is stopping")?;
        let mut blobs: Vec<Held> = held
            .into_iter()
            .filter(|it| wanted.as_ref().is_none_or(|wanted| wanted.published.blob == it.blob))
            .collect();
        if let (Some(wanted), true) = (&wanted, blobs.is_empty()) {
            return Err(format!("nothing of {} is held here", wanted.label()));
        }
        blobs.sort_by_key(|it| (it.verified, it.blob));
        let run = self.begin(By::Hand, wanted.map(|it| it.label()), &blobs)?;
        let node = self.clone();
        self.keep(tokio::spawn(async move {
            for held in blobs {
                node.verify_blob(By::Hand, &held, rate).await;
            }
            node.end(By::Hand);
        }));
        Ok(run)
    }

    fn begin(&self, by: By, package: Option<String>, blobs: &[Held]) -> Result<VerifyRun, String> {
        let mut runs = self.inner.verifier.runs();
        let slot = &mut runs[by as usize];
        if let Some(run) = slot.as_ref().filter(|run| run.ended.is_none()) {
            return Err(format!("one is under way since {}: {}", run.begun, run.progress()));
        }
        let run = VerifyRun {
            package,
            begun: Timestamp::now().to_string(),
            blobs: blobs.len(),
            bytes_total: blobs.iter().map(|it| it.size).sum(),
            ..VerifyRun::default()
        };
        Ok(slot.insert(run).clone())
    }

    fn end(&self, by: By) {
        self.inner.verifier.change(by, |run| run.ended = Some(Timestamp::now().to_string()));
    }

    async fn verify_blob(&self, by: By, held: &Held, rate: Option<Rate>) {
        let (node, stop) = (self.clone(), self.inner.verifier.stop.clone());
        let read = move |bytes| node.inner.verifier.change(by, |run| run.bytes += bytes);
        let result = pass::blob(self.inner.store.clone(), held.blob, rate, stop, read).await;
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                let what = format!("{}: {error}", self.label(&held.blob));
                tracing::warn!(what, "could not be verified");
                self.inner.verifier.change(by, |run| run.errors.push(what));
                return;
            }
        };
        let (size, complete) = (held.size, held.complete);
        self.inner.verifier.change(by, |run| {
            run.blobs_done += 1;
            // What was missing of it counts as read, so that the end is 100 %.
            run.bytes_total -= size.saturating_sub(found.bytes).min(run.bytes_total);
            run.damaged_chunks += found.damaged.len();
        });
        if !found.damaged.is_empty() {
            self.note_damage(by, held.blob, complete, &found.damaged).await;
        }
        if !found.cut_off {
            self.inner.store.set_verified(&held.blob, now_ms());
        }
    }

    /// Remembers what turned out damaged when somebody needed it, and sees that it is made whole.
    pub(super) async fn note_damage_in_use(&self) {
        for it in self.inner.store.take_damaged() {
            self.note_damage(By::Use, it.blob, it.was_complete, &it.chunks).await;
        }
    }

    async fn note_damage(&self, by: By, blob: BlobId, was_complete: bool, chunks: &[u32]) {
        let manifest = self.inner.store.at_hand(&blob).map(|open| open.manifest().clone());
        let damage = Damage {
            at: Timestamp::now().to_string(),
            package: self.label(&blob),
            blob: blob.to_string(),
            chunks: chunks.len(),
            bytes: manifest.as_ref().map_or(0, |it| it.bytes_of(chunks.iter().copied())),
            healed: false,
            healing: was_complete,
            state: if was_complete { "is being fetched anew" } else { "dropped from a part" }.to_owned(),
        };
        tracing::warn!(package = damage.package, chunks = damage.chunks, "damaged on disk");
        self.inner.verifier.change(by, |run| run.damage.push(damage.clone()));
        self.tell_damage(by, damage.clone()).await;
        if let Some(manifest) = manifest.filter(|_| was_complete) {
            let (node, chunks) = (self.clone(), chunks.to_vec());
            self.keep(tokio::spawn(async move { node.heal(by, &manifest, chunks, damage).await }));
        }
    }

    /// Remembers damage, or what has become of it.
    async fn tell_damage(&self, by: By, damage: Damage) {
        self.inner.verifier.change(by, |run| {
            let same = run.damage.iter_mut().find(|it| (&it.at, &it.blob) == (&damage.at, &damage.blob));
            if let Some(it) = same {
                *it = damage.clone();
            }
        });
        let node = self.clone();
        blocking(move || node.inner.verifier.note(&damage)).await;
    }
}

/// Verifies what is due, as long as the agent runs.
pub(super) async fn keep(node: Node) {
    let interval = node.inner.config.verify_interval;
    let look = interval.map_or(LOOK, |it| LOOK.min(it.duration() / 8).max(Duration::from_millis(200)));
    loop {
        tokio::time::sleep(look).await;
        node.note_damage_in_use().await;
        let Some(interval) = interval else { continue };
        if node.inner.verifier.is_running(By::Hand) {
            continue;
        }
        let store = node.inner.store.clone();
        let Some(held) = blocking(move || store.list()).await else { return };
        let Some((_, held)) = next(&held, interval).filter(|(at, _)| *at <= now_ms()) else { continue };
        if node.begin(By::Schedule, Some(node.label(&held.blob)), std::slice::from_ref(held)).is_ok() {
            node.verify_blob(By::Schedule, held, Some(GENTLE)).await;
            node.end(By::Schedule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unverified_is_next() {
        let held = |n: u8, verified| Held {
            blob: BlobId::of(&[n]),
            size: 1,
            complete: true,
            last_used: 0,
            pinned: false,
            in_use: false,
            group: None,
            verified,
        };
        let interval = Lapse::from(Duration::from_secs(1000));
        let all = [held(1, 5_000_000), held(2, 0), held(3, 9_000_000)];
        let (at, first) = next(&all, interval).expect("some");
        assert_eq!(first.blob, BlobId::of(&[2]));
        assert!((500_000..=1_000_000).contains(&at));
        assert!(next(&[], interval).is_none());
    }

    #[test]
    fn damage_is_remembered_and_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let verifier = Verifier::open(dir.path());
        let damage = |n: usize| Damage { at: n.to_string(), blob: "b".into(), ..Damage::default() };
        (0..60).for_each(|n| verifier.note(&damage(n)));
        verifier.note(&Damage { healed: true, ..damage(55) });
        let again = Verifier::open(dir.path()).damage();
        assert_eq!((again.len(), &again[0].at[..], again[0].healed), (KEPT, "55", true));
    }
}
