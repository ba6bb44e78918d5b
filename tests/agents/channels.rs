//! Channels that move, versions that are retired: nothing in use is broken by a change of the catalog.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Agent, Stage, fail, noise, request, succeed, wait_for};
use serde_json::Value;

/// A command on the stage's catalog.
fn admin(stage: &Stage, arguments: &[&str]) -> Vec<String> {
    let (tree, keys) = (stage.path("tree"), stage.path("keys"));
    let all = arguments.iter().copied().chain(["--origin", tree.as_str(), "--keys", keys.as_str()]);
    all.map(str::to_owned).collect()
}

fn order(stage: &Stage, arguments: &[&str]) -> String {
    let all = admin(stage, arguments);
    succeed(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn refused(stage: &Stage, arguments: &[&str]) -> String {
    let all = admin(stage, arguments);
    fail(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn catalog_version(agent: &Agent) -> u64 {
    agent.api("status")["catalog"]["version"].as_u64().unwrap_or(0)
}

/// The version that a channel is served as, once the agent has seen the catalog's last change.
fn served(agent: &Agent, path: &str, right: &[u8]) {
    wait_for("the channel's move", || agent.get(path).body == right);
}

#[test]
fn channels_move_to_any_version_and_the_history_tells() {
    let stage = Stage::new("400mbit");
    let content = ["1", "2", "3"].map(|version| (version, noise(version, 60_000)));
    for (version, bytes) in &content {
        stage.publish("demo", version, bytes);
    }
    let agent = stage.agent("0", &[]);
    served(&agent, "/packages/demo/stable", &content[2].1);
    let said = order(&stage, &["promote", "stable", "demo", "1"]);
    assert!(said.contains("stable of demo: 3 -> 1"), "{said}");
    served(&agent, "/packages/demo/stable", &content[0].1);
    assert!(order(&stage, &["promote", "beta", "demo", "2"]).contains("new, points at 2"));
    served(&agent, "/packages/demo/beta", &content[1].1);
    let said = order(&stage, &["rollback", "stable", "demo"]);
    assert!(said.contains("1 -> 3"), "{said}");
    let json: Value =
        serde_json::from_str(&order(&stage, &["rollback", "stable", "demo", "--to", "1", "--json"]))
            .expect("JSON");
    assert_eq!((&json["version"], &json["from"]), (&"1".into(), &"3".into()));
    let said = refused(&stage, &["rollback", "stable", "demo"]);
    assert!(said.contains("nothing is known"), "{said}");
    assert!(refused(&stage, &["promote", "stable", "demo", "9"]).contains("it has 3, 2 (beta), 1 (stable)"));
    assert!(refused(&stage, &["rollback", "gamma", "demo"]).contains("no version or channel gamma"));
    wait_for("the whole history", || {
        agent.get("/packages/demo/stable");
        agent.api("packages/demo/history")["events"].as_array().is_some_and(|events| events.len() == 7)
    });
    assert!(agent.get("/packages/demo/stable").body == content[0].1);
    let gateway = agent.gateway.to_string();
    let by_agent = succeed(&["history", "demo", "--gateway", &gateway]);
    let by_origin = succeed(&["history", "demo", "--origin", &stage.path("tree")]);
    assert_eq!(by_agent, by_origin);
    assert!(by_agent.starts_with("demo: beta -> 2, stable -> 1\n"), "{by_agent}");
    assert!(by_agent.contains("stable: 3 -> 1, rolled back") && by_agent.contains('@'), "{by_agent}");
    assert_eq!(agent.get("/api/v1/packages/none/history").status, 404);
    assert_eq!(agent.get("/api/v1/packages/..%2f/history").status, 400);
}

#[test]
fn a_retired_version_is_refused_and_yet_never_taken_from_who_uses_it() {
    let stage = Stage::new("8mbit");
    let (old, new) = (noise("old", 6_000_000), noise("new", 100_000));
    stage.publish("demo", "1", &old);
    stage.publish("demo", "2", &new);
    let said = refused(&stage, &["retire", "demo", "2"]);
    assert!(said.contains("stable points at demo@2"), "{said}");
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    wait_for("the mesh", || second.api("peers").as_array().map_or(0, Vec::len) == 1);
    // A download that is under way, of 6 s at least; the version is retired in its middle.
    let mut stream = TcpStream::connect(first.gateway).expect("the agent");
    write!(stream, "GET /packages/demo/1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
    let mut begun = vec![0; 100_000];
    stream.read_exact(&mut begun).expect("bytes flow");
    let told = catalog_version(&first);
    order(&stage, &["retire", "demo", "1"]);
    // Another that sees the new catalog joins the flight as a follower.
    wait_for("the new catalog", || {
        second.get("/packages/demo/2");
        catalog_version(&second) > told
    });
    let joined = second.get("/packages/demo/1");
    let mut rest = begun;
    stream.read_to_end(&mut rest).expect("it goes on");
    assert!(rest.ends_with(&old[old.len() - 1000..]), "the first client has all of it");
    assert!(joined.status == 200 && joined.body == old, "{}: {}", joined.status, joined.text().len());
    // It is held: whole, by ranges, and by name, for as long as it is.
    wait_for("the catalog", || first.get("/packages/demo/2").status == 200 && catalog_version(&first) > told);
    assert!(first.get("/packages/demo/1").body == old);
    let part = request(first.gateway, "/packages/demo/1", "Range: bytes=10-19\r\n").expect("an answer");
    assert!(part.status == 206 && part.body == old[10..20]);
    // A machine without it does not begin anew once nobody is bringing it in, and is told why.
    for agent in [&first, &second] {
        wait_for("the flight's end", || agent.api("flights").as_array().is_some_and(Vec::is_empty));
    }
    // It joins late: any member may have been the one that pulled, and so hold it.
    let later = stage.agent("2", &["--peer", &first.peer()]);
    wait_for("the mesh", || later.api("peers").as_array().map_or(0, Vec::len) == 2);
    wait_for("the catalog", || later.get("/packages/demo/2").status == 200 && catalog_version(&later) > told);
    let gone = later.get("/packages/demo/1");
    assert_eq!(gone.status, 410, "{}", gone.text());
    assert!(
        gone.text().contains("demo@1 was retired on") && gone.text().contains("--undo"),
        "{}",
        gone.text()
    );
    let said = fail(&["get", "demo@1", "-o", &stage.path("out"), "--gateway", &later.gateway.to_string()]);
    assert!(said.contains("was retired"), "{said}");
    // A client that has a part of it gets the rest wherever it asks.
    let etag = joined.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an etag");
    let headers = format!("Range: bytes=5999990-\r\nIf-Range: {etag}\r\n");
    let resumed = request(later.gateway, "/packages/demo/1", &headers).expect("an answer");
    assert!(resumed.status == 206 && resumed.body == old[5_999_990..], "{}", resumed.text());
    let marked = succeed(&["packages", "demo", "--gateway", &first.gateway.to_string()]);
    assert!(marked.contains("retired 20") && marked.contains("complete"), "{marked}");
    // The ledger calls it by its name.
    let rows = first.api("savings?by=package")["rows"].to_string();
    assert!(rows.contains("demo@1"), "{rows}");
    // Taken back, anybody has it again.
    order(&stage, &["retire", "demo", "1", "--undo"]);
    wait_for("it is back", || later.get("/packages/demo/1").status == 200);
}

#[test]
fn a_channel_that_moves_between_two_ranges_of_a_client_is_noticed() {
    let stage = Stage::new("400mbit");
    let (old, new) = (noise("one", 300_000), noise("two", 300_000));
    stage.publish("demo", "1", &old);
    let agent = stage.agent("0", &[]);
    let first = request(agent.gateway, "/packages/demo/stable", "Range: bytes=0-99\r\n").expect("an answer");
    assert!(first.status == 206 && first.body == old[..100]);
    let etag = first.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an etag").to_owned();
    stage.publish("demo", "2", &new);
    served(&agent, "/packages/demo/stable", &new);
    let headers = format!("Range: bytes=100-199\r\nIf-Range: {etag}\r\n");
    let second = request(agent.gateway, "/packages/demo/stable", &headers).expect("an answer");
    assert!(second.status == 200 && second.body == new, "all of the new one, and nothing mixed");
    let fixed = request(agent.gateway, "/packages/demo/1", &headers).expect("an answer");
    assert!(fixed.status == 206 && fixed.body == old[100..200], "by its version it goes on");
}

#[test]
fn who_holds_what_is_told_of_the_site() {
    let stage = Stage::new("400mbit");
    stage.publish("demo", "1", &noise("held", 60_000));
    stage.publish("other", "1", &noise("not held", 60_000));
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    wait_for("the mesh", || second.api("peers").as_array().map_or(0, Vec::len) == 1);
    for agent in [&first, &second] {
        assert_eq!(agent.get("/packages/demo/1").status, 200);
    }
    let gateway = second.gateway.to_string();
    wait_for("both hold it", || {
        let said = succeed(&["packages", "--site", "--gateway", &gateway]);
        said.contains("2 of 2") && said.contains("the loss of 1") && said.contains("0 of 2")
    });
    let said = succeed(&["packages", "demo", "--site", "--gateway", &gateway]);
    assert!(said.contains("demo@1") && !said.contains("other@1"), "{said}");
    let json = succeed(&["packages", "demo", "--site", "--json", "--gateway", &gateway]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["packages"][0]["complete"], json["nodes"].as_array().map(Vec::len)),
        (&2.into(), Some(2))
    );
    assert!(fail(&["packages", "none", "--gateway", &gateway]).contains("no package none"));
}
