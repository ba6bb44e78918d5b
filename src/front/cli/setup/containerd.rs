//! containerd: a host of `/etc/containerd/certs.d/REGISTRY/hosts.toml`, before the registry itself.

use std::path::PathBuf;

use super::{Ask, Places, Plan, block};

const CONFIG: &str = "containerd/config.toml";

/// All that there are: which of them have ours, their lines say.
pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    let all = std::fs::read_dir(places.etc("containerd/certs.d")).into_iter().flatten().flatten();
    let mut files: Vec<_> =
        all.map(|folder| folder.path().join("hosts.toml")).filter(|file| file.is_file()).collect();
    files.sort();
    files
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for upstream in &ask.upstreams {
        let (registry, url) = super::registry(upstream)?;
        let address = url.as_str().trim_end_matches('/').to_owned();
        let path = places.etc("containerd/certs.d").join(&registry).join("hosts.toml");
        let text = places.read(&path)?;
        let host = format!("[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", ask.gateway);
        let is_new = text.as_deref().is_none_or(|text| block::strip(text).is_ok_and(|left| left.is_none()));
        let lines = if is_new { format!("server = \"{address}\"\n\n{host}") } else { host };
        let wanted = block::before(text.as_deref(), "[host", &lines)?;
        if wanted.parse::<toml::Table>().is_err() {
            return Err(format!(
                "{} is of a form that cannot be changed safely; write into it by hand:\n{lines}",
                path.display()
            ));
        }
        plan.file(path, text, Some(wanted));
    }
    let config = places.read(&places.etc(CONFIG))?;
    if !config.is_some_and(|config| config.contains("config_path")) {
        plan.note("containerd before 2.0 has to be told of that folder: in /etc/containerd/config.toml, [plugins.\"io.containerd.grpc.v1.cri\".registry] config_path = \"/etc/containerd/certs.d\", and a restart; later changes there need none");
    }
    Ok(plan)
}
