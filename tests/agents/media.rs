//! Packages that go to a branch on a disk: bundles are written, read, cut, altered, and read again.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::support::{Agent, Stage, assert_balanced, branchline, fail, noise, succeed, wait_for};
use serde_json::Value;

/// Another version of some content: most of it the same, and as long again.
fn upgraded(content: &[u8]) -> Vec<u8> {
    let mut new = content.to_vec();
    let middle = new.len() / 2;
    new.splice(middle..middle, noise("upgrade", 300_000));
    new
}

/// An origin with three versions of two packages, and nobody who serves it.
fn stage() -> (Stage, Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut stage = Stage::new("1gbit");
    let (one, tools) = (noise("one", 3_000_000), [vec![7; 400_000], noise("tools", 800_000)].concat());
    let two = upgraded(&one);
    stage.publish("demo", "1", &one);
    stage.publish("demo", "2", &two);
    stage.publish("tools", "1", &tools);
    stage.server = None;
    (stage, one, two, tools)
}

/// Exports from the origin's folder.
fn export(stage: &Stage, file: &str, what: &[&str]) -> Value {
    let (tree, root) = (stage.path("tree"), stage.path("tree/catalog/root.json"));
    let arguments = [&["export", "--origin", &tree, "--trust", &root, "-o", file, "--json"], what].concat();
    serde_json::from_str(&succeed(&arguments)).expect("JSON")
}

/// What an agent makes of a bundle, and the program's exit code.
fn import(stage: &Stage, agent: &str, file: &str) -> (Value, Option<i32>, String) {
    let output =
        branchline(&["import", file, "--json", "--state-dir", &stage.path(&format!("state-{agent}"))]);
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (said, output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn imported(stage: &Stage, agent: &str, file: &str) -> Value {
    let (said, code, error) = import(stage, agent, file);
    assert_eq!(code, Some(0), "{error}");
    said
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("no {name} in {of}"))
}

/// The bytes of packages that are complete at an agent.
fn has(agent: &Agent, package: &str, content: &[u8]) {
    let answer = agent.get(&format!("/packages/{package}"));
    assert_eq!(answer.status, 200, "{package}: {}", answer.text());
    assert!(answer.body == content, "{package} has other bytes");
}

fn totals(agent: &Agent) -> Value {
    std::thread::sleep(std::time::Duration::from_millis(100));
    let savings = agent.api("savings");
    assert_balanced(&savings);
    let audit = agent.api("savings/audit");
    assert_eq!(audit["adds_up"], true, "{audit}");
    savings["totals"].clone()
}

#[test]
fn a_site_without_its_origin_has_what_a_bundle_brought() {
    let (stage, one, two, tools) = stage();
    let file = stage.path("stick.bundle");
    let exported = export(&stage, &file, &["demo@1", "demo@2", "tools"]);
    assert_eq!(exported["packages"].as_array().map(Vec::len), Some(3));
    assert!(number(&exported, "bytes") < 5_000_000, "each chunk is there once: {exported}");
    let agent = stage.agent("a", &[]);
    let neighbour = stage.agent("b", &["--peer", &agent.peer()]);
    let said = imported(&stage, "a", &file);
    assert_eq!((&said["catalog"]["taken_over"], &said["error"]), (&true.into(), &Value::Null), "{said}");
    for package in said["packages"].as_array().expect("a list") {
        assert_eq!(
            (number(package, "missing_chunks"), number(package, "damaged_chunks")),
            (0, 0),
            "{package}"
        );
    }
    // A machine that has never reached the origin, and has no bundle of its own.
    for (package, content) in [("demo/1", &one), ("demo/2", &two), ("tools/1", &tools)] {
        has(&neighbour, package, content);
        has(&agent, package, content);
    }
    let (a, b) = (totals(&agent), totals(&neighbour));
    assert_eq!(number(&a, "preloaded_media"), number(&said, "new_bytes"));
    assert_eq!(number(&a, "local"), (one.len() + two.len() + tools.len()) as u64);
    assert_eq!(number(&b, "peer") + number(&b, "local"), number(&a, "local"));
    assert_eq!((number(&a, "wan_wire"), number(&b, "wan_wire")), (0, 0));
    // Again: nothing is new, and nothing is written.
    let again = imported(&stage, "a", &file);
    assert_eq!((number(&again, "new_bytes"), &again["catalog"]["taken_over"]), (0, &false.into()), "{again}");
    assert_eq!(number(&totals(&agent), "preloaded_media"), number(&said, "new_bytes"));
}

#[test]
fn an_agent_exports_what_it_holds_through_pipes() {
    let (stage, one, ..) = stage();
    let file = stage.path("first.bundle");
    export(&stage, &file, &["demo@1"]);
    let agent = stage.agent("a", &[]);
    imported(&stage, "a", &file);
    let state = stage.path("state-a");
    let error = fail(&["export", "demo@2", "-o", "-", "--state-dir", &state]);
    assert!(error.contains("lacks") && error.contains("--origin"), "{error}");
    let exported = branchline(&["export", "demo@1", "-o", "-", "--state-dir", &state]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert!(exported.stdout.starts_with(b"BRANCHB1"));
    let elsewhere = stage.agent("elsewhere", &[]);
    let mut importing = pipe_in(&stage, "elsewhere");
    importing.stdin.take().expect("a pipe").write_all(&exported.stdout).expect("it reads");
    let output = importing.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    has(&elsewhere, "demo/1", &one);
    drop(agent);
}

fn pipe_in(stage: &Stage, agent: &str) -> Child {
    let state = stage.path(&format!("state-{agent}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_branchline"));
    command.args(["import", "-", "--json", "--state-dir", &state]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn a_bundle_is_the_same_wherever_it_is_written() {
    let (mut stage, ..) = stage();
    let tree = stage.path("tree");
    let (file, root) = (stage.path("file"), stage.path("tree/catalog/root.json"));
    let export = |origin: &str, to: Stdio| {
        let arguments = ["export", "demo@2", "tools@1", "--origin", origin, "--trust", &root, "-o", "-"];
        let program = env!("CARGO_BIN_EXE_branchline");
        let child = Command::new(program).args(arguments).stdout(to).stderr(Stdio::piped()).spawn();
        child.expect("the program runs").wait_with_output().expect("it ends")
    };
    self::export(&stage, &file, &["demo@2", "tools@1"]);
    let bundle = std::fs::read(&file).expect("a bundle");
    assert!(export(&tree, Stdio::piped()).stdout == bundle, "through a pipe");
    // As a shell opens it, with something before it and something after it.
    for appends in [false, true] {
        let path = stage.path(&format!("shell-{appends}"));
        let open = std::fs::File::options().create(true).write(true).append(appends).open(&path);
        let mut shell = open.expect("room");
        shell.write_all(b"before").expect("room");
        let done = export(&tree, shell.try_clone().expect("a handle").into());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        shell.write_all(b"after").expect("room");
        let whole = std::fs::read(&path).expect("it is there");
        assert!(whole == [b"before", &bundle[..], b"after"].concat(), "appended to: {appends}");
    }
    stage.serve("1gbit");
    let over_http = export(&format!("http://{}", stage.origin), Stdio::piped()).stdout;
    // Where it came from is in it, for people.
    assert_eq!(
        over_http.len().abs_diff(bundle.len()),
        tree.len().abs_diff(stage.origin.to_string().len() + 8)
    );
    let pack = std::fs::read_dir(stage.path("tree/packs")).expect("packs").flatten();
    let pack =
        pack.map(|it| it.path()).max_by_key(|it| it.metadata().map_or(0, |it| it.len())).expect("a pack");
    let mut content = std::fs::read(&pack).expect("readable");
    content[1_000] ^= 1;
    std::fs::write(&pack, content).expect("room");
    let arguments =
        ["export", "demo@1", "demo@2", "--origin", &tree, "--trust", &root, "-o", &stage.path("none")];
    let said = fail(&arguments);
    assert!(said.contains("is damaged") && said.contains("nothing was kept"), "{said}");
    assert!(!std::path::Path::new(&stage.path("none")).exists());
}

#[test]
fn what_one_version_adds_needs_the_other_or_the_wan() {
    let (mut stage, _, two, _) = stage();
    let (first, added) = (stage.path("first.bundle"), stage.path("added.bundle"));
    export(&stage, &first, &["demo@1"]);
    let exported = export(&stage, &added, &["demo@2", "--since", "1"]);
    assert!(number(&exported, "bytes") < 1_000_000, "{exported}");
    assert_eq!(exported["packages"][0]["since"], "1");
    let with = stage.agent("with", &[]);
    imported(&stage, "with", &first);
    let said = imported(&stage, "with", &added);
    assert!(number(&said["packages"][0], "held_chunks") > 10, "{said}");
    has(&with, "demo/2", &two);
    let without = stage.agent("without", &[]);
    let (said, code, error) = import(&stage, "without", &added);
    let missing = number(&said["packages"][0], "missing_bytes");
    assert_eq!(code, Some(1));
    assert!(
        missing > 2_000_000 && error.contains("are missing") && error.contains("branchline get"),
        "{error}"
    );
    let text = branchline(&["import", &added, "--state-dir", &stage.path("state-without")]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("leaves out what version 1 has"), "{text}");
    // The other way round is as good: what the first one brought is copied.
    let reverse = stage.agent("reverse", &[]);
    import(&stage, "reverse", &added);
    imported(&stage, "reverse", &first);
    has(&reverse, "demo/2", &two);
    // An ordinary flight brings the rest.
    stage.serve("1gbit");
    has(&without, "demo/2", &two);
    let it = totals(&without);
    // What comes in the moment before a client reads is not brought for it.
    assert_eq!(number(&it, "wan") + number(&it, "preloaded_wan"), missing);
    assert_eq!(number(&it, "wan") + number(&it, "local"), two.len() as u64);
}

#[test]
fn a_damaged_chunk_costs_that_chunk_and_a_cut_is_told() {
    let (stage, one, _, tools) = stage();
    let file = stage.path("stick.bundle");
    export(&stage, &file, &["demo@1", "tools"]);
    let good = std::fs::read(&file).expect("a bundle");
    let place = good.windows(64).position(|window| *window == one[1_000_000..1_000_064]).expect("as it is");
    let mut damaged = good.clone();
    damaged[place] ^= 1;
    std::fs::write(&file, damaged).expect("room");
    let agent = stage.agent("a", &[]);
    let (said, code, error) = import(&stage, "a", &file);
    assert_eq!((code, number(&said["packages"][0], "damaged_chunks")), (Some(1), 1), "{said}");
    assert_eq!(number(&said["packages"][0], "missing_chunks"), 1);
    assert_eq!(number(&said["packages"][1], "missing_chunks"), 0, "the rest is there");
    assert!(error.contains("are missing"), "{error}");
    has(&agent, "tools/1", &tools);
    // Cut: what came is kept, and the good bundle brings what is missing and nothing else.
    let cut = stage.agent("cut", &[]);
    std::fs::write(&file, &good[..good.len() / 2]).expect("room");
    let (said, code, error) = import(&stage, "cut", &file);
    assert_eq!(code, Some(1));
    assert!(error.contains("is cut") && error.contains(" % of its content"), "{error}");
    let before = number(&said, "new_bytes");
    assert!(before > 1_000_000, "{said}");
    std::fs::write(&file, &good).expect("room");
    let said = imported(&stage, "cut", &file);
    assert_eq!(number(&said, "new_bytes") + before, (one.len() + tools.len()) as u64);
    let said = imported(&stage, "a", &file);
    assert_eq!(number(&said["packages"][0], "new_chunks"), 1, "{said}");
    for agent in [&agent, &cut] {
        has(agent, "demo/1", &one);
        has(agent, "tools/1", &tools);
    }
}

#[test]
fn what_is_not_this_sites_is_refused_before_anything_is_written() {
    let (stage, ..) = stage();
    let (other, ..) = self::stage();
    let file = stage.path("other.bundle");
    export(&other, &file, &["demo@1"]);
    let _agent = stage.agent("a", &[]);
    let (_, code, error) = import(&stage, "a", &file);
    assert_eq!(code, Some(1));
    for word in
        ["not signed by this origin's keys", &other.path("tree"), "root of trust", "nothing was imported"]
    {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    let blobs = std::fs::read_dir(stage.path("state-a/blobs")).expect("a folder").count();
    assert_eq!(blobs, 0);
    for (content, word) in [
        (&b"PK\x03\x04, a zip file"[..], "this is no bundle"),
        (b"BRANCHB7 ...", "format 7"),
        (b"", "no bundle"),
    ] {
        std::fs::write(&file, content).expect("room");
        let (_, code, error) = import(&stage, "a", &file);
        assert!(code == Some(1) && error.contains(word), "{error}");
    }
    let error = fail(&["import", "/no/such/file", "--state-dir", &stage.path("state-a")]);
    assert!(error.contains("cannot open /no/such/file"), "{error}");
}

#[test]
fn an_older_catalog_rolls_nothing_back() {
    let (stage, one, ..) = stage();
    let (old, new) = (stage.path("old.bundle"), stage.path("new.bundle"));
    export(&stage, &old, &["demo@1"]);
    stage.publish("tools", "2", &noise("tools 2", 500_000));
    export(&stage, &new, &["tools@2"]);
    let agent = stage.agent("a", &[]);
    imported(&stage, "a", &new);
    let said = imported(&stage, "a", &old);
    let note = said["catalog"]["note"].as_str().expect("a note");
    assert!(note.contains("is older") && said["catalog"]["taken_over"] == false, "{said}");
    has(&agent, "demo/1", &one);
    assert!(agent.api("packages").to_string().contains("\"tools\""), "the newer catalog holds");
    has(&agent, "tools/2", &noise("tools 2", 500_000));
}

#[test]
fn a_full_cache_keeps_what_was_imported() {
    let (stage, one, _, tools) = stage();
    let file = stage.path("stick.bundle");
    export(&stage, &file, &["demo@1", "tools"]);
    let agent = stage.agent("a", &["--cache-size", "3500kB"]);
    let (said, code, error) = import(&stage, "a", &file);
    assert_eq!(code, Some(1));
    assert!(error.contains("no room for") && error.contains("what was imported is kept"), "{error}");
    assert_eq!(number(&said["packages"][0], "missing_chunks"), 0);
    assert_eq!(number(&said["packages"][1], "missing_bytes"), tools.len() as u64);
    has(&agent, "demo/1", &one);
}

/// Killed in mid-import, an agent loses nothing that was verified; members fetch it meanwhile.
#[test]
fn a_kill_in_mid_import_loses_nothing() {
    let (stage, one, ..) = stage();
    let big = noise("big", 24_000_000);
    stage.publish("big", "1", &big);
    let file = stage.path("stick.bundle");
    export(&stage, &file, &["demo@1", "big@1"]);
    let bundle = std::fs::read(&file).expect("a bundle");
    let mut agent = stage.agent("a", &[]);
    let mut importing = pipe_in(&stage, "a");
    let mut pipe = importing.stdin.take().expect("a pipe");
    let part = bundle.len() * 6 / 10;
    pipe.write_all(&bundle[..part]).expect("it reads");
    let media = |agent: &Agent| number(&agent.api("savings")["totals"], "preloaded_media");
    wait_for("most of it to be verified", || media(&agent) > part as u64 - 3_000_000);
    let neighbour = stage.agent("b", &["--peer", &agent.peer()]);
    has(&neighbour, "demo/1", &one);
    agent.process.kill();
    drop(pipe);
    let output = importing.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("what was verified is kept"), "{error}");
    let agent = stage.agent("a", &[]);
    has(&agent, "demo/1", &one);
    let said = imported(&stage, "a", &file);
    let new = number(&said, "new_bytes");
    assert!(new < (bundle.len() - part) as u64 + 3_000_000, "{new} bytes were imported again: {said}");
    has(&agent, "big/1", &big);
    assert_eq!(number(&totals(&agent), "wan_wire"), 0);
}

/// Who asks while the import is on its way gets what is there, and the rest as it comes.
#[test]
fn members_fetch_while_the_import_is_on_its_way() {
    let (stage, ..) = stage();
    let packages: Vec<(String, Vec<u8>)> =
        (0..4).map(|n| (format!("p{n}"), noise(&format!("p{n}"), 6_000_000))).collect();
    for (name, content) in &packages {
        stage.publish(name, "1", content);
    }
    let agent = stage.agent("a", &[]);
    let neighbour = stage.agent("b", &["--peer", &agent.peer()]);
    for (name, content) in &packages {
        let file = stage.path(&format!("{name}.bundle"));
        export(&stage, &file, &[&format!("{name}@1")]);
        let bundle = std::fs::read(&file).expect("a bundle");
        let mut importing = pipe_in(&stage, "a");
        let mut pipe = importing.stdin.take().expect("a pipe");
        pipe.write_all(&bundle[..bundle.len() / 2]).expect("it reads");
        wait_for("half of it", || agent.api("packages").to_string().contains(&format!("\"{name}\"")));
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| has(&neighbour, &format!("{name}/1"), content));
            std::thread::sleep(std::time::Duration::from_millis(800));
            pipe.write_all(&bundle[bundle.len() / 2..]).expect("it reads");
            drop(pipe);
            assert!(importing.wait().expect("it ends").success());
            reading.join().expect("the neighbour has it");
        });
    }
    assert_eq!(number(&totals(&neighbour), "wan_wire"), 0);
}
