//! A hub between a site and its upstream: what the site fetches anew costs what has changed.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::recipes::package;
use crate::support::{Agent, Stage, assert_balanced, wait_for};

/// A hub, and two machines of a site whose upstream it is. The stage's web server is the hub's upstream.
fn site(stage: &Stage, more: &[&str]) -> (Agent, [Agent; 2]) {
    let hub = hub(stage);
    let spec = format!("files http http://{}/http/files hub=yes", hub.gateway);
    let more = [&["--upstream", &spec], more].concat();
    let first = stage.agent("0", &more);
    let second = stage.agent("1", &[&["--peer", &first.peer()], &more[..]].concat());
    wait_for("a site of two", || second.api("status")["members"] == 1);
    (hub, [first, second])
}

fn hub(stage: &Stage) -> Agent {
    let spec = format!("files http http://{}/", stage.origin);
    stage.agent("hub", &["--role", "hub", "--upstream", &spec])
}

fn put(stage: &Stage, version: usize) {
    fs::write(stage.path(&format!("tree/tool-{version}.0.gz")), package(version)).expect("room");
}

fn fetch(agent: &Agent, version: usize) {
    let answer = agent.get(&format!("/http/files/tool-{version}.0.gz"));
    assert!(answer.status == 200 && answer.body == package(version), "{}", answer.status);
}

fn sum(agents: &[Agent], figure: &str) -> u64 {
    let savings = |agent: &Agent| agent.api("savings");
    let all = agents.iter().map(savings).inspect(assert_balanced);
    all.map(|it| it["totals"][figure].as_u64().expect("a figure")).sum()
}

fn outcomes(agents: &[Agent]) -> Vec<Value> {
    let all = |agent: &Agent| agent.api("recipes").as_array().expect("a list").clone();
    agents.iter().flat_map(all).map(|it| it["outcome"].clone()).collect()
}

#[test]
fn an_upgrade_behind_a_hub_costs_what_has_changed() {
    let stage = Stage::new("1gbit");
    let (_hub, agents) = site(&stage, &[]);
    let length = package(2).len() as u64;
    put(&stage, 1);
    agents.iter().for_each(|agent| fetch(agent, 1));
    let cold = sum(&agents, "wan_chunks");
    assert!(cold < length * 98 / 100, "the first comes by recipe, too: {cold} of {length}");
    put(&stage, 2);
    agents.iter().for_each(|agent| fetch(agent, 2));
    let upgrade = sum(&agents, "wan_chunks") - cold;
    assert!(upgrade * 20 < length, "{upgrade} of {length}");
    assert_eq!(sum(&agents, "rebuilt"), (package(1).len() + package(2).len()) as u64);
    assert_eq!(outcomes(&agents), ["rebuilt", "rebuilt"]);
}

#[test]
fn what_a_hub_says_wrong_comes_as_shipped() {
    let stage = Stage::new("1gbit");
    let (hub, agents) = site(&stage, &[]);
    put(&stage, 1);
    agents.iter().for_each(|agent| fetch(agent, 1));
    // Another site has the recipe made, and the hub's disk alters it.
    put(&stage, 2);
    let spec = format!("files http http://{}/http/files hub=yes", hub.gateway);
    let other = stage.agent("other", &["--upstream", &spec]);
    fetch(&other, 1);
    fetch(&other, 2);
    let recipes = fs::read_dir(stage.path("state-hub/hub")).expect("a folder").flatten();
    let recipes =
        recipes.map(|it| it.path()).filter(|path| path.extension().is_some_and(|it| it == "recipe"));
    for path in recipes {
        let mut bytes = fs::read(&path).expect("a recipe");
        let (middle, last) = (bytes.len() / 2, bytes.len() - 20);
        bytes[middle] ^= 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).expect("room");
    }
    agents.iter().for_each(|agent| fetch(agent, 2));
    let failed = outcomes(&agents).iter().filter(|outcome| outcome["failed"].is_string()).count();
    assert_eq!(failed, 1, "{:?}", outcomes(&agents));
    // The hub is gone, and the site serves what it holds.
    drop(hub);
    agents.iter().for_each(|agent| fetch(agent, 2));
}

#[test]
fn a_file_that_is_replaced_in_its_place_comes_as_what_has_changed() {
    let stage = Stage::new("1gbit");
    let spec = format!("files http http://{}/ max-age=0", stage.origin);
    let hub = stage.agent("hub", &["--role", "hub", "--upstream", &spec]);
    let spec = format!("files http http://{}/http/files hub=yes max-age=0", hub.gateway);
    let agents = [stage.agent("0", &["--upstream", &spec])];
    let place = stage.path("tree/latest.gz");
    for version in [1, 2] {
        fs::write(&place, package(version)).expect("room");
        // Within a second, one question to the upstream serves all.
        std::thread::sleep(Duration::from_millis(1200));
        let answer = agents[0].get("/http/files/latest.gz");
        assert!(answer.status == 200 && answer.body == package(version), "{}", answer.status);
    }
    let (all, length) = (sum(&agents, "wan_chunks"), package(2).len() as u64);
    assert!(all < length * 105 / 100, "{all} for two of {length}");
    assert_eq!(outcomes(&agents), ["rebuilt", "rebuilt"]);
}

#[test]
fn who_prefers_time_does_not_wait_and_a_mirror_stands_in() {
    let stage = Stage::new("1gbit");
    let hub = hub(&stage);
    let spec = format!("files http http://{}/http/files http://{}/ hub=yes", hub.gateway, stage.origin);
    let agents = [stage.agent("0", &["--upstream", &spec, "--prefer", "time"])];
    put(&stage, 1);
    fetch(&agents[0], 1);
    assert_eq!(sum(&agents, "wan_recipes"), 0, "none was made yet");
    drop(hub);
    put(&stage, 2);
    fetch(&agents[0], 2);
    assert_eq!(sum(&agents, "wan_chunks"), (package(1).len() + package(2).len()) as u64);
}
