//! A site that is cut off from its origin: what it holds is served, to machines that join later, too.

use std::time::{Duration, Instant};

use crate::support::{Agent, Stage, noise, succeed, wait_for};

fn members(agent: &Agent) -> usize {
    agent.api("peers").as_array().map_or(0, Vec::len)
}

/// Two that hold `demo`, and know of `other`; then the origin goes away.
fn cut_off(stage: &mut Stage, more: &[&str]) -> (Vec<Agent>, Vec<u8>) {
    let content = noise("held", 500_000);
    stage.publish("other", "1", &noise("other", 500_000));
    stage.publish("demo", "1", &content);
    let first = stage.agent("0", more);
    let peer = first.peer();
    let flags: Vec<&str> = ["--peer", &peer].into_iter().chain(more.iter().copied()).collect();
    let second = stage.agent("1", &flags);
    let agents = vec![first, second];
    for agent in &agents {
        wait_for("the mesh", || members(agent) == 1);
        assert!(agent.get("/packages/demo/stable").body == content);
    }
    stage.server = None;
    (agents, content)
}

#[test]
fn a_machine_that_joins_later_gets_catalog_and_package_from_members() {
    let mut stage = Stage::new("400mbit");
    let (agents, content) = cut_off(&mut stage, &[]);
    let joined = stage.agent("2", &["--peer", &agents[0].peer()]);
    let got = joined.get("/packages/demo/stable");
    assert!(got.status == 200 && got.body == content, "{}", got.text());
    assert_eq!(joined.api("savings")["totals"]["wan_wire"], 0);
    assert!(joined.get("/packages/demo").body == content && joined.get("/packages/demo/1").body == content);
    // What nobody holds is refused in a while, and says why.
    wait_for("the outage is noticed", || {
        joined.get("/packages/demo/stable");
        joined.api("status")["outage"].is_object()
    });
    let missing = joined.get("/packages/other/1");
    assert_eq!(missing.status, 503, "{}", missing.text());
    assert!(missing.text().contains("out of reach since"), "{}", missing.text());
    let unknown = joined.get("/packages/nothing");
    assert_eq!(unknown.status, 503);
    assert!(unknown.text().contains("may have been published since"), "{}", unknown.text());
    let outage = &joined.api("status")["outage"];
    assert_eq!((outage["versions"].as_u64(), outage["fetchable"].as_u64()), (Some(2), Some(1)), "{outage}");
    let said = succeed(&["status", "--gateway", &joined.gateway.to_string()]);
    assert!(said.contains("out of reach since") && said.contains("1 of 2 versions can be fetched"), "{said}");
    let faults = joined.api("health")["faults"].to_string();
    assert!(faults.contains("catalog_not_refreshed") && faults.contains("1 of 2 versions"), "{faults}");
    // The line comes back: moves are seen, and nothing is out of reach any more.
    stage.serve("400mbit");
    let next = noise("next", 100_000);
    stage.publish("demo", "2", &next);
    wait_for("the move is seen", || joined.get("/packages/demo/stable").body == next);
    wait_for("it is over", || joined.api("status")["outage"].is_null());
    assert_eq!(joined.get("/packages/other/1").status, 200);
}

#[test]
fn clients_of_a_site_that_is_cut_off_do_not_wait_for_the_origin() {
    // An origin that takes connections and says nothing, as behind a dead line.
    let mut stage = Stage::new("400mbit");
    let (agents, content) = cut_off(&mut stage, &[]);
    let silent = std::net::TcpListener::bind(stage.origin).expect("the origin's port is free");
    wait_for("the outage is noticed", || {
        agents.iter().all(|agent| {
            agent.get("/packages/demo/stable");
            agent.api("status")["outage"].is_object()
        })
    });
    // Each try at the origin takes 6 s; thirty that wait for one each would take three minutes.
    let begun = Instant::now();
    for agent in &agents {
        for _ in 0..30 {
            assert!(agent.get("/packages/demo/stable").body == content);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn a_restarted_machine_knows_what_it_knew() {
    let mut stage = Stage::new("400mbit");
    let (mut agents, content) = cut_off(&mut stage, &[]);
    agents.iter_mut().for_each(|agent| agent.process.kill());
    let alone = stage.agent("0", &[]);
    assert!(alone.get("/packages/demo/stable").body == content);
    assert!(alone.get("/packages/demo/1").body == content);
    // And hands the catalog on, though it has asked nobody since its start.
    let joined = stage.agent("3", &["--peer", &alone.peer()]);
    assert!(joined.get("/packages/demo/stable").body == content);
}

#[test]
fn a_machine_that_alone_is_cut_off_goes_by_the_word_of_others() {
    let stage = Stage::new("400mbit");
    let (old, new) = (noise("old", 300_000), noise("new", 300_000));
    stage.publish("demo", "1", &old);
    let fine = stage.agent("0", &[]);
    // It is the first to ask the origin, by its weight, and cannot.
    let apart = ["--peer", &fine.peer(), "--origin", "http://127.0.0.1:1", "--weight", "100000"];
    let apart = stage.agent("1", &apart);
    wait_for("the mesh", || members(&apart) == 1);
    assert!(fine.get("/packages/demo/stable").body == old);
    assert!(apart.get("/packages/demo/stable").body == old, "from its neighbour");
    stage.publish("demo", "2", &new);
    wait_for("the move is seen there", || fine.get("/packages/demo/stable").body == new);
    wait_for("and here", || apart.get("/packages/demo/stable").body == new);
    wait_for("status says so", || {
        // What nobody knows is looked for at once: it may have been late to take its place as the first.
        apart.get("/packages/demo/unknown");
        let outage = &apart.api("status")["outage"];
        outage["reached_by"] == fine.api("status")["node"]
    });
    let said = succeed(&["status", "--gateway", &apart.gateway.to_string()]);
    assert!(said.contains("out of reach from this node since") && said.contains("by their word"), "{said}");
    wait_for("and health", || apart.api("health")["faults"].to_string().contains("origin_not_reached"));
    assert!(fine.api("status")["outage"].is_null());
}
