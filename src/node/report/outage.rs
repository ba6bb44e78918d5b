//! The origin is out of reach: since when, and what still works.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{Node, catalog::Failing};

/// What is known of the other nodes may be so old.
const SITE_AGE: Duration = Duration::from_secs(10);

/// The way to the origin is broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Since when, as far as this node has noticed.
    pub since: String,
    /// Why the last try failed.
    pub why: String,
    /// Only this node does not reach it: this member, by its node id, has the newest catalog.
    pub reached_by: Option<String>,
    /// Versions in the catalog that is here.
    pub versions: usize,
    /// Those of them that can be fetched at this node without the origin: it holds all of it, or a
    /// node that serves others does.
    pub fetchable: usize,
    /// Members that were asked what they hold and did not answer.
    pub unanswered: usize,
    /// Until when the catalog is good.
    pub catalog_expires: Option<String>,
    /// Until when channels are followed if the origin stays out of reach: that, and the grace.
    pub channels_until: Option<String>,
}

impl Node {
    /// What the way to the origin suffers from; `None` if it is not known to be broken. Asks the site
    /// for what it holds.
    pub async fn outage(&self) -> Option<Outage> {
        let catalog = self.catalog();
        let out_of_reach = |failing: &Failing| failing.out_of_reach;
        let (site, own) = (catalog.failing().filter(out_of_reach), catalog.own_failing());
        let only_here = site.is_none();
        let failing = site.or(own.filter(out_of_reach))?;
        let (versions, fetchable, unanswered) = self.fetchable().await;
        Some(Outage {
            since: failing.since.to_string(),
            why: failing.why,
            reached_by: catalog.told_by().filter(|_| only_here).map(|node| node.to_string()),
            versions,
            fetchable,
            unanswered,
            catalog_expires: catalog.current().map(|catalog| catalog.expires.to_string()),
            channels_until: catalog.channels_until().map(|until| until.to_string()),
        })
    }

    /// Versions in the catalog; those that the site has for this node; nodes that said nothing.
    async fn fetchable(&self) -> (usize, usize, usize) {
        let (site, here) = (self.site(SITE_AGE, 0).await, self.packages());
        let served: std::collections::HashSet<&str> =
            site.packages.iter().filter(|it| it.survives.is_some()).map(|it| it.package.as_str()).collect();
        let can = here.iter().filter(|it| {
            it.held == "complete" || served.contains(format!("{}@{}", it.name, it.version).as_str())
        });
        (here.len(), can.count(), site.unanswered.len())
    }
}

impl Outage {
    /// What still works, for people.
    pub fn what_works(&self) -> String {
        let have = format!("{} of {} versions can be fetched", self.fetchable, self.versions);
        if let Some(node) = &self.reached_by {
            let end = &node[node.len().saturating_sub(6)..];
            return format!(
                "{have} from this site; others cross the WAN by members that reach the origin, such as …{end}, and channels are followed by their word"
            );
        }
        let until = |at: &Option<String>| at.as_deref().map(|at| at.get(..10).unwrap_or(at).to_owned());
        let channels = match (until(&self.channels_until), until(&self.catalog_expires)) {
            (Some(until), Some(expires)) if self.are_channels_good() => {
                format!("by version or channel, until {until} (the catalog is good until {expires})")
            }
            (Some(until), _) => format!("by version only, since the catalog's time was over on {until}"),
            (None, _) => return "nothing can be fetched: there is no catalog here yet".into(),
        };
        let silent = match self.unanswered {
            0 => String::new(),
            silent => format!("; {silent} members did not say what they hold"),
        };
        format!("{have} from this site, {channels}{silent}")
    }

    fn are_channels_good(&self) -> bool {
        let until = self.channels_until.as_ref().and_then(|until| until.parse::<Timestamp>().ok());
        until.is_some_and(|until| Timestamp::now() <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_said() {
        let at =
            |days: i64| Some((Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)).to_string());
        let outage = Outage {
            versions: 44,
            fetchable: 41,
            catalog_expires: at(-1),
            channels_until: at(6),
            ..Outage::default()
        };
        let said = outage.what_works();
        assert!(
            said.starts_with("41 of 44 versions can be fetched from this site, by version or channel"),
            "{said}"
        );
        let over = Outage { channels_until: at(-1), unanswered: 2, ..outage.clone() }.what_works();
        assert!(over.contains("by version only") && over.contains("2 members did not say"), "{over}");
        let node = Some("12D3KooWabcdef".to_owned());
        let here = Outage { reached_by: node, ..outage.clone() }.what_works();
        assert!(here.contains("such as …abcdef"), "{here}");
        let none = Outage { channels_until: None, ..outage }.what_works();
        assert!(none.contains("no catalog here yet"), "{none}");
    }
}
