//! apt: the gateway as the proxy of the hosts that an upstream is configured for, and of no others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Ask, Places, Plan, block};

pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    vec![places.etc("apt/apt.conf.d/60branchline")]
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let hosts: BTreeSet<String> = ask.upstreams.iter().flat_map(|upstream| upstream.hosts()).collect();
    let line = |host: &str| format!("Acquire::http::Proxy::{host} \"http://{}/\";\n", ask.gateway);
    let lines: String = hosts.iter().map(|host| line(host)).collect();
    let mut plan = Plan::default();
    for path in files(places) {
        let text = places.read(&path)?;
        let wanted = block::at_top(text.as_deref(), &lines)?;
        plan.file(path, text, Some(wanted));
    }
    plan.note(format!(
        "sources of {} are to be written with http:// in /etc/apt/sources.list: what is signed there stays signed, and the agent itself goes by https where its upstream says so",
        hosts.into_iter().collect::<Vec<_>>().join(", "),
    ));
    Ok(plan)
}
