//! `branchline get --explain`: by which way a package came over the WAN, and what else was weighed.

use super::client::Target;
use super::hosts::Hosts;
use crate::core::bitrate::{Rate, Size};
use crate::node::recipes::{Outcome, WayWeighed};
use crate::node::report::{Status, Weighed};

/// What the site weighed for a package version, in words.
///
/// # Errors
/// If the agent does not answer.
pub(super) async fn explain(target: &Target, name: &str, version: &str) -> anyhow::Result<String> {
    let package = format!("{name}@{version}");
    // A version may have a plus sign in it, which means a space in a query.
    let query = package.replace('+', "%2B");
    let path = format!("/api/v1/recipes?scope=site&package={query}");
    let weighed: Vec<Weighed> = target.json(&path).await?;
    let Some(last) = weighed.first() else {
        return Ok(format!(
            "{package}: nothing was weighed for it on this site. It was held already, or the origin offers no other way than the chunks as shipped"
        ));
    };
    let status: Option<Status> = target.json("/api/v1/status").await.ok();
    let hosts = Hosts::ask(target, status.as_ref()).await;
    Ok(describe(last, &hosts))
}

fn describe(it: &Weighed, hosts: &Hosts) -> String {
    let weighing = &it.weighing;
    let rate = weighing.wan_rate.map_or("of unknown rate".to_owned(), |rate| format!("of {}", Rate(rate)));
    let mut text = format!(
        "{}: weighed by {} at {}, for a WAN {rate}, prefer = {}",
        weighing.package,
        hosts.name(&it.node),
        weighing.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        weighing.prefer,
    );
    for (at, way) in weighing.ways.iter().enumerate() {
        let mark = if at == weighing.chosen { '*' } else { ' ' };
        text += &format!("\n{mark} {}", line(way));
    }
    let end = match &weighing.outcome {
        Outcome::AsShipped => "it was pulled as shipped".to_owned(),
        Outcome::UnderWay => "it is on its way".to_owned(),
        Outcome::Rebuilt => "it was rebuilt from its recipe".to_owned(),
        Outcome::Left => "nobody wanted it there any more, or another machine leads now".to_owned(),
        Outcome::Failed(why) => format!("the recipe failed, and the rest was pulled as shipped: {why}"),
    };
    format!("{text}\n{end}")
}

fn line(way: &WayWeighed) -> String {
    let what = match (&way.against, way.weighed.recipe) {
        (Some(against), _) => format!("what has changed since {against}"),
        (None, Some(_)) => "what is inside, packed better".to_owned(),
        (None, None) => "as shipped".to_owned(),
    };
    let time = way.weighed.seconds.map_or(String::new(), |seconds| format!(", about {seconds:.1} s"));
    let why = way.weighed.out_of_question.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    format!("{what}: {} over the WAN{time}{why}", Size(way.weighed.bytes))
}
