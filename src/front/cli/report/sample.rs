//! A made-up site, for looking at the page and for testing it.

use super::super::hosts::Hosts;
use super::{Facts, data, page};
use crate::core::ledger::{Totals, WanReason};
use crate::node::report::{About, By, Disagreement, Grouping, NodeGap, Saved, Savings, SavingsRow, Scope};

const MB: u64 = 1_000_000;

/// A site of so many nodes over the days of a month, some of them at a weekend.
fn site(days: u32, packages: u64, nodes: u64) -> Facts {
    let busy = |n: u64, most: u64| (n.wrapping_mul(2_654_435_761) >> 7) % most;
    let split = |delivered: u64, wan: u64| {
        let wan = delivered * wan / 100;
        let local = (delivered - wan) / 5;
        let peer = delivered - wan - local;
        let wire = wan * 7 / 10 + 3 * MB;
        Totals {
            delivered,
            wan,
            peer,
            local,
            direct: delivered - local / 2,
            wan_wire: wire,
            wan_chunks: wire - 3 * MB,
            ..Totals::default()
        }
    };
    let day = |n: u32| {
        let quiet = matches!(n % 7, 0 | 1);
        let weight = if quiet { 500 } else { 9_000 + 1_000 * busy(n.into(), 28) };
        let mut totals = split(weight * MB, 4 + busy(u64::from(n) + 5, 9));
        if n == 12 {
            totals.wan_wire += 14_000 * MB;
        }
        SavingsRow { about: About::Day(format!("2026-11-{n:02}")), totals }
    };
    let rows: Vec<_> = (1..=days).filter(|n| n % 7 != 1).map(day).collect();
    let mut totals = Totals::default();
    rows.iter().for_each(|row| totals.add(&row.totals));
    (totals.wan_headers, totals.wan_sent, totals.wan_duplicate) = (1_200 * MB, 900 * MB, 38 * MB);
    let names = [
        "firefox@145.0.1",
        "libreoffice@26.2.0",
        "windows-cumulative-update-for-workstations@2026.11.2",
        "<script>alert(1)</script>@1",
        "=cmd|'/c calc'!A1@9",
    ];
    let package = |n: u64| {
        let name = names
            .get(n as usize)
            .map_or_else(|| format!("department-tool-{n}@{}.{}.0", n % 9, n % 4), |name| (*name).to_owned());
        SavingsRow {
            about: About::Package(name),
            totals: split(120_000 * MB / (n * n + 2 * n + 1) + MB * busy(n, 900), 3 + n % 12),
        }
    };
    let node = |n: u64| {
        let mut totals = split((9_000 + busy(n, 9_000)) * MB / (1 + n / 9), if n == 0 { 90 } else { 2 });
        totals.wan_wire = if n == 0 { 26_000 * MB } else { busy(n, 300) * MB };
        SavingsRow { about: About::Node(format!("12D3KooWnode{n:06}")), totals }
    };
    let reason = |(n, reason): (usize, WanReason)| {
        let wire = 26_000 * MB / (1 << (2 * n)).max(1);
        let totals = Totals {
            wan_wire: wire,
            wan: wire * 13 / 10,
            wan_duplicate: if n == 3 { 38 * MB } else { 0 },
            ..Totals::default()
        };
        SavingsRow { about: About::Reason(reason.as_str().into()), totals }
    };
    let also = vec![
        Grouping { by: By::Package, rows: (0..packages).map(package).collect() },
        Grouping {
            by: By::Reason,
            rows: WanReason::ALL.into_iter().take(9).enumerate().map(reason).collect(),
        },
        Grouping { by: By::Node, rows: (0..nodes).map(node).collect() },
    ];
    let savings = Savings {
        scope: Scope::Site,
        from: "2026-11-01T00:00:00Z".into(),
        to: "2026-12-01T00:00:00Z".into(),
        totals,
        saved: Saved::by(&totals),
        rows,
        also,
        answered: nodes as usize,
        ..Savings::default()
    };
    let hosts = Hosts::new(
        (0..nodes).map(|n| (format!("12D3KooWnode{n:06}"), format!("ws-{:03}.lisbon.example", n + 1))),
    );
    let made = "2026-12-01 06:00 UTC".into();
    Facts {
        savings,
        hosts,
        site: "lisbon".into(),
        node: "12D3KooWnode000004".into(),
        version: "0.1.0".into(),
        made,
    }
}

fn drawn(facts: &Facts) -> String {
    page::page(facts, &data::csv(&facts.savings, By::Day), Some("report.csv".as_ref()))
}

fn rich() -> Facts {
    let mut facts = site(30, 41, 36);
    facts.savings.unanswered = vec!["12D3KooWnode000077".into()];
    facts.savings.disagreements = vec![Disagreement {
        giver: "12D3KooWnode000001".into(),
        taker: "12D3KooWnode000002".into(),
        given: 912 * MB,
        taken: 870 * MB,
    }];
    facts.savings.gaps = vec![NodeGap {
        node: "12D3KooWnode000009".into(),
        after: "2026-11-17T09:14:02Z".into(),
        estimated: 0,
    }];
    facts
}

/// A site that lost: more crossed than clients received.
fn losing() -> Facts {
    let mut facts = site(3, 2, 1);
    facts.savings.totals.wan_wire = facts.savings.totals.direct * 2;
    facts.savings.saved = Saved::by(&facts.savings.totals);
    facts
}

#[test]
fn the_page_stands_alone_and_runs_nothing() {
    let text = drawn(&rich());
    for foreign in
        ["<script", "http://", "https://", "<link", "<img", "@import", "onload", "<iframe", "javascript:"]
    {
        assert!(!text.contains(foreign), "{foreign} in the page");
    }
    assert!(text.contains("default-src 'none'") && text.contains("&lt;script&gt;alert(1)&lt;/script&gt;@1"));
    assert_eq!(text.matches("<style>").count(), 1);
    for tag in ["div", "section", "figure", "table", "ul", "ol", "svg", "tr", "li", "p", "span", "g"] {
        let (opened, closed) = (format!("<{tag}"), format!("</{tag}>"));
        let opened =
            text.matches(&format!("{opened}>")).count() + text.matches(&format!("{opened} ")).count();
        assert_eq!(opened, text.matches(&closed).count(), "{tag}");
    }
    assert!(text.find(page::MARK).is_some_and(|at| at < 200), "a later report knows it");
    assert!(text.contains("all 21 others") && text.contains("all 16 others"));
    assert!(text.contains("ws-002.lisbon.example (000001) says that it gave 912.0 MB"));
}

#[test]
fn a_loss_is_told_as_one() {
    let text = drawn(&losing());
    assert!(text.contains("<p class=\"second loss\">\u{2212}100.0 %</p>"), "{text}");
    assert!(text.contains("nothing was saved:") && text.contains("class=\"zero\""));
}

#[test]
fn a_site_without_deliveries_has_a_page() {
    let mut facts = site(0, 0, 0);
    facts.savings.from = "1970-01-01T00:00:00Z".into();
    let text = drawn(&facts);
    assert!(text.contains("clients received nothing in this period") && text.contains("Nothing was fetched"));
    assert!(!text.contains("NaN") && !text.contains("inf%"), "{text}");
}

/// To look at the pages: `BRANCHLINE_SAMPLES=DIR cargo test --lib samples_to_look_at`.
#[test]
fn samples_to_look_at() {
    let Some(dir) = std::env::var_os("BRANCHLINE_SAMPLES").map(std::path::PathBuf::from) else { return };
    for (name, facts) in [("rich", rich()), ("losing", losing()), ("empty", site(0, 0, 0))] {
        std::fs::write(dir.join(format!("{name}.html")), drawn(&facts)).expect("a folder");
    }
}
