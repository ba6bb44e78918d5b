//! `branchline packages`: what the catalog lists, and who holds it: this node, or the whole site.

use anyhow::bail;
use clap::Args;

use super::Output;
use super::client::Target;
use super::hosts::Hosts;
use super::show::table;
use crate::core::bitrate::Size;
use crate::core::id::PackageName;
use crate::node::report::{Coverage, Package, Site};

/// Hosts that are named for one version; the rest is counted.
const NAMED: usize = 6;

#[derive(Debug, Args)]
pub(super) struct Packages {
    /// Only this package
    name: Option<PackageName>,
    /// Ask all machines of the site: how many hold each version, which ones, and how many may be lost
    #[arg(long)]
    site: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Packages {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        if self.site { self.of_site().await } else { self.of_node().await }
    }

    async fn of_node(&self) -> anyhow::Result<()> {
        let mut packages: Vec<Package> = self.target.json("/api/v1/packages").await?;
        let all = packages.len();
        packages.retain(|package| self.is_wanted(&package.name));
        if self.output.json {
            return super::print_json(&packages);
        }
        self.refuse_nothing(packages.len(), all)?;
        let mut rows = vec![["PACKAGE", "VERSION", "CHANNELS", "SIZE", "HELD"].map(str::to_owned).to_vec()];
        for package in packages {
            let size = Size(package.size).to_string();
            let marks = marks(&package.channels, package.retired.as_deref());
            rows.push(vec![package.name, package.version, marks, size, package.held]);
        }
        super::print(&table(&rows))
    }

    async fn of_site(&self) -> anyhow::Result<()> {
        let mut site: Site = self.target.json("/api/v1/site").await?;
        let all = site.packages.len();
        site.packages.retain(|it| self.is_wanted(it.package.split('@').next().unwrap_or_default()));
        if self.output.json {
            return super::print_json(&site);
        }
        self.refuse_nothing(site.packages.len(), all)?;
        let hosts = Hosts::ask(&self.target, None).await;
        super::print(&text(&site, &hosts))
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|wanted| wanted.as_str() == name)
    }

    fn refuse_nothing(&self, found: usize, all: usize) -> anyhow::Result<()> {
        match &self.name {
            _ if found > 0 => Ok(()),
            Some(name) if all > 0 => {
                bail!("there is no package {name} in the catalog; 'branchline packages' lists all")
            }
            _ => bail!("the catalog is empty, or was not fetched yet (see 'branchline status')"),
        }
    }
}

fn text(site: &Site, hosts: &Hosts) -> String {
    let head = ["PACKAGE", "CHANNELS", "SIZE", "COMPLETE", "PARTIAL", "SURVIVES", "HELD BY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for it in &site.packages {
        rows.push(vec![
            it.package.clone(),
            marks(&it.channels, it.retired.as_deref()),
            Size(it.size).to_string(),
            format!("{} of {}", it.complete, site.nodes.len()),
            it.partial.to_string(),
            survives(it),
            holders(site, it),
        ]);
    }
    let mut text = table(&rows);
    if !site.unanswered.is_empty() {
        let names: Vec<String> = site.unanswered.iter().map(|node| hosts.name(node)).collect();
        text.push_str(&format!("\nno answer from {}: what they hold is not counted", names.join(", ")));
    }
    text
}

/// Channels and retirement.
fn marks(channels: &[String], retired: Option<&str>) -> String {
    let mut marks = channels.to_vec();
    marks.extend(retired.map(|at| format!("retired {}", at.get(..10).unwrap_or(at))));
    marks.join(",")
}

fn survives(it: &Coverage) -> String {
    match it.survives {
        Some(1) => "the loss of 1".into(),
        Some(lost) => format!("the loss of {lost}"),
        None => "-".into(),
    }
}

/// The hosts that hold all of it, then those that hold a part.
fn holders(site: &Site, it: &Coverage) -> String {
    let label = it.same_as.as_ref().unwrap_or(&it.package);
    let of = |complete: bool| {
        let holds = move |node: &&crate::node::report::SiteNode| {
            node.holds.iter().any(|held| held.package == *label && held.complete == complete)
        };
        site.nodes.iter().filter(holds).map(move |node| match complete {
            true => node.host.clone(),
            false => format!("{} (part)", node.host),
        })
    };
    let all: Vec<String> = of(true).chain(of(false)).collect();
    match all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", all[..NAMED].join(", ")),
        None => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::{HeldPackage, SiteNode};

    #[test]
    fn who_holds_what_is_named_and_who_said_nothing_too() {
        let node = |host: &str, package: &str, complete| SiteNode {
            host: host.into(),
            holds: vec![HeldPackage { package: package.into(), complete }],
            ..SiteNode::default()
        };
        let packages = vec![
            Coverage {
                package: "demo@1".into(),
                channels: vec!["stable".into()],
                complete: 1,
                partial: 1,
                survives: Some(0),
                ..Coverage::default()
            },
            Coverage {
                package: "demo@2".into(),
                same_as: Some("demo@1".into()),
                retired: Some("2026-11-25T10:00:00Z".into()),
                ..Coverage::default()
            },
        ];
        let nodes = vec![node("pc-1", "demo@1", true), node("pc-2", "demo@1", false)];
        let site = Site { nodes, packages, unanswered: vec!["12D3KooWabcdef".into()], ..Site::default() };
        let hosts = Hosts::new([("12D3KooWabcdef".to_owned(), "pc-7".to_owned())]);
        let said = text(&site, &hosts);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[1].contains("1 of 2") && lines[1].ends_with("pc-1, pc-2 (part)"), "{said}");
        assert!(lines[2].contains("retired 2026-11-25") && lines[2].contains("pc-1"), "{said}");
        assert!(lines[3].contains("no answer from pc-7 (abcdef)"), "{said}");
    }
}
