//! What admins order: copies that the site keeps, pins, followed packages; by real agents.

use crate::support::{Agent, Stage, fail, noise, succeed, wait_for};
use serde_json::Value;

/// So many agents that know each other.
fn site(stage: &Stage, count: usize, more: &[&str]) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        let peer = agents.first().map(Agent::peer);
        let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
        agents.push(stage.agent(&n.to_string(), &[&peer, more].concat()));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == count - 1));
    agents
}

fn kept<'a>(status: &'a Value, package: &str) -> Option<&'a Value> {
    status["keeping"].as_array()?.iter().find(|kept| kept["package"] == package)
}

fn copies(agents: &[Agent], package: &str) -> Vec<usize> {
    let holds = |agent: &Agent| {
        agent.api("packages").as_array().expect("a list").iter().any(|it| {
            format!("{}@{}", it["name"].as_str().unwrap_or(""), it["version"].as_str().unwrap_or(""))
                == package
                && it["held"] == "complete"
        })
    };
    (0..agents.len()).filter(|&n| holds(&agents[n])).collect()
}

fn wan(agents: &[Agent]) -> u64 {
    let of = |agent: &Agent| agent.api("savings")["totals"]["preloaded_wan"].as_u64().expect("a figure");
    agents.iter().map(of).sum()
}

#[test]
fn copies_are_kept_and_lost_ones_come_back_from_neighbours() {
    let stage = Stage::new("1gbit");
    stage.publish("tool", "1", &noise("tool-1", 3_000_000));
    let mut agents = site(&stage, 5, &[]);
    let state = |n: usize| stage.path(&format!("state-{n}"));
    let error = fail(&["seed", "tol", "--state-dir", &state(0)]);
    assert!(error.contains("did you mean tool?"), "{error}");
    let said = succeed(&["seed", "tool@stable", "--copies", "3", "--state-dir", &state(0)]);
    assert!(said.contains("5 machines have heard"), "{said}");
    wait_for("three copies", || copies(&agents, "tool@1").len() >= 3);
    assert_eq!(copies(&agents, "tool@1").len(), 3, "and no more");
    assert_eq!(wan(&agents), 3_000_000, "one copy over the WAN");
    // Every node says the same of it, also one that keeps none.
    wait_for("all to know", || {
        agents
            .iter()
            .all(|agent| kept(&agent.api("status"), "tool@1").is_some_and(|kept| kept["copies"] == 3))
    });
    let text = succeed(&["status", "--state-dir", &state(4)]);
    assert!(text.contains("3 of 3 copies, survives the loss of 2 machines"), "{text}");
    // Two machines are lost, one after the other.
    for _ in 0..2 {
        let holder = copies(&agents, "tool@1")[0];
        let mut lost = agents.remove(holder);
        let gave = lost.api("savings")["totals"]["preloaded_wan"].as_u64().expect("a figure");
        lost.process.kill();
        let before = wan(&agents);
        wait_for("the copy to be back", || copies(&agents, "tool@1").len() >= 3);
        assert_eq!(wan(&agents), before, "without the WAN ({gave} were the lost one's)");
    }
    // A kept copy is not thrown away; a version that nobody keeps is.
    let holder = copies(&agents, "tool@1")[0];
    let gateway = agents[holder].gateway.to_string();
    let holders = agents[holder].log.file_stem().expect("a name").to_string_lossy().into_owned();
    let holders = stage.path(&format!("state-{holders}"));
    let error = fail(&["evict", "tool@1", "--state-dir", &holders]);
    assert!(error.contains("was not done"), "{error}");
    succeed(&["seed", "tool@stable", "--stop", "--state-dir", &holders]);
    wait_for("it to be free", || kept(&agents[holder].api("status"), "tool@1").is_none());
    succeed(&["evict", "tool@1", "--site", "--state-dir", &holders]);
    assert!(copies(&agents, "tool@1").is_empty());
    assert!(!succeed(&["packages", "--gateway", &gateway]).contains("complete"));
}

#[test]
fn a_seed_follows_its_channel_and_a_late_comer_hears_of_it() {
    let stage = Stage::new("1gbit");
    stage.publish("tool", "1", &noise("tool-1", 500_000));
    let mut agents = site(&stage, 2, &[]);
    succeed(&["seed", "tool@stable", "--copies", "all", "--pin", "--state-dir", &stage.path("state-1")]);
    wait_for("two copies", || copies(&agents, "tool@1").len() == 2);
    stage.publish("tool", "2", &noise("tool-2", 500_000));
    wait_for("the new version", || copies(&agents, "tool@2").len() == 2);
    let peer = agents[0].peer();
    agents.push(stage.agent("late", &["--peer", &peer]));
    wait_for("the late-comer", || copies(&agents, "tool@2").len() == 3);
    assert_eq!(wan(&agents), 1_000_000, "each version crossed once");
    // The order outlives a machine that was off.
    agents[1].process.kill();
    let (listen, gateway) = (agents[1].listen, agents[1].gateway);
    agents[1] = stage.launch("1", listen, gateway, &["--peer", &peer]);
    wait_for("it to be back", || {
        crate::support::request(gateway, "/api/v1/orders", "")
            .is_some_and(|it| it.text().contains("seed/tool@stable"))
    });
}

#[test]
fn of_opposite_orders_at_the_same_moment_one_holds_everywhere() {
    let stage = Stage::new("1gbit");
    stage.publish("tool", "1", &noise("tool-1", 200_000));
    let agents = site(&stage, 3, &[]);
    let state = |n: usize| stage.path(&format!("state-{n}"));
    succeed(&["pin", "tool", "--site", "--state-dir", &state(2)]);
    for _ in 0..5 {
        let both = std::thread::scope(|scope| {
            let pin = scope
                .spawn(|| crate::support::branchline(&["pin", "tool", "--site", "--state-dir", &state(0)]));
            let unpin = scope
                .spawn(|| crate::support::branchline(&["unpin", "tool", "--site", "--state-dir", &state(1)]));
            [pin, unpin].map(|it| it.join().expect("a command"))
        });
        let orders = || agents.iter().map(|it| it.api("orders")["site"].clone()).collect::<Vec<_>>();
        wait_for("all to agree", || orders().windows(2).all(|pair| pair[0] == pair[1]));
        // Whoever lost was told, or came first and was followed by the other.
        for output in both {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            let told =
                output.status.success() || said.contains("a later order holds") || why.contains("not pinned");
            assert!(told, "{said} {why}");
        }
    }
}

#[test]
fn pins_fit_or_are_refused_and_followed_packages_come_by_themselves() {
    let stage = Stage::new("1gbit");
    stage.publish("big", "1", &noise("big", 3_000_000));
    stage.publish("small", "1", &noise("small-1", 400_000));
    let agents = site(&stage, 2, &["--cache-size", "2MB", "--follow", "small@stable"]);
    let state = stage.path("state-0");
    wait_for("the followed package", || copies(&agents, "small@1").len() == 2);
    let error = fail(&["pin", "big", "--state-dir", &state]);
    assert!(error.contains("the cache takes") && error.contains("cache_size"), "{error}");
    let error = fail(&["unpin", "big", "--state-dir", &state]);
    assert!(error.contains("is not pinned"), "{error}");
    succeed(&["pin", "small@1", "--state-dir", &state]);
    stage.publish("small", "2", &noise("small-2", 400_000));
    wait_for("the next version", || copies(&agents, "small@2").len() == 2);
    wait_for("the old one to be free where it is not pinned", || {
        let pinned =
            |n: usize| kept(&agents[n].api("status"), "small@1").is_some_and(|kept| kept["pinned"] == true);
        pinned(0) && !pinned(1)
    });
    assert_eq!(wan(&agents), 800_000);
    // What is retired stays where it is kept, and is said.
    let (tree, keys) = (stage.path("tree"), stage.path("keys"));
    succeed(&["retire", "small", "1", "--origin", &tree, "--keys", &keys]);
    wait_for("the retired version to be named", || {
        agents[0].api("status")["troubles"].to_string().contains("small@1 was retired")
    });
    assert!(copies(&agents, "small@1").contains(&0));
    // A site-wide pin that no machine has room for is told by each of them.
    let said = crate::support::branchline(&["pin", "big", "--site", "--state-dir", &state]);
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&said.stdout).matches("the cache takes").count(), 2);
    // What cannot be kept is said, and the rest goes on.
    wait_for("the trouble to be told", || {
        kept(&agents[1].api("status"), "big@1")
            .is_some_and(|kept| kept["refused"].as_str().is_some_and(|why| why.contains("no room")))
    });
    let text = succeed(&["orders", "--gateway", &agents[1].gateway.to_string()]);
    assert!(text.contains("pin/big"), "{text}");
    succeed(&["unpin", "big", "--site", "--state-dir", &state]);
}
