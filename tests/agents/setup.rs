//! `branchline setup`: what it writes leads real tools to the agent, and goes again.

use std::path::Path;
use std::process::Command;

use crate::support::tools::{is_missing, run};
use crate::support::{Stage, fail, succeed};

const TOOLS: [&str; 7] = ["apt", "pip", "npm", "cargo", "containerd", "docker", "podman"];
const SPECS: [&str; 5] = [
    "debian apt http://mirror.example/debian",
    "main pypi http://python.example",
    "node npm http://node.example",
    "crates cargo http://rust.example as=crates-io",
    "hub oci http://registry.example:5000 as=hub.example",
];

fn files(dir: &Path) -> Vec<String> {
    let listed = run(Command::new("find").arg(dir).args(["-type", "f"]));
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn every_tool_is_pointed_here_and_back() {
    let stage = Stage::new("1gbit");
    let upstreams: Vec<&str> = SPECS.iter().flat_map(|spec| ["--upstream", spec]).collect();
    let agent = stage.agent("0", &upstreams);
    let (root, gateway) = (stage.path("root"), agent.gateway.to_string());
    let line = |tool, more: &[&'static str]| -> Vec<String> {
        let line = ["setup", tool, "--root", &root, "--gateway", &gateway];
        line.iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    let setup = |tool, more: &[&'static str]| {
        succeed(&line(tool, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    std::fs::create_dir_all(&root).expect("a folder");
    for tool in TOOLS {
        let shown = setup(tool, &["--dry-run"]);
        assert!(shown.contains("would be written") && shown.contains(&gateway), "{shown}");
        assert_eq!(files(Path::new(&root)), [""; 0], "{tool} only shows");
        let said = setup(tool, &[]);
        assert_eq!(said.strip_prefix("written"), shown.strip_prefix("would be written"));
        let written = files(Path::new(&root));
        assert!(std::fs::read_to_string(&written[0]).expect("text").contains(&gateway), "{written:?}");
        assert!(setup(tool, &[]).contains("nothing to write"), "{tool} again");
        let undone = setup(tool, &["--undo"]);
        assert!(undone.contains("removed"), "{tool}: {undone}");
        assert_eq!(files(Path::new(&root)), [""; 0], "{tool} is as it was");
    }
    let wrong = line("pip", &["--upstream", "other"]);
    let said = fail(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("no pypi upstream of the name \"other\""), "{said}");
}

#[test]
fn tools_read_what_was_written() {
    if is_missing("tools_read_what_was_written", &["pip", "npm", "apt-config"]) {
        return;
    }
    let stage = Stage::new("1gbit");
    let upstreams: Vec<&str> = SPECS.iter().flat_map(|spec| ["--upstream", spec]).collect();
    let agent = stage.agent("0", &upstreams);
    let gateway = agent.gateway.to_string();
    let written = |tool: &str| {
        let root = stage.path(tool);
        succeed(&["setup", tool, "--root", &root, "--gateway", &gateway]);
        files(Path::new(&root)).remove(0)
    };
    let mut pip = Command::new("pip");
    pip.args(["config", "list"]).env("PIP_CONFIG_FILE", written("pip"));
    assert!(run(&mut pip).contains(&format!("global.index-url='http://{gateway}/pypi/main/simple/'")));
    let mut npm = Command::new("npm");
    npm.args(["config", "get", "registry", "--userconfig", &written("npm")]);
    assert!(run(&mut npm).contains(&format!("http://{gateway}/npm/node/")));
    let mut apt = Command::new("apt-config");
    apt.args(["dump", "Acquire::http::Proxy::mirror.example"]).env("APT_CONFIG", written("apt"));
    assert!(run(&mut apt).contains(&format!("\"http://{gateway}/\"")));
}
