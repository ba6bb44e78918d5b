//! WAN windows with real agents: a schedule for the whole site, closed and open, urgent, and a month.

use std::time::{Duration, Instant};

use crate::support::{Agent, Stage, branchline, fail, noise, request, succeed, wait_for};
use jiff::{ToSpan, Zoned};

/// Two agents that know each other.
fn pair(stage: &Stage) -> [Agent; 2] {
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    let agents = [first, second];
    for agent in &agents {
        wait_for("the mesh", || agent.api("peers").as_array().is_some_and(|peers| peers.len() == 1));
    }
    agents
}

/// A schedule that is closed now, and opens in two hours.
fn closed() -> String {
    let now = Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let (from, to) = (&now + 2.hours(), &now + 3.hours());
    format!(
        "zone = 'UTC'\n[[window]]\nname = 'later'\nhours = '{}-{}'\nforeground = 'unlimited'\n\
         [outside]\nforeground = 'none'\n",
        from.strftime("%H:%M"),
        to.strftime("%H:%M")
    )
}

fn give(stage: &Stage, schedule: &str) -> String {
    let file = stage.path("schedule.toml");
    std::fs::write(&file, schedule).expect("room");
    succeed(&["wan", "schedule", &file, "--state-dir", &stage.path("state-0")])
}

fn order(stage: &Stage, words: &[&str]) -> String {
    succeed(&[&["wan"], words, &["--state-dir", &stage.path("state-1")]].concat())
}

fn bound(agents: &[Agent], foreground: u64) {
    for agent in agents {
        wait_for("the schedule", || agent.api("status")["wan"]["foreground"] == foreground);
    }
}

fn crossed(agents: &[Agent]) -> u64 {
    let wire = |agent: &Agent| agent.api("savings")["totals"]["wan_wire"].as_u64().expect("a figure");
    agents.iter().map(wire).sum()
}

#[test]
fn a_schedule_is_checked_before_anybody_hears_of_it() {
    let stage = Stage::new("400mbit");
    let agents = pair(&stage);
    let file = stage.path("bad.toml");
    for (text, says) in [
        ("zone = 'Europe/Lisabon'", "did you mean Europe/Lisbon"),
        ("zone = 'UTC'\n[[window]]\nname = 'x'\nhours = '08:00-08:00'\nforeground = '1mbit'", "never opens"),
        (
            "zone = 'UTC'\n[[window]]\nname = 'a'\nhours = '08:00-10:00'\nforeground = '1mbit'\n\
             [[window]]\nname = 'b'\nhours = '09:00-11:00'\nforeground = '2mbit'",
            "\"a\" and \"b\" overlap on mon 09:00-10:00",
        ),
    ] {
        std::fs::write(&file, text).expect("room");
        let error = fail(&["wan", "schedule", &file, "--state-dir", &stage.path("state-0")]);
        assert!(error.contains("is refused") && error.contains(says), "{error}");
    }
    assert_eq!(agents[0].api("wan")["bound"], false);
    let said = give(&stage, &closed());
    assert!(said.contains("now") && said.contains("closed") && said.contains("window \"later\""), "{said}");
    bound(&agents, 0);
    let shown = order(&stage, &["show"]);
    assert!(shown.contains("closed") && shown.contains("[[window]]"), "{shown}");
    order(&stage, &["clear"]);
    wait_for("the end of it", || order(&stage, &["show"]).contains("no schedule"));
}

#[test]
fn a_closed_wan_is_said_and_what_is_held_is_served() {
    let stage = Stage::new("400mbit");
    let (held, lacking) = (noise("held", 500_000), noise("lacking", 500_000));
    stage.publish("held", "1", &held);
    stage.publish("lacking", "1", &lacking);
    stage.publish("other", "1", &noise("other", 300_000));
    let agents = pair(&stage);
    assert!(agents[0].get("/packages/held/1").body == held);
    give(&stage, &closed());
    bound(&agents, 0);
    let before = crossed(&agents);
    assert!(agents[1].get("/packages/held/1").body == held, "from the neighbour");
    let begun = Instant::now();
    let refused = agents[1].get("/packages/lacking/1");
    assert!(begun.elapsed() < Duration::from_secs(60), "not the patience of an open WAN");
    assert_eq!(refused.status, 503, "{}", refused.text());
    let says = "(outside of all windows); what the site holds is served; --urgent overrides";
    assert!(refused.text().starts_with("the WAN is closed until ") && refused.text().contains(says));
    let retry = refused.head.to_lowercase();
    let retry = retry.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("when to try again");
    assert!((3600..7300).contains(&retry.trim().parse::<u64>().expect("seconds")), "{retry}");
    let gateway = agents[1].gateway.to_string();
    let target = stage.path("out");
    let error = fail(&["get", "lacking", "-o", &target, "--gateway", &gateway]);
    assert!(error.contains(says), "{error}");
    let taken = crossed(&agents) - before;
    assert!(taken < 20_000, "nothing but the catalog crosses: {taken}");
    // Urgent goes through, and leaves the others where they are.
    succeed(&["get", "lacking", "-o", &target, "--urgent", "--gateway", &gateway]);
    assert!(std::fs::read(&target).expect("there") == lacking);
    assert_eq!(agents[0].get("/packages/other/1").status, 503);
    let urgent = request(agents[0].gateway, "/packages/other/1", "Priority: u=0\r\n").expect("an answer");
    assert_eq!((urgent.status, urgent.body.len()), (200, 300_000));
}

#[test]
fn who_waits_is_served_when_an_admin_opens_the_wan() {
    let stage = Stage::new("400mbit");
    let content = noise("awaited", 400_000);
    stage.publish("awaited", "1", &content);
    let agents = pair(&stage);
    give(&stage, &closed());
    bound(&agents, 0);
    let (gateway, target) = (agents[0].gateway.to_string(), stage.path("out"));
    let output = std::thread::scope(|scope| {
        let get = || branchline(&["get", "awaited", "-o", &target, "--wait", "--gateway", &gateway]);
        let waiting = scope.spawn(get);
        // Longer than a stalled origin would be given.
        std::thread::sleep(Duration::from_secs(9));
        assert!(!waiting.is_finished(), "it waits");
        order(&stage, &["open", "--for", "1h"]);
        waiting.join().expect("it ends")
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("waiting until it opens"), "{said}");
    assert!(std::fs::read(&target).expect("there") == content);
    let wan = agents[0].api("status")["wan"].clone();
    assert_eq!((&wan["order"]["kind"], &wan["foreground"]), (&"open_foreground".into(), &().into()), "{wan}");
    assert_eq!(wan["background"], 0, "{wan}");
    order(&stage, &["close"]);
    bound(&agents, 0);
}

#[test]
fn who_has_got_a_part_when_the_wan_closes_is_told() {
    let stage = Stage::new("2mbit");
    stage.publish("long", "1", &noise("long", 4_000_000));
    let agents = pair(&stage);
    let (gateway, target) = (agents[0].gateway.to_string(), stage.path("out"));
    let (said, waited) = std::thread::scope(|scope| {
        let getting = scope.spawn(|| fail(&["get", "long", "-o", &target, "--gateway", &gateway]));
        let handed = || agents[0].api("savings")["totals"]["delivered"].as_u64().expect("a figure");
        wait_for("the first bytes", || handed() > 0);
        give(&stage, &closed());
        bound(&agents, 0);
        let begun = Instant::now();
        (getting.join().expect("it ends"), begun.elapsed())
    });
    assert!(said.contains("the WAN is closed until "), "{said}");
    assert!(waited < Duration::from_secs(60), "not the patience of an open WAN: {waited:?}");
}

#[test]
fn who_has_no_room_is_urgent_through_a_neighbour_too() {
    let stage = Stage::new("400mbit");
    let content = noise("wide", 3_000_000);
    stage.publish("wide", "1", &content);
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer(), "--cache-size", "1MB"]);
    let agents = [first, second];
    wait_for("the mesh", || agents[1].api("peers").as_array().is_some_and(|peers| peers.len() == 1));
    give(&stage, &closed());
    bound(&agents, 0);
    let (gateway, target) = (agents[1].gateway.to_string(), stage.path("out"));
    let get =
        |more: &[&str]| branchline(&[&["get", "wide", "-o", &target, "--gateway", &gateway], more].concat());
    let begun = Instant::now();
    let refused = get(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the WAN is closed until "), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let urgent = get(&["--urgent"]);
    assert!(urgent.status.success(), "{}", String::from_utf8_lossy(&urgent.stderr));
    assert!(std::fs::read(&target).expect("there") == content);
    let held = agents[0].api("packages")[0]["held"].clone();
    assert_eq!(held, "complete", "the neighbour has fetched it, and keeps it");
}

#[test]
fn a_change_takes_effect_on_a_flight_under_way() {
    let stage = Stage::new("400mbit");
    let content = noise("long", 6_000_000);
    stage.publish("long", "1", &content);
    let agents = pair(&stage);
    give(&stage, "zone = 'UTC'\n[outside]\nforeground = '8mbit'");
    bound(&agents, 1_000_000);
    let answer = std::thread::scope(|scope| {
        let waits = "Prefer: wait=600\r\n";
        let get = || request(agents[1].gateway, "/packages/long/1", waits).expect("an answer");
        let getting = scope.spawn(get);
        wait_for("the first bytes", || crossed(&agents) > 1_000_000);
        order(&stage, &["close", "--for", "1h"]);
        bound(&agents, 0);
        std::thread::sleep(Duration::from_millis(1500));
        let then = crossed(&agents);
        std::thread::sleep(Duration::from_secs(4));
        assert!(crossed(&agents) - then < 100_000, "it stands still");
        assert!(!getting.is_finished(), "and is not given up");
        order(&stage, &["close"]);
        order(&stage, &["clear"]);
        getting.join().expect("it ends")
    });
    assert_eq!(answer.status, 200);
    assert!(answer.body == content);
    let duplicate = |agent: &Agent| agent.api("savings")["totals"]["wan_duplicate"].as_u64();
    assert_eq!(agents.iter().map(duplicate).collect::<Vec<_>>(), [Some(0), Some(0)]);
}

#[test]
fn a_month_that_is_used_up_closes_the_background() {
    let stage = Stage::new("400mbit");
    stage.publish("big", "1", &noise("big", 2_000_000));
    stage.publish("more", "1", &noise("more", 100_000));
    stage.publish("last", "1", &noise("last", 100_000));
    let agents = pair(&stage);
    assert_eq!(agents[0].get("/packages/big/1").status, 200);
    give(&stage, "zone = 'Europe/Lisbon'\n[month]\nbytes = '1MB'\nwarn_at = [50]");
    for agent in &agents {
        wait_for("the month", || agent.api("status")["wan"]["month"]["over"] == true);
        let wan = agent.api("wan");
        assert!(wan["month"]["used"].as_u64().is_some_and(|used| used > 2_000_000), "{wan}");
        assert_eq!((&wan["background"], &wan["foreground"]), (&0.into(), &().into()), "{wan}");
    }
    let background = request(agents[1].gateway, "/packages/more/1", "Priority: u=7\r\n").expect("an answer");
    assert_eq!(background.status, 503);
    assert!(background.text().contains("closed for the background until"), "{}", background.text());
    assert!(background.text().contains("the month's bytes are used up"), "{}", background.text());
    assert_eq!(agents[1].get("/packages/more/1").status, 200, "who waits is served");
    let health = agents[1].api("health");
    assert!(health.to_string().contains("wan_month_over"), "{health}");
    give(&stage, "zone = 'Europe/Lisbon'\n[month]\nbytes = '1MB'\nthen = 'all'");
    bound(&agents, 0);
    assert_eq!(agents[0].get("/packages/last/1").status, 503);
    let urgent = request(agents[0].gateway, "/packages/last/1", "Priority: u=0\r\n").expect("an answer");
    assert_eq!(urgent.status, 200);
}
