//! The dashboard in a real browser, while a real transfer runs: `tests/browser/dashboard.mjs`.
//!
//! Needs Chromium, node, and playwright-core, which is installed outside this tree
//! (`npm install --prefix DIR playwright-core`) and found by `BRANCHLINE_PLAYWRIGHT=DIR`, else where
//! node looks anyway. Without, the test says by name that it was skipped; `BRANCHLINE_BROWSER=required`
//! makes that a failure. Screenshots go to `BRANCHLINE_SHOTS`, if that names a folder.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Agent, Stage, noise, wait_for};

/// The browser, by the names that distributions give it.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    places.find(|place| place.is_file())
}

/// A node that finds playwright-core.
fn node() -> Command {
    let mut node = Command::new("node");
    if let Some(dir) = std::env::var_os("BRANCHLINE_PLAYWRIGHT") {
        node.env("NODE_PATH", PathBuf::from(dir).join("node_modules"));
    }
    node
}

fn missing() -> Option<&'static str> {
    let probe = |arguments: &[&str]| {
        let status = node().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if chromium().is_none() {
        return Some("it needs Chromium");
    }
    if !probe(&["--version"]) {
        return Some("it needs node");
    }
    let playwright = probe(&["-e", "require('playwright-core')"]);
    (!playwright).then_some("it needs playwright-core; BRANCHLINE_PLAYWRIGHT tells where it is installed")
}

/// A seed, this node and another one, with some history: two versions fetched, one held by all.
fn site(stage: &Stage) -> Vec<Agent> {
    let editor = noise("editor", 3_000_000);
    let mut newer = editor.clone();
    newer[1_000_000..1_200_000].copy_from_slice(&noise("editor, newer", 200_000));
    stage.publish("editor", "1.0", &editor);
    stage.publish("editor", "1.1", &newer);
    stage.publish("fonts", "2026.1", &noise("fonts", 400_000));
    stage.publish("office", "24.2", &noise("office", 16_000_000));
    let mut agents = vec![stage.agent("0", &["--role", "seed"])];
    let peer = agents[0].peer();
    agents.extend(["1", "2"].map(|name| stage.agent(name, &["--peer", &peer])));
    for agent in &agents {
        wait_for("the mesh", || agent.api("peers").as_array().is_some_and(|peers| peers.len() == 2));
        assert_eq!(agent.get("/packages/editor/1.0").status, 200);
    }
    assert_eq!(agents[1].get("/packages/editor/1.1").status, 200);
    agents
}

#[test]
fn the_dashboard_while_a_transfer_runs() {
    let name = "the dashboard in a browser";
    if let Some(why) = missing() {
        let required = std::env::var_os("BRANCHLINE_BROWSER").is_some();
        assert!(!required, "{name} was skipped: {why}");
        // Past the test runner, which shows nothing of tests that pass.
        writeln!(std::io::stderr(), "skipped on this machine: {name}: {why}").ok();
        return;
    }
    // A WAN over which the largest package takes some 13 s.
    let stage = Stage::new("10mbit");
    let agents = site(&stage);
    let output = node()
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/dashboard.mjs"))
        .env("CHROMIUM", chromium().expect("looked for before"))
        .env("DASHBOARD", format!("http://{}", agents[1].gateway))
        .env("PACKAGE", "office@24.2")
        .output()
        .expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the browser found something wrong");
}
