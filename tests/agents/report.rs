//! The books as people read them: the table, CSV and JSON of `branchline savings`, and `branchline report`.

use crate::support::{Agent, Stage, branchline, fail, noise, succeed, wait_for};
use serde_json::Value;

/// Two agents that have fetched the same package, and told each other.
fn site(stage: &Stage) -> [Agent; 2] {
    let content = noise("report", 5_000_000);
    stage.publish("demo", "1", &content);
    let first = stage.agent("0", &[]);
    let second = stage.agent("1", &["--peer", &first.peer()]);
    wait_for("the mesh", || first.api("peers").as_array().is_some_and(|peers| peers.len() == 1));
    // Who leads should know by then what the blob is called.
    for agent in [&first, &second] {
        wait_for("the catalog", || agent.api("packages").as_array().is_some_and(|all| !all.is_empty()));
    }
    for agent in [&first, &second] {
        assert!(agent.get("/packages/demo/1").body == content);
    }
    [first, second]
}

/// The figures of a row of a CSV file by the heads of its columns.
fn figure(csv: &str, row: &str, column: &str) -> i64 {
    let mut lines = csv.lines();
    let at = lines.next().and_then(|head| head.split(',').position(|name| name == column));
    let line = lines.find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no {row} in {csv}"));
    at.and_then(|at| line.split(',').nth(at)?.parse().ok()).unwrap_or_else(|| panic!("no {column} in {line}"))
}

#[test]
fn table_csv_and_json_say_the_same() {
    let stage = Stage::new("400mbit");
    let [first, second] = site(&stage);
    let gateway = second.gateway.to_string();
    let savings = |more: &[&str]| succeed(&[&["savings", "--gateway", &gateway], more].concat());
    let json: Value = serde_json::from_str(&savings(&["--scope", "site", "--json"])).expect("JSON");
    assert_eq!(json["totals"]["delivered"], 10_000_000, "{json}");
    assert_eq!(json["totals"]["direct"], 10_000_000, "{json}");
    let csv = savings(&["--scope", "site", "--format", "csv"]);
    let row = json["rows"].as_array().and_then(|rows| rows.iter().find(|row| row["package"] == "demo@1"));
    let row = row.expect("a row");
    for name in ["delivered", "wan", "peer", "local", "direct", "wan_chunks"] {
        assert_eq!(row[name].as_i64(), Some(figure(&csv, "demo@1,", name)), "{name}");
    }
    let table = savings(&["--scope", "site"]);
    assert!(table.contains("PACKAGE") && table.contains("10.0 MB"), "{table}");
    assert!(
        table.contains("Clients received 10.0 MB") && table.contains("Without Branchline 10.0 MB"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "no colours in a pipe: {table}");
    let by_peer = savings(&["--by", "peer"]);
    assert!(by_peer.contains("RECEIVED") && by_peer.contains("5.0 MB"), "{by_peer}");
    assert!(savings(&["--by", "reason", "--scope", "site"]).contains("cold"));
    // A lead alone, with what it gave away: the WAN by day, and nothing of a day that is past.
    let past = succeed(&["savings", "--gateway", &first.gateway.to_string(), "--to", "2020-01-01", "--json"]);
    let past: Value = serde_json::from_str(&past).expect("JSON");
    assert_eq!(
        (past["totals"]["delivered"].as_u64(), past["rows"].as_array().map(Vec::len)),
        (Some(0), Some(0))
    );
}

#[test]
fn a_report_holds_the_figures_of_the_api() {
    let stage = Stage::new("400mbit");
    let [first, _second] = site(&stage);
    let (gateway, page) = (first.gateway.to_string(), stage.path("month.html"));
    let report = |more: &[&str]| [&["report", "--gateway", &gateway], more].concat().join("\n");
    let run = |more: &[&str]| succeed(&report(more).split('\n').collect::<Vec<_>>());
    let said = run(&["-o", &page]);
    assert!(said.contains("month.html") && said.contains("month.csv"), "{said}");
    let (html, csv) = (std::fs::read_to_string(&page), std::fs::read_to_string(stage.path("month.csv")));
    // Numbers are not torn from their units.
    let (html, csv) = (html.expect("a page").replace('\u{a0}', " "), csv.expect("data"));
    let api = first.api("savings?scope=site&by=day&also=package,reason,node");
    for name in ["delivered", "wan", "peer", "local", "direct", "wan_chunks"] {
        let right = api["totals"][name].as_i64();
        assert_eq!(Some(figure(&csv, "total,", name)), right, "{name}");
        assert_eq!(Some(figure(&csv, "package,demo@1,", name)), right, "{name}: one package only");
    }
    assert_eq!(figure(&csv, "total,", "saved_of_delivered"), 10_000_000 - figure(&csv, "total,", "wan_wire"));
    assert_eq!(csv.lines().filter(|line| line.starts_with("node,")).count(), 2);
    assert!(figure(&csv, "reason,cold,", "wan_wire") > 5_000_000, "{csv}");
    for shown in ["Site test", "2 machines", "Clients received 10.0 MB", "demo@1", "cold", "10.0 MB"] {
        assert!(html.contains(shown), "{shown} is not in the page");
    }
    let exact = figure(&csv, "total,", "wan_wire").to_string();
    // In threes.
    assert!(
        html.replace('\u{202f}', "").contains(&format!("<td>{exact}</td>")),
        "{exact} is not in the page"
    );
    assert!(html.contains("data:text/csv") && !html.contains("<script"));
    // The page alone, to standard output; one node; a name of its own.
    assert!(run(&["-o", "-", "--scope", "node"]).contains("one machine, "));
    let before = std::fs::read_dir(stage.dir.path()).expect("a folder").count();
    run(&["-o", &page, "--since", "7d"]);
    let after = std::fs::read_dir(stage.dir.path()).expect("a folder").count();
    assert_eq!(before, after, "an earlier report is overwritten, and no draft is left");
}

#[test]
fn what_is_no_report_is_kept_and_wrong_dates_are_told() {
    let stage = Stage::new("400mbit");
    let agent = stage.agent("0", &[]);
    let (gateway, page) = (agent.gateway.to_string(), stage.path("thesis.html"));
    std::fs::write(&page, "<p>mine</p>").expect("room");
    let arguments = ["report", "--gateway", &gateway, "-o", &page];
    let error = fail(&arguments);
    assert!(error.contains("no Branchline report") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&page).expect("kept"), "<p>mine</p>");
    succeed(&[&arguments[..], &["--force"]].concat());
    assert!(std::fs::read_to_string(&page).expect("there").contains("clients received nothing"));
    let error = fail(&["report", "--gateway", &gateway, "-o", &stage.path("no/such/folder/x.html")]);
    assert!(error.contains("cannot"), "{error}");
    for command in ["report", "savings"] {
        let wrong = |more: &[&str], what: &str| {
            let output = branchline(&[&[command, "--gateway", &gateway], more].concat());
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command} {more:?}: {error}");
            assert!(error.contains(what), "{command} {more:?}: {error}");
        };
        wrong(&["--from", "yesterday"], "no day and no time");
        wrong(&["--to", "2026-13-01"], "no day and no time");
        wrong(&["--since", "7"], "no time span");
        wrong(&["--since", "7d", "--from", "2026-11-01"], "cannot be used with");
        wrong(&["--from", "2026-11-05", "--to", "2026-11-03"], "not before");
    }
    let answer = agent.get("/api/v1/savings?also=moon");
    assert_eq!(answer.status, 400, "{}", answer.text());
}
