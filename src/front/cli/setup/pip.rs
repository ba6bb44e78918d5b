//! pip: `index-url` of `pip.conf`; uv reads no such file, and is told how.

use std::path::PathBuf;

use super::block::{self, Section};
use super::{Ask, Places, Plan};

pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    vec![if places.system { places.etc("pip.conf") } else { places.home(".config/pip/pip.conf") }]
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let url = format!("http://{}/pypi/{}/simple/", ask.gateway, ask.only()?.name);
    let mut pairs = vec![("index-url", url.clone())];
    if !ask.gateway.ip().is_loopback() {
        pairs.push(("trusted-host", ask.gateway.ip().to_string()));
    }
    let mut plan = Plan::default();
    for path in files(places) {
        let text = places.read(&path)?;
        let sections = [Section { name: Some("global"), pairs: pairs.clone() }];
        let wanted = block::set(text.as_deref(), &sections)?;
        plan.file(path, text, Some(wanted));
    }
    plan.note(format!("uv reads its own configuration: UV_DEFAULT_INDEX={url}"));
    Ok(plan)
}
