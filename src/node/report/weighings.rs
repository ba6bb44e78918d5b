//! `GET /api/v1/recipes`: what leads weighed before they pulled a package.

use serde::{Deserialize, Serialize};

use super::super::Node;
use super::super::recipes::Weighing;
use super::Scope;

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
