//! Sites that have upstreams and no origin: apt, pip, npm, cargo and containers need none.

use crate::support::{Agent, Stage, branchline, fail, noise, succeed, wait_for};

/// An agent that was not told of the stage's origin.
fn agent(stage: &Stage, name: &str, more: &[&str]) -> Agent {
    let upstream = format!("files http http://{}/", stage.origin);
    stage.agent_without(&["--origin", "--trust"], name, &[&["--upstream", &upstream], more].concat())
}

#[test]
fn a_site_shares_what_comes_from_upstreams() {
    let stage = Stage::new("1gbit");
    let content = noise("upstream", 5_000_000);
    std::fs::write(stage.path("tree/installer.bin"), &content).expect("room");
    let first = agent(&stage, "first", &[]);
    let second = agent(&stage, "second", &["--peer", &first.peer()]);
    wait_for("each other", || second.api("peers").as_array().is_some_and(|peers| peers.len() == 1));
    for agent in [&first, &second] {
        let answer = agent.get("/http/files/installer.bin");
        assert!(answer.status == 200 && answer.body == content, "{}", answer.status);
    }
    let totals = &first.api("savings?scope=site")["totals"];
    let figure = |name: &str| totals[name].as_u64().expect("a figure");
    assert_eq!((figure("wan") + figure("preloaded_wan"), figure("delivered")), (5_000_000, 10_000_000));
    // There is nothing wrong with it, and what it has not is said.
    let faults = second.api("health")["faults"].to_string();
    assert!(!faults.contains("catalog") && !faults.contains("origin"), "{faults}");
    let gateway = second.gateway.to_string();
    let status = succeed(&["status", "--gateway", &gateway]);
    assert!(
        status.contains("none: it fetches from upstreams only") && !status.contains("catalog"),
        "{status}"
    );
    assert!(second.api("status")["origin"].is_null());
    let said = fail(&["get", "tool@1", "-o", &stage.path("got"), "--gateway", &gateway]);
    assert!(said.contains("has no origin") && said.contains("--trust"), "{said}");
    assert_eq!(second.get("/packages/tool/1").status, 404);
    stage.publish("tool", "1", b"content");
    let (bundle, root) = (stage.path("bundle"), stage.path("tree/catalog/root.json"));
    succeed(&["export", "tool@1", "-o", &bundle, "--origin", &stage.path("tree"), "--trust", &root]);
    let state = ["--state-dir", &stage.path("state-second")];
    let said = fail(&[&["import", &bundle], &state[..]].concat());
    assert!(said.contains("this site's origin is none"), "{said}");
    let said = fail(&[&["export", "tool@1", "-o", &stage.path("out")], &state[..]].concat());
    assert!(said.contains("has no origin"), "{said}");
}

#[test]
fn members_with_an_origin_do_not_wait_for_those_without() {
    let stage = Stage::new("1gbit");
    let without: Vec<Agent> = ["0", "1", "2"].map(|name| agent(&stage, name, &["--role", "seed"])).into();
    let peers: Vec<String> = without.iter().map(Agent::peer).collect();
    let peers: Vec<&str> = peers.iter().flat_map(|peer| ["--peer", peer]).collect();
    let with = stage.agent("with", &peers);
    wait_for("the others", || with.api("peers").as_array().is_some_and(|peers| peers.len() == 3));
    // Who ranks before it cannot pull, and says so.
    for version in ["1", "2", "3"] {
        let content = noise(version, 3_000_000);
        stage.publish("tool", version, &content);
        let path = format!("/packages/tool/{version}");
        wait_for("the catalog", || with.get(&path).status == 200);
        assert!(with.get(&path).body == content);
    }
    assert_eq!(with.api("savings")["totals"]["wan"], 9_000_000);
}

#[test]
fn an_agent_needs_an_origin_or_an_upstream() {
    let said = |arguments: &[&str]| {
        let output = branchline(&[&["agent", "--site", "x", "--site-key", "key"], arguments].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nothing = said(&[]);
    assert!(nothing.contains("--origin URL, --trust") && nothing.contains("--upstream alone"), "{nothing}");
    let half =
        said(&["--upstream", "files http http://files.example/", "--origin", "http://origin.example/"]);
    assert!(half.contains("needs --trust") && !half.contains("--upstream alone"), "{half}");
}
