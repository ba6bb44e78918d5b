//! `GET /api/v1/recipes`: what leads weighed before they pulled a package; and whether recipes fail.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Node;
use super::super::recipes::{Outcome, Weighing};
use super::Scope;
use super::health::{Fault, RECENT, Severity, fault, sentence};

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// The node that decided.
    pub node: String,
    /// What it weighed.
    #[serde(flatten)]
    pub weighing: Weighing,
}

impl Node {
    /// What was weighed of late, of one package version or of all, the last first.
    pub async fn weighed(&self, scope: Scope, package: Option<&str>) -> Vec<Weighed> {
        let mut nodes = vec![(self.me().to_string(), self.weighings())];
        if scope == Scope::Site {
            nodes.extend(self.weighings_of_others().await.nodes);
        }
        let all = nodes.into_iter().flat_map(|(node, weighings)| {
            weighings.into_iter().map(move |weighing| Weighed { node: node.clone(), weighing })
        });
        let mut found: Vec<Weighed> =
            all.filter(|it| package.is_none_or(|wanted| it.weighing.package == wanted)).collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.weighing.at));
        found
    }
}

/// A recipe has failed in the last days.
pub(super) fn failed(now: Timestamp, weighings: &[Weighing]) -> Option<Fault> {
    let why = |it: &Weighing| match &it.outcome {
        Outcome::Failed(why) if now.duration_since(it.at) < RECENT => {
            Some((it.at, it.package.clone(), why.clone()))
        }
        _ => None,
    };
    let failed: Vec<_> = weighings.iter().filter_map(why).collect();
    let (at, package, why) = failed.first()?;
    let cause = sentence(&format!("The last of {} was for {package}: {why}", failed.len()));
    let what = [
        "Recipes fail",
        &cause,
        "What was missing came as shipped: nobody gets wrong bytes, and the WAN carries more.",
        "Publish the version again, so that its recipes are made anew; at a hub, look at its disk and its log.",
    ];
    Some(Fault { since: Some(at.to_string()), ..fault("recipes_failed", Severity::Warning, what) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::BlobId;

    #[test]
    fn only_recent_failures_are_faults() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().expect("a time");
        let of = |at: &str, outcome| Weighing {
            blob: BlobId::of(b"x"),
            package: "a@1".into(),
            at: at.parse().expect("a time"),
            wan_rate: None,
            prefer: "bytes".into(),
            ways: Vec::new(),
            chosen: 0,
            outcome,
        };
        let broken = |at: &str| of(at, Outcome::Failed("it ended early".into()));
        let recent = "2026-11-29T11:00:00Z";
        assert_eq!(failed(now, &[of(recent, Outcome::Left), broken("2026-11-01T00:00:00Z")]), None);
        let fault = failed(now, &[broken(recent), of(recent, Outcome::Rebuilt)]).expect("a fault");
        assert_eq!(fault.cause, "The last of 1 was for a@1: it ended early.");
    }
}
