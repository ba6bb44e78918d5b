//! Agents whose clock on the wall is moved: months ahead, and an hour back and forth while they run.

use crate::support::tools::Clock;
use crate::support::{Agent, Stage, assert_balanced, noise, succeed, wait_for};
use jiff::{ToSpan, Zoned};

#[test]
fn a_catalog_is_used_for_the_grace_past_its_time_and_no_longer() {
    let mut stage = Stage::new("400mbit");
    let clock = Clock::new("a_catalog_is_used_for_the_grace_past_its_time", stage.dir.path());
    let Some(clock) = clock else { return };
    stage.around = clock.surroundings();
    let content = noise("held", 300_000);
    stage.publish("demo", "1", &content);
    let first = stage.agent("0", &[]);
    assert!(first.get("/packages/demo/stable").body == content);
    drop(first);
    stage.server = None;
    // A catalog is good for 180 days, and the grace is 7.
    let at = |shift: &str| {
        clock.set(shift);
        let agent = stage.agent("0", &[]);
        agent.get("/packages/demo/stable");
        wait_for("the outage is noticed", || agent.api("status")["outage"].is_object());
        agent
    };
    let late = at("+183d");
    let got = late.get("/packages/demo/stable");
    assert!(got.status == 200 && got.body == content, "{}", got.text());
    assert!(late.api("health")["faults"].to_string().contains("catalog_in_grace"));
    // Who joins now takes it over from a member, past its time as it is.
    let joined = stage.agent("1", &["--peer", &late.peer()]);
    wait_for("the catalog", || joined.get("/packages/demo/stable").body == content);
    drop((late, joined));
    let over = at("+188d");
    let refused = over.get("/packages/demo/stable");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("has expired") && refused.text().contains("offline_grace"));
    assert!(over.get("/packages/demo/1").body == content, "by its number");
}

fn totals(agent: &Agent) -> serde_json::Value {
    let savings = agent.api("savings");
    assert_balanced(&savings);
    savings["totals"].clone()
}

#[test]
fn a_clock_that_jumps_an_hour_moves_the_windows_and_loses_nothing() {
    let mut stage = Stage::new("400mbit");
    let Some(clock) = Clock::new("a_clock_that_jumps_an_hour", stage.dir.path()) else { return };
    stage.around = clock.surroundings();
    let (held, awaited) = (noise("held", 300_000), noise("awaited", 300_000));
    stage.publish("held", "1", &held);
    stage.publish("awaited", "1", &awaited);
    let agent = stage.agent("0", &[]);
    assert!(agent.get("/packages/held/1").body == held);
    let now = Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let hours = [30.minutes(), 90.minutes()].map(|later| (&now + later).strftime("%H:%M").to_string());
    let schedule = format!(
        "zone = 'UTC'\n[[window]]\nname = 'soon'\nhours = '{}-{}'\nforeground = 'unlimited'\n\
         [outside]\nforeground = 'none'\n",
        hours[0], hours[1]
    );
    std::fs::write(stage.path("schedule.toml"), schedule).expect("room");
    succeed(&["wan", "schedule", &stage.path("schedule.toml"), "--state-dir", &stage.path("state-0")]);
    wait_for("the schedule", || agent.api("status")["wan"]["foreground"] == 0);
    assert_eq!(agent.get("/packages/awaited/1").status, 503);
    let before = totals(&agent);
    clock.set("+1h");
    wait_for("the window", || agent.api("status")["wan"]["foreground"].is_null());
    assert!(agent.get("/packages/awaited/1").body == awaited);
    let after = totals(&agent);
    let grown =
        |figure: &str| after[figure].as_u64().zip(before[figure].as_u64()).map(|(after, it)| after - it);
    assert_eq!((grown("delivered"), grown("wan")), (Some(300_000), Some(300_000)), "{after}");
    // Back again: what was booked an hour ahead stays, and the newest catalog is believed all the same.
    clock.set("+0");
    wait_for("the window is over", || agent.api("status")["wan"]["foreground"] == 0);
    let next = noise("next", 200_000);
    stage.publish("held", "2", &next);
    let urgent = ["--urgent", "--gateway", &agent.gateway.to_string(), "-o", &stage.path("out")];
    wait_for("the new version", || {
        crate::support::branchline(&[&["get", "held@2"], &urgent[..]].concat()).status.success()
    });
    assert!(std::fs::read(stage.path("out")).expect("there") == next);
    assert_eq!(totals(&agent)["delivered"], after["delivered"].as_u64().expect("a figure") + 200_000);
    assert!(
        succeed(&["savings", "--verify", "--gateway", &agent.gateway.to_string()])
            .contains("every one adds up")
    );
}
