//! Disks that fail: what cannot be read comes from neighbours, and what cannot be written passes through.

use std::path::PathBuf;

use crate::support::tools::failing;
use crate::support::{Agent, Stage, Surroundings, noise, succeed, wait_for};

fn members(agent: &Agent, count: usize) {
    wait_for("each other", || agent.api("peers").as_array().is_some_and(|peers| peers.len() == count));
}

fn adds_up(agent: &Agent) {
    let said = succeed(&["savings", "--verify", "--gateway", &agent.gateway.to_string()]);
    assert!(said.contains("every one adds up"), "{said}");
}

#[test]
fn what_a_disk_cannot_read_comes_from_neighbours() {
    let mut stage = Stage::new("400mbit");
    let content = noise("held", 3_000_000);
    stage.publish("held", "1", &content);
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    members(&second, 1);
    for agent in [&first, &second] {
        assert!(agent.get("/packages/held/1").body == content);
    }
    let whole = || -> Option<PathBuf> {
        let blobs = std::fs::read_dir(stage.path("state-1/blobs")).ok()?.flatten();
        blobs.map(|it| it.path()).find(|it| it.extension().is_some_and(|it| it == "blob"))
    };
    wait_for("the blob's name", || whole().is_some());
    let blob = whole().expect("it is there");
    drop(second);
    let test = "what_a_disk_cannot_read_comes_from_neighbours";
    let Some(around) = failing(test, "pread64,preadv2", "1+", &[&blob]) else { return };
    stage.around = around;
    stage.server = None;
    let second = stage.agent("1", &["--peer", &first.peer()]);
    members(&second, 1);
    assert!(second.get("/packages/held/1").body == content);
    assert!(second.log().contains("damaged on disk"), "{}", second.log());
    // An admin is told that the disk fails, and that what it lost is back.
    let told = || second.api("status")["verification"]["damage"].to_string();
    wait_for("the damage and its healing", || told().contains("healed\":true"));
    assert!(second.api("health")["faults"].to_string().contains("damage"), "{}", told());
    adds_up(&second);
}

#[test]
fn what_a_disk_does_not_take_passes_through_and_what_it_holds_stays() {
    let mut stage = Stage::new("400mbit");
    let (held, more) = (noise("held", 1_000_000), noise("more", 3_000_000));
    stage.publish("held", "1", &held);
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    members(&second, 1);
    assert!(second.get("/packages/held/1").body == held);
    drop(second);
    // Its first writes are those of its start.
    let test = "what_a_disk_does_not_take_passes_through";
    let Some(around) = failing(test, "pwrite64", "12+", &[]) else { return };
    stage.around = around;
    let second = stage.agent("1", &["--peer", &first.peer()]);
    members(&second, 1);
    stage.publish("more", "1", &more);
    wait_for("the catalog", || second.get("/packages/more/1").body == more);
    assert!(second.log().contains("passing bytes through"), "{}", second.log());
    assert!(second.get("/packages/held/1").body == held);
    drop(second);
    stage.around = Surroundings::default();
    let second = stage.agent("1", &["--peer", &first.peer()]);
    assert!(second.get("/packages/held/1").body == held);
    assert!(second.get("/packages/more/1").body == more);
    adds_up(&second);
}
