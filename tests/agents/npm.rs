//! Real `npm` installs through the agents of a site, from a real registry: verdaccio.
//!
//! They need `npm`, and verdaccio in the folder that `BRANCHLINE_VERDACCIO` names (`npm install --prefix FOLDER
//! verdaccio`) or on the path; without, each says by name that it was skipped. `BRANCHLINE_CLIENTS=required`
//! makes that a failure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use crate::support::tools::{self, Nginx};
use crate::support::{Agent, Stage, free_port, noise, request, wait_for};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sha2::Digest as _;

fn verdaccio() -> PathBuf {
    let prefix = std::env::var_os("BRANCHLINE_VERDACCIO").map(PathBuf::from);
    prefix.map_or_else(|| "verdaccio".into(), |prefix| prefix.join("node_modules/.bin/verdaccio"))
}

fn is_missing(name: &str) -> bool {
    let works = |program: PathBuf| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let lacking = match (works("npm".into()), works(verdaccio())) {
        (true, true) => return false,
        (true, false) => "verdaccio",
        (false, _) => "npm",
    };
    assert!(std::env::var_os("BRANCHLINE_CLIENTS").is_none(), "{name} was skipped: it needs {lacking}");
    // Past the test runner, which shows nothing of tests that pass.
    writeln!(std::io::stderr(), "skipped on this machine: {name}: it needs {lacking}").ok();
    true
}

/// A registry, whose requests are in a log.
struct Registry {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

const CONFIG: &str = "storage: ./storage\nuplinks: {}\nweb: { enable: false }\nmax_body_size: 100mb\n\
    packages:\n  '**': { access: $all, publish: $all, unpublish: $all }\n\
    log: { type: stdout, format: json, level: http }\n";

impl Registry {
    fn start(stage: &Stage) -> Self {
        let (address, log) = (free_port(), stage.dir.path().join("verdaccio.log"));
        std::fs::write(stage.path("verdaccio.yaml"), CONFIG).expect("room");
        let process = Command::new(verdaccio())
            .args(["-c", &stage.path("verdaccio.yaml"), "-l", &address.to_string()])
            .env("HOME", stage.dir.path())
            .stdout(std::fs::File::create(&log).expect("room"))
            .spawn()
            .expect("verdaccio runs");
        wait_for("verdaccio", || request(address, "/-/ping", "").is_some_and(|it| it.status == 200));
        Self { process, address, log }
    }

    /// How often a path that ends so was answered so.
    fn count(&self, end: &str, status: u16) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fits = |line: &Value| {
            let url = line["request"]["url"].as_str().unwrap_or_default();
            // One line before the answer has begun, and one when it has ended.
            let ended = line["bytes"]["out"] != 0;
            line["request"]["method"] == "GET" && url.ends_with(end) && line["status"] == status && ended
        };
        lines.filter(fits).count()
    }

    fn publish(&self, stage: &Stage, name: &str, version: &str, size: usize, needs: Value) {
        let folder = stage.dir.path().join(format!("publish/{}-{version}", name.replace('/', "-")));
        std::fs::create_dir_all(&folder).expect("room");
        let about = json!({"name": name, "version": version, "main": "index.js", "dependencies": needs});
        std::fs::write(folder.join("package.json"), about.to_string()).expect("room");
        std::fs::write(folder.join("index.js"), format!("module.exports = '{version}';\n")).expect("room");
        std::fs::write(folder.join("noise.bin"), noise(&format!("{name}{version}"), size)).expect("room");
        let registry = format!("http://{}/", self.address);
        // Anybody may publish here, but npm wants to send something.
        std::fs::write(folder.join(".npmrc"), format!("//{}/:_authToken=anybody\n", self.address))
            .expect("room");
        run(npm(stage).args(["publish", "--access", "public", "--registry", &registry]).current_dir(&folder));
    }
}

/// npm as on a machine where nothing is configured.
fn npm(stage: &Stage) -> Command {
    let mut command = Command::new("npm");
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_lowercase().starts_with("npm_")) {
        command.env_remove(name);
    }
    command.env("HOME", stage.dir.path()).env("NO_PROXY", "127.0.0.1").env("NO_UPDATE_NOTIFIER", "1");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the client runs");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{wrong}");
    output
}

fn install(stage: &Stage, agent: &Agent, name: &str, what: &[&str]) {
    let folder = stage.dir.path().join(name);
    std::fs::create_dir_all(&folder).expect("room");
    std::fs::write(folder.join("package.json"), "{\"name\": \"it\", \"private\": true}").expect("room");
    let registry = format!("http://{}/npm/main/", agent.gateway);
    let cache = stage.path(&format!("cache-{name}"));
    // As people call it: with the audit, to which there is no answer here.
    run(npm(stage)
        .args(["install", "--registry", &registry, "--cache", &cache])
        .args(what)
        .current_dir(&folder));
    let code = "process.stdout.write([require('@branch/app'), require('branch-leaf')].join(' '))";
    let used = run(Command::new("node").args(["-e", code]).current_dir(&folder));
    assert_eq!(String::from_utf8_lossy(&used.stdout), "2.0.0 1.1.0");
    let lock = std::fs::read_to_string(folder.join("package-lock.json")).expect("a lock file");
    assert!(lock.contains("/npm/main/-/files/") && lock.contains("sha512-"), "{lock}");
}

fn agents(stage: &Stage, spec: &str, count: usize) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        let peer = agents.first().map(Agent::peer);
        let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
        agents.push(stage.agent(&n.to_string(), &[&peer, &["--upstream", spec][..]].concat()));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == count - 1));
    agents
}

#[test]
fn npm_installs_what_crossed_once_and_outlives_its_registry() {
    if is_missing("npm_installs_what_crossed_once_and_outlives_its_registry") {
        return;
    }
    let stage = Stage::new("1gbit");
    let registry = Registry::start(&stage);
    registry.publish(&stage, "branch-leaf", "1.0.0", 1000, json!({}));
    registry.publish(&stage, "branch-leaf", "1.1.0", 2_000_000, json!({}));
    registry.publish(&stage, "@branch/app", "2.0.0", 600_000, json!({"branch-leaf": "^1.0.0"}));
    let spec = format!("main npm http://{}/", registry.address);
    let agents = agents(&stage, &spec, 2);
    std::thread::scope(|scope| {
        for (n, agent) in agents.iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || install(stage, agent, &format!("project-{n}"), &["@branch/app"]));
        }
    });
    for (end, times) in [("leaf-1.1.0.tgz", 1), ("app-2.0.0.tgz", 1), ("leaf-1.0.0.tgz", 0)] {
        assert_eq!(registry.count(end, 200), times, "{end}");
    }
    assert_eq!(registry.count("/@branch%2fapp", 200), 1, "what it says of a package");
    let get = |path: &str| agents[1].get(&format!("/npm/main/{path}"));
    assert_eq!(get("-/ping").text(), "{}");
    assert_eq!(get("-/package/@branch%2fapp/dist-tags").json(), json!({"latest": "2.0.0"}));
    let version = get("@branch/app/latest").json();
    let tarball = version["dist"]["tarball"].as_str().expect("an address");
    assert!(tarball.starts_with("http://test/npm/main/-/files/"), "{tarball}");
    // As an older lock file has it.
    let plain = get("@branch%2fapp/-/app-2.0.0.tgz");
    let path = tarball.strip_prefix("http://test/npm/main/").expect("at the gateway");
    assert!(plain.status == 200 && plain.body == get(path).body && !plain.body.is_empty());
    // It is gone, and a machine comes that has nothing.
    drop(registry);
    let late = stage.agent("late", &["--peer", &agents[0].peer(), "--upstream", &spec]);
    wait_for("a neighbour", || late.api("status")["members"].as_u64().unwrap_or(0) >= 1);
    install(&stage, &late, "project-late", &["@branch/app"]);
}

/// Answers by path, with what is wrong in some way; tarballs are five bytes.
fn hostile() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let said = |dist: Value| json!({"versions": {"1.0.0": {"dist": dist}}}).to_string();
            let integrity = "sha512-".to_owned() + &"A".repeat(86) + "==";
            let body = match path {
                "/lies" => {
                    said(json!({"tarball": format!("http://{address}/x.tgz"), "integrity": integrity}))
                }
                "/inside" => said(json!({"tarball": "http://127.0.0.2:1/x.tgz"})),
                "/odd" => said(json!({"tarball": ["x"], "integrity": 5, "shasum": {}})),
                "/page" => "<html>a login</html>".to_owned(),
                _ => "bytes".to_owned(),
            };
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .ok();
        }
    });
    address
}

#[test]
fn nothing_but_what_a_registry_named_and_nothing_wrong() {
    let stage = Stage::new("1gbit");
    let agent = stage.agent("0", &["--upstream", &format!("main npm http://{}/", hostile())]);
    let get = |path: &str| agent.get(&format!("/npm/main/{path}"));
    for (path, status) in [
        ("page", 502),
        ("odd", 200),
        ("-/v1/search?text=x", 404),
        ("-/files/00000000000000000000000000000000/-/https/example.com/x.tgz", 404),
        ("@s%2f..%2f..%2fx", 400),
        ("a%2fb", 400),
        ("../x", 400),
        ("https:/example.com/x", 404),
    ] {
        let answer = get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let tarball = |package: &str| {
        let said = get(package).json();
        let address = said["versions"]["1.0.0"]["dist"]["tarball"].as_str().expect("an address").to_owned();
        get(address.strip_prefix("http://test/npm/main/").expect("at the gateway"))
    };
    let (lies, inside) = (tarball("lies"), tarball("inside"));
    assert!(lies.status == 502 && lies.text().contains("sha512"), "{} {}", lies.status, lies.text());
    assert!(inside.status == 502 && inside.text().contains("private"), "{} {}", inside.status, inside.text());
    assert_eq!(agent.api("savings")["totals"]["delivered"].as_u64().map(|it| it > 5000), Some(false));
    let mut stream = TcpStream::connect(agent.gateway).expect("it listens");
    let audit = "/npm/main/-/npm/v1/security/advisories/bulk";
    write!(stream, "POST {audit} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
        .ok();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok();
    assert!(text.starts_with("HTTP/1.1 405") && text.contains("audit"), "{text}");
}

#[test]
fn a_private_registry_is_for_machines_that_have_its_token() {
    if tools::is_missing("npm::a_private_registry_is_for_machines_that_have_its_token", &["npm", "nginx"]) {
        return;
    }
    let stage = Stage::new("1gbit");
    let root = stage.dir.path().join("www");
    std::fs::create_dir_all(&root).expect("room");
    let nginx = Nginx::guarded(&stage.dir.path().join("nginx"), &root, "Bearer of-ann");
    let source = stage.dir.path().join("source");
    std::fs::create_dir_all(&source).expect("room");
    let about = json!({"name": "branch-leaf", "version": "1.0.0"});
    std::fs::write(source.join("package.json"), about.to_string()).expect("room");
    std::fs::write(source.join("noise.bin"), noise("leaf", 1_000_000)).expect("room");
    run(npm(&stage).arg("pack").arg("--pack-destination").arg(&root).current_dir(&source));
    let made = std::fs::read(root.join("branch-leaf-1.0.0.tgz")).expect("packed");
    let integrity = format!("sha512-{}", BASE64_STANDARD.encode(sha2::Sha512::digest(made)));
    let tarball = format!("http://{}/branch-leaf-1.0.0.tgz", nginx.address);
    let version = json!({"name": "branch-leaf", "version": "1.0.0",
        "dist": {"tarball": tarball, "integrity": integrity}});
    let packument =
        json!({"name": "branch-leaf", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}});
    std::fs::write(root.join("branch-leaf"), packument.to_string()).expect("room");
    let agents = agents(&stage, &format!("main npm http://{}/", nginx.address), 2);
    let install = |agent: &Agent, name: &str, token: &str| {
        let folder = stage.dir.path().join(name);
        std::fs::create_dir_all(&folder).expect("room");
        std::fs::write(folder.join("package.json"), "{\"name\": \"it\", \"private\": true}").expect("room");
        let registry = format!("//{}/npm/main/", agent.gateway);
        std::fs::write(
            folder.join(".npmrc"),
            format!("registry=http:{registry}\n{registry}:_authToken={token}\n"),
        )
        .expect("room");
        let cache = stage.path(&format!("cache-{name}"));
        let done = npm(&stage)
            .args(["install", "--no-audit", "--no-fund", "--cache", &cache, "branch-leaf"])
            .current_dir(&folder)
            .output()
            .expect("npm runs");
        (done, folder.join("node_modules/branch-leaf/noise.bin"))
    };
    for (n, agent) in agents.iter().enumerate() {
        let (done, file) = install(agent, &format!("m{n}"), "of-ann");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(std::fs::read(file).expect("installed") == noise("leaf", 1_000_000));
    }
    let asked = nginx.asked();
    let count = |line: &str| asked.iter().filter(|it| *it == line).count();
    assert_eq!(count("200 /branch-leaf-1.0.0.tgz"), 1, "one copy for both: {asked:?}");
    let (done, _) = install(&agents[0], "wrong", "of-bob");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("E401"), "{said}");
    assert!(agents.iter().all(|agent| !agent.log().contains("of-ann")));
}
