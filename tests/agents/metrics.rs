//! `/metrics`: how long it takes, and that rules and dashboards ask for what there is.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Agent, Stage, noise, request, wait_for};
use branchline::core::id::{BlobId, ChunkId, PackId};
use branchline::core::manifest::{Chunk, Manifest};
use branchline::core::quota::Quotas;
use branchline::node::books::hour_now;
use branchline::node::figures::site_names;
use branchline::store::{DiskStore, Limits, Store};
use serde_json::{Value, json};

const PACKAGES: usize = 10_000;

fn deploy(path: &str) -> String {
    let path = format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Words that are names of metrics, or of recorded rules.
fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let words = words.filter(|word| word.starts_with("branchline_") || word.starts_with("site:branchline_"));
    words.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// What the queries of a dashboard say.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&&**name) => {
                        found.push(text.clone());
                    }
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

fn exported(agent: &Agent) -> BTreeSet<String> {
    let text = agent.get("/metrics").text();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboards_ask_for_what_is_exported() {
    let stage = Stage::new("1gbit");
    stage.publish("demo", "1", &noise("v1", 100_000));
    let agent = stage.agent("0", &[]);
    assert_eq!(agent.get("/packages/demo/1").status, 200);
    let mut known = exported(&agent);
    assert!(known.contains("branchline_catalog_expires_timestamp_seconds"), "{known:?}");
    known.extend(site_names());
    let rules = ["prometheus/rules/recording.yml", "prometheus/rules/alerts.yml"].map(deploy);
    let records = rules.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once("record: "));
    known.extend(records.map(|(_, name)| name.to_owned()));
    let mut asked: Vec<(String, String)> = Vec::new();
    for text in rules.iter().chain([&deploy("prometheus/tests/alerts.yml")]) {
        asked.extend(names(text).map(|name| ("the rules".to_owned(), name)));
    }
    for dashboard in ["fleet", "site", "package"] {
        let board: Value = serde_json::from_str(&deploy(&format!("grafana/{dashboard}.json"))).expect("JSON");
        assert!(board["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "{dashboard}");
        assert_eq!(board["templating"]["list"][0]["type"], "datasource", "{dashboard}");
        let mut found = Vec::new();
        queries(&board, &mut found);
        assert!(found.len() > 4, "{dashboard}: {found:?}");
        asked.extend(found.iter().flat_map(|text| names(text)).map(|name| (dashboard.to_owned(), name)));
    }
    assert!(asked.len() > 60, "{asked:?}");
    asked.retain(|(_, name)| !known.contains(name));
    assert_eq!(asked, [], "known are {known:?}");
}

/// A store with so many small blobs.
fn fill_store(state: &Path) {
    let store = Arc::new(
        DiskStore::open(state, Limits { quota: u64::MAX, reserve: 0, packages: Quotas::NONE })
            .expect("a folder"),
    );
    for n in 0..PACKAGES {
        let content = n.to_le_bytes();
        let chunk =
            Chunk { id: ChunkId::of(&content), offset: 0, length: 8, pack: 0, pack_offset: 0, stored: 8 };
        let packs = vec![PackId::of(&content)];
        let manifest = Manifest::build(BlobId::of(&content), [0; 32], packs, &[chunk]).expect("consistent");
        let blob = store.open(&Arc::new(manifest)).expect("room");
        blob.write(0, &content).expect("room");
        blob.finish().expect("room");
    }
    store.flush();
}

/// A ledger with three hours of so many packages.
fn fill_ledger(state: &Path) {
    std::fs::create_dir_all(state.join("ledger")).expect("room");
    let mut journal = String::new();
    for n in 0..3 * PACKAGES {
        let key = json!({"hour": hour_now() - (n % 3) as u32, "package": format!("p{}@1.0", n / 3), "front": "get"});
        let row = json!({"delivered": 30, "wan": 10, "local": 20, "direct": 30, "wan_wire": 12,
            "reasons": {"cold": 12}, "content": {"cold": 10}});
        journal.push_str(&format!("{}\n", json!({"Row": [key, row]})));
    }
    std::fs::write(state.join("ledger/journal"), journal).expect("room");
}

/// Signs a catalog with so many packages, all of them the one that was published.
async fn fill_catalog(tree: &Path, keys: &Path) {
    use tough::editor::signed::SignedRole;
    use tough::key_source::{KeySource, LocalKeySource};
    use tough::schema::{Hashes, KeyHolder, Metafile, Role, Root, Signed, Snapshot, Targets, Timestamp};
    let catalog = tree.join("catalog");
    let read = |name: &str| std::fs::read(catalog.join(name)).expect("published");
    let root: Signed<Root> = serde_json::from_slice(&read("root.json")).expect("a root");
    let mut targets =
        serde_json::from_slice::<Signed<Targets>>(&read("2.targets.json")).expect("targets").signed;
    let (_, target) = targets.targets.iter().next().expect("one package");
    let target = target.clone();
    for n in 0..PACKAGES {
        let name = tough::TargetName::new(format!("p{n}/1.0")).expect("a name");
        targets.targets.insert(name, target.clone());
    }
    let keys: Vec<Box<dyn KeySource>> = vec![Box::new(LocalKeySource { path: keys.join("catalog.key") })];
    let (holder, rng) = (KeyHolder::Root(root.signed), aws_lc_rs::rand::SystemRandom::new());
    let (version, expires) = (NonZeroU64::new(3).expect("three"), targets.expires);
    targets.version = version;
    fn meta<R: Role + serde::Serialize>(role: &SignedRole<R>) -> Metafile {
        let hashes = Hashes { sha256: role.sha256().to_vec().into(), _extra: Default::default() };
        let version = role.signed().signed.version();
        Metafile { length: Some(*role.length()), hashes: Some(hashes), version, _extra: Default::default() }
    }
    let targets = SignedRole::new(targets, &holder, &keys, &rng).await.expect("signed");
    let mut snapshot = Snapshot::new("1.0.0".into(), version, expires);
    snapshot.meta.insert("targets.json".into(), meta(&targets));
    let snapshot = SignedRole::new(snapshot, &holder, &keys, &rng).await.expect("signed");
    let mut timestamp = Timestamp::new("1.0.0".into(), version, expires);
    timestamp.meta.insert("snapshot.json".into(), meta(&snapshot));
    let timestamp = SignedRole::new(timestamp, &holder, &keys, &rng).await.expect("signed");
    std::fs::write(catalog.join("3.targets.json"), targets.buffer()).expect("room");
    std::fs::write(catalog.join("3.snapshot.json"), snapshot.buffer()).expect("room");
    std::fs::write(catalog.join("timestamp.json"), timestamp.buffer()).expect("room");
}

#[test]
fn ten_thousand_packages_take_this_long() {
    let stage = Stage::new("1gbit");
    stage.publish("demo", "1", &noise("v1", 100_000));
    // Ten thousand files are made durable one by one: in memory, if that can be had.
    let memory = Path::new("/dev/shm");
    let state =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let began = Instant::now();
    fill_store(state.path());
    fill_ledger(state.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(fill_catalog(&stage.dir.path().join("tree"), &stage.dir.path().join("keys")));
    println!("prepared in {:?}", began.elapsed());
    let agent = stage.agent("0", &["--state-dir", state.path().to_str().expect("text")]);
    wait_for("the catalog", || agent.api("packages").as_array().map_or(0, Vec::len) > PACKAGES);
    let text = agent.get("/metrics").text();
    assert!(text.contains("\nbranchline_ledger_rows 3000"), "{text}");
    assert!(text.contains("\nbranchline_ledger_faulty_rows 0\n"), "{text}");
    assert!(text.contains(&format!("\nbranchline_store_bytes {}\n", 8 * PACKAGES)), "{text}");
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let began = Instant::now();
            let answer = request(agent.gateway, "/metrics", "Accept: application/openmetrics-text\r\n");
            assert!(answer.expect("an answer").text().ends_with("# EOF\n"));
            began.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "/metrics with {PACKAGES} packages in catalog, store and ledger ({} rows): median {:?}, slowest of {} {:?}, {} bytes",
        3 * PACKAGES,
        times[times.len() / 2],
        times.len(),
        times[times.len() - 1],
        text.len(),
    );
}
