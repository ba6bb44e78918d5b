//! Real `pip` and `uv` install through the agents of a site.
//!
//! They need `python3` with `venv`, and `uv`; without, each says by name that it was skipped.
//! `BRANCHLINE_CLIENTS=required` makes that a failure.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{Agent, Stage, free_port, request, wait_for};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/support/index.py");

fn is_missing(name: &str, programs: &[&[&str]]) -> bool {
    let works = |command: &&&[&str]| {
        let output = Command::new(command[0]).args(&command[1..]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(lacking) = programs.iter().find(|command| !works(command)) else { return false };
    let lacking = lacking.join(" ");
    assert!(std::env::var_os("BRANCHLINE_CLIENTS").is_none(), "{name} was skipped: it needs {lacking}");
    // Past the test runner, which shows nothing of tests that pass.
    writeln!(std::io::stderr(), "skipped on this machine: {name}: it needs {lacking}").ok();
    true
}

const PYTHON: &[&str] = &["python3", "-c", "import venv, ensurepip"];
const UV: &[&str] = &["uv", "--version"];

/// A package index, whose requests are in a log.
struct Index {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Index {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Index {
    fn start(stage: &Stage, name: &str, more: &[&str]) -> Self {
        Self::start_at(stage, free_port(), name, more)
    }

    fn start_at(stage: &Stage, address: SocketAddr, name: &str, more: &[&str]) -> Self {
        let log = stage.dir.path().join(format!("{name}.log"));
        let process = Command::new("python3")
            .args([SCRIPT, "serve", &stage.path("wheels"), &address.port().to_string()])
            .args(more)
            .stdout(std::fs::File::create(&log).expect("room"))
            .spawn()
            .expect("python3 runs");
        wait_for(name, || TcpStream::connect(address).is_ok());
        Self { process, address, log }
    }

    /// How often a request whose path has this in it was answered so.
    fn count(&self, what: &str, status: u16) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let end = format!(" {status}");
        log.lines().filter(|line| line.contains(what) && line.ends_with(&end)).count()
    }
}

fn wheel(stage: &Stage, name: &str, version: &str, more: &[&str]) {
    std::fs::create_dir_all(stage.path("wheels")).expect("room");
    let mut command = Command::new("python3");
    command.args([SCRIPT, "wheel", &stage.path("wheels"), name, version]).args(more);
    assert!(command.stdout(Stdio::null()).status().expect("python3 runs").success());
}

/// A program as on a machine where nothing is configured.
fn client(stage: &Stage, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PIP_") || name.starts_with("UV_"))
    {
        command.env_remove(name);
    }
    command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command.env("UV_NO_CONFIG", "1").env("UV_PYTHON_DOWNLOADS", "never").env("NO_PROXY", "127.0.0.1");
    command.env("HOME", stage.dir.path());
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the client runs");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{wrong}");
    output
}

fn index_url(agent: &Agent) -> String {
    format!("http://{}/pypi/main/simple/", agent.gateway)
}

/// A new virtual environment's python.
fn venv(stage: &Stage, name: &str) -> String {
    run(client(stage, "python3").args(["-m", "venv", &stage.path(name)]));
    stage.path(&format!("{name}/bin/python"))
}

fn assert_installed(stage: &Stage, python: &str) {
    let code = "import branch_app, branch_leaf; print(branch_app.version, branch_leaf.version)";
    let output = run(client(stage, python).args(["-c", code]));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "2.0 1.1");
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

fn wheels(stage: &Stage) {
    wheel(stage, "branch-leaf", "1.0", &["1000"]);
    wheel(stage, "branch-leaf", "1.1", &["3000000"]);
    wheel(stage, "branch-app", "2.0", &["700000", "branch-leaf>=1.1"]);
}

#[test]
fn pip_and_uv_install_what_crossed_once_and_outlives_its_index() {
    let name = "pip_and_uv_install_what_crossed_once_and_outlives_its_index";
    if is_missing(name, &[PYTHON, UV]) {
        return;
    }
    let stage = Stage::new("1gbit");
    wheels(&stage);
    // As with the big index: files live on another host.
    let files = Index::start(&stage, "files", &[]);
    let index = Index::start(&stage, "index", &[&format!("http://{}/files", files.address)]);
    let spec = format!("main pypi http://{}/ private-redirects=yes", index.address);
    let agents = agents(&stage, &spec, 2);
    let (pip, uv) = (venv(&stage, "pip"), venv(&stage, "uv"));
    let install = ["-m", "pip", "install", "--no-cache-dir", "--index-url"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run(client(&stage, &pip).args(install).arg(index_url(&agents[0])).arg("Branch.App"));
        });
        let with = ["pip", "install", "--no-cache", "--python", &uv, "--default-index"];
        run(client(&stage, "uv").args(with).arg(index_url(&agents[1])).arg("branch_app"));
    });
    assert_installed(&stage, &pip);
    assert_installed(&stage, &uv);
    for (wheel, times) in [("branch_app-2.0", 1), ("branch_leaf-1.1", 1), ("branch_leaf-1.0", 0)] {
        assert_eq!(files.count(&format!("{wheel}-py3-none-any.whl "), 200), times, "{wheel}");
        assert!(files.count(&format!("{wheel}-py3-none-any.whl.metadata"), 200) <= times, "{wheel}");
    }
    assert_eq!(index.count("/simple/branch-app/", 200), 1, "both like JSON");
    // All are gone, and a machine comes that has nothing.
    drop((index, files));
    let late = stage.agent("late", &["--peer", &agents[0].peer(), "--upstream", &spec]);
    wait_for("a neighbour", || late.api("status")["members"].as_u64().unwrap_or(0) >= 1);
    let python = venv(&stage, "late");
    run(client(&stage, &python).args(install).arg(index_url(&late)).arg("branch-app"));
    assert_installed(&stage, &python);
}

#[test]
fn an_index_that_wants_a_login_is_for_clients_that_have_one() {
    let name = "an_index_that_wants_a_login_is_for_clients_that_have_one";
    if is_missing(name, &[PYTHON]) {
        return;
    }
    let stage = Stage::new("1gbit");
    wheels(&stage);
    let index = Index::start(&stage, "index", &["login=ann:secret"]);
    let agents = agents(&stage, &format!("main pypi http://{}/", index.address), 2);
    let python = venv(&stage, "venv");
    let pip = |agent: &Agent, login: &str| {
        let url = index_url(agent).replace("http://", &format!("http://{login}"));
        let mut command = client(&stage, &python);
        command.args(["-m", "pip", "install", "--no-cache-dir", "--force-reinstall", "--no-input", "-q"]);
        command.args(["--index-url", &url, "branch-app"]).output().expect("pip runs")
    };
    for agent in &agents {
        let output = pip(agent, "ann:secret@");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_installed(&stage, &python);
    }
    assert_eq!(index.count(".whl 200", 200), 2, "each crossed once");
    for login in ["", "ann:guess@", "bob:secret@"] {
        assert!(!pip(&agents[0], login).status.success(), "{login}");
    }
    // A login that is good no more is noticed, though what it is for never changes.
    let ann = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    let get = |path: &str, more: &str| {
        request(agents[1].gateway, path, &format!("{ann}{more}")).expect("an answer")
    };
    let page = get("/pypi/main/simple/branch-leaf/", "").text();
    let link = page.split('"').find(|it| it.contains("branch_leaf-1.1")).expect("a link");
    let wheel = &link[link.find("/pypi/").expect("of the gateway")..];
    let wheel = wheel.split('#').next().expect("a path");
    assert_eq!(get(wheel, "").status, 200);
    let port = index.address;
    drop(index);
    let _index = Index::start_at(&stage, port, "other", &["login=ann:changed"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(get(wheel, "Cache-Control: no-cache\r\n").status, 401);
}

#[test]
fn old_pages_hashes_and_revalidation() {
    if is_missing("old_pages_hashes_and_revalidation", &[PYTHON]) {
        return;
    }
    let stage = Stage::new("1gbit");
    wheels(&stage);
    let index = Index::start(&stage, "index", &["html"]);
    let agents = agents(&stage, &format!("main pypi http://{}/ max-age=0", index.address), 2);
    let wheel = std::fs::read(stage.path("wheels/branch_leaf-1.1-py3-none-any.whl")).expect("a wheel");
    let digest = sha256(&wheel);
    std::fs::write(stage.path("pinned.txt"), format!("branch-leaf==1.1 --hash=sha256:{digest}\n"))
        .expect("room");
    let python = venv(&stage, "venv");
    for (n, agent) in agents.iter().enumerate() {
        let mut pip = client(&stage, &python);
        pip.args(["-m", "pip", "download", "--no-cache-dir", "--no-deps", "--require-hashes", "--index-url"]);
        pip.arg(index_url(agent));
        pip.args(["-r", &stage.path("pinned.txt"), "-d", &stage.path(&format!("got-{n}"))]);
        run(&mut pip);
        let got = std::fs::read(stage.path(&format!("got-{n}/branch_leaf-1.1-py3-none-any.whl")));
        assert!(got.expect("a wheel") == wheel);
        // What is past its time is checked, a second later at the earliest.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(index.count("branch_leaf-1.1-py3-none-any.whl ", 200), 1);
    assert_eq!((index.count("/simple/", 200), index.count("/simple/", 304)), (1, 1));
}

fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path at the gateway of a file that a page names.
fn link(agent: &Agent, project: &str, accept: &str) -> String {
    let path = format!("/pypi/main/simple/{project}/");
    let page = request(agent.gateway, &path, &format!("Accept: {accept}\r\n")).expect("an answer");
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.head.to_ascii_lowercase().contains("vary: accept"), "{}", page.head);
    let text = page.text();
    let start = text.find("/pypi/main/files/").expect("a file at the gateway");
    text[start..].split(['"', '#']).next().expect("an address").to_owned()
}

#[test]
fn nothing_but_what_an_index_named_and_nothing_wrong() {
    if is_missing("nothing_but_what_an_index_named_and_nothing_wrong", &[PYTHON]) {
        return;
    }
    let stage = Stage::new("1gbit");
    wheel(&stage, "branch-leaf", "1.0", &["100000"]);
    let right = std::fs::read(stage.path("wheels/branch_leaf-1.0-py3-none-any.whl")).expect("a wheel");
    let index = Index::start(&stage, "index", &[]);
    let elsewhere = Index::start(&stage, "elsewhere", &[&format!("http://{}/files", index.address)]);
    let specs =
        [format!("main pypi http://{}/", index.address), format!("else pypi http://{}/", elsewhere.address)];
    let agent = stage.agent("0", &["--upstream", &specs[0], "--upstream", &specs[1]]);
    let status = |path: &str| agent.get(path).status;
    for (path, expected) in [
        ("/pypi/main/simple/none/", 404),
        ("/pypi/main/simple/%2e%2e/", 400),
        ("/pypi/main/simple/a%2fb/", 400),
        ("/pypi/main/simple/a/b/c", 404),
        ("/pypi/main/files/branch_leaf-1.0-py3-none-any.whl", 404),
        ("/pypi/main/files/00000000000000000000000000000000/-/http/127.0.0.1:1/x.whl", 404),
        ("/pypi/other/simple/x/", 404),
        ("/npm/main/x", 404),
    ] {
        assert_eq!(status(path), expected, "{path}");
    }
    let file = link(&agent, "branch-leaf", "text/html");
    assert_eq!(file, link(&agent, "branch-leaf", "application/vnd.pypi.simple.v1+json"));
    let forged = file.replace("branch_leaf-1.0", "branch_leaf-1.1");
    assert_eq!((status(&forged), status(&file.replace("/here/", "/http/"))), (404, 404));
    // The index says one thing and the file is another: nobody gets it, and it is not kept.
    std::fs::write(stage.path("wheels/branch_leaf-1.0-py3-none-any.whl"), vec![b'x'; right.len()])
        .expect("room");
    let refused = agent.get(&file);
    assert!(
        refused.status == 502 && refused.text().contains("sha256"),
        "{} {}",
        refused.status,
        refused.text()
    );
    std::fs::write(stage.path("wheels/branch_leaf-1.0-py3-none-any.whl"), &right).expect("room");
    wait_for("the right file", || agent.get(&file).body == right);
    let described = agent.get(&format!("{file}.metadata"));
    assert!(described.text().starts_with("Metadata-Version"), "{}", described.text());
    assert_eq!(status(&format!("{file}.asc")), 404);
    // An index leads nobody into the private network, unless that is allowed.
    let path = "/pypi/else/simple/branch-leaf/";
    let page = agent.get(path).text();
    let start = page.find("/pypi/else/files/").expect("a file at the gateway");
    let inside = agent.get(page[start..].split('#').next().expect("an address"));
    // What the site holds of that digest already is handed out all the same; nobody is asked for it.
    assert!(
        inside.body == right || (inside.status == 502 && inside.text().contains("private")),
        "{}",
        inside.status
    );
    // What is no index is not passed on as one.
    let spec = format!("odd pypi http://{}/", odd_server());
    let agent = stage.agent("1", &["--upstream", &spec]);
    let odd = agent.get("/pypi/odd/simple/x/");
    assert!(
        odd.status == 502 && odd.text().contains("not what belongs there"),
        "{} {}",
        odd.status,
        odd.text()
    );
    let posted = request_with("POST", agent.gateway, "/pypi/odd/legacy/");
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
}

/// Answers everything with what looks like JSON, and is none.
fn odd_server() -> SocketAddr {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read == 0) {
                continue;
            }
            let body = "{\"files\": [{\"url\": 5}]}";
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .ok();
        }
    });
    address
}

fn request_with(method: &str, address: SocketAddr, path: &str) -> String {
    use std::io::Read;
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .ok();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok();
    text
}
