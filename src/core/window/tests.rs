//! Schedules against a clock on the wall, minute by minute.

use jiff::ToSpan;
use proptest::prelude::*;

use super::*;
use crate::core::bitrate::Rate;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn read(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    text.parse::<Schedule>().expect_err("refused").to_string()
}

const OFFICE: &str = r#"
    zone = "Europe/Lisbon"
    [[window]]
    name = "office hours"
    days = "mon-fri"
    hours = "08:00-18:00"
    foreground = "20mbit"
    background = "none"
    [[window]]
    name = "night"
    hours = "22:00-06:00"
    foreground = "unlimited"
    [outside]
    foreground = "none"
    [month]
    bytes = "500GB"
    first_day = 5
"#;

#[test]
fn a_week_of_an_office() {
    let schedule = read(OFFICE);
    // Summer time: one hour ahead of UTC.
    let open = schedule.at(at("2026-07-06T09:00:00Z"));
    assert_eq!((open.window, open.until), (Some("office hours"), Some(at("2026-07-06T17:00:00Z"))));
    assert_eq!(open.rule.foreground, Cap::Rate(Rate(2_500_000)));
    assert_eq!(open.rule.background, Cap::Closed);
    let shut = schedule.at(at("2026-07-06T17:00:00Z"));
    assert_eq!((shut.window, shut.rule), (None, Rule::CLOSED));
    assert_eq!(shut.until, Some(at("2026-07-06T21:00:00Z")));
    // Winter time: none; and over the end of the week.
    let night = schedule.at(at("2026-12-06T23:30:00Z"));
    assert_eq!((night.window, night.until), (Some("night"), Some(at("2026-12-07T06:00:00Z"))));
    assert_eq!(night.rule, Rule::OPEN, "background is as foreground unless it is given");
    assert_eq!(schedule.month_began(at("2026-07-06T09:00:00Z")), Some(at("2026-07-04T23:00:00Z")));
}

#[test]
fn the_sample_is_a_schedule() {
    let schedule = read(include_str!("../../../deploy/wan-schedule.toml"));
    assert_eq!((schedule.windows().len(), schedule.zone_name()), (2, "Europe/Lisbon"));
    assert_eq!(schedule.outside().background, Cap::Rate(Rate(6_250_000)));
    assert_eq!(schedule.month().map(|month| month.then), Some(Then::Background));
}

#[test]
fn what_cannot_hold_is_refused_by_name() {
    let with = |more: &str| refused(&format!("zone = 'Europe/Lisbon'\n{more}"));
    let window = |name: &str, days: &str, hours: &str, rule: &str| {
        format!("[[window]]\nname = '{name}'\ndays = '{days}'\nhours = '{hours}'\n{rule}\n")
    };
    let open = "foreground = '20mbit'";
    let two = window("day", "mon-fri", "08:00-18:00", open) + &window("late", "fri", "17:00-02:00", open);
    let error = with(&two);
    assert!(error.contains("\"day\" and \"late\" overlap on fri 17:00-18:00"), "{error}");
    let over = window("sunday", "sun", "20:00-08:00", open) + &window("monday", "mon", "07:00-09:00", open);
    assert!(with(&over).contains("overlap on mon 07:00-08:00"), "{}", with(&over));
    for (text, says) in [
        (window("x", "mon", "08:00-08:00", open), "never opens"),
        (window("x", "moon", "08:00-09:00", open), "window \"x\": days = \"moon\" is no day"),
        (window("x", "mon", "8-9", open), "hours = \"8-9\" are no hours"),
        (window("x", "mon", "08:00-09:00", "foreground = 'fast'"), "foreground = \"fast\" is no rate"),
        (window("x", "mon", "08:00-09:00", ""), "changes nothing"),
        (
            window("x", "mon", "08:00-09:00", "foreground = 'none'\nbackground = '1mbit'"),
            "more than foreground",
        ),
        (window("", "mon", "08:00-09:00", open), "a name has"),
        (window("x", "mon", "08:00-09:00", open) + &window("x", "tue", "08:00-09:00", open), "two windows"),
        (
            window("x", "mon", "08:00-09:00", "foreground = 'none'") + "[outside]\nforeground = 'none'",
            "nothing ever opens",
        ),
        ("[month]\nbytes = '0B'".into(), "bytes = 0"),
        ("[month]\nbytes = '1GB'\nfirst_day = 31".into(), "first_day = 31"),
        ("[month]\nbytes = '1GB'\nwarn_at = [120]".into(), "warn_at = 120"),
        ("[month]\nbytes = '1GB'\nthen = 'explode'".into(), "unknown variant"),
        ("[[windows]]\nname = 'x'".into(), "a schedule has zone"),
    ] {
        let error = with(&text);
        assert!(error.contains(says), "{text}: {error}");
    }
    for (zone, near) in
        [("Lisbon", "Europe/Lisbon"), ("Europe/Lisabon", "Europe/Lisbon"), ("Asia/Katmandu2", "Asia/Kat")]
    {
        let error = refused(&format!("zone = '{zone}'"));
        assert!(error.contains("did you mean") && error.contains(near), "{error}");
    }
    assert!(refused(&"#".repeat(LONGEST + 1)).contains("bytes"));
    assert!(refused("").contains("zone"));
}

#[test]
fn hours_that_do_not_exist_and_hours_that_come_twice() {
    let schedule = read(
        "zone = 'Europe/Lisbon'\n[outside]\nforeground = 'none'\n\
         [[window]]\nname = 'x'\ndays = 'sun'\nhours = '01:15-01:45'\nforeground = '1mbit'",
    );
    // 2026-03-29 the clock goes from 01:00 to 02:00: the window does not open before the next week.
    let before = schedule.at(at("2026-03-28T12:00:00Z"));
    assert_eq!(before.until, Some(at("2026-04-05T00:15:00Z")));
    // 2026-10-25 it goes from 02:00 back to 01:00: the window opens twice.
    let mut edges = Vec::new();
    let mut now = at("2026-10-24T12:00:00Z");
    for _ in 0..4 {
        now = schedule.at(now).until.expect("it goes on");
        edges.push(now.to_string());
    }
    assert_eq!(
        edges,
        ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"]
    );
}

#[test]
fn orders_and_the_month_stand_over_the_schedule() {
    let schedule = read(OFFICE);
    let now = at("2026-07-06T18:00:00Z"); // 19:00 in Lisbon: closed until 22:00
    let plan = Plan { schedule: Some(&schedule), ..Plan::default() };
    let holds = plan.at(now).expect("a schedule");
    let opens = plan.opens(now, false);
    assert_eq!(opens, Some(at("2026-07-06T21:00:00Z")));
    assert_eq!(
        holds.refusal(now, false, opens),
        "the WAN is closed until 22:00 Europe/Lisbon (outside of all windows); what the site holds is served; --urgent overrides"
    );
    let hold = |kind| Some(Hold { until: at("2026-07-06T19:00:00Z"), kind });
    let open = Plan { hold: hold(Kind::OpenForeground), ..plan }.at(now).expect("held");
    assert_eq!((open.rule.foreground, open.rule.background), (Cap::Unlimited, Cap::Closed));
    assert_eq!(open.until, Some(at("2026-07-06T19:00:00Z")));
    assert_eq!(
        (open.reason(), open.why(true)),
        ("by an admin's order".into(), "outside of all windows".into())
    );
    assert_eq!(Plan { hold: hold(Kind::OpenAll), ..plan }.at(now).expect("held").rule, Rule::OPEN);
    assert_eq!(
        Plan { hold: hold(Kind::OpenAll), ..plan }.at(at("2026-07-06T19:00:00Z")),
        plan.at(at("2026-07-06T19:00:00Z"))
    );
    // Without a schedule an order holds all the same, and nothing else does.
    assert_eq!(Plan::default().at(now), None);
    assert!(Plan { hold: hold(Kind::Closed), ..Plan::default() }.at(now).expect("held").rule == Rule::CLOSED);
    // The month is used up: the background opens when the next one begins, at night.
    let used = Plan { month_used: Some(500_000_000_000), ..plan };
    let night = at("2026-07-06T22:00:00Z");
    let holds = used.at(night).expect("a schedule");
    assert_eq!((holds.rule.foreground, holds.rule.background), (Cap::Unlimited, Cap::Closed));
    assert_eq!(used.opens(night, true), Some(at("2026-08-04T23:00:00Z")));
    let text = holds.refusal(night, true, used.opens(night, true));
    assert!(
        text.contains("for the background until Wed 05 Aug 00:00") && text.contains("month's bytes"),
        "{text}"
    );
}

#[test]
fn a_clock_that_jumps_is_right_at_once() {
    let schedule = read(OFFICE);
    // Whatever was asked before, the answer depends on the instant alone.
    for (now, window) in [
        ("2026-07-06T16:59:59Z", Some("office hours")),
        ("2026-07-06T17:59:59Z", None),
        ("2026-07-06T16:59:59Z", Some("office hours")),
        ("2026-07-06T21:00:00Z", Some("night")),
    ] {
        assert_eq!(schedule.at(at(now)).window, window);
    }
    // The ends of time are no panic.
    for now in [Timestamp::MIN, Timestamp::MAX] {
        schedule.at(now);
        schedule.month_began(now);
        Plan { schedule: Some(&schedule), month_used: Some(u64::MAX), hold: None }.opens(now, true);
    }
}

const ZONES: [&str; 8] = [
    "Europe/Lisbon",
    "America/New_York",
    "Australia/Lord_Howe", // by half an hour
    "Asia/Kathmandu",      // five and three quarters ahead
    "America/St_Johns",    // half an hour off, and changes
    "Africa/Casablanca",   // changes for Ramadan
    "Pacific/Apia",
    "UTC",
];

fn text_of(zone: &str, windows: &[(u8, u32, u32)]) -> String {
    let mut text = format!("zone = '{zone}'\n[outside]\nforeground = 'none'\n");
    for (index, (days, start, length)) in windows.iter().enumerate() {
        let named: Vec<&str> =
            (0..7).filter(|day| days & (1 << day) != 0).map(|day| week::DAYS[day]).collect();
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
        text += &format!(
            "[[window]]\nname = 'w{index}'\ndays = '{}'\nhours = '{}-{}'\nforeground = '{}mbit'\n",
            named.join(","),
            time(*start),
            time(start + length),
            index + 1
        );
    }
    text
}

/// What the clock on the wall says, with no more than the words of the schedule.
fn by_the_clock(zone: &TimeZone, windows: &[(u8, u32, u32)], now: Timestamp) -> Option<String> {
    let shown = zone.to_datetime(now);
    let minute = shown.hour() as u32 * 60 + shown.minute() as u32;
    let today = shown.weekday().to_monday_zero_offset() as u32;
    let holds = |&(days, start, length): &(u8, u32, u32)| {
        (0..=1).any(|ago: u32| {
            let opened_on = (today + 7 - ago) % 7;
            let since = minute + ago * week::DAY;
            days & (1 << opened_on) != 0 && (start..start + length).contains(&since)
        })
    };
    windows.iter().position(holds).map(|index| format!("w{index}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A year, minute by minute, its changes of the clock included.
    #[test]
    fn it_agrees_with_the_clock_on_the_wall(
        zone in 0..ZONES.len(),
        windows in prop_oneof![
            proptest::collection::vec((1u8..128, 0u32..1440, 1u32..1440), 1..2),
            proptest::collection::vec((1u8..128, 0u32..1440, 1u32..200), 2..4),
        ],
        seconds in 0i64..60,
    ) {
        // Those that overlap are refused, and are not this test's.
        let Ok(schedule) = text_of(ZONES[zone], &windows).parse::<Schedule>() else { return Ok(()) };
        let mut now = at("2026-01-01T00:00:00Z") + seconds.seconds();
        let mut told: Option<(Option<String>, Timestamp)> = None;
        for _ in 0..366 * 1440 {
            let right = by_the_clock(schedule.zone(), &windows, now);
            // What was said to hold until then does so, and not a minute longer.
            if told.as_ref().is_none_or(|(_, until)| now >= *until) {
                let moment = schedule.at(now);
                prop_assert_eq!(moment.window.map(str::to_owned), right.clone(), "{}", now);
                if let Some((before, until)) = &told {
                    prop_assert!(*before != right, "nothing changes at {until}");
                }
                let Some(until) = moment.until else { break };
                told = Some((right.clone(), until));
            }
            prop_assert_eq!(&told.as_ref().expect("told").0, &right, "{}", now);
            now += 1.minute();
        }
    }

    /// Whatever an admin writes, it is read or refused.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z0-9=\"'\\[\\]:.\n -]{0,200}") {
        text.parse::<Schedule>().ok();
    }
}
