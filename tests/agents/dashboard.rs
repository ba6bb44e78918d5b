//! What the dashboard stands on: the site as one node sees it, its health, and events as they happen.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Agent, Stage, noise, request, wait_for};
use serde_json::Value;

fn site(stage: &Stage) -> Vec<Agent> {
    let mut agents = vec![stage.agent("0", &["--role", "seed"])];
    let peer = agents[0].peer();
    agents.push(stage.agent("1", &["--peer", &peer]));
    agents.push(stage.agent("2", &["--peer", &peer, "--role", "leech"]));
    for agent in &agents {
        wait_for("the mesh", || agent.api("peers").as_array().map_or(0, Vec::len) == 2);
    }
    agents
}

/// Events, as they come.
struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    fn open(gateway: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(gateway).expect("the gateway");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: test\r\n\r\n").expect("asked");
        Self { lines: BufReader::new(stream) }
    }

    /// The next line; none at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("within 20 s");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event of this name.
    fn next(&mut self, name: &str) -> Value {
        loop {
            if self.line().expect("the stream goes on") == format!("event: {name}") {
                let line = self.line().expect("the stream goes on");
                let data = line.strip_prefix("data: ").expect("an event has data");
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }
}

#[test]
fn the_site_is_seen_whole_from_each_of_its_nodes() {
    let stage = Stage::new("400mbit");
    stage.publish("demo", "1", &noise("one", 1_000_000));
    stage.publish("demo", "2", &noise("two", 300_000));
    let agents = site(&stage);
    for agent in &agents {
        assert_eq!(agent.get("/packages/demo/1").status, 200);
    }
    assert_eq!(agents[2].get("/packages/demo/2").status, 200);
    let rows = |site: &Value, list: &str| site[list].as_array().expect("a list").clone();
    for agent in &agents {
        // What was asked a moment ago is not asked again.
        let mut whole = Value::Null;
        wait_for("the inventory", || {
            whole = agent.api("site");
            whole["packages"][0]["complete"] == 3 && whole["packages"][1]["complete"] == 2
        });
        let nodes = rows(&whole, "nodes");
        assert_eq!((nodes.len(), &whole["site"], &whole["unanswered"][0]), (3, &"test".into(), &Value::Null));
        assert_eq!(nodes.iter().filter(|node| node["me"] == true).count(), 1);
        assert_eq!(nodes[0]["node"], agent.api("status")["node"], "this node first");
        assert!(nodes[1..].iter().all(|node| node["hub"] == true && node["uptime_s"].is_u64()), "{whole}");
        let mut roles: Vec<_> = nodes.iter().filter_map(|node| node["role"].as_str()).collect();
        roles.sort_unstable();
        assert_eq!(roles, ["leech", "normal", "seed"]);
        let [one, two] = &rows(&whole, "packages")[..] else { panic!("{whole}") };
        assert_eq!(
            (&one["package"], &one["survives"], &one["size"]),
            (&"demo@1".into(), &1.into(), &1_000_000.into())
        );
        // Whoever pulled it for the leech holds it too; the leech's own is no help to others.
        assert_eq!((&two["channels"][0], &two["survives"]), (&"stable".into(), &0.into()), "{two}");
    }
}

#[test]
fn health_names_each_fault_once() {
    let mut stage = Stage::new("400mbit");
    stage.publish("demo", "1", &noise("one", 100_000));
    let far = "/ip4/127.0.0.1/tcp/9";
    let agent = stage.agent("0", &["--peer", far]);
    let ids = |agent: &Agent| -> Vec<String> {
        let health = agent.api("health");
        let faults = health["faults"].as_array().expect("a list").clone();
        for fault in &faults {
            for part in ["title", "cause", "effect", "remedy"] {
                assert!(fault[part].as_str().is_some_and(|text| text.len() > 5), "{fault}");
            }
        }
        faults.iter().filter_map(|fault| Some(fault["id"].as_str()?.to_owned())).collect()
    };
    wait_for("the catalog", || agent.api("status")["catalog"]["version"] != 0);
    assert_eq!(ids(&agent), ["alone"]);
    stage.server = None;
    wait_for("a failed check", || {
        agent.get("/packages/none/1");
        ids(&agent) == ["catalog_not_refreshed", "alone"] || ids(&agent) == ["alone", "catalog_not_refreshed"]
    });
    assert_eq!(agent.get("/healthz").status, 200, "that is about this node's start alone");
}

#[test]
fn a_flight_is_told_as_it_fills_and_an_open_stream_does_not_keep_the_agent() {
    let stage = Stage::new("8mbit");
    let content = noise("slow", 2_000_000);
    stage.publish("demo", "1", &content);
    let mut agent = stage.agent("0", &[]);
    let mut events = Events::open(agent.gateway);
    let status = events.next("status");
    assert_eq!((&status["ready"], &status["catalog"]["age_s"]), (&true.into(), &Value::Null), "{status}");
    assert_eq!(events.next("flights"), serde_json::json!([]));
    let gateway = agent.gateway;
    let client =
        std::thread::spawn(move || request(gateway, "/packages/demo/1", "").expect("an answer").body);
    let (mut shares, mut rates) = (Vec::new(), 0);
    loop {
        let flights = events.next("flights");
        let Some(flight) = flights.get(0) else { break };
        assert_eq!((&flight["package"], &flight["followers"]), (&"demo@1".into(), &0.into()));
        rates += usize::from(flight["rate"].as_u64().is_some_and(|rate| rate > 100_000));
        let filled = flight["filled"].as_array().expect("parts");
        assert!(filled.len() <= 100 && filled.iter().all(|part| part.as_u64().is_some_and(|it| it <= 100)));
        shares.push(flight["bytes"].as_u64().expect("a figure"));
    }
    assert!(shares.len() >= 3 && shares.is_sorted() && rates >= 2, "{shares:?}, {rates}");
    assert!(client.join().expect("it ends") == content);
    // Two requests at a time are still served, and the end comes in time.
    let begun = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&agent.process.0),
        rustix::process::Signal::TERM,
    )
    .expect("it runs");
    let code = agent.process.0.wait().expect("it ends");
    assert!(code.success() && begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    while events.line().is_some() {}
}

#[test]
fn too_many_who_watch_are_told_so() {
    let stage = Stage::new("400mbit");
    let agent = stage.agent("0", &[]);
    let most = branchline::node::report::MOST_WATCHERS;
    let mut open: Vec<Events> = (0..most).map(|_| Events::open(agent.gateway)).collect();
    open.iter_mut().for_each(|events| drop(events.next("status")));
    let refused = agent.get("/api/v1/events");
    assert!(refused.status == 503 && refused.text().contains("/api/v1/flights"), "{}", refused.text());
    open.clear();
    wait_for("places", || {
        let mut events = Events::open(agent.gateway);
        events.line().is_some_and(|line| line.contains("200"))
    });
}

#[test]
fn the_page_is_served_with_a_policy_and_sent_again_only_when_it_changed() {
    let stage = Stage::new("400mbit");
    let agent = stage.agent("0", &[]);
    for (path, kind) in
        [("/", "text/html"), ("/assets/app.js", "text/javascript"), ("/assets/style.css", "text/css")]
    {
        let answer = agent.get(path);
        let header = |name: &str| {
            let line = answer.head.lines().find(|line| line.starts_with(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("{path}: no {name}"))
                .split_once(": ")
                .expect("a header")
                .1
                .to_owned()
        };
        assert_eq!(answer.status, 200, "{path}");
        assert!(header("content-type").starts_with(kind));
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (header("x-content-type-options"), header("referrer-policy")),
            ("nosniff".into(), "no-referrer".into())
        );
        let again = request(agent.gateway, path, &format!("If-None-Match: {}\r\n", header("etag")));
        assert_eq!(again.expect("an answer").status, 304, "{path}");
    }
    for path in ["/assets/", "/assets/..%2fmod.rs", "/assets/none.js"] {
        assert_eq!(agent.get(path).status, 404, "{path}");
    }
}
