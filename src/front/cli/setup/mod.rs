//! `branchline setup`: a line in a tool's own configuration points it at the gateway. What is written is
//! shown, marked as ours, and taken away again by `--undo`; what others wrote stays.

mod apt;
mod block;
mod cargo;
mod containerd;
mod docker;
mod npm;
mod pip;
mod plan;
mod podman;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use url::{Position, Url};

use super::client::Target;
use super::config::default_gateway;
use super::{Output, print, print_json};
use crate::node::report::UpstreamFacts;
use plan::{Places, Plan};

/// A tool that can fetch through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    Apt,
    Pip,
    Npm,
    Cargo,
    Containerd,
    Docker,
    Podman,
}

impl Tool {
    /// The kind of upstream that it needs, and an example of one.
    fn needs(self) -> (&'static str, &'static str) {
        match self {
            Self::Apt => ("apt", "debian apt http://mirror.example/debian"),
            Self::Pip => ("pypi", "python pypi https://index.example"),
            Self::Npm => ("npm", "npm npm https://registry.example"),
            Self::Cargo => ("cargo", "crates cargo https://index.example as=crates-io"),
            Self::Containerd | Self::Docker | Self::Podman => ("oci", "hub oci https://registry.example"),
        }
    }

    fn plan(self, ask: &Ask, places: &Places) -> Result<Plan, String> {
        match self {
            Self::Apt => apt::plan(ask, places),
            Self::Pip => pip::plan(ask, places),
            Self::Npm => npm::plan(ask, places),
            Self::Cargo => cargo::plan(ask, places),
            Self::Containerd => containerd::plan(ask, places),
            Self::Docker => docker::plan(ask, places),
            Self::Podman => podman::plan(ask, places),
        }
    }

    fn undo(self, ask: &Ask, places: &Places) -> Result<Plan, String> {
        let files = match self {
            Self::Apt => apt::files(places),
            Self::Pip => pip::files(places),
            Self::Npm => npm::files(places),
            Self::Cargo => cargo::files(places),
            Self::Containerd => containerd::files(places),
            Self::Docker => return docker::undo(ask, places),
            Self::Podman => podman::files(places),
        };
        let mut plan = Plan::default();
        for path in files {
            let Some(text) = places.read(&path)? else { continue };
            let left = block::strip(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            plan.file(path, Some(text), left);
        }
        Ok(plan)
    }
}

/// What a tool is pointed at.
#[derive(Debug)]
struct Ask {
    gateway: SocketAddr,
    /// Of its kind, and those alone that are meant.
    upstreams: Vec<UpstreamFacts>,
}

impl Ask {
    /// The one that is meant, for tools that have a single one.
    fn only(&self) -> Result<&UpstreamFacts, String> {
        match &self.upstreams[..] {
            [only] => Ok(only),
            all => {
                let names: Vec<&str> = all.iter().map(|upstream| upstream.name.as_str()).collect();
                Err(format!(
                    "the agent has several such upstreams: say which with --upstream: {}",
                    names.join(", ")
                ))
            }
        }
    }
}

/// As container tools call a registry.
fn registry(upstream: &UpstreamFacts) -> Result<(String, Url), String> {
    let address = upstream.addresses.first().ok_or("that upstream has no address")?;
    let url = Url::parse(address).map_err(|error| error.to_string())?;
    let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
    Ok((upstream.called.clone().unwrap_or(host), url))
}

/// Write the configuration of a package tool so that it fetches through the agent
#[derive(Debug, Args)]
pub(super) struct Setup {
    /// Which tool
    tool: Tool,
    /// The agent's gateway [default: 127.0.0.1:7420]
    #[arg(long, env = "BRANCHLINE_GATEWAY", value_name = "ADDR:PORT")]
    gateway: Option<SocketAddr>,
    /// Only this one of the agent's upstreams
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Take away what was written, and leave what others wrote
    #[arg(long)]
    undo: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write below this folder instead of this machine's own configuration
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Setup {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let gateway = self.gateway.unwrap_or_else(default_gateway);
        // The admin of a machine sets it up for all of its users.
        let places = Places::new(self.root.clone(), rustix::process::geteuid().is_root());
        let plan = match self.undo {
            true => self.tool.undo(&Ask { gateway, upstreams: Vec::new() }, &places),
            false => {
                let upstreams = self.choose(Target::gateway(gateway).json("/api/v1/upstreams").await?)?;
                self.tool.plan(&Ask { gateway, upstreams }, &places)
            }
        };
        let plan = plan.map_err(|error| anyhow!(error))?;
        if !self.dry_run {
            plan.apply()?;
        }
        if self.output.json {
            return print_json(&plan);
        }
        self.tell(&plan)
    }

    /// Those that are meant of all that the agent has.
    fn choose(&self, all: Vec<UpstreamFacts>) -> anyhow::Result<Vec<UpstreamFacts>> {
        let (kind, example) = self.tool.needs();
        let mut fits: Vec<_> = all.into_iter().filter(|upstream| upstream.kind == kind).collect();
        if let Some(name) = &self.upstream {
            fits.retain(|upstream| upstream.name == *name);
        }
        if fits.is_empty() {
            let named =
                self.upstream.as_deref().map(|name| format!(" of the name {name:?}")).unwrap_or_default();
            bail!(
                "the agent has no {kind} upstream{named}: add one to its configuration, such as upstream = [\"{example}\"], and restart it"
            );
        }
        Ok(fits)
    }

    fn tell(&self, plan: &Plan) -> anyhow::Result<()> {
        if plan.changes.is_empty() {
            let what = if self.undo { "there is nothing of ours" } else { "everything is as it should be" };
            return print(&format!("nothing to write: {what}"));
        }
        let did = if self.dry_run { "would be written" } else { "written" };
        print(&format!("{did}:\n{}", plan.describe().trim_end()))?;
        plan.notes.iter().try_for_each(|note| print(&format!("note: {note}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str, kind: &str, address: &str) -> UpstreamFacts {
        let called = match name {
            "hub" => Some("hub.example".to_owned()),
            "crates" => Some("crates-io".to_owned()),
            _ => None,
        };
        UpstreamFacts { name: name.into(), kind: kind.into(), addresses: vec![address.into()], called }
    }

    fn ask(tool: Tool) -> Ask {
        let upstreams = match tool {
            Tool::Apt => vec![upstream("debian", "apt", "http://mirror.example/debian/")],
            Tool::Pip => vec![upstream("pypi", "pypi", "https://python.example/")],
            Tool::Npm => vec![upstream("npm", "npm", "https://node.example/")],
            Tool::Cargo => vec![upstream("crates", "cargo", "https://rust.example/")],
            _ => vec![
                upstream("corp", "oci", "http://registry.example:5000/"),
                upstream("hub", "oci", "https://registry-1.hub.example/"),
            ],
        };
        Ask { gateway: "127.0.0.1:7420".parse().expect("an address"), upstreams }
    }

    fn places(system: bool) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().expect("a folder");
        let places = Places::new(Some(dir.path().to_owned()), system);
        (dir, places)
    }

    fn files(dir: &std::path::Path) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => found.extend(files(&path)),
                path => found.push((path.clone(), std::fs::read_to_string(&path).expect("text"))),
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_tool_is_set_up_once_and_left_as_it_was() {
        for tool in Tool::value_variants() {
            for system in [false, true] {
                let (dir, places) = places(system);
                let plan = tool.plan(&ask(*tool), &places).expect("a plan");
                assert!(!plan.changes.is_empty() && plan.describe().contains("  + "), "{tool:?}");
                plan.apply().expect("room");
                let first = files(dir.path());
                assert!(first.iter().any(|(_, text)| text.contains("127.0.0.1:7420")), "{first:?}");
                let again = tool.plan(&ask(*tool), &places).expect("a plan");
                assert!(again.changes.is_empty(), "{tool:?}: {}", again.describe());
                tool.undo(&ask(*tool), &places).expect("a plan").apply().expect("room");
                assert_eq!(files(dir.path()), [], "{tool:?}");
                assert!(tool.undo(&ask(*tool), &places).expect("a plan").changes.is_empty());
            }
        }
    }

    #[test]
    fn what_others_wrote_stays_and_comes_back() {
        let (dir, places) = places(false);
        let home = places.home("");
        for (tool, path, theirs, there) in [
            (
                Tool::Pip,
                home.join(".config/pip/pip.conf"),
                "[global]\nindex-url = https://x\nproxy = p",
                "proxy = p",
            ),
            (Tool::Npm, home.join(".npmrc"), "registry=https://x/\n//x/:_authToken=t\n", "//x/:_authToken=t"),
            (
                Tool::Cargo,
                home.join(".cargo/config.toml"),
                "[build]\njobs = 2\n\n[source.crates-io]\nreplace-with = 'v'\n\n[source.v]\ndirectory = 'v'\n",
                "jobs = 2",
            ),
            (Tool::Docker, places.etc("docker/daemon.json"), "{\n    \"debug\": true\n}", "\"debug\": true"),
            (
                Tool::Containerd,
                places.etc("containerd/certs.d/hub.example/hosts.toml"),
                "server = \"https://x\"\n\n[host.\"https://m\"]\n",
                "[host.\"https://m\"]",
            ),
        ] {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            std::fs::write(&path, theirs).expect("room");
            let before = files(dir.path());
            tool.plan(&ask(tool), &places).expect("a plan").apply().expect("room");
            let ours = std::fs::read_to_string(&path).expect("text");
            assert!(ours.contains(there) && ours.contains("127.0.0.1:7420") && ours != theirs, "{ours}");
            assert!(tool.plan(&ask(tool), &places).expect("a plan").changes.is_empty(), "{tool:?}");
            tool.undo(&ask(tool), &places).expect("a plan").apply().expect("room");
            assert_eq!(files(dir.path()), before, "{tool:?}");
        }
        // Whose form is another one is not touched.
        let path = home.join(".cargo/config.toml");
        std::fs::write(&path, "source = { crates-io = { replace-with = \"v\" } }\n").expect("room");
        assert!(Tool::Cargo.plan(&ask(Tool::Cargo), &places).expect_err("refused").contains("by hand"));
    }

    #[test]
    fn whoever_has_no_such_upstream_is_told_what_to_add() {
        let setup = |upstream: Option<&str>| Setup {
            tool: Tool::Pip,
            gateway: None,
            upstream: upstream.map(str::to_owned),
            undo: false,
            dry_run: false,
            root: None,
            output: Output { json: false },
        };
        let error = setup(None).choose(Vec::new()).expect_err("none").to_string();
        assert!(error.contains("python pypi https://"), "{error}");
        let two = vec![upstream("a", "pypi", "https://a/"), upstream("b", "pypi", "https://b/")];
        assert_eq!(setup(Some("b")).choose(two.clone()).expect("one").len(), 1);
        let ask = Ask { upstreams: two, ..ask(Tool::Pip) };
        assert!(ask.only().expect_err("two").contains("a, b"));
    }
}
