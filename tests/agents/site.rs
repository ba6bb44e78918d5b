//! Several agents on one machine: sharing, healing, strangers, and what clients see.

use crate::support::{Agent, Stage, assert_balanced, branchline, fail, noise, request, succeed, wait_for};

fn members(agent: &Agent) -> usize {
    agent.api("peers").as_array().map_or(0, Vec::len)
}

fn figure(agent: &Agent, name: &str) -> u64 {
    agent.api("savings")["totals"][name].as_u64().expect("a figure")
}

/// A site of agents that know the first one's address.
fn site(stage: &Stage, count: usize) -> Vec<Agent> {
    let mut agents = vec![stage.agent("0", &[])];
    let peer = agents[0].peer();
    for index in 1..count {
        agents.push(stage.agent(&index.to_string(), &["--peer", &peer]));
    }
    for agent in &agents {
        wait_for("the mesh", || members(agent) + 1 == count);
    }
    agents
}

fn fetch_all(agents: &[Agent], path: &str, right: &[u8]) {
    std::thread::scope(|scope| {
        for agent in agents {
            scope.spawn(move || {
                let answer = agent.get(path);
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.body == right, "{} of {} bytes", answer.body.len(), right.len());
            });
        }
    });
}

#[test]
fn one_copy_crosses_and_every_client_has_it() {
    let stage = Stage::new("200mbit");
    let content = noise("v1", 6_000_000);
    stage.publish("demo", "1", &content);
    let agents = site(&stage, 4);
    fetch_all(&agents, "/packages/demo/1", &content);
    let crossed: u64 = agents.iter().map(|agent| figure(agent, "wan") + figure(agent, "preloaded_wan")).sum();
    assert_eq!(crossed, content.len() as u64, "one copy, not a byte more");
    let savings = agents[1].api("savings?scope=site");
    assert_balanced(&savings);
    assert_eq!(savings["totals"]["delivered"], 4 * content.len() as u64);
    assert_eq!(savings["unanswered"], serde_json::json!([]));
    assert_eq!(savings["totals"]["wan_duplicate"], 0);
    // An upgrade costs what changed.
    let mut next = content.clone();
    next[3_000_000..3_200_000].copy_from_slice(&noise("v2", 200_000));
    stage.publish("demo", "2", &next);
    fetch_all(&agents, "/packages/demo/2", &next);
    let after: u64 = agents.iter().map(|agent| figure(agent, "wan") + figure(agent, "preloaded_wan")).sum();
    assert!(after - crossed < 700_000, "{} bytes for a change of 200,000", after - crossed);
    // And from then on nothing at all.
    fetch_all(&agents, "/packages/demo/stable", &next);
    assert_eq!(
        agents.iter().map(|agent| figure(agent, "wan") + figure(agent, "preloaded_wan")).sum::<u64>(),
        after
    );
}

#[test]
fn noise_on_disk_is_never_served_and_heals_from_neighbours() {
    let mut stage = Stage::new("400mbit");
    let content = noise("healed", 5_000_000);
    stage.publish("demo", "1", &content);
    let agents = site(&stage, 2);
    fetch_all(&agents, "/packages/demo/1", &content);
    wait_for("finished blobs", || agents.iter().all(|agent| agent.api("status")["store"]["complete"] == 1));
    stage.server = None;
    let blobs = stage.dir.path().join("state-1").join("blobs");
    let find = || {
        let mut paths = std::fs::read_dir(&blobs).expect("a folder").flatten().map(|entry| entry.path());
        paths.find(|path| path.extension().is_some_and(|e| e == "blob"))
    };
    // It has all its chunks a moment before it has its name.
    wait_for("the blob's last name", || find().is_some());
    let blob = find().expect("a blob");
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&blob, noise("noise", content.len())).expect("writable");
    // The other asks it first, gets nothing wrong; its own client is served all the same.
    let wan = figure(&agents[1], "wan_wire");
    assert!(agents[1].get("/packages/demo/1").body == content);
    assert_eq!(figure(&agents[1], "wan_wire"), wan, "healed without the WAN");
    // What has lost chunks has its last name again when it is whole.
    wait_for("the blob's last name again", || blob.exists());
    assert!(std::fs::read(&blob).expect("there") == content, "healed on disk, too");
}

#[test]
fn strangers_neither_join_nor_learn() {
    let stage = Stage::new("400mbit");
    stage.publish("demo", "1", &noise("x", 100_000));
    let member = stage.agent("0", &[]);
    let other_key = stage.path("other.key");
    succeed(&["site", "keygen", &other_key]);
    let stranger = stage.agent("1", &["--peer", &member.peer(), "--site-key", &other_key]);
    wait_for("a clear word", || stranger.log().contains("not a member of this site"));
    assert_eq!((members(&member), members(&stranger)), (0, 0));
}

#[test]
fn ranges_conditions_and_errors_of_the_gateway() {
    let stage = Stage::new("400mbit");
    let content = noise("ranges", 700_000);
    stage.publish("demo", "1.0", &content);
    let agent = stage.agent("0", &[]);
    let get = |path: &str, headers: &str| request(agent.gateway, path, headers).expect("an answer");
    let part = get("/packages/demo/1.0", "Range: bytes=300000-300099\r\n");
    assert_eq!(part.status, 206);
    assert!(part.body == content[300_000..300_100] && part.head.contains("bytes 300000-300099/700000"));
    let whole = get("/packages/demo", "");
    assert!(whole.status == 200 && whole.body == content);
    let etag = whole.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an etag").to_owned();
    assert_eq!(get("/packages/demo/stable", &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(get("/packages/demo/1.0", "Range: bytes=700000-\r\n").status, 416);
    let missing = get("/packages/dem/1.0", "");
    assert!(missing.status == 404 && missing.text().contains("did you mean demo?"), "{}", missing.text());
    let missing = get("/packages/demo/9", "");
    assert!(missing.status == 404 && missing.text().contains("1.0 (stable)"), "{}", missing.text());
    for path in ["/packages/..%2f..%2fetc/passwd", "/packages/demo/../../etc/passwd", "/etc/passwd"] {
        assert_eq!(get(path, "").status, 404, "{path}");
    }
    assert_eq!(get("/api/v1/savings?scope=moon", "").status, 400);
    assert_eq!(get("/api/v1/openapi.json", "").json()["openapi"], "3.1.0");
    assert!(get("/metrics", "").text().contains("branchline_wan_wire_bytes_total"));
}

#[test]
fn the_command_line_fetches_verifies_and_explains() {
    let stage = Stage::new("400mbit");
    let content = noise("cli", 300_000);
    stage.publish("demo", "1.0", &content);
    let agent = stage.agent("0", &[]);
    let (gateway, output) = (agent.gateway.to_string(), stage.path("out"));
    let said = succeed(&["get", "demo@1.0", "-o", &output, "--gateway", &gateway]);
    assert!(said.contains("demo@1.0") && said.contains("verified"), "{said}");
    assert!(std::fs::read(&output).expect("written") == content);
    let state = stage.path("state-0");
    assert!(branchline(&["get", "demo", "-o", "-", "--state-dir", &state]).stdout == content);
    let error = fail(&["get", "../demo", "--gateway", &gateway]);
    assert!(error.contains("not a valid package name"), "{error}");
    let error = fail(&["get", "nothing", "--gateway", &gateway]);
    assert!(error.contains("no package nothing"), "{error}");
    let error = fail(&["status", "--gateway", "127.0.0.1:1"]);
    assert!(error.contains("is the agent running"), "{error}");
    assert!(succeed(&["packages", "--gateway", &gateway]).contains("complete"));
    let status: serde_json::Value =
        serde_json::from_str(&succeed(&["status", "--json", "--gateway", &gateway])).expect("JSON");
    assert_eq!(status["site"], "test");
    let csv = succeed(&["savings", "--format", "csv", "--gateway", &gateway]);
    assert!(csv.starts_with("package,delivered,wan"), "{csv}");
    assert_eq!(branchline(&["get"]).status.code(), Some(2), "wrong usage");
}

#[test]
fn ports_in_use_and_shared_state_are_told() {
    let stage = Stage::new("400mbit");
    let agent = stage.agent("0", &[]);
    let told = |more: &[&str], code: i32, what: &str| {
        let mut second =
            stage.launch("second", crate::support::free_port(), crate::support::free_port(), more);
        assert_eq!(second.process.0.wait().expect("ends").code(), Some(code));
        assert!(second.log().contains(what), "{}", second.log());
    };
    told(&["--gateway", &agent.gateway.to_string()], 1, "Choose another address with --gateway");
    told(&["--listen", &agent.listen.to_string()], 1, "Choose another address with --listen");
    told(&["--state-dir", &stage.path("state-0")], 1, "another --state-dir");
    told(&["--trust", &stage.path("site.key")], 1, "no root of trust");
    told(&["--origin", "ftp://x"], 2, "is not an origin");
}

#[test]
fn a_leech_takes_and_gives_nothing() {
    let stage = Stage::new("200mbit");
    let content = noise("leech", 3_000_000);
    stage.publish("demo", "1", &content);
    let mut agents = vec![stage.agent("0", &["--role", "leech"])];
    let peer = agents[0].peer();
    // Alone it pulls for itself.
    fetch_all(&agents, "/packages/demo/1", &content);
    assert_eq!(figure(&agents[0], "wan"), content.len() as u64);
    agents.push(stage.agent("1", &["--peer", &peer, "--role", "seed"]));
    agents.push(stage.agent("2", &["--peer", &peer, "--peer", &agents[1].peer()]));
    for agent in &agents {
        wait_for("the mesh", || members(agent) == 2);
    }
    // The others get nothing of it, and share one copy of their own.
    fetch_all(&agents, "/packages/demo/1", &content);
    let crossed = |agents: &[Agent]| -> u64 {
        agents.iter().map(|agent| figure(agent, "wan") + figure(agent, "preloaded_wan")).sum()
    };
    assert_eq!(crossed(&agents), 2 * content.len() as u64);
    // With others there, they lead for it, and it says nothing of what it holds.
    let next = noise("leech, next", 3_000_000);
    stage.publish("demo", "2", &next);
    fetch_all(&agents[..1], "/packages/demo/2", &next);
    fetch_all(&agents, "/packages/demo/2", &next);
    assert_eq!(crossed(&agents), 2 * content.len() as u64 + next.len() as u64);
    let leech = agents[0].api("status");
    assert_eq!((&leech["role"], leech["effective_weight"].as_u64()), (&"leech".into(), Some(0)));
    for agent in &agents[1..] {
        let peers = agent.api("peers");
        let peers = peers.as_array().expect("a list");
        let seen = peers.iter().find(|peer| peer["node"] == leech["node"]).expect("the leech");
        assert_eq!((seen["weight"].as_u64(), seen["received"].as_u64()), (Some(0), Some(0)), "{seen}");
    }
}

#[test]
fn the_host_is_protected_and_status_says_how() {
    let stage = Stage::new("200mbit");
    let metered = stage.agent("0", &["--metered", "--nice", "15"]);
    let full = stage.agent("1", &["--role", "seed", "--disk-reserve", "1000TB", "--peer", &metered.peer()]);
    let (status, seed) = (metered.api("status"), full.api("status"));
    let reasons = |status: &serde_json::Value| status["weight_reasons"].to_string();
    assert!(reasons(&status).contains("metered"), "{status}");
    assert!(status["effective_weight"].as_u64().is_some_and(|weight| (1..=10).contains(&weight)), "{status}");
    assert!(reasons(&seed).contains("nearly out of disk"), "{seed}");
    assert_eq!((seed["weight"].as_u64(), seed["effective_weight"].as_u64()), (Some(400), Some(0)));
    wait_for("the mesh", || members(&metered) == 1);
    assert_eq!(metered.api("peers")[0]["weight"], 0);
    let said = succeed(&["status", "--gateway", &metered.gateway.to_string()]);
    assert!(
        said.contains("normal, weight") && said.contains("of 100 (") && said.contains("metered"),
        "{said}"
    );
    let threads = std::fs::read_dir(format!("/proc/{}/task", metered.process.0.id())).expect("it runs");
    for thread in threads.flatten() {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The nineteenth field; the second one, the name, may hold spaces.
        let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok());
        assert!(nice.is_none_or(|nice: i32| nice >= 15), "{stat}");
    }
}
