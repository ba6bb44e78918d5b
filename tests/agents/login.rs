//! A client's own login at an upstream: it is sent there alone, and what it brings is for those who have it.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::oci;
use crate::support::{Agent, Answer, Stage, noise, request, wait_for};
use crate::upstream::{head, hostile, site, wan};

const ANN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
const BOB: &str = "Authorization: Basic Ym9iOmd1ZXNz\r\n";

fn get(agent: &Agent, path: &str, login: &str) -> Answer {
    request(agent.gateway, &format!("/http/files/{path}"), login).expect("an answer")
}

#[test]
fn a_private_file_is_for_those_who_may_have_it() {
    let stage = Stage::new("1gbit");
    let content = |path: &str| noise(path.trim_start_matches('/'), 3_000_000);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let (server, _) = hostile(move |request, _, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let login = request.lines().find_map(|line| {
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        });
        let login = login.map_or(String::new(), |(_, login)| login.to_owned());
        let may = path == "/public" || login == "Basic YW5uOnNlY3JldA==";
        seen.lock().expect("no panic").push((path.clone(), login, may));
        match path.as_str() {
            // Some hide what is private.
            "/hidden" if !may => head(stream, "404 Not Found", 0, ""),
            _ if !may => head(stream, "401 Unauthorized", 0, "WWW-Authenticate: Basic realm=\"x\"\r\n"),
            _ => {
                let content = content(&path);
                head(stream, "200 OK", content.len(), "ETag: \"one\"\r\nCache-Control: max-age=600\r\n");
                stream.write_all(&content).ok();
            }
        }
    });
    let mut agents = site(&stage, 3, server);
    let granted =
        |path: &str| asked.lock().expect("no panic").iter().filter(|(it, _, may)| it == path && *may).count();
    for path in ["private", "hidden"] {
        std::thread::scope(|scope| {
            for agent in &agents[..2] {
                scope.spawn(move || {
                    let answer = get(agent, path, ANN);
                    assert!(
                        answer.status == 200 && answer.body == content(path),
                        "{} {}",
                        answer.status,
                        answer.text()
                    );
                });
            }
        });
    }
    assert_eq!((granted("/private"), granted("/hidden")), (1, 1), "one copy for both");
    // The third is their member and has no such login, or another one.
    for login in ["", BOB] {
        for (agent, path, status) in [(0, "private", 401), (2, "private", 401), (2, "hidden", 404)] {
            let answer = get(&agents[agent], path, login);
            assert_eq!(answer.status, status, "{agent} {path} {login}");
            assert_eq!(answer.head.contains("www-authenticate: Basic"), status == 401, "{}", answer.head);
        }
    }
    // What anybody may have is shared by all, with a login or without, which is not even sent.
    for (agent, login) in agents.iter().zip([ANN, "", BOB]) {
        assert!(get(agent, "public", login).body == content("public"));
    }
    assert_eq!(granted("/public"), 1);
    let public = |(path, login, _): &&(String, String, bool)| path == "/public" && !login.is_empty();
    assert_eq!(asked.lock().expect("no panic").iter().filter(public).count(), 0);
    wait_for("the books", || wan(&agents) >= 9_000_000);
    assert_eq!(wan(&agents), 9_000_000);
    // Who comes later and has the login gets it from the site.
    let upstream = format!("files http http://{server}/");
    agents.push(stage.agent("late", &["--peer", &agents[0].peer(), "--upstream", &upstream]));
    wait_for("its members", || agents[3].api("peers").as_array().is_some_and(|peers| peers.len() == 3));
    assert!(get(&agents[3], "private", ANN).body == content("private"));
    assert_eq!((granted("/private"), wan(&agents)), (1, 9_000_000));
    assert!(agents.iter().all(|agent| !agent.log().contains("YW5u") && !agent.log().contains("secret")));
}

#[test]
fn the_first_that_has_a_login_brings_it_for_those_who_come_next() {
    let stage = Stage::new("1gbit");
    let content = |path: &str| noise(path.trim_start_matches('/'), 2_000_000);
    let (server, _) = hostile(move |request, _, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        if !request.contains("Basic YW5uOnNlY3JldA==") {
            return head(stream, "401 Unauthorized", 0, "");
        }
        let content = content(&path);
        head(stream, "200 OK", content.len(), "ETag: \"one\"\r\n");
        for piece in content.chunks(100_000) {
            stream.write_all(piece).ok();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let agents = site(&stage, 4, server);
    // Whoever ranks best for them, some come to it after others.
    let paths = ["a", "b", "c", "d"];
    for path in paths {
        std::thread::scope(|scope| {
            for (n, agent) in agents.iter().enumerate() {
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(120 * n as u64));
                    let answer = get(agent, path, ANN);
                    assert!(answer.status == 200 && answer.body == content(path), "{}", answer.status);
                });
            }
        });
    }
    let whole = paths.len() as u64 * 2_000_000;
    wait_for("the books", || wan(&agents) >= whole);
    assert_eq!(wan(&agents), whole, "each crossed once");
}

#[test]
fn a_configured_login_stands_before_a_clients() {
    let stage = Stage::new("1gbit");
    let (server, count) = hostile(|request, _, stream| {
        let may = request.contains("Basic YW5uOnNlY3JldA==");
        head(stream, if may { "200 OK" } else { "403 Forbidden" }, 0, "");
    });
    std::fs::write(stage.path("password"), "secret\n").expect("room");
    let upstream = format!("files http http://{server}/ user=ann password-file={}", stage.path("password"));
    let agent = stage.agent("only", &["--upstream", &upstream]);
    assert_eq!(get(&agent, "x", BOB).status, 200);
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_registry_with_tokens_of_its_own_takes_a_clients_login() {
    let stage = Stage::new("1gbit");
    let blob = noise("private layer", 600_000);
    let (body, brought) = (blob.clone(), Arc::new(AtomicUsize::new(0)));
    let count = brought.clone();
    let elsewhere = oci::serve(move |_, _, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        oci::reply(stream, "200 OK", "", &body);
    });
    let (registry, seen) = oci::with_tokens(elsewhere, None);
    let spec = format!("corp oci http://{registry} logins=yes private-redirects=yes");
    let first = stage.agent("0", &["--upstream", &spec]);
    let agents = [stage.agent("1", &["--peer", &first.peer(), "--upstream", &spec]), first];
    wait_for("both", || agents.iter().all(|it| it.api("status")["members"] == 1));
    let path = format!("/v2/corp/app/blobs/{}", oci::sum(&blob));
    let pull = |agent: &Agent, login: &str| request(agent.gateway, &path, login).expect("an answer");
    for agent in &agents {
        // As the tools do: a token of the gateway for the login, and the token with each question.
        let token = request(agent.gateway, "/v2/token", ANN).expect("an answer").json();
        let bearer = format!("Authorization: Bearer {}\r\n", token["token"].as_str().expect("a token"));
        let answer = pull(agent, &bearer);
        assert!(answer.status == 200 && answer.body == blob, "{} {}", answer.status, answer.text());
    }
    assert_eq!(brought.load(Ordering::SeqCst), 1, "one copy for both");
    let answer = pull(&agents[0], "");
    assert!(answer.status == 401 && answer.head.contains("/v2/token\""), "where to log in: {}", answer.head);
    assert_eq!(pull(&agents[1], BOB).status, 403, "as the registry says of him");
    assert!(seen.tokens.load(Ordering::SeqCst) >= 1);
    assert!(agents.iter().all(|agent| !agent.log().contains("YW5u") && !agent.log().contains("good")));
}
