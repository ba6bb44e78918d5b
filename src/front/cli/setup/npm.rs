//! npm: `registry` of the user's `.npmrc`; yarn and pnpm read it too.

use std::path::PathBuf;

use super::block::{self, Section};
use super::{Ask, Places, Plan};

pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    vec![places.home(".npmrc")]
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let url = format!("http://{}/npm/{}/", ask.gateway, ask.only()?.name);
    let mut plan = Plan::default();
    for path in files(places) {
        let text = places.read(&path)?;
        let wanted =
            block::set(text.as_deref(), &[Section { name: None, pairs: vec![("registry", url.clone())] }])?;
        plan.file(path, text, Some(wanted));
    }
    plan.note("a project's own .npmrc and lock file go before it; npm makes addresses of a lock file lead to the configured registry");
    Ok(plan)
}
