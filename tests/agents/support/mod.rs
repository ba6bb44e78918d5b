//! A site on the loopback interface, of real processes, for tests of whole features.

#![allow(dead_code, reason = "each test uses its part")]

pub mod tools;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound")
}

pub fn branchline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_branchline")).args(arguments).output().expect("the program runs")
}

pub fn succeed(arguments: &[&str]) -> String {
    let output = branchline(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The error of a command that must fail.
pub fn fail(arguments: &[&str]) -> String {
    let output = branchline(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?} should fail");
    String::from_utf8(output.stderr).expect("text")
}

/// A process that dies with the test.
pub struct Process(pub Child);

impl Process {
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::start_within(&Surroundings::default(), arguments, log)
    }

    pub fn start_within(around: &Surroundings, arguments: &[&str], log: &Path) -> Self {
        let log = std::fs::File::options().append(true).create(true).open(log).expect("a log");
        let program = env!("CARGO_BIN_EXE_branchline");
        let mut command = match &around.tracer[..] {
            [] => Command::new(program),
            [tracer, options @ ..] => {
                let mut command = Command::new(tracer);
                command.args(options).arg(program);
                command
            }
        };
        let child = command
            .args(arguments)
            .envs(around.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        Self(child.expect("the program runs"))
    }

    pub fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// One request; whatever has come when the line breaks is returned.
pub fn request(address: SocketAddr, path: &str, headers: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(150))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let raw = bytes[end + 4..].to_vec();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some(Answer { status, head, body: if chunked { unchunk(&raw) } else { raw } })
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(&String::from_utf8_lossy(&raw[..end]), 16).unwrap_or(0);
        if length == 0 || raw.len() < end + 2 + length {
            break;
        }
        body.extend(&raw[end + 2..end + 2 + length]);
        raw = &raw[(end + 4 + length).min(raw.len())..];
    }
    body
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An origin, its keys, a site key, and agents.
pub struct Stage {
    pub dir: tempfile::TempDir,
    pub origin: SocketAddr,
    pub server: Option<Process>,
    /// Of agents that are started from now on.
    pub around: Surroundings,
}

/// What is made of a process's system.
#[derive(Default)]
pub struct Surroundings {
    /// What runs it, with its options.
    pub tracer: Vec<String>,
    pub environment: Vec<(&'static str, PathBuf)>,
}

pub struct Agent {
    pub process: Process,
    pub gateway: SocketAddr,
    pub listen: SocketAddr,
    pub log: PathBuf,
}

impl Stage {
    /// A new origin, served at this rate.
    pub fn new(limit: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut stage = Self { dir, origin: free_port(), server: None, around: Surroundings::default() };
        succeed(&["origin", "init", "--root", &stage.path("tree"), "--keys", &stage.path("keys")]);
        succeed(&["site", "keygen", &stage.path("site.key")]);
        stage.serve(limit);
        stage
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("text").to_owned()
    }

    pub fn serve(&mut self, limit: &str) {
        let listen = self.origin.to_string();
        let arguments =
            ["origin", "serve", "--root", &self.path("tree"), "--listen", &listen, "--limit", limit];
        self.server = Some(Process::start(&arguments, &self.dir.path().join("origin.log")));
        let origin = self.origin;
        wait_for("the origin", || TcpStream::connect(origin).is_ok());
    }

    pub fn publish(&self, name: &str, version: &str, content: &[u8]) -> Value {
        let file = self.path(&format!("payload-{name}-{version}"));
        std::fs::write(&file, content).expect("room");
        let arguments = [
            "publish",
            &file,
            "--name",
            name,
            "--version",
            version,
            "--channel",
            "stable",
            "--json",
            "--origin",
            &self.path("tree"),
            "--keys",
            &self.path("keys"),
        ];
        serde_json::from_str(&succeed(&arguments)).expect("a receipt")
    }

    /// Starts an agent and waits until it is ready.
    pub fn agent(&self, name: &str, more: &[&str]) -> Agent {
        self.agent_without(&[], name, more)
    }

    /// The same, without flags that others are given.
    pub fn agent_without(&self, without: &[&str], name: &str, more: &[&str]) -> Agent {
        let agent = self.launch_without(without, name, (free_port(), free_port()), more);
        let gateway = agent.gateway;
        wait_for(&format!("agent {name}"), || {
            request(gateway, "/healthz", "").is_some_and(|answer| answer.status == 200)
        });
        agent
    }

    pub fn launch(&self, name: &str, listen: SocketAddr, gateway: SocketAddr, more: &[&str]) -> Agent {
        self.launch_without(&[], name, (listen, gateway), more)
    }

    fn launch_without(
        &self,
        without: &[&str],
        name: &str,
        (listen, gateway): (SocketAddr, SocketAddr),
        more: &[&str],
    ) -> Agent {
        let log = self.dir.path().join(format!("{name}.log"));
        let origin = format!("http://{}", self.origin);
        let (listen_text, gateway_text) = (listen.to_string(), gateway.to_string());
        let (key, root) = (self.path("site.key"), self.path("tree/catalog/root.json"));
        let state = self.path(&format!("state-{name}"));
        let (reserve, often) = ("0".to_owned(), "1".to_owned());
        let mut arguments = vec!["agent", "--site", "test", "--no-mdns"];
        // What a test gives stands in the place of these.
        for (flag, value) in [
            ("--listen", &listen_text),
            ("--gateway", &gateway_text),
            ("--origin", &origin),
            ("--site-key", &key),
            ("--trust", &root),
            ("--state-dir", &state),
            ("--disk-reserve", &reserve),
            ("--catalog-interval", &often),
        ] {
            if !more.contains(&flag) && !without.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(more);
        Agent { process: Process::start_within(&self.around, &arguments, &log), gateway, listen, log }
    }
}

impl Agent {
    pub fn get(&self, path: &str) -> Answer {
        request(self.gateway, path, "").expect("the agent answers")
    }

    pub fn api(&self, path: &str) -> Value {
        self.get(&format!("/api/v1/{path}")).json()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The multiaddr for others' `--peer`.
    pub fn peer(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.listen.port())
    }
}

/// Every row of a ledger balances.
pub fn assert_balanced(savings: &Value) {
    let rows = savings["rows"].as_array().expect("rows");
    for row in rows.iter().chain([&savings["totals"]]) {
        let figure = |name: &str| row[name].as_u64().expect("a figure");
        assert_eq!(figure("delivered"), figure("wan") + figure("peer") + figure("local"), "{row}");
    }
}
