//! Keeping a store in order: reading back, freeing, quotas, and hooks; by real agents.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::support::{Agent, Stage, branchline, fail, noise, succeed, wait_for};
use serde_json::Value;

fn held(agent: &Agent, name: &str, version: &str) -> String {
    let packages = agent.api("packages");
    let packages = packages.as_array().expect("a list");
    let it = packages.iter().find(|it| it["name"] == name && it["version"] == version);
    it.map(|it| it["held"].as_str().expect("text").to_owned()).unwrap_or_default()
}

fn fetch(agent: &Agent, name: &str, version: &str, right: &[u8]) {
    // It may have looked for a newer catalog a moment before this was published.
    let path = format!("/packages/{name}/{version}");
    wait_for("the catalog", || agent.get(&path).status != 404);
    let answer = agent.get(&path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == right, "{} of {} bytes", answer.body.len(), right.len());
}

fn faults(agent: &Agent) -> Vec<String> {
    let health = agent.api("health");
    let faults = health["faults"].as_array().expect("a list");
    faults.iter().map(|it| it["id"].as_str().expect("text").to_owned()).collect()
}

/// The file of the only blob of an agent that is complete.
fn blob_file(stage: &Stage, agent: &str) -> PathBuf {
    let folder = PathBuf::from(stage.path(&format!("state-{agent}"))).join("blobs");
    let find = || {
        let mut files = std::fs::read_dir(&folder).ok()?.flatten().map(|file| file.path());
        files.find(|path| path.extension().is_some_and(|ending| ending == "blob"))
    };
    wait_for("a blob's last name", || find().is_some());
    find().expect("a blob")
}

fn rot(file: &PathBuf, at: u64) {
    let mut file = std::fs::File::options().write(true).open(file).expect("there");
    file.seek(SeekFrom::Start(at)).expect("there");
    file.write_all(b"rot").expect("writable");
    file.sync_all().expect("a disk");
}

fn wan(agent: &Agent) -> u64 {
    let totals = agent.api("savings");
    ["wan", "preloaded_wan"].iter().map(|name| totals["totals"][name].as_u64().expect("a figure")).sum()
}

#[test]
fn damage_is_found_told_and_healed_from_neighbours() {
    let mut stage = Stage::new("1gbit");
    let content = noise("verify", 3_000_000);
    stage.publish("tool", "1", &content);
    let first = stage.agent("0", &[]);
    let mut second = stage.agent("1", &["--peer", &first.peer(), "--verify-interval", "never"]);
    wait_for("members", || first.api("status")["members"] == 1);
    for agent in [&first, &second] {
        fetch(agent, "tool", "1", &content);
    }
    let state = stage.path("state-1");
    blob_file(&stage, "0");
    rot(&blob_file(&stage, "1"), 1_500_000);
    stage.server = None;
    let before = wan(&second);
    let said = succeed(&["verify", "--state-dir", &state]);
    assert!(said.contains("1 damaged chunks in 1 packages, 1 of them healed"), "{said}");
    assert_eq!(wan(&second), before, "not over the WAN");
    assert_eq!(held(&second, "tool", "1"), "complete");
    assert!(std::fs::read(blob_file(&stage, "1")).expect("there") == content, "healed on the disk");
    let site = first.api("site");
    assert_eq!(site["packages"][0]["complete"], 2, "{site}");
    wait_for("the fault", || faults(&second).contains(&"content_damaged".to_owned()));
    // Of one package, at all machines, as JSON.
    let json = succeed(&["verify", "tool@1", "--site", "--json", "--state-dir", &state]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let nodes = json["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        assert_eq!(
            (&node["verify"]["bytes"], &node["verify"]["damaged_chunks"]),
            (&3_000_000.into(), &0.into())
        );
        assert!(node["verify"]["ended"].is_string(), "{node}");
    }
    let error = fail(&["verify", "tol", "--state-dir", &state]);
    assert!(error.contains("was not done"), "{error}");
    // It is remembered.
    second.process.kill();
    let (listen, gateway) = (second.listen, second.gateway);
    second = stage.launch("1", listen, gateway, &["--peer", &first.peer()]);
    wait_for("it to be back", || {
        crate::support::request(gateway, "/healthz", "").is_some_and(|it| it.status == 200)
    });
    let verification = &second.api("status")["verification"];
    assert_eq!(
        (&verification["interval"], &verification["damage"][0]["healed"]),
        (&"30 d".into(), &true.into())
    );
    assert!(verification["all_verified_since"].is_string());
    let text = succeed(&["status", "--state-dir", &state]);
    assert!(text.contains("damaged on") && text.contains("tool@1, healed"), "{text}");
}

#[test]
fn what_is_held_is_read_back_by_itself() {
    let stage = Stage::new("1gbit");
    let content = noise("schedule", 1_000_000);
    stage.publish("tool", "1", &content);
    let agent = stage.agent("0", &["--verify-interval", "2s"]);
    fetch(&agent, "tool", "1", &content);
    let file = blob_file(&stage, "0");
    wait_for("a reading", || agent.api("status")["verification"]["scheduled"]["ended"].is_string());
    rot(&file, 500_000);
    wait_for("the damage to be healed", || {
        agent.api("status")["verification"]["damage"][0]["healed"] == true
    });
    assert!(std::fs::read(blob_file(&stage, "0")).expect("there") == content);
    assert_eq!(held(&agent, "tool", "1"), "complete");
}

#[test]
fn what_nothing_needs_goes_and_of_the_rest_what_was_asked_for() {
    let stage = Stage::new("1gbit");
    let contents = ["1", "2"].map(|version| noise(version, 1_000_000));
    let agent = stage.agent("0", &[]);
    for (version, content) in ["1", "2"].iter().zip(&contents) {
        stage.publish("tool", version, content);
        fetch(&agent, "tool", version, content);
    }
    let state = stage.path("state-0");
    let gc = |more: &[&str]| succeed(&[&["gc", "--state-dir", &state], more].concat());
    let all = ["gc", "--state-dir", &state, "--free", "2MB", "--dry-run"];
    wait_for("both to be idle", || branchline(&all).status.success());
    assert_eq!(gc(&[]).trim(), "there is nothing to free");
    assert_eq!(gc(&["--unused", "1d"]).trim(), "there is nothing to free");
    let said = gc(&["--free", "1MB", "--dry-run"]);
    assert!(said.contains("would free 1.0 MB") && said.contains("tool@1"), "{said}");
    assert_eq!(held(&agent, "tool", "1"), "complete", "only a look");
    succeed(&["pin", "tool@2", "--state-dir", &state]);
    wait_for("the pin", || agent.api("status")["keeping"][0]["pinned"] == true);
    let output = branchline(&["gc", "--free", "9MB", "--site", "--json", "--state-dir", &state]);
    assert_eq!(output.status.code(), Some(1), "it could not free that much");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["nodes"][0]["bytes"], &json["nodes"][0]["items"][0]["what"]),
        (&1_000_000.into(), &"tool@1".into())
    );
    assert_eq!((held(&agent, "tool", "1"), held(&agent, "tool", "2")), ("no".into(), "complete".into()));
}

#[test]
fn a_package_keeps_to_its_quota_and_what_is_larger_passes_through() {
    let stage = Stage::new("1gbit");
    for nonsense in ["tool=0", "tool", "tool=much"] {
        let output = branchline(&["agent", "--package-quota", nonsense]);
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("package"),
            "{nonsense}"
        );
    }
    let contents = [("1", 600_000), ("2", 600_000), ("3", 2_000_000)].map(|(seed, size)| noise(seed, size));
    for (version, content) in ["1", "2", "3"].iter().zip(&contents) {
        stage.publish("tool", version, content);
    }
    let mut agent = stage.agent("0", &["--package-quota", "tool=1MB", "--package-quota", "*=5MB"]);
    fetch(&agent, "tool", "1", &contents[0]);
    wait_for("it to be idle", || agent.api("status")["store"]["complete"] == 1);
    wait_for("room", || {
        fetch(&agent, "tool", "2", &contents[1]);
        held(&agent, "tool", "2") == "complete"
    });
    assert_eq!(held(&agent, "tool", "1"), "no", "one of them fits");
    fetch(&agent, "tool", "3", &contents[2]);
    assert_eq!((held(&agent, "tool", "3"), held(&agent, "tool", "2")), ("no".into(), "complete".into()));
    let quota = agent.api("status")["package_quotas"][0].clone();
    assert_eq!(
        (&quota["package"], &quota["bytes"], &quota["quota"]),
        (&"tool".into(), &600_000.into(), &1_000_000.into())
    );
    let state = stage.path("state-0");
    let error = fail(&["pin", "tool@3", "--state-dir", &state]);
    assert!(error.contains("package_quota"), "{error}");
    succeed(&["pin", "tool@2", "--state-dir", &state]);
    wait_for("the pin", || agent.api("status")["keeping"][0]["pinned"] == true);
    // A lowered quota: what is kept stays, and is told.
    agent.process.kill();
    agent = stage.launch("0", agent.listen, agent.gateway, &["--package-quota", "tool=500kB"]);
    wait_for("the quota to be told", || {
        let status = crate::support::request(agent.gateway, "/api/v1/status", "");
        status.is_some_and(|it| it.json()["package_quotas"][0]["over"] == 100_000)
    });
    let text = succeed(&["status", "--state-dir", &state]);
    assert!(text.contains("600.0 kB of 500.0 kB; 100.0 kB too much"), "{text}");
    succeed(&["unpin", "tool@2", "--state-dir", &state]);
    wait_for("it to be free", || agent.api("status")["keeping"].as_array().is_some_and(Vec::is_empty));
    agent.process.kill();
    agent = stage.launch("0", agent.listen, agent.gateway, &["--package-quota", "tool=500kB"]);
    wait_for("it to go", || {
        crate::support::request(agent.gateway, "/api/v1/status", "")
            .is_some_and(|it| it.json()["store"]["complete"] == 0)
    });
}

#[test]
fn a_hook_runs_once_for_each_version_that_arrives() {
    let stage = Stage::new("1gbit");
    let (script, log, mode) = (stage.path("hook"), stage.path("hook.log"), stage.path("mode"));
    let text = format!(
        "echo $BRANCHLINE_PACKAGE $BRANCHLINE_VERSION $BRANCHLINE_CHANNEL >> {log}; echo said; sh {mode}"
    );
    std::fs::write(&script, text).expect("room");
    let set_mode = |text: &str| std::fs::write(&mode, text).expect("room");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().trim().replace('\n', ", ");
    set_mode("exit 0");
    stage.publish("tool", "1", &noise("1", 300_000));
    let hook = format!("sh {script}");
    let more = ["--follow", "tool@stable", "--hook", &hook];
    let mut agent = stage.agent("0", &more);
    let state = stage.path("state-0");
    wait_for("the first", || lines() == "tool 1 stable");
    wait_for("its result", || agent.api("status")["hook"]["last"]["ok"] == true);
    // It hangs, and the agent is killed: it runs again, once.
    set_mode("sleep 60");
    stage.publish("tool", "2", &noise("2", 300_000));
    wait_for("the second", || lines() == "tool 1 stable, tool 2 stable");
    assert_eq!(agent.api("status")["hook"]["running"], "tool@2");
    agent.process.kill();
    set_mode("exit 4");
    agent = stage.launch("0", agent.listen, agent.gateway, &more);
    wait_for("it again", || lines() == "tool 1 stable, tool 2 stable, tool 2 stable");
    wait_for("its failure", || {
        crate::support::request(agent.gateway, "/api/v1/status", "")
            .is_some_and(|it| it.json()["hook"]["failing"][0]["exit_code"] == 4)
    });
    assert!(agent.api("status")["hook"]["last"]["output"].is_null(), "what it said is for admins alone");
    wait_for("the fault", || faults(&agent).contains(&"hook_failed".to_owned()));
    let text = succeed(&["hook", "list", "--state-dir", &state]);
    assert!(text.contains("tool@2  failed with exit code 4") && text.contains("    said"), "{text}");
    // By hand it is repeated; by itself it is not.
    let error = fail(&["hook", "run", "tool", "--state-dir", &state]);
    assert!(error.contains("was not done"), "{error}");
    set_mode("exit 0");
    let said = succeed(&["hook", "run", "tool@stable", "--state-dir", &state]);
    assert!(said.contains("the hook for tool@2: done"), "{said}");
    assert_eq!(lines().matches("tool 2").count(), 4);
    wait_for("the fault to be gone", || !faults(&agent).contains(&"hook_failed".to_owned()));
    agent.process.kill();
    agent = stage.launch("0", agent.listen, agent.gateway, &more);
    wait_for("it to be back", || {
        crate::support::request(agent.gateway, "/api/v1/status", "")
            .is_some_and(|it| it.json()["keeping"][0]["complete"] == true)
    });
    stage.publish("tool", "3", &noise("3", 300_000));
    wait_for("the third", || lines().ends_with("tool 3 stable"));
    assert_eq!(lines().matches("tool 2").count(), 4, "what has run does not run after a restart");
}
