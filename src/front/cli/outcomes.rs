//! What the nodes of a site say to an order, as text or JSON.

use anyhow::bail;

use super::show::table;
use crate::core::bitrate::Size;
use crate::node::errands::{Outcome, Outcomes};

/// The end of a command that ordered something: says what has become of it.
///
/// # Errors
/// If a node refuses, so that the exit code tells.
pub(super) fn finish(outcomes: &Outcomes, json: bool) -> anyhow::Result<()> {
    if json {
        super::print_json(outcomes)?;
    } else {
        super::print(&text(outcomes))?;
    }
    let refused = outcomes.nodes.iter().filter(|outcome| !outcome.ok).count();
    match (refused, outcomes.nodes.len()) {
        (0, _) => Ok(()),
        (_, 1) => bail!("it was not done"),
        (refused, all) => bail!("{refused} of {all} machines did not do it"),
    }
}

/// The end of a command that gave the site an order. Who has not heard of it does when it is back.
///
/// # Errors
/// If a later order holds, or a node cannot follow it.
pub(super) fn finish_order(outcomes: &Outcomes, json: bool, said: &str) -> anyhow::Result<()> {
    if json || outcomes.nodes.iter().any(|outcome| !outcome.ok) {
        return finish(outcomes, json);
    }
    let heard = match outcomes.nodes.len() {
        1 => "1 machine has heard of it".to_owned(),
        n => format!("{n} machines have heard of it"),
    };
    let away: Vec<String> = outcomes.unanswered.iter().map(|node| short(node)).collect();
    let away = if away.is_empty() {
        String::new()
    } else {
        format!("; {} did not answer, and will hear of it", away.join(", "))
    };
    super::print(&format!("{said}\n{heard}{away}"))
}

fn text(outcomes: &Outcomes) -> String {
    let mut text = match &outcomes.nodes[..] {
        [only] if outcomes.unanswered.is_empty() => {
            [vec![only.text.clone()], details(only)].concat().join("\n")
        }
        nodes => {
            let rows: Vec<Vec<String>> = nodes
                .iter()
                .map(|it| {
                    let done = if it.ok { "done" } else { "NO" };
                    vec![it.host.clone(), short(&it.node), done.to_owned(), it.text.clone()]
                })
                .collect();
            let lines = table(&rows);
            let lines = lines
                .lines()
                .zip(nodes.iter())
                .flat_map(|(line, node)| [vec![line.to_owned()], details(node)].concat());
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    if !outcomes.unanswered.is_empty() {
        let names: Vec<String> = outcomes.unanswered.iter().map(|node| short(node)).collect();
        text.push_str(&format!("\nno answer from {}", names.join(", ")));
    }
    text
}

/// One by one, what a node has done.
fn details(outcome: &Outcome) -> Vec<String> {
    let items = outcome
        .items
        .iter()
        .map(|it| vec![format!("  {}", it.what), Size(it.bytes).to_string(), it.why.clone()]);
    let damage = outcome.verify.iter().flat_map(|run| &run.damage);
    let damage = damage.map(|it| {
        vec![
            format!("  {}", it.package),
            format!("{} damaged chunks, {}", it.chunks, Size(it.bytes)),
            it.state.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = items.chain(damage).collect();
    table(&rows).lines().map(str::to_owned).collect()
}

/// The end of a node's name, which is what tells it from others.
pub(super) fn short(node: &str) -> String {
    node[node.len().saturating_sub(6)..].to_owned()
}
