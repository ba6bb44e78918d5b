//! `branchline savings --verify`: do the books add up?

use anyhow::bail;

use super::super::client::Target;
use super::super::hosts::Hosts;
use super::super::show::table;
use crate::core::bitrate::Size;
use crate::node::report::{Audits, Status};

/// Asks for the audit and prints it.
///
/// # Errors
/// If something does not add up, and if no agent answers.
pub(super) async fn run(target: &Target, scope: &str, json: bool) -> anyhow::Result<()> {
    let audits: Audits = target.json(&format!("/api/v1/savings/audit?scope={scope}")).await?;
    if json {
        super::super::print_json(&audits)?;
    } else {
        let status: Option<Status> = target.json("/api/v1/status").await.ok();
        let hosts = Hosts::ask(target, status.as_ref()).await;
        super::super::print(&text(&audits, &hosts))?;
    }
    if !audits.adds_up {
        bail!(
            "the books do not add up; do not rely on the figures of the rows above, and report this with the agent's log"
        );
    }
    Ok(())
}

fn text(audits: &Audits, hosts: &Hosts) -> String {
    let mut rows = vec![["NODE", "ROWS", "DELIVERED", "WAN WIRE", "ADDS UP"].map(str::to_owned).to_vec()];
    for node in &audits.nodes {
        let (audit, totals) = (&node.audit, &node.audit.totals);
        let adds_up = if audit.faults.is_empty() { "yes" } else { "NO" };
        rows.push(vec![
            hosts.name(&node.node),
            audit.rows.to_string(),
            Size(totals.delivered).to_string(),
            Size(totals.wan_wire).to_string(),
            adds_up.to_owned(),
        ]);
    }
    let mut text = table(&rows);
    for node in &audits.nodes {
        for fault in &node.audit.faults {
            text.push_str(&format!("\n{}: {fault}", hosts.name(&node.node)));
        }
    }
    if !audits.unanswered.is_empty() {
        let names: Vec<String> = audits.unanswered.iter().map(|node| hosts.name(node)).collect();
        text.push_str(&format!("\nnot audited, since they did not answer: {}", names.join(", ")));
    }
    if audits.adds_up {
        let rows: usize = audits.nodes.iter().map(|node| node.audit.rows).sum();
        text.push_str(&format!(
            "\n\n{rows} rows, read back from disk: every one adds up, and is what is answered."
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::books::Audit;
    use crate::node::report::NodeAudit;

    #[test]
    fn faults_and_silence_are_told() {
        let audit =
            Audit { rows: 3, faults: vec!["hour 9, p@1, front get: wrong".into()], ..Audit::default() };
        let node = NodeAudit { node: "n1".into(), audit };
        let audits = Audits { nodes: vec![node], unanswered: vec!["n2".into()], ..Audits::default() };
        let text = text(&audits, &Hosts::default());
        assert!(text.contains("n1: hour 9, p@1, front get: wrong") && text.contains("answer: n2"), "{text}");
        assert!(text.contains("NO") && !text.contains("every one"), "{text}");
    }
}
