//! Foreign files through the agents of a site, from a real web server and from hostile ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Agent, Stage, assert_balanced, noise, request, wait_for};

/// A site whose upstream `files` is this server.
pub fn site(stage: &Stage, count: usize, upstream: SocketAddr) -> Vec<Agent> {
    let spec = format!("files http http://{upstream}/");
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        let peer = agents.first().map(Agent::peer);
        let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
        agents.push(stage.agent(&n.to_string(), &[&peer, &["--upstream", &spec][..]].concat()));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == count - 1));
    agents
}

pub fn wan(agents: &[Agent]) -> u64 {
    let totals = |agent: &Agent| agent.api("savings")["totals"].clone();
    agents
        .iter()
        .map(totals)
        .map(|it| it["wan"].as_u64().expect("a figure") + it["preloaded_wan"].as_u64().expect("a figure"))
        .sum()
}

#[test]
fn a_file_crosses_once_for_all_and_outlives_its_server() {
    // The origin's own web server serves any file of its tree.
    let mut stage = Stage::new("1gbit");
    let (upstream, content) = (stage.origin, noise("upstream", 9_000_000));
    std::fs::write(stage.path("tree/installer.bin"), &content).expect("room");
    let mut agents = site(&stage, 3, upstream);
    std::thread::scope(|scope| {
        for agent in &agents {
            let content = &content;
            scope.spawn(move || {
                let answer = agent.get("/http/files/installer.bin");
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.body == *content, "{} bytes", answer.body.len());
            });
        }
    });
    wait_for("the books", || wan(&agents) >= 9_000_000);
    assert_eq!(wan(&agents), 9_000_000, "one copy");
    for agent in &agents {
        let savings = agent.api("savings");
        assert_balanced(&savings);
        assert_eq!(savings["totals"]["delivered"], 9_000_000);
        let (wire, content) = (&savings["totals"]["wan_wire"], &savings["totals"]["wan_chunks"]);
        assert!(wire.as_u64() >= content.as_u64() && *content == savings["totals"]["wan"], "{savings}");
        assert_eq!(savings["totals"]["local"], 0, "{}", savings["totals"]);
    }
    // What is asked for again is not even checked, as long as it is fresh.
    let answer = agents[1].get("/http/files/installer.bin");
    assert!(answer.head.contains("cache-status: branchline; hit"), "{}", answer.head);
    let part = request(agents[2].gateway, "/http/files/installer.bin", "Range: bytes=300000-300009\r\n");
    let part = part.expect("an answer");
    assert_eq!((part.status, &part.body[..]), (206, &content[300_000..300_010]));
    // Its server is gone, and a machine comes that has nothing.
    stage.server = None;
    let peer = agents[0].peer();
    let spec = format!("files http http://{upstream}/");
    agents.push(stage.agent("late", &["--peer", &peer, "--upstream", &spec]));
    let answer = agents[3].get("/http/files/installer.bin");
    assert!(answer.status == 200 && answer.body == content, "{} {}", answer.status, answer.head);
    let answer = agents[3].get("/http/files/other.bin");
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("cannot be reached"), "{}", answer.text());
    assert_eq!(agents[0].get("/http/other/x").status, 404);
    assert_eq!(agents[0].get("/http/files/a/..%2fb").status, 400);
}

/// A server that answers what it is told to, and counts its requests.
pub fn hostile(
    answer: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, answer) = (count.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer, seen) = (stream, answer.clone(), seen.clone()) else { return };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                answer(&head, seen.fetch_add(1, Ordering::SeqCst), &mut stream);
            });
        }
    });
    (address, count)
}

pub fn head(stream: &mut TcpStream, status: &str, length: usize, more: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).ok();
}

#[test]
fn what_breaks_off_is_taken_up_where_it_was() {
    let stage = Stage::new("1gbit");
    let content = Arc::new(noise("broken", 3_000_000));
    let sent = content.clone();
    let (upstream, count) = hostile(move |request, number, stream| {
        let from = request.split("bytes=").nth(1).and_then(|it| it.split('-').next()?.parse::<usize>().ok());
        let rest = &sent[from.unwrap_or(0)..];
        let range = format!(
            "ETag: \"one\"\r\nContent-Range: bytes {}-{}/{}\r\n",
            from.unwrap_or(0),
            sent.len() - 1,
            sent.len()
        );
        match from {
            Some(_) => head(stream, "206 Partial Content", rest.len(), &range),
            None => head(stream, "200 OK", rest.len(), "ETag: \"one\"\r\n"),
        }
        // Twice it closes early.
        let end = if number < 2 { rest.len() / 2 } else { rest.len() };
        stream.write_all(&rest[..end]).ok();
    });
    let agents = site(&stage, 2, upstream);
    let answer = agents[0].get("/http/files/x");
    assert!(answer.status == 200 && answer.body == *content, "{} {}", answer.status, answer.body.len());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(wan(&agents), 3_000_000, "no byte twice");
    assert!(agents[1].get("/http/files/x").body == *content);
}

#[test]
fn liars_and_tricksters_get_nothing_kept() {
    let stage = Stage::new("1gbit");
    let (upstream, count) = hostile(|request, number, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        match path.as_str() {
            "/loop" => head(stream, "302 Found", 0, "Location: /loop\r\n"),
            "/inside" => head(stream, "302 Found", 0, "Location: http://169.254.169.254/latest\r\n"),
            "/file" => head(stream, "302 Found", 0, "Location: file:///etc/passwd\r\n"),
            "/none" => head(stream, "404 Not Found", 0, ""),
            "/secret" => head(stream, "401 Unauthorized", 0, ""),
            "/headers" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").ok();
                while stream.write_all(b"X-Endless: headers\r\n").is_ok() {}
            }
            "/changes" => {
                let body = vec![number as u8; 600_000];
                let more = format!("ETag: \"{number}\"\r\n");
                head(stream, "200 OK", body.len(), &more);
                stream.write_all(&body[..400_000]).ok();
                std::thread::sleep(Duration::from_millis(100));
            }
            _ => head(stream, "500 Trouble", 0, ""),
        }
    });
    let agents = site(&stage, 2, upstream);
    let get = |n: usize, path: &str| agents[n].get(&format!("/http/files/{path}"));
    for (path, status, says) in [
        ("loop", 502, "too often"),
        ("inside", 502, "private network"),
        ("file", 502, "no web address"),
        ("none", 404, "404"),
        ("secret", 401, "401"),
        ("headers", 504, "cannot be reached"),
        ("other", 502, "500"),
    ] {
        let answer = get(0, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    // What is not there is not asked for again and again, by nobody of the site.
    let before = count.load(Ordering::SeqCst);
    for n in [0, 1, 0, 1] {
        assert_eq!(get(n, "none").status, 404);
    }
    assert!(count.load(Ordering::SeqCst) <= before + 1);
    // A file that is replaced in mid-transfer is handed to nobody as a mixture.
    let answer = request(agents[0].gateway, "/http/files/changes", "");
    let body = answer.map(|answer| answer.body).unwrap_or_default();
    assert!(body.len() < 600_000, "{} bytes", body.len());
    assert!(body.windows(2).all(|pair| pair[0] == pair[1]), "a mixture");
}

#[test]
fn what_a_client_asks_for_next_is_brought_while_it_waits() {
    let stage = Stage::new("1gbit");
    let asked = Arc::new(AtomicUsize::new(0));
    let (arrived, refused) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    let late = refused.clone();
    let (upstream, _) = hostile(move |request, _, stream| {
        // No answer before the last of the four has come: who asks for one after the other gets none.
        arrived.fetch_add(1, Ordering::SeqCst);
        let mut patience = 200;
        while arrived.load(Ordering::SeqCst) < 4 && patience > 0 {
            std::thread::sleep(Duration::from_millis(50));
            patience -= 1;
        }
        late.fetch_add(usize::from(patience == 0), Ordering::SeqCst);
        let path = request.split(' ').nth(1).unwrap_or_default();
        head(stream, "200 OK", path.len(), "");
        stream.write_all(path.as_bytes()).ok();
    });
    let agent = stage.agent("0", &["--upstream", &format!("lab apt http://{upstream}/")]);
    let mut stream = TcpStream::connect(agent.gateway).expect("the agent");
    let paths = ["a", "b", "c", "d"].map(|name| format!("/pool/{name}.deb"));
    let last = |n: usize| if n == 3 { "Connection: close\r\n" } else { "" };
    for (n, path) in paths.iter().enumerate() {
        write!(stream, "GET /apt/lab{path} HTTP/1.1\r\nHost: test\r\n{}\r\n", last(n)).expect("sent");
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    let places: Vec<_> = paths.iter().map(|path| answers.find(path.as_str())).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "in their order: {answers}");
    assert_eq!((asked.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (4, 0));
}

#[test]
fn texts_cross_the_wan_compressed_and_files_as_they_are() {
    let stage = Stage::new("1gbit");
    let text = b"an index names the same things again and again\n".repeat(9000);
    let sent = text.clone();
    let (upstream, count) = hostile(move |request, n, stream| {
        let asked = request.to_ascii_lowercase();
        if !asked.contains("accept-encoding: gzip") {
            head(stream, "200 OK", sent.len(), "");
            stream.write_all(&sent).ok();
            return;
        }
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&sent).expect("memory");
        let packed = packer.finish().expect("memory");
        let more = "Content-Encoding: gzip\r\nETag: W/\"1\"\r\nCache-Control: max-age=60\r\n";
        head(stream, "200 OK", packed.len(), more);
        // The first answer breaks off, and whoever asks again is given all of it.
        let end = if n == 0 { packed.len() / 2 } else { packed.len() };
        stream.write_all(&packed[..end]).ok();
    });
    let agents = site(&stage, 2, upstream);
    for agent in &agents {
        let answer = agent.get("/http/files/index.html");
        assert!(answer.status == 200 && answer.body == text, "{}: {}", answer.status, answer.head);
        assert!(!answer.head.contains("content-encoding"), "{}", answer.head);
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let spec = format!("lab apt http://{upstream}/");
    let other = stage.agent("other", &["--upstream", &spec]);
    let answer = other.get("/apt/lab/pool/a.deb");
    assert!(answer.status == 200 && answer.body == text, "{}: {}", answer.status, answer.head);
}
