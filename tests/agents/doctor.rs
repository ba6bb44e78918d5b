//! `branchline doctor`: what works is said to work, and what does not has one cause.

use std::io::{Read, Write};

use serde_json::Value;

use crate::support::{Agent, Stage, branchline, succeed, wait_for};

/// What the doctor says, and whether that is good.
fn doctor(arguments: &[&str]) -> (bool, Value) {
    let output = branchline(&[&["doctor", "--json"], arguments].concat());
    let said = serde_json::from_slice(&output.stdout);
    (output.status.success(), said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn at(stage: &Stage, name: &str, agent: &Agent) -> (bool, Value) {
    doctor(&["--state-dir", &stage.path(&format!("state-{name}")), "--gateway", &agent.gateway.to_string()])
}

/// The state of each test, and the causes of those that failed.
fn found(said: &Value) -> (Vec<(String, String)>, Vec<String>) {
    let checks = said["checks"].as_array().expect("checks");
    let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    let states = checks.iter().map(|it| (text(it, "test"), text(it, "state"))).collect();
    let failed = checks.iter().filter(|it| it["state"] == "failed");
    (states, failed.map(|it| format!("{}: {}", text(it, "test"), text(it, "cause"))).collect())
}

fn causes(said: &Value) -> Vec<String> {
    found(said).1
}

fn members(agent: &Agent, count: usize) {
    wait_for("each other", || agent.api("peers").as_array().is_some_and(|peers| peers.len() == count));
}

#[test]
fn a_site_that_works_passes_every_test() {
    let stage = Stage::new("1gbit");
    stage.publish("tool", "1", b"content");
    let first = stage.agent("first", &[]);
    let files = format!("files http http://{}/", stage.origin);
    let second = stage.agent("second", &["--peer", &first.peer(), "--upstream", &files]);
    members(&second, 1);
    let before = second.api("savings")["totals"].clone();
    let (good, said) = at(&stage, "second", &second);
    let tests = ["agent", "ports", "discovery", "clock", "disk", "origin", "upstreams", "transfer"];
    let passed: Vec<_> = tests.iter().map(|test| (test.to_string(), "passed".to_owned())).collect();
    assert!(good && found(&said).0 == passed, "{said:#}");
    let totals = &second.api("savings")["totals"];
    for figure in ["delivered", "peer", "wan", "preloaded_peer"] {
        assert_eq!(totals[figure], before[figure], "a sample is no package: {figure}");
    }
    let state = stage.path("state-second");
    let text = succeed(&["doctor", "--state-dir", &state, "--gateway", &second.gateway.to_string()]);
    assert!(text.contains("transfer") && text.contains("4.2 MB from") && !text.contains("FAILED"), "{text}");
}

#[test]
fn an_origin_that_is_gone_is_the_only_thing_that_fails() {
    let mut stage = Stage::new("1gbit");
    let first = stage.agent("first", &[]);
    let second = stage.agent("second", &["--peer", &first.peer()]);
    members(&second, 1);
    stage.server = None;
    let (good, said) = at(&stage, "second", &second);
    let causes = causes(&said);
    assert!(!good && causes.len() == 1, "{said:#}");
    assert_eq!(causes[0], format!("origin: Nothing listens at {}.", stage.origin));
}

#[test]
fn machines_that_are_no_members_are_told_apart() {
    let stage = Stage::new("1gbit");
    let first = stage.agent("first", &[]);
    succeed(&["site", "keygen", &stage.path("other.key")]);
    let (key, peer) = (stage.path("other.key"), first.peer());
    let stranger = stage.agent("stranger", &["--peer", &peer, "--site-key", &key]);
    let seen = || causes(&at(&stage, "stranger", &stranger).1);
    wait_for("a refusal", || seen().iter().any(|cause| cause.contains("another site key")));
    assert_eq!(seen().len(), 1, "{:?}", seen());
    let nobody = format!("/ip4/127.0.0.1/tcp/{}", crate::support::free_port().port());
    let lost = stage.agent("lost", &["--peer", &nobody]);
    let seen = || causes(&at(&stage, "lost", &lost).1);
    wait_for("a refusal", || {
        seen().iter().any(|cause| cause.starts_with("ports: Nothing listens at 127.0.0.1"))
    });
    let alone = stage.agent("alone", &[]);
    let seen = causes(&at(&stage, "alone", &alone).1);
    assert!(
        seen.iter().any(|cause| cause == "discovery: no_mdns is set, and no member is named."),
        "{seen:?}"
    );
}

#[test]
fn without_an_agent_what_would_keep_it_from_starting_is_named() {
    let stage = Stage::new("1gbit");
    let first = stage.agent("first", &[]);
    let (key, root, origin) =
        (stage.path("site.key"), stage.path("tree/catalog/root.json"), format!("http://{}", stage.origin));
    let state = stage.path("state-new");
    let flags = |listen: &str, trust: &str| {
        let said = doctor(&[
            "--site",
            "test",
            "--site-key",
            &key,
            "--origin",
            &origin,
            "--trust",
            trust,
            "--state-dir",
            &state,
            "--listen",
            listen,
            "--gateway",
            "127.0.0.1:0",
            "--disk-reserve",
            "0",
        ]);
        causes(&said.1)
    };
    let not_running = format!("agent: No agent runs with the state directory {state}.");
    assert_eq!(flags("127.0.0.1:0", &root), [not_running], "all else is well");
    let taken = flags(&first.listen.to_string(), &root);
    assert!(taken.len() == 2 && taken[1].contains("another agent"), "{taken:?}");
    let other = Stage::new("1gbit");
    let foreign = flags("127.0.0.1:0", &other.path("tree/catalog/root.json"));
    assert!(foreign.len() == 2 && foreign[1].contains("root of trust"), "{foreign:?}");
    assert!(!std::path::Path::new(&state).exists(), "nothing is left behind");
}

#[test]
fn whoever_may_not_use_the_socket_asks_at_the_gateway() {
    let stage = Stage::new("1gbit");
    let first = stage.agent("first", &[]);
    let second = stage.agent("second", &["--peer", &first.peer()]);
    members(&second, 1);
    let gateway = second.gateway.to_string();
    // The default state directory, in which no agent of this test runs.
    let (good, said) = doctor(&["--gateway", &gateway]);
    assert!(
        good && said["checks"][0]["seen"].as_str().is_some_and(|seen| seen.contains("at its gateway")),
        "{said:#}"
    );
    // A page of another site can have a browser send a form, and no more.
    let form = "POST /api/v1/doctor HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nnull";
    let mut line = std::net::TcpStream::connect(second.gateway).expect("the gateway");
    let mut said = [0; 12];
    line.write_all(form.as_bytes()).and_then(|()| line.read_exact(&mut said)).expect("an answer");
    assert!(said.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&said));
    // One that is another agent's is not taken for this one's.
    let (good, said) = doctor(&["--gateway", &gateway, "--state-dir", &stage.path("state-none")]);
    assert!(!good && causes(&said)[0].starts_with("agent: No agent runs"), "{said:#}");
    std::fs::remove_file(stage.path("state-first/admin.sock")).expect("it is there");
    let (good, said) = doctor(&["--gateway", &gateway, "--state-dir", &stage.path("state-first")]);
    assert!(!good && causes(&said)[0].starts_with("agent: No agent runs"), "{said:#}");
}

#[test]
fn a_neighbour_with_an_upload_limit_is_slow_and_not_broken() {
    let stage = Stage::new("1gbit");
    let first = stage.agent("first", &["--upload-limit", "400kbit"]);
    let second = stage.agent("second", &["--peer", &first.peer()]);
    members(&second, 1);
    let (good, said) = at(&stage, "second", &second);
    let transfer = said["checks"].as_array().and_then(|checks| checks.last()).expect("checks");
    assert!(good && transfer["seen"].as_str().is_some_and(|seen| seen.contains("kB/s")), "{said:#}");
}
