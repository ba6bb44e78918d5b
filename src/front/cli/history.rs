//! `branchline history`.

use clap::Args;

use super::Output;
use super::client::Target;
use super::show::table;
use crate::core::id::PackageName;
use crate::node::report::History as Facts;
use crate::origin::history::{Act, Event};
use crate::origin::{Address, Catalog, Origin, channels};

#[derive(Debug, Args)]
pub(super) struct History {
    /// The package
    name: PackageName,
    /// Ask the origin itself, and not the local agent: its folder, URL, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL_OR_DIR")]
    origin: Option<Address>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl History {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let facts = match &self.origin {
            Some(origin) => {
                let catalog = channels::published(&Origin::open(origin)?).await?;
                Facts::of(&catalog, &self.name).ok_or_else(|| no_such(&catalog, &self.name))?
            }
            None => self.target.json(&format!("/api/v1/packages/{}/history", self.name)).await?,
        };
        if self.output.json {
            return super::print_json(&facts);
        }
        super::print(&text(&facts))
    }
}

/// What there is instead.
fn no_such(catalog: &Catalog, name: &PackageName) -> anyhow::Error {
    match catalog.resolve(name.as_str(), None) {
        Err(error) => error.into(),
        Ok(_) => anyhow::anyhow!("nothing is known of {name}"),
    }
}

fn text(facts: &Facts) -> String {
    let points = facts.channels.iter().map(|(channel, version)| format!("{channel} -> {version}"));
    let mut points: Vec<String> = points.collect();
    points
        .extend(facts.retired.iter().map(|(version, at)| format!("{version} is retired since {}", day(at))));
    let now = if points.is_empty() { "no channel points at it".to_owned() } else { points.join(", ") };
    let head = format!("{}: {now}", facts.name);
    if facts.events.is_empty() {
        return format!(
            "{head}\nnothing is written down of before; it is from the first move of a channel on"
        );
    }
    let mut rows = vec![["WHEN (UTC)", "WHAT", "BY"].map(str::to_owned).to_vec()];
    // The last one first: that is what people look for.
    rows.extend(facts.events.iter().rev().map(row));
    format!("{head}\n{}", table(&rows))
}

fn row(event: &Event) -> Vec<String> {
    let Event { version, from, .. } = event;
    let channel = event.channel.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = match (event.act, from) {
        (Act::Move, Some(from)) => format!("{channel}: {from} -> {version}"),
        (Act::Move, None) => format!("{channel}: new, at {version}"),
        (Act::Rollback, Some(from)) => format!("{channel}: {from} -> {version}, rolled back"),
        (Act::Rollback, None) => format!("{channel}: rolled back to {version}"),
        (Act::Retire, _) => format!("{version} retired"),
        (Act::Restore, _) => format!("{version} taken back from retirement"),
    };
    // A name comes from a catalog: it is signed, and yet no place for control characters.
    let by: String = event.by.chars().filter(|letter| !letter.is_control()).collect();
    vec![event.at.strftime("%Y-%m-%d %H:%M:%S").to_string(), what, by]
}

fn day(at: &str) -> &str {
    at.get(..10).unwrap_or(at)
}
