//! Upgrades that cost what has changed: from `publish` to the client, by real programs.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Agent, Stage, assert_balanced, fail, succeed, wait_for};
use serde_json::Value;

/// A gzip of text that repeats itself where gzip does not see it; each version has changed a few lines.
pub fn package(version: usize) -> Vec<u8> {
    let line = |n: usize| {
        let word = blake3::hash(&(n % 3001).to_le_bytes()).to_hex();
        let changed = if n % 5000 < version { format!(" changed in {version}") } else { String::new() };
        format!("{n}: {}{changed} is the line's word, and the rest is alike\n", &word[..40])
    };
    let text: String = (0..40_000).map(line).collect();
    let mut gzip = Command::new("gzip");
    gzip.arg("-6n").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gzip = gzip.spawn().expect("gzip");
    let mut input = gzip.stdin.take().expect("a pipe");
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let made = gzip.wait_with_output().expect("gzip").stdout;
    writing.join().expect("no panic").expect("gzip reads");
    made
}

fn fetch(agent: &Agent, version: usize) {
    let path = format!("/packages/tool/{version}");
    // It may have looked for a newer catalog a moment before this was published.
    wait_for("the catalog", || agent.get(&path).status != 404);
    let answer = agent.get(&path);
    assert!(answer.status == 200 && answer.body == package(version), "{}", answer.status);
}

fn publish(stage: &Stage, version: usize, more: &[&str]) -> Value {
    let (tree, keys, text) = (stage.path("tree"), stage.path("keys"), version.to_string());
    let file = stage.path("payload");
    std::fs::write(&file, package(version)).expect("room");
    let always = [
        "publish",
        &file,
        "--name",
        "tool",
        "--version",
        &text,
        "--json",
        "--origin",
        &tree,
        "--keys",
        &keys,
    ];
    serde_json::from_str(&succeed(&[&always, more].concat())).expect("a receipt")
}

/// What each way is against.
fn ways(receipt: &Value) -> Vec<String> {
    let ways = receipt["recipes"]["ways"].as_array().expect("a list");
    let mut against: Vec<String> =
        ways.iter().map(|way| way["against"].as_str().unwrap_or("nothing").to_owned()).collect();
    against.sort();
    against
}

fn figure(agent: &Agent, name: &str) -> u64 {
    agent.api("savings")["totals"][name].as_u64().expect("a figure")
}

#[test]
fn an_upgrade_comes_by_recipe_and_the_books_say_so() {
    let stage = Stage::new("1gbit");
    assert_eq!(ways(&publish(&stage, 1, &[])), ["nothing"]);
    let receipt = publish(&stage, 2, &[]);
    let size = package(2).len() as u64;
    let way =
        receipt["recipes"]["ways"].as_array().and_then(|ways| ways.iter().find(|it| it["against"] == "1"));
    let bytes = way.expect("a patch")["bytes"].as_u64().expect("bytes");
    assert!(bytes * 20 < size, "{bytes} of {size}");
    let first = stage.agent("first", &[]);
    let second = stage.agent("second", &["--peer", &first.peer()]);
    wait_for("each other", || first.api("peers").as_array().is_some_and(|peers| peers.len() == 1));
    fetch(&first, 1);
    // Either may lead.
    let sum = |name| figure(&first, name) + figure(&second, name);
    let (rebuilt, recipes) = (sum("rebuilt"), sum("wan_recipes"));
    assert!(recipes > 0 && recipes < rebuilt, "new to the site, it came packed better: {recipes} {rebuilt}");
    // Whoever leads: the old version is there, or comes over the LAN.
    fetch(&second, 2);
    fetch(&first, 2);
    assert_eq!(sum("wan_recipes") - recipes, bytes);
    assert!(sum("wan_chunks") < size + bytes, "{}", sum("wan_chunks"));
    // A lead that holds the old version takes from it what has not changed at all.
    let (crossed, both) = (sum("wan") + sum("preloaded_wan"), (package(1).len() + package(2).len()) as u64);
    assert!((both * 9 / 10..=both).contains(&crossed), "{crossed} of {both}");
    assert_balanced(&first.api("savings"));
    let saved = &first.api("savings?scope=site")["saved"];
    let by_recipe = sum("rebuilt") as i64 - sum("wan_recipes") as i64;
    assert_eq!(saved["by_recipe"].as_i64(), Some(by_recipe));
    let weighed = || second.api("recipes?scope=site&package=tool@2");
    wait_for("the end of the rebuild", || weighed()[0]["outcome"] == "rebuilt");
    assert_eq!(weighed().as_array().map(Vec::len), Some(1), "one node decides");
    let gateway = second.gateway.to_string();
    let said = succeed(&["get", "tool@2", "-o", &stage.path("got"), "--explain", "--gateway", &gateway]);
    assert!(said.contains("* what has changed since tool@1:"), "{said}");
    assert!(said.contains("it was rebuilt from its recipe"), "{said}");
}

#[test]
fn who_leads_looks_for_the_catalog_that_a_client_has_seen() {
    let stage = Stage::new("1gbit");
    publish(&stage, 1, &[]);
    // Seeds lead. One of them asks the origin for all, so the other one's catalog is as old as it may be.
    let seed = ["--role", "seed", "--catalog-interval", "3600"];
    let one = stage.agent("one", &seed);
    let two = stage.agent("two", &[&seed[..], &["--peer", &one.peer()]].concat());
    let client = stage.agent("client", &["--role", "leech", "--peer", &one.peer(), "--peer", &two.peer()]);
    wait_for("each other", || client.api("peers").as_array().is_some_and(|peers| peers.len() == 2));
    fetch(&client, 1);
    let recipes = || figure(&one, "wan_recipes") + figure(&two, "wan_recipes");
    for version in 2..5 {
        let before = recipes();
        publish(&stage, version, &[]);
        fetch(&client, version);
        assert!(recipes() > before, "version {version} came as shipped");
    }
    assert_eq!(figure(&client, "wan_chunks"), 0, "it led itself");
}

#[test]
fn nobody_waits_longer_where_time_matters_more() {
    let stage = Stage::new("1gbit");
    publish(&stage, 1, &[]);
    publish(&stage, 2, &[]);
    let agent = stage.agent("only", &["--prefer", "time"]);
    fetch(&agent, 1);
    fetch(&agent, 2);
    let weighed = agent.api("recipes?package=tool@2");
    assert_eq!(weighed[0]["outcome"], "as_shipped", "the line is faster than the machine: {weighed}");
    assert_eq!(figure(&agent, "rebuilt"), 0);
}

#[test]
fn what_recipes_are_made_is_chosen_and_those_that_nobody_needs_go() {
    let stage = Stage::new("1gbit");
    assert_eq!(ways(&publish(&stage, 1, &["--no-recipes"])), [""; 0]);
    publish(&stage, 2, &[]);
    publish(&stage, 3, &[]);
    assert_eq!(ways(&publish(&stage, 4, &[])), ["2", "3", "nothing"], "the last two");
    assert_eq!(ways(&publish(&stage, 4, &["--against", "1"])), ["1", "2", "3", "nothing"]);
    let again = publish(&stage, 4, &[]);
    assert_eq!((ways(&again).len(), again["recipes"]["uploaded"].as_u64()), (4, Some(0)), "they are there");
    let (tree, keys) = (stage.path("tree"), stage.path("keys"));
    let origin = ["--origin", &tree, "--keys", &keys];
    let payload = stage.path("payload");
    let unknown = ["publish", &payload, "--name", "tool", "--version", "5", "--against", "9"];
    let said = fail(&[&unknown[..], &origin].concat());
    assert!(said.contains("no version 9"), "{said}");
    succeed(&[&["retire", "tool", "3"], &origin[..]].concat());
    let gc = |more: &[&str]| -> Value {
        let text = succeed(&[&["origin", "gc", "--json"], &origin[..], more].concat());
        serde_json::from_str(&text).expect("JSON")
    };
    // Those for 3 itself, and those of 4 against it.
    let looked = gc(&["--dry-run"]);
    assert_eq!(looked["versions"], 2, "{looked}");
    let swept = gc(&[]);
    assert_eq!(
        (&swept["versions"], &swept["objects"]),
        (&2.into(), &0.into()),
        "what is young stays: {swept}"
    );
    assert_eq!(gc(&[])["versions"], 0);
    assert_eq!(ways(&publish(&stage, 4, &["--no-recipes"])), ["1", "2", "nothing"]);
    let agent = stage.agent("only", &[]);
    fetch(&agent, 2);
    fetch(&agent, 4);
    wait_for("the end of the rebuild", || agent.api("recipes?package=tool@4")[0]["outcome"] == "rebuilt");
}

#[test]
fn a_publish_takes_no_longer_than_it_may() {
    let stage = Stage::new("1gbit");
    let receipt = publish(&stage, 1, &["--recipe-time", "0"]);
    assert!(ways(&receipt).is_empty());
    assert!(receipt["recipes"]["problem"].as_str().expect("a problem").contains("given up"), "{receipt}");
    let receipt = publish(&stage, 1, &["--recipe-time", "5m"]);
    assert_eq!(ways(&receipt), ["nothing"], "what is missing is made when it is published again");
}
