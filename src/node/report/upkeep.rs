//! How the store is kept in order: what was read back and found damaged, quotas, hooks.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::hook::HookResult;
use super::Severity;
use super::health::{Fault, fault, sentence};
use crate::core::bitrate::Size;

/// Damage is told of for so long.
const RECENT: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Reading back what is held, in `GET /api/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// How often all is read back, such as `30 d`; none: only by hand.
    pub interval: Option<String>,
    /// All that is complete here was verified since then, UTC; none if something never was.
    pub all_verified_since: Option<String>,
    /// The last one that was begun by hand.
    pub by_hand: Option<VerifyRun>,
    /// The last one that began by itself: one blob at a time.
    pub scheduled: Option<VerifyRun>,
    /// Damage that was found, the last first.
    pub damage: Vec<Damage>,
}

/// One reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyRun {
    /// `NAME@VERSION`; none: all that is held.
    pub package: Option<String>,
    /// When it began, UTC.
    pub begun: String,
    /// When it ended, UTC; none: it is under way.
    pub ended: Option<String>,
    /// Blobs to read.
    pub blobs: usize,
    /// Of them, so many are done.
    pub blobs_done: usize,
    /// Bytes to read.
    pub bytes_total: u64,
    /// Of them, so many are read.
    pub bytes: u64,
    /// Chunks that were damaged.
    pub damaged_chunks: usize,
    /// Where.
    pub damage: Vec<Damage>,
    /// What could not be read at all.
    pub errors: Vec<String>,
}

/// Damage in one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Damage {
    /// When it was found, UTC.
    pub at: String,
    /// `NAME@VERSION`, or the beginning of the blob's name in brackets.
    pub package: String,
    /// The blob.
    pub blob: String,
    /// Chunks that were damaged.
    pub chunks: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// All of the blob is here again.
    pub healed: bool,
    /// It is being fetched anew.
    pub healing: bool,
    /// What has become of it, in words.
    pub state: String,
}

/// What a package takes of its quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// The package.
    pub package: String,
    /// Bytes that its versions take here when complete.
    pub bytes: u64,
    /// The most that they may take.
    pub quota: u64,
    /// Bytes above that which may not go: they are kept, or in use.
    pub over: u64,
}

/// The command that runs when a followed package has arrived.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookStatus {
    /// There is one.
    pub configured: bool,
    /// `NAME@VERSION` for which it runs now.
    pub running: Option<String>,
    /// Versions that wait for it.
    pub waiting: usize,
    /// The last result; what it said is for admins alone.
    pub last: Option<HookResult>,
    /// Of each package whose last run failed, that run.
    pub failing: Vec<HookResult>,
}

impl VerifyRun {
    /// How much of it is done, in per cent.
    pub fn percent(&self) -> u64 {
        self.bytes.saturating_mul(100).checked_div(self.bytes_total).unwrap_or(100).min(100)
    }

    /// What it has found so far, in words.
    pub fn summary(&self) -> String {
        if self.ended.is_none() {
            return format!("verifying: {}", self.progress());
        }
        let healed = self.damage.iter().filter(|it| it.healed).count();
        let damaged = match (self.damaged_chunks, self.damage.len()) {
            (0, _) => "nothing is damaged".to_owned(),
            (chunks, packages) => {
                format!("{chunks} damaged chunks in {packages} packages, {healed} of them healed")
            }
        };
        let errors: String = self.errors.iter().map(|error| format!("; {error}")).collect();
        format!("verified {} packages, {}: {damaged}{errors}", self.blobs_done, Size(self.bytes))
    }

    /// Whether nothing more is to be expected of it: it has ended, and what was damaged is healed or
    /// will not be.
    pub fn is_over(&self) -> bool {
        self.ended.is_some() && self.damage.iter().all(|it| it.healed || !it.healing)
    }

    /// How far it is, in words.
    pub fn progress(&self) -> String {
        format!("{} %, {} of {} packages", self.percent(), self.blobs_done, self.blobs)
    }
}

/// Damage that was found in the last days.
pub(super) fn damage(now: Timestamp, damage: &[Damage]) -> Option<Fault> {
    let recent = |it: &&Damage| it.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) < RECENT);
    let recent: Vec<&Damage> = damage.iter().filter(recent).collect();
    let last = recent.first()?;
    let (chunks, bytes) =
        recent.iter().fold((0, 0), |(chunks, bytes), it| (chunks + it.chunks, bytes + it.bytes));
    let healed = recent.iter().filter(|it| it.healed).count();
    let cause = format!(
        "Reading back what is held found {chunks} damaged chunks ({bytes} bytes) in the last 7 days, last in {}: {}.",
        last.package, last.state
    );
    let effect = match recent.len() - healed {
        0 => "None: all of it was fetched anew.",
        _ => "Nobody gets wrong bytes. What is damaged is fetched anew when it is asked for.",
    };
    let remedy = "Look at the disk ('smartctl -a', the kernel's log) and at the memory of this machine.";
    let what = ["The disk has damaged what is held", &cause, effect, remedy];
    Some(Fault { since: Some(last.at.clone()), ..fault("content_damaged", Severity::Warning, what) })
}

/// Hooks whose last run failed.
pub(super) fn hooks(failing: &[HookResult]) -> Option<Fault> {
    let first = failing.first()?;
    let more = match failing.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    let cause = sentence(&format!("The last one for {} {}{more}", first.label(), first.end()));
    let what = [
        "A hook has failed",
        &cause,
        "The package is here, and what was to be done with it was not.",
        "'branchline hook list' shows what it said; 'branchline hook run PACKAGE' repeats it.",
    ];
    Some(Fault { since: Some(first.at.clone()), ..fault("hook_failed", Severity::Warning, what) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_damage_and_only_failing_hooks_are_faults() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
        let found =
            |at: &str| Damage { at: at.into(), chunks: 2, package: "a@1".into(), ..Damage::default() };
        assert_eq!(damage(now, &[found("2026-11-01T00:00:00Z"), found("")]), None);
        let fault =
            damage(now, &[found("2026-11-24T00:00:00Z"), found("2026-11-01T00:00:00Z")]).expect("a fault");
        assert!(fault.cause.contains("2 damaged chunks") && fault.id == "content_damaged");
        assert_eq!(hooks(&[]), None);
        let failed = HookResult {
            package: "a".into(),
            version: "1".into(),
            exit_code: Some(3),
            ..HookResult::default()
        };
        let fault = hooks(&[failed.clone(), failed]).expect("a fault");
        assert!(
            fault.cause.contains("a@1 failed with exit code 3") && fault.cause.contains("1 more"),
            "{}",
            fault.cause
        );
    }
}
