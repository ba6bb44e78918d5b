//! What origins, disks and admins can do wrong: each gets a clear word, or heals.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Stage, assert_balanced, branchline, fail, noise, request, succeed, wait_for};

/// How an origin misbehaves.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Status500,
    Truncated,
    TooMuch,
    Silent,
    Closed,
}

/// An origin that misbehaves on its first few requests for packs, and then is fine.
fn faulty_origin(real: SocketAddr, fault: Fault, times: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let left = Arc::new(AtomicUsize::new(times));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let left = left.clone();
            std::thread::spawn(move || relay(stream, real, fault, &left));
        }
    });
    address
}

fn relay(mut stream: TcpStream, real: SocketAddr, fault: Fault, left: &AtomicUsize) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:"));
    let headers = range.map(|range| format!("{range}\r\n")).unwrap_or_default();
    let Some(answer) = request(real, &path, &headers) else { return };
    let misbehave = path.starts_with("/packs/")
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let mut body = answer.body;
    if misbehave {
        match fault {
            Fault::Status500 => {
                write!(stream, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
                return;
            }
            Fault::Silent => return std::thread::sleep(Duration::from_secs(30)),
            Fault::Closed => return,
            Fault::Truncated => body.truncate(body.len() / 3),
            Fault::TooMuch => body.extend(noise("extra", 5000)),
        }
    }
    write!(stream, "{}\r\n\r\n", answer.head).ok();
    stream.write_all(&body).ok();
}

#[test]
fn an_origin_that_fails_for_a_while_is_outlasted() {
    let stage = Stage::new("1gbit");
    let content = noise("faults", 3_000_000);
    stage.publish("demo", "1", &content);
    let faults = [Fault::Status500, Fault::Truncated, Fault::TooMuch, Fault::Silent, Fault::Closed];
    std::thread::scope(|scope| {
        for (index, fault) in faults.into_iter().enumerate() {
            let (stage, content) = (&stage, &content);
            scope.spawn(move || {
                let origin = format!("http://{}", faulty_origin(stage.origin, fault, 3));
                let agent = stage.agent(&format!("f{index}"), &["--origin", &origin]);
                let answer = agent.get("/packages/demo/1");
                assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
                assert!(answer.body == *content, "{fault:?}");
                assert_balanced(&agent.api("savings"));
            });
        }
    });
}

fn only_file(stage: &Stage, folder: &str) -> PathBuf {
    let mut files = std::fs::read_dir(stage.path(&format!("tree/{folder}"))).expect("a folder").flatten();
    files.next().expect("a file").path()
}

#[test]
fn altered_and_missing_objects_are_told_and_never_served() {
    let stage = Stage::new("1gbit");
    let content = noise("altered", 400_000);
    stage.publish("demo", "1", &content);
    let (pack, manifest) = (only_file(&stage, "packs"), only_file(&stage, "manifests"));
    let (pack_bytes, manifest_bytes) =
        (std::fs::read(&pack).expect("there"), std::fs::read(&manifest).expect("there"));
    let told = |name: &str, what: &str| {
        let answer = stage.agent(name, &[]).get("/packages/demo/1");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains(what), "{}", answer.text());
    };
    let mut altered = pack_bytes.clone();
    altered[1000] ^= 1;
    std::fs::write(&pack, altered).expect("writable");
    told("altered-pack", "wrong bytes");
    std::fs::remove_file(&pack).expect("writable");
    told("no-pack", "404");
    let mut altered = manifest_bytes.clone();
    altered[100] ^= 1;
    std::fs::write(&manifest, altered).expect("writable");
    told("altered-manifest", "altered or cut");
    std::fs::remove_file(&manifest).expect("writable");
    told("no-manifest", "404");
    std::fs::write(&manifest, manifest_bytes).expect("writable");
    std::fs::write(&pack, pack_bytes).expect("writable");
    assert!(stage.agent("mended", &[]).get("/packages/demo/1").body == content);
}

fn catalog_files(stage: &Stage) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(stage.path("tree/catalog")).expect("a folder").flatten();
    files.map(|file| (file.path(), std::fs::read(file.path()).expect("a file"))).collect()
}

#[test]
fn catalogs_that_go_back_or_are_not_ours_are_refused() {
    let stage = Stage::new("1gbit");
    let content = noise("catalog", 100_000);
    stage.publish("demo", "1", &content);
    let old = catalog_files(&stage);
    stage.publish("demo", "2", &noise("catalog 2", 100_000));
    let agent = stage.agent("a", &[]);
    assert_eq!(agent.get("/packages/demo/2").status, 200);
    for (path, bytes) in old {
        std::fs::write(path, bytes).expect("writable");
    }
    let error = |what: &str| {
        wait_for(what, || {
            agent.get("/packages/demo/nothing");
            agent.api("status")["catalog"]["error"].as_str().is_some_and(|error| error.contains(what))
        });
    };
    error("goes back");
    assert_eq!(agent.get("/packages/demo/2").status, 200, "what was held stays usable");
    std::fs::write(stage.path("tree/catalog/timestamp.json"), b"{\"cut").expect("writable");
    error("refused");
    // Somebody else's catalog, with other keys.
    let other = Stage::new("1gbit");
    other.publish("demo", "1", &content);
    let stranger = stage.agent("b", &["--origin", &format!("http://{}", other.origin)]);
    let answer = stranger.get("/packages/demo/1");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("not signed by this origin's keys"), "{}", answer.text());
}

#[test]
fn a_publish_that_was_interrupted_resumes_and_is_never_half_there() {
    let stage = Stage::new("1gbit");
    let content = noise("interrupted", 90_000_000);
    let file = stage.path("payload");
    std::fs::write(&file, &content).expect("room");
    let (tree, keys) = (stage.path("tree"), stage.path("keys"));
    let arguments =
        ["publish", &file, "--name", "demo", "--version", "1", "--origin", &tree, "--keys", &keys, "--json"];
    let log = stage.dir.path().join("publish.log");
    let mut killed = crate::support::Process::start(&arguments, &log);
    wait_for("the first pack", || {
        let packs = std::fs::read_dir(stage.path("tree/packs")).expect("a folder").flatten();
        packs.filter(|pack| pack.file_name().len() == 64).count() > 0
    });
    killed.kill();
    let agent = stage.agent("a", &[]);
    assert_eq!(agent.get("/packages/demo/1").status, 404, "nothing of it is visible");
    let receipt: serde_json::Value = serde_json::from_str(&succeed(&arguments)).expect("a receipt");
    let uploaded = receipt["uploaded"].as_u64().expect("a figure");
    assert!(uploaded < 40_000_000, "{uploaded} bytes were uploaded again");
    // A catalog that was the newest a moment ago is taken for the newest still.
    wait_for("the package", || agent.get("/packages/demo/1").status == 200);
    let answer = agent.get("/packages/demo/1");
    assert!(answer.body == content, "{} bytes of {}", answer.body.len(), content.len());
    let again: serde_json::Value = serde_json::from_str(&succeed(&arguments)).expect("a receipt");
    assert_eq!(again["uploaded"], 0);
    std::fs::write(&file, b"other content").expect("room");
    assert!(fail(&arguments).contains("versions never change"));
}

#[test]
fn wrong_words_on_the_command_line_are_explained() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let usage = |arguments: &[&str], what: &str| {
        let output = branchline(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(what), "{error}");
    };
    usage(
        &["publish", "f", "--name", "../x", "--version", "1", "--origin", "o", "--keys", "k"],
        "package name",
    );
    usage(&["agent", "--wan-limit", "fast"], "write it like 50mbit");
    let error =
        fail(&["publish", "f", "--name", "x", "--version", "1", "--origin", &path("no"), "--keys", "k"]);
    assert!(error.contains("no origin in"), "{error}");
    let config = path("agent.toml");
    std::fs::write(&config, "wan_limitt = '1mbit'\n").expect("writable");
    assert!(fail(&["agent", "--config", &config]).contains("did you mean wan_limit?"));
    std::fs::write(&config, "site = 'x'\n").expect("writable");
    assert!(fail(&["agent", "--config", &config]).contains("--site-key FILE"));
    succeed(&["origin", "init", "--root", &path("tree"), "--keys", &path("keys")]);
    let error = fail(&["origin", "init", "--root", &path("tree"), "--keys", &path("keys")]);
    assert!(error.contains("never overwritten"), "{error}");
}

#[test]
fn a_full_quota_evicts_the_oldest_and_passes_through_what_cannot_fit() {
    let stage = Stage::new("1gbit");
    let contents: Vec<Vec<u8>> = (0..3).map(|n| noise(&format!("quota {n}"), 1_000_000)).collect();
    for (n, content) in contents.iter().enumerate() {
        stage.publish("demo", &n.to_string(), content);
    }
    let big = noise("too big", 4_000_000);
    stage.publish("big", "1", &big);
    let agent = stage.agent("a", &["--cache-size", "2500kB"]);
    for (n, content) in contents.iter().enumerate() {
        assert!(agent.get(&format!("/packages/demo/{n}")).body == *content);
        std::thread::sleep(Duration::from_millis(50));
    }
    let held =
        |agent: &crate::support::Agent| agent.api("status")["store"]["bytes"].as_u64().expect("a figure");
    assert!(held(&agent) <= 2_500_000);
    assert!(agent.get("/packages/big/1").body == big, "passed through");
    assert!(held(&agent) <= 2_500_000);
    assert_balanced(&agent.api("savings"));
    assert!(agent.get("/packages/demo/0").body == contents[0], "evicted, and fetched anew");
}
