//! podman, buildah, skopeo and CRI-O: a mirror for each registry in `registries.conf.d`.

use std::path::PathBuf;

use super::{Ask, Places, Plan, block};

const FILE: &str = "containers/registries.conf.d/50-branchline.conf";

pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    vec![if places.system { places.etc(FILE) } else { places.home(&format!(".config/{FILE}")) }]
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let mut lines = String::new();
    for upstream in &ask.upstreams {
        let (registry, url) = super::registry(upstream)?;
        let location = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let insecure = if url.scheme() == "http" { "insecure = true\n" } else { "" };
        lines.push_str(&format!(
            "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{location}\"\n{insecure}\n[[registry.mirror]]\nlocation = \"{}/{}\"\ninsecure = true\n\n",
            ask.gateway, upstream.name,
        ));
    }
    let mut plan = Plan::default();
    for path in files(places) {
        let text = places.read(&path)?;
        let wanted = block::at_top(text.as_deref(), &lines)?;
        plan.file(path, text, Some(wanted));
    }
    plan.note("the registry itself is asked if this agent does not answer");
    Ok(plan)
}
