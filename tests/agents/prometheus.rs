//! A real Prometheus scrapes real agents, and one of them pushes to it.
//!
//! They need `prometheus` and `promtool`; without, each says by name that it was skipped.
//! `BRANCHLINE_PROMETHEUS=required` makes that a failure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Agent, Stage, free_port, noise, request, wait_for};
use serde_json::Value;

fn is_missing(name: &str) -> bool {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if there("prometheus") && there("promtool") {
        return false;
    }
    assert!(std::env::var_os("BRANCHLINE_PROMETHEUS").is_none(), "{name} was skipped: no prometheus");
    // Past the test runner, which shows nothing of tests that pass.
    writeln!(std::io::stderr(), "skipped on this machine: {name}: it needs prometheus and promtool").ok();
    true
}

fn deploy(path: &str) -> String {
    format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn promtool(arguments: &[&str], input: &str) {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    tool.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("promtool ends");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{wrong}");
}

#[test]
fn promtool_finds_nothing_wrong() {
    if is_missing("promtool_finds_nothing_wrong") {
        return;
    }
    let (recording, alerts) =
        (deploy("prometheus/rules/recording.yml"), deploy("prometheus/rules/alerts.yml"));
    promtool(&["check", "rules", &recording, &alerts], "");
    promtool(&["test", "rules", &deploy("prometheus/tests/alerts.yml")], "");
    promtool(&["check", "config", &deploy("prometheus/prometheus.yml")], "");
    let stage = Stage::new("1gbit");
    let agent = stage.agent("0", &[]);
    promtool(&["check", "metrics"], &agent.get("/metrics").text());
}

struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Prometheus {
    /// One that scrapes these, and looks at the rules each second.
    fn start(dir: &Path, agents: &[SocketAddr]) -> Self {
        let rules = ["recording", "alerts"].map(|name| {
            let text =
                std::fs::read_to_string(deploy(&format!("prometheus/rules/{name}.yml"))).expect("rules");
            let path = dir.join(format!("{name}.yml"));
            std::fs::write(&path, text.replace("interval: 1m", "interval: 1s")).expect("room");
            path.display().to_string()
        });
        let targets: Vec<String> = agents.iter().map(|agent| format!("'{agent}'")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
             - job_name: branchline\n  static_configs: [{{targets: [{}]}}]\n",
            rules.join("', '"),
            targets.join(", "),
        );
        let (file, address) = (dir.join("prometheus.yml"), free_port());
        std::fs::write(&file, config).expect("room");
        let log = std::fs::File::create(dir.join("prometheus.log")).expect("room");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stderr(log)
            .spawn()
            .expect("prometheus runs");
        let it = Self { process, address };
        wait_for("prometheus", || {
            request(address, "/-/ready", "").is_some_and(|answer| answer.status == 200)
        });
        it
    }

    /// The samples that a query gives.
    fn query(&self, query: &str) -> Vec<Value> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let escaped: String = query
            .bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        let answer = request(self.address, &format!("/api/v1/query?query={escaped}"), "").expect("an answer");
        let answer = answer.json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The only value that a query gives.
    fn value(&self, query: &str) -> Option<f64> {
        match &self.query(query)[..] {
            [one] => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    fn wait_for(&self, query: &str, value: f64) {
        wait_for(&format!("{query} = {value}"), || self.value(query) == Some(value));
    }
}

fn fetch(agent: &Agent, path: &str, right: &[u8]) {
    let answer = agent.get(path);
    assert!(answer.status == 200 && answer.body == right, "{}", answer.status);
}

/// The figure of the row that says what pushing took.
fn pushed(agent: &Agent, figure: &str) -> u64 {
    let savings = agent.api("savings");
    let rows = savings["rows"].as_array().cloned().unwrap_or_default();
    rows.iter().find(|row| row["package"] == "(push)").and_then(|row| row[figure].as_u64()).unwrap_or(0)
}

/// What a dashboard asks, for one site and all packages.
fn asked(board: &str) -> Vec<String> {
    let text = std::fs::read_to_string(deploy(&format!("grafana/{board}.json"))).expect("a dashboard");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().cloned().unwrap_or_default();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let queries = targets.filter_map(|target| Some(target["expr"].as_str()?.to_owned()));
    let fill = |query: String| {
        query.replace("$site", "test").replace("$package", ".*").replace("$__rate_interval", "5m")
    };
    queries.map(fill).collect()
}

#[test]
fn a_real_prometheus_scrapes_and_is_pushed_to() {
    if is_missing("a_real_prometheus_scrapes_and_is_pushed_to") {
        return;
    }
    let stage = Stage::new("200mbit");
    let (first, second) = (noise("v1", 3_000_000), noise("v2", 1_000_000));
    stage.publish("demo", "1", &first);
    let gateways = [free_port(), free_port()];
    let prometheus = Prometheus::start(stage.dir.path(), &gateways);
    let url = format!("http://{}/api/v1/write", prometheus.address);
    let start = |name: &str, gateway: SocketAddr, more: &[&str]| {
        let gateway = gateway.to_string();
        let fixed = ["--gateway", &gateway, "--push-url", &url, "--push-interval", "5"];
        stage.launch(name, free_port(), gateway.parse().expect("its own"), &[&fixed, more].concat())
    };
    let one = start("0", gateways[0], &["--role", "seed"]);
    let two = start("1", gateways[1], &["--peer", &one.peer()]);
    prometheus.wait_for("count(up{job='branchline'} == 1)", 2.0);
    prometheus.wait_for("max(branchline_site_nodes)", 2.0);
    // Content that moves after both ways are there.
    [&one, &two].into_iter().for_each(|agent| fetch(agent, "/packages/demo/1", &first));
    let both = 2.0 * first.len() as f64;
    prometheus.wait_for("sum(branchline_delivered_bytes_total)", both);
    prometheus.wait_for("sum(branchline_site_delivered_bytes_total)", both);
    prometheus.wait_for("sum(branchline_site_wan_content_bytes_total{site='test'})", first.len() as f64);
    prometheus.wait_for("branchline_site_package_day_delivered_bytes{package='demo'}", both);
    prometheus.wait_for("site:branchline_seeds{site='test'}", 1.0);
    prometheus.wait_for("count(ALERTS{alertname='BranchlineNoSavings'}) or vector(0)", 0.0);
    let recorded =
        || prometheus.value("site:branchline_delivered_bytes:increase1d").is_some_and(|it| it > 1e6);
    wait_for("the recorded rule", recorded);
    // The node that pushes has it in its books, as what it is.
    let pushers = prometheus.query("count by (pusher) (branchline_site_nodes)");
    assert_eq!(pushers.len(), 1, "{pushers:?}");
    let (lost, left) = match pushers[0]["metric"]["pusher"] == one.api("status")["node"] {
        true => (one, two),
        false => (two, one),
    };
    wait_for("the booked push", || pushed(&lost, "wan_wire") > 0);
    let by_reason = lost.api("savings?by=reason");
    assert!(by_reason.to_string().contains("\"push\""), "{by_reason}");
    // The other may have pushed before the two met, and does no more.
    let quiet = pushed(&left, "wan_sent");
    let figures = || ["wan_sent", "wan_wire", "wan_headers"].map(|figure| pushed(&lost, figure));
    let before = figures();
    wait_for("another push", || figures()[1] > before[1]);
    assert_eq!(pushed(&left, "wan_sent"), quiet);
    let [sent, read, headers] = figures();
    println!(
        "one push: {} bytes sent, headers and all; {} read, and {} of headers",
        sent - before[0],
        read - before[1],
        headers - before[2],
    );
    // It goes, and the other takes over: what was counted is not counted again.
    drop(lost);
    stage.publish("demo", "2", &second);
    prometheus.wait_for("count(branchline_site_nodes)", 2.0);
    fetch(&left, "/packages/demo/2", &second);
    prometheus.wait_for("sum(branchline_site_delivered_bytes_total)", both + second.len() as f64);
    let rules = request(prometheus.address, "/api/v1/rules", "").expect("an answer").json();
    for group in rules["data"]["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
    for query in ["fleet", "site", "package"].iter().flat_map(|board| asked(board)) {
        prometheus.query(&query);
    }
}

/// Is in trouble for so many requests, then takes them; returns their heads.
fn receiver(listener: TcpListener, trouble: usize) -> std::sync::mpsc::Receiver<String> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            stream.set_read_timeout(Some(Duration::from_millis(300))).ok();
            let mut came = Vec::new();
            let mut buffer = [0; 65536];
            // A request is over when no more comes: they are small.
            while let Ok(more @ 1..) = stream.read(&mut buffer) {
                came.extend_from_slice(&buffer[..more]);
            }
            let status = if count < trouble { "503 Service Unavailable" } else { "204 No Content" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
            let end = came.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or(came.len());
            if tell.send(String::from_utf8_lossy(&came[..end]).to_ascii_lowercase()).is_err() {
                break;
            }
        }
    });
    told
}

#[test]
fn a_receiver_in_trouble_is_mentioned_once_and_the_token_never() {
    let stage = Stage::new("1gbit");
    std::fs::write(stage.path("token"), "verysecret\n").expect("room");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/api/v1/write?key=alsosecret", listener.local_addr().expect("bound"));
    let told = receiver(listener, 4);
    let more = ["--push-url", &url, "--push-interval", "5", "--push-token-file", &stage.path("token")];
    let agent = stage.agent("0", &more);
    for _ in 0..5 {
        let head = told.recv_timeout(Duration::from_secs(30)).expect("a push");
        assert!(head.contains("authorization: bearer verysecret"), "{head}");
        assert!(head.contains("x-prometheus-remote-write-version: 0.1.0"), "{head}");
        assert!(head.contains("content-encoding: snappy"), "{head}");
    }
    wait_for("the good news", || agent.log().contains("are pushed again"));
    let log = agent.log();
    assert_eq!(log.matches("could not be pushed").count(), 1, "{log}");
    assert!(!log.contains("secret"), "{log}");
    let refused = crate::support::branchline(&["agent", "--push-url", "http://user:word@x/y"]);
    assert!(!refused.status.success());
}
