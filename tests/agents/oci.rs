//! A real registry behind the gateway, and a real client before it.
//!
//! They need `docker-registry`, `skopeo` and `htpasswd`; without, each says by name that it was skipped.
//! `BRANCHLINE_CLIENTS=required` makes that a failure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::tools::is_missing;
use crate::support::{Agent, Stage, free_port, noise, request, wait_for};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PROGRAMS: [&str; 3] = ["docker-registry", "skopeo", "htpasswd"];

/// Debian's registry; it goes with the test.
struct Registry {
    process: Child,
    address: SocketAddr,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Registry {
    fn start(dir: &Path, auth: Value) -> Self {
        let address = free_port();
        // JSON is YAML.
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.join("registry")}, "delete": {"enabled": true}},
            "http": {"addr": address.to_string()},
        });
        if !auth.is_null() {
            config["auth"] = auth;
        }
        let file = dir.join("registry.yml");
        std::fs::write(&file, config.to_string()).expect("room");
        let log = std::fs::File::create(dir.join("registry.log")).expect("a log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry runs");
        let it = Self { process, address };
        wait_for("the registry", || TcpStream::connect(address).is_ok());
        it
    }

    fn requests(dir: &Path, what: &str) -> usize {
        let log = std::fs::read_to_string(dir.join("registry.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("HTTP/1.1\"") && line.contains(what)).count()
    }
}

pub fn sum(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image of these layers, as a folder in the form that the OCI describes; returns its manifest.
fn image(dir: &Path, layers: &[Vec<u8>]) -> Vec<u8> {
    let put = |bytes: &[u8], kind: &str| {
        let digest = sum(bytes);
        let path = dir.join("blobs/sha256");
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join(&digest[7..]), bytes).expect("room");
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let kind = "application/vnd.oci.image";
    let described: Vec<Value> = layers.iter().map(|it| put(it, &format!("{kind}.layer.v1.tar"))).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|it| sum(it)).collect::<Vec<_>>()},
    });
    let config = put(config.to_string().as_bytes(), &format!("{kind}.config.v1+json"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{kind}.manifest.v1+json"), "config": config, "layers": described,
    });
    let manifest = manifest.to_string().into_bytes();
    let index =
        json!({"schemaVersion": 2, "manifests": [put(&manifest, &format!("{kind}.manifest.v1+json"))]});
    std::fs::write(dir.join("index.json"), index.to_string()).expect("room");
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("room");
    manifest
}

fn skopeo(arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new("skopeo").args(["--insecure-policy", "--tmpdir", "/tmp"]).args(arguments).output();
    let output = output.expect("skopeo runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn push(layout: &Path, to: &str, more: &[&str]) {
    let from = format!("oci:{}", layout.display());
    let to = format!("docker://{to}");
    let said = skopeo(
        &[
            &["copy", "--preserve-digests", "--dest-tls-verify=false"][..],
            more,
            &[from.as_str(), to.as_str()][..],
        ]
        .concat(),
    );
    assert!(said.is_ok(), "{said:?}");
}

/// Pulls through a gateway into a folder, and returns its layers and manifest by digest.
fn pull(agent: &Agent, image: &str, into: &Path) -> Result<(), String> {
    let (from, to) = (format!("docker://{}/{image}", agent.gateway), format!("dir:{}", into.display()));
    std::fs::create_dir_all(into).expect("a folder");
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &from, &to]).map(drop)
}

fn assert_pulled(into: &Path, manifest: &[u8], layers: &[Vec<u8>]) {
    assert!(std::fs::read(into.join("manifest.json")).expect("a manifest") == manifest);
    for layer in layers {
        let got = std::fs::read(into.join(&sum(layer)[7..])).expect("a layer");
        assert!(got == *layer, "{} bytes of {}", got.len(), layer.len());
    }
}

fn site(stage: &Stage, count: usize, more: &[&str]) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        let peer = agents.first().map(Agent::peer);
        let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
        agents.push(stage.agent(&n.to_string(), &[&peer[..], more].concat()));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == count - 1));
    agents
}

fn wan(agents: &[Agent]) -> u64 {
    let figure = |agent: &Agent| {
        let totals = agent.api("savings")["totals"].clone();
        totals["wan"].as_u64().expect("a figure") + totals["preloaded_wan"].as_u64().expect("a figure")
    };
    agents.iter().map(figure).sum()
}

fn code(answer: &crate::support::Answer) -> String {
    answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_image_crosses_once_and_outlives_its_registry() {
    if is_missing("an_image_crosses_once_and_outlives_its_registry", &PROGRAMS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let layers = [noise("layer", 21_000_000), noise("small", 40_000)];
    let manifest = image(&dir.join("layout"), &layers);
    let registry = Registry::start(dir, Value::Null);
    push(&dir.join("layout"), &format!("{}/team/app:v1", registry.address), &[]);
    push(&dir.join("layout"), &format!("{}/team/app:v2", registry.address), &[]);
    let spec = format!("corp oci http://{}", registry.address);
    let mut agents = site(&stage, 3, &["--upstream", &spec]);
    std::thread::scope(|scope| {
        for (n, agent) in agents.iter().enumerate() {
            let (manifest, layers, into) = (&manifest, &layers, dir.join(format!("pulled-{n}")));
            // With the upstream's name, and without where there is but one.
            let name = if n == 0 { "team/app:v1" } else { "corp/team/app:v1" };
            scope.spawn(move || {
                pull(agent, name, &into).expect("a pull");
                assert_pulled(&into, manifest, layers);
            });
        }
    });
    let config = serde_json::from_slice::<Value>(&manifest).expect("JSON")["config"]["size"].as_u64();
    let whole = 21_040_000 + manifest.len() as u64 + config.expect("a size");
    wait_for("the books", || wan(&agents) >= whole);
    assert_eq!(wan(&agents), whole, "one copy");
    // Another name for the same things is one object, wherever it is.
    let before = Registry::requests(dir, "/blobs/");
    pull(&agents[1], "corp/team/app:v2", &dir.join("renamed")).expect("a pull");
    assert_eq!(Registry::requests(dir, "/blobs/"), before);
    // By digest, as containerd asks for what a tag has named.
    let digest = sum(&manifest);
    let path = format!("/v2/team/app/manifests/{digest}?ns={}", registry.address);
    let answer = agents[2].get(&path);
    assert_eq!((answer.status, answer.body == manifest), (200, true), "{}", answer.text());
    assert!(answer.head.contains(&format!("docker-content-digest: {digest}")), "{}", answer.head);
    assert!(
        answer.head.contains("content-type: application/vnd.oci.image.manifest.v1+json"),
        "{}",
        answer.head
    );
    let blob = format!("/v2/corp/team/app/blobs/{}", sum(&layers[0]));
    let part = request(agents[0].gateway, &blob, "Range: bytes=20000000-20000009\r\n").expect("an answer");
    assert_eq!((part.status, &part.body[..]), (206, &layers[0][20_000_000..20_000_010]));
    // The registry is gone, and a machine comes that has nothing.
    drop(registry);
    let peer = agents[0].peer();
    agents.push(stage.agent("late", &["--peer", &peer, "--upstream", &spec]));
    for (name, into) in [("corp/team/app:v1", "late"), (&*format!("corp/team/app@{digest}"), "by-digest")] {
        pull(&agents[3], name, &dir.join(into)).expect("a pull");
        assert_pulled(&dir.join(into), &manifest, &layers);
    }
    let answer = agents[3].get("/v2/corp/team/other/manifests/v1");
    assert_eq!((answer.status, code(&answer).as_str()), (504, "UNKNOWN"));
}

#[test]
fn skopeo_goes_by_what_setup_wrote() {
    if is_missing("skopeo_goes_by_what_setup_wrote", &PROGRAMS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let layers = [noise("layer", 90_000)];
    let manifest = image(&dir.join("layout"), &layers);
    let registry = Registry::start(dir, Value::Null);
    push(&dir.join("layout"), &format!("{}/team/app:v1", registry.address), &[]);
    let spec = format!("corp oci http://{} as=hub.example", registry.address);
    let agents = site(&stage, 1, &["--upstream", &spec]);
    let (root, gateway) = (stage.path("root"), agents[0].gateway.to_string());
    let said =
        crate::support::succeed(&["setup", "podman", "--root", &root, "--gateway", &gateway, "--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let config = said["changes"][0]["path"].as_str().expect("a path");
    let into = dir.join("pulled");
    std::fs::create_dir_all(&into).expect("a folder");
    let pulled = Command::new("skopeo")
        .args(["--insecure-policy", "--tmpdir", "/tmp", "--registries-conf", config])
        .args(["copy", "--preserve-digests"])
        .args(["docker://hub.example/team/app:v1", &format!("dir:{}", into.display())])
        .output()
        .expect("skopeo runs");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    assert_pulled(&into, &manifest, &layers);
    wait_for("the books", || wan(&agents) > 90_000);
}

#[test]
fn a_tag_moves_and_lists_come_in_parts() {
    if is_missing("a_tag_moves_and_lists_come_in_parts", &PROGRAMS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let registry = Registry::start(dir, Value::Null);
    let name = format!("{}/app", registry.address);
    let old = image(&dir.join("old"), &[noise("old", 3000)]);
    let new = image(&dir.join("new"), &[noise("new", 3000)]);
    for tag in ["a", "b", "latest"] {
        push(&dir.join("old"), &format!("{name}:{tag}"), &[]);
    }
    let spec = format!("corp oci http://{} max-age=0", registry.address);
    let agents = site(&stage, 2, &["--upstream", &spec]);
    let get = |n: usize, path: &str| agents[n].get(&format!("/v2/{path}"));
    assert!(get(0, "corp/app/manifests/latest").body == old);
    // What has not changed is asked about, and does not come again.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let before = Registry::requests(dir, "\"GET /v2/app/manifests/latest");
    let answer = get(1, "corp/app/manifests/latest");
    assert!(answer.body == old && answer.head.contains("fwd-status=304"), "{}", answer.head);
    assert_eq!(Registry::requests(dir, "\"GET /v2/app/manifests/latest"), before);
    let known = request(
        agents[0].gateway,
        "/v2/app/manifests/latest",
        &format!("If-None-Match: \"{}\"\r\n", sum(&old)),
    );
    assert_eq!(known.expect("an answer").status, 304);
    push(&dir.join("new"), &format!("{name}:latest"), &[]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(get(1, "corp/app/manifests/latest").body == new);
    // Its old name is what it was.
    assert!(get(1, &format!("app/manifests/{}", sum(&old))).body == old);
    let listed = get(0, "corp/app/tags/list").json();
    let mut tags: Vec<_> =
        listed["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "latest"]);
    // What is not there, and what is not done here.
    for (path, status, says) in [
        ("", 200, ""),
        ("corp/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("corp/none/tags/list", 404, "NAME_UNKNOWN"),
        ("corp/APP/manifests/x", 400, "NAME_INVALID"),
        ("corp/app/manifests/..%2fx", 400, "NAME_INVALID"),
        ("corp/app/blobs/sha256:12", 400, "DIGEST_INVALID"),
        (&*format!("corp/app/blobs/{}", sum(b"none")), 404, "BLOB_UNKNOWN"),
        ("app/manifests/latest?ns=other.example", 404, "NAME_UNKNOWN"),
    ] {
        let answer = get(0, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.head.contains("docker-distribution-api-version: registry/2.0"), "{}", answer.head);
        assert!(says.is_empty() || code(&answer) == says, "{path}: {}", answer.text());
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let head = raw(agents[0].gateway, &format!("{method} /v2/corp/app/blobs/uploads/"));
        assert!(head.starts_with("HTTP/1.1 405") && head.contains("UNSUPPORTED"), "{head}");
    }
    // Whoever asks how large a blob is does not make it come.
    let blob = sum(&noise("new", 3000));
    let head = raw(agents[0].gateway, &format!("HEAD /v2/corp/app/blobs/{blob}"));
    assert!(head.contains("content-length: 3000") && head.contains(&blob), "{head}");
    assert_eq!(Registry::requests(dir, &format!("\"GET /v2/app/blobs/{blob}")), 0);
}

fn raw(gateway: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway).expect("the agent");
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_registry_that_wants_a_password() {
    if is_missing("a_registry_that_wants_a_password", &PROGRAMS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let auth = for_ann(dir);
    let registry = Registry::start(dir, auth);
    let layers = [noise("private", 50_000)];
    let manifest = image(&dir.join("layout"), &layers);
    push(&dir.join("layout"), &format!("{}/app:v1", registry.address), &["--dest-creds", "ann:secret"]);
    std::fs::write(dir.join("password"), "secret\n").expect("room");
    let with =
        format!("corp oci http://{} user=ann password-file={}", registry.address, stage.path("password"));
    let agents = site(&stage, 1, &["--upstream", &with]);
    pull(&agents[0], "corp/app:v1", &dir.join("pulled")).expect("a pull");
    assert_pulled(&dir.join("pulled"), &manifest, &layers);
    // A member without the password gets nothing of it, not by its digest either.
    let without = format!("corp oci http://{}", registry.address);
    let stranger = stage.agent("stranger", &["--peer", &agents[0].peer(), "--upstream", &without]);
    wait_for("the two", || stranger.api("status")["members"] == 1);
    for path in ["app/manifests/v1".to_owned(), format!("app/blobs/{}", sum(&layers[0]))] {
        let answer = stranger.get(&format!("/v2/corp/{path}"));
        assert_eq!((answer.status, code(&answer).as_str()), (401, "UNAUTHORIZED"), "{path}");
    }
    assert!(!agents[0].log().contains("secret"));
}

#[test]
fn tools_log_in_at_the_gateway_where_a_registry_wants_it() {
    let name = "tools_log_in_at_the_gateway_where_a_registry_wants_it";
    if is_missing(name, &["skopeo", "docker-registry", "htpasswd"]) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let auth = for_ann(dir);
    for name in ["corp", "open"] {
        std::fs::create_dir_all(dir.join(name)).expect("room");
    }
    let (corp, open) =
        (Registry::start(&dir.join("corp"), auth), Registry::start(&dir.join("open"), Value::Null));
    let layers = [noise("private", 3_000_000)];
    let manifest = image(&dir.join("layout"), &layers);
    push(&dir.join("layout"), &format!("{}/app:v1", corp.address), &["--dest-creds", "ann:secret"]);
    push(&dir.join("layout"), &format!("{}/other:v1", open.address), &[]);
    let with = format!("corp oci http://{} logins=yes", corp.address);
    let agents =
        site(&stage, 2, &["--upstream", &with, "--upstream", &format!("open oci http://{}", open.address)]);
    let pull = |agent: usize, image: &str, login: Option<&str>| {
        let into = dir.join(format!("pulled-{agent}-{}", image.replace('/', "-")));
        std::fs::create_dir_all(&into).expect("a folder");
        let (from, to) =
            (format!("docker://{}/{image}", agents[agent].gateway), format!("dir:{}", into.display()));
        let login: Vec<&str> = login.iter().flat_map(|login| ["--src-creds", login]).collect();
        let copy = ["copy", "--preserve-digests", "--src-tls-verify=false"];
        skopeo(&[&copy[..], &login, &[&from, &to]].concat()).map(|_| into)
    };
    for agent in [0, 1] {
        assert_pulled(&pull(agent, "corp/app:v1", Some("ann:secret")).expect("a pull"), &manifest, &layers);
    }
    wait_for("the books", || wan(&agents) >= 3_000_000);
    assert!(wan(&agents) < 3_100_000, "{}", wan(&agents));
    // What is held is no way around the login.
    for login in [None, Some("ann:guess"), Some("bob:secret")] {
        pull(0, "corp/app:v1", login).expect_err("no pull");
    }
    // Who asks for what anybody may have needs none.
    for login in [None, Some("ann:secret")] {
        assert_pulled(&pull(0, "open/other:v1", login).expect("a pull"), &manifest, &layers);
    }
    for (login, status) in [("YW5uOnNlY3JldA==", 200), ("Ym9iOmd1ZXNz", 401)] {
        let answer = request(agents[0].gateway, "/v2/token", &format!("Authorization: Basic {login}\r\n"));
        assert_eq!(answer.expect("an answer").status, status, "{login}");
    }
    let answer = request(agents[0].gateway, "/v2/", "Authorization: Bearer old\r\n").expect("an answer");
    assert!(answer.status == 401 && answer.head.contains("/v2/token\""), "{}", answer.head);
    assert!(agents.iter().all(|agent| !agent.log().contains("secret")));
}

/// A registry's settings that let in ann, whose password is "secret".
fn for_ann(dir: &Path) -> Value {
    let users = Command::new("htpasswd").args(["-Bbn", "ann", "secret"]).output().expect("htpasswd runs");
    std::fs::write(dir.join("users"), users.stdout).expect("room");
    json!({"htpasswd": {"realm": "here", "path": dir.join("users")}})
}

/// What a registry with tokens has seen.
#[derive(Default)]
pub struct Seen {
    pub tokens: AtomicUsize,
}

/// A registry that wants a token for each repository, and keeps its blobs elsewhere; `realm` is where it
/// says that tokens are.
pub fn with_tokens(elsewhere: SocketAddr, realm: Option<&'static str>) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let note = seen.clone();
    let address = serve(move |address, request, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let sent = |text: &str| request.to_ascii_lowercase().contains(&text.to_ascii_lowercase());
        if path.starts_with("/token") {
            note.tokens.fetch_add(1, Ordering::SeqCst);
            let right = sent("authorization: Basic YW5uOnNlY3JldA==")
                && path.contains("service=the+registry&scope=repository%3Aapp%3Apull");
            return match right {
                true => reply(stream, "200 OK", "", br#"{"token":"good","expires_in":300}"#),
                false => reply(stream, "403 Forbidden", "", b""),
            };
        }
        if !sent("authorization: Bearer good") {
            let realm = realm.map_or(format!("http://{address}/token"), str::to_owned);
            let more = "service=\"the registry\",scope=\"repository:app:pull\"";
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",{more}\r\n");
            return reply(stream, "401 Unauthorized", &challenge, b"");
        }
        match path {
            "/v2/app/tags/list?n=1" => {
                let link = "Link: </v2/app/tags/list?n=1&last=a>; rel=\"next\"\r\n";
                reply(stream, "200 OK", link, br#"{"name":"app","tags":["a"]}"#);
            }
            "/v2/app/manifests/lies" => {
                let told = format!("Docker-Content-Digest: {}\r\n", sum(b"something else"));
                reply(stream, "200 OK", &told, b"{}");
            }
            path if path.contains("/referrers/") => {
                let more = "OCI-Filters-Applied: artifactType\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n";
                reply(stream, "200 OK", more, format!("{{\"manifests\":[],\"path\":\"{path}\"}}").as_bytes());
            }
            path if path.contains("/blobs/") => {
                let to = format!("Location: http://{elsewhere}/signed?key=x\r\n");
                reply(stream, "307 Temporary Redirect", &to, b"");
            }
            _ => reply(stream, "404 Not Found", "", b""),
        }
    });
    (address, seen)
}

#[test]
fn tokens_are_asked_for_once_and_go_nowhere_else() {
    let stage = Stage::new("1gbit");
    let blob = noise("blob", 600_000);
    let (body, leaked) = (blob.clone(), Arc::new(AtomicUsize::new(0)));
    let leaks = leaked.clone();
    let elsewhere = serve(move |_, request, stream| {
        leaks.fetch_add(request.to_ascii_lowercase().contains("authorization").into(), Ordering::SeqCst);
        reply(stream, "200 OK", "", &body);
    });
    std::fs::write(stage.path("password"), "secret\n").expect("room");
    let credentials = format!("user=ann password-file={}", stage.path("password"));
    let (good, seen) = with_tokens(elsewhere, None);
    // The admin's password would go to whoever this one names.
    let (thief, _) = with_tokens(elsewhere, Some("http://169.254.169.254/token"));
    let specs = [
        format!("good oci http://{good} {credentials} private-redirects=yes"),
        format!("thief oci http://{thief} {credentials}"),
        format!("odd oci http://{good} {credentials} private-redirects=yes max-age=0"),
    ];
    let flags: Vec<&str> = specs.iter().flat_map(|spec| ["--upstream", spec]).collect();
    let agents = site(&stage, 2, &flags);
    let get = |n: usize, path: &str| agents[n].get(&format!("/v2/{path}"));
    let answer = get(0, &format!("good/app/blobs/{}", sum(&blob)));
    assert!(answer.status == 200 && answer.body == blob, "{} {}", answer.status, answer.text());
    assert!(!answer.head.contains("key=x") && !answer.head.contains("location"), "{}", answer.head);
    let list = get(0, "good/app/tags/list?n=1");
    assert_eq!(list.json()["tags"], json!(["a"]));
    let next = "link: </v2/good/app/tags/list?n=1&last=a>; rel=\"next\"";
    assert!(list.head.contains(next), "{}", list.head);
    let path = format!("good/app/referrers/{}?artifactType=x/y", sum(b""));
    let referrers = get(0, &path);
    assert_eq!(referrers.json()["path"], format!("/v2/{}", &path[5..]));
    assert!(referrers.head.contains("oci-filters-applied: artifactType"), "{}", referrers.head);
    // Each node that asks has its token, and keeps it.
    assert!((1..=2).contains(&seen.tokens.load(Ordering::SeqCst)));
    assert_eq!(leaked.load(Ordering::SeqCst), 0);
    let refused = get(0, "thief/app/manifests/x");
    assert_eq!((refused.status, code(&refused).as_str()), (502, "UNKNOWN"), "{}", refused.text());
    assert!(refused.text().contains("private network"), "{}", refused.text());
    // What is not what its name says reaches nobody, and is not kept.
    for _ in 0..2 {
        // It is told, or cut off; of a connection that is reset not even the header may be left.
        let answer = request(agents[1].gateway, &format!("/v2/odd/app/blobs/{}", sum(b"another")), "");
        let short = |answer: &crate::support::Answer| answer.status == 502 || answer.body.len() < blob.len();
        assert!(answer.as_ref().is_none_or(short), "{:?}", answer.map(|it| it.status));
        let answer = get(1, "odd/app/manifests/lies");
        assert_eq!((answer.status, code(&answer).as_str()), (502, "UNKNOWN"), "{}", answer.text());
    }
    assert!(!agents.iter().any(|it| it.log().contains("secret") || it.log().contains("YW5u")));
}

pub fn serve(answer: impl Fn(SocketAddr, &str, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                answer(address, &String::from_utf8_lossy(&head), &mut stream);
            });
        }
    });
    address
}

pub fn reply(stream: &mut TcpStream, status: &str, more: &str, body: &[u8]) {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
    stream.write_all(head.as_bytes()).ok();
    stream.write_all(body).ok();
}

#[test]
fn a_layer_behind_a_hub_comes_as_what_has_changed() {
    if is_missing("a layer behind a hub", &PROGRAMS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let dir = stage.dir.path();
    let registry = Registry::start(dir, Value::Null);
    let spec = format!("corp oci http://{} default=yes", registry.address);
    let hub = stage.agent("hub", &["--role", "hub", "--upstream", &spec]);
    let spec = format!("corp oci http://{} hub=yes max-age=0", hub.gateway);
    let agents = site(&stage, 2, &["--upstream", &spec]);
    let layer = |version| crate::recipes::package(version);
    let crossed =
        || agents.iter().map(|it| it.api("savings")["totals"]["wan_chunks"].as_u64().expect("a figure"));
    let mut totals: Vec<u64> = Vec::new();
    for version in [1, 2] {
        let (layout, layers) = (dir.join(format!("layout-{version}")), [layer(version)]);
        std::fs::create_dir_all(&layout).expect("room");
        let manifest = image(&layout, &layers);
        push(&layout, &format!("{}/team/app:v{version}", registry.address), &[]);
        for (number, agent) in agents.iter().enumerate() {
            let into = dir.join(format!("pulled-{version}-{number}"));
            pull(agent, &format!("corp/team/app:v{version}"), &into).expect("pulled");
            assert_pulled(&into, &manifest, &layers);
        }
        totals.push(crossed().sum());
    }
    let (upgrade, length) = (totals[1] - totals[0], layer(2).len() as u64);
    assert!(upgrade * 10 < length, "{upgrade} of {length}");
}
