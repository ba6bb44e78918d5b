//! What is remembered of hooks: what waits to be run, and what has become of the last ones.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::super::catalog::Resolved;
use crate::core::orders::Selector;

/// Results that are kept.
const KEPT: usize = 50;
/// Runs that may wait. More can only be if channels move faster than hooks run.
const WAITING: usize = 200;

/// A version that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Its package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The channel by which it is followed; empty if by its package's name alone.
    pub channel: String,
    /// Its length, in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Arrival {
    /// What a name means.
    pub(in crate::node) fn of(follow: &Selector, resolved: &Resolved) -> Self {
        Self {
            package: resolved.name.to_string(),
            version: resolved.version.to_string(),
            channel: follow.wanted.as_ref().map(ToString::to_string).unwrap_or_default(),
            size: resolved.published.size,
            sha256: resolved.published.sha256.clone(),
        }
    }

    /// `NAME@VERSION`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }

    pub(super) fn environment(&self, gateway: &str) -> [(&'static str, String); 6] {
        [
            ("BRANCHLINE_PACKAGE", self.package.clone()),
            ("BRANCHLINE_VERSION", self.version.clone()),
            ("BRANCHLINE_CHANNEL", self.channel.clone()),
            ("BRANCHLINE_SIZE", self.size.to_string()),
            ("BRANCHLINE_SHA256", self.sha256.clone()),
            ("BRANCHLINE_URL", format!("{gateway}/packages/{}/{}", self.package, self.version)),
        ]
    }
}

/// What has become of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookResult {
    /// The package.
    pub package: String,
    /// The version that had arrived.
    pub version: String,
    /// When it began, UTC.
    pub at: String,
    /// How long it took.
    pub seconds: f64,
    /// It ended with exit code 0.
    pub ok: bool,
    /// Its exit code, if it had one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// It took too long and was ended.
    pub timed_out: bool,
    /// Why it could not run at all.
    pub error: Option<String>,
    /// The end of what it said, 8 KiB at the most. For admins alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl HookResult {
    /// `NAME@VERSION`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }

    /// How it ended, in words.
    pub fn end(&self) -> String {
        match (self.timed_out, self.exit_code, self.signal, &self.error) {
            (true, ..) => format!("took too long and was ended after {:.0} s", self.seconds),
            (_, Some(0), ..) => format!("done in {:.1} s", self.seconds),
            (_, Some(code), ..) => format!("failed with exit code {code} after {:.1} s", self.seconds),
            (_, _, Some(signal), _) => format!("was ended by signal {signal} after {:.1} s", self.seconds),
            (_, _, _, Some(error)) => error.clone(),
            _ => "failed".to_owned(),
        }
    }
}

/// All that is kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// By what is followed, the version that arrived last.
    current: BTreeMap<String, Current>,
    /// To be run, the next one first. What runs stays here until it has ended.
    pub(super) waiting: VecDeque<Arrival>,
    /// The last one last.
    pub(super) results: VecDeque<HookResult>,
    /// Runs that have ended since the agent started.
    #[serde(skip)]
    pub(super) ended: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    package: String,
    version: String,
}

impl Record {
    /// Forgets what is followed no more.
    pub(super) fn follow_only(&mut self, followed: &[String]) {
        self.current.retain(|follow, _| followed.contains(follow));
    }

    /// A version is here that is followed by this name; true if that is news to this package, so that
    /// its hook is to run.
    pub(super) fn arrived(&mut self, follow: &str, arrival: &Arrival) -> bool {
        let now = Current { package: arrival.package.clone(), version: arrival.version.clone() };
        let known = self.current.values().any(|it| *it == now);
        // If too many wait it is still news the next time.
        let queued = !known && self.wait_for(arrival.clone());
        if known || queued {
            self.current.insert(follow.to_owned(), now);
        }
        queued
    }

    pub(super) fn knows(&self, follow: &str, arrival: &Arrival) -> bool {
        let current = self.current.get(follow);
        current.is_some_and(|it| it.package == arrival.package && it.version == arrival.version)
    }

    /// False if too many wait already.
    pub(super) fn wait_for(&mut self, arrival: Arrival) -> bool {
        let room = self.waiting.len() < WAITING;
        if room {
            self.waiting.push_back(arrival);
        }
        room
    }

    /// The first one has ended.
    pub(super) fn ended(&mut self, result: HookResult) {
        self.waiting.pop_front();
        self.ended += 1;
        self.results.push_back(result);
        let too_many = self.results.len().saturating_sub(KEPT);
        self.results.drain(..too_many);
    }

    /// Of each package whose last run failed, that run.
    pub(super) fn failing(&self) -> Vec<HookResult> {
        let last: BTreeMap<&str, &HookResult> =
            self.results.iter().map(|it| (it.package.as_str(), it)).collect();
        last.into_values().filter(|it| !it.ok).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(version: &str) -> Arrival {
        Arrival {
            package: "tool".into(),
            version: version.into(),
            channel: "stable".into(),
            size: 9,
            sha256: "00".into(),
        }
    }

    #[test]
    fn a_version_is_news_once_and_again_after_a_roll_back() {
        let mut record = Record::default();
        let mut arrive = |follow: &str, version: &str| {
            record.arrived(follow, &arrival(version));
            record.waiting.len()
        };
        assert_eq!((arrive("tool@stable", "1"), arrive("tool@stable", "1")), (1, 1));
        assert_eq!(arrive("tool", "1"), 1, "by another name, and yet the same");
        assert_eq!((arrive("tool@stable", "2"), arrive("tool", "2")), (2, 2));
        assert_eq!(arrive("tool@stable", "1"), 3, "rolled back");
        let text = serde_json::to_string(&record).expect("JSON");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("JSON"), record);
        record.follow_only(&["tool".to_owned()]);
        assert!(record.knows("tool", &arrival("2")) && !record.knows("tool@stable", &arrival("1")));
    }

    #[test]
    fn results_and_what_waits_are_bounded() {
        let mut record = Record::default();
        let waits = (0..300).filter(|n| record.wait_for(arrival(&n.to_string()))).count();
        assert_eq!((waits, record.waiting.len()), (WAITING, WAITING));
        assert!(
            !record.arrived("tool@stable", &arrival("new")) && !record.knows("tool@stable", &arrival("new"))
        );
        let result = |package: &str, ok| HookResult { package: package.into(), ok, ..HookResult::default() };
        for (package, ok) in [("a", false), ("b", true), ("c", false), ("a", true), ("c", false)] {
            record.ended(result(package, ok));
        }
        let failing: Vec<String> = record.failing().into_iter().map(|it| it.package).collect();
        assert_eq!(failing, ["c"]);
        (0..60).for_each(|_| record.ended(result("a", true)));
        assert_eq!(record.results.len(), KEPT);
    }
}
