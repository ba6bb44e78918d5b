//! The page: one file without scripts and without anything from elsewhere.

use std::ffi::OsStr;

use super::super::escape::html;
use super::super::savings::words::{self, share, signed};
use super::fold::{self, Item, Step};
use super::tables::minus;
use super::{Facts, chart, data, tables};
use crate::core::bitrate::Size;
use crate::core::ledger::Totals;
use crate::node::report::{By, SavingsRow, Scope};

/// By which a later report knows an earlier one. It stands at the beginning of the page.
pub(super) const MARK: &str = "<meta name=\"generator\" content=\"Branchline report";

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded and nothing runs, whatever a name may contain; only the style below applies.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page. The data go into it as a link, if they are not too long, and lie in `file` else.
pub(super) fn page(facts: &Facts, data: &str, file: Option<&OsStr>) -> String {
    let (site, version) = (html(&facts.site), html(&facts.version));
    let parts = [
        head(facts),
        headline(facts),
        notice(facts),
        glance(facts),
        days(facts),
        packages(facts),
        reasons(facts),
        nodes(facts),
        counted(facts),
        known(facts),
        download(facts, data, file),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n{MARK} {version}\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Branchline report: {site}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}\n<main>\n{}</main>\n\
         </body>\n</html>\n",
        stripes(),
        parts.concat()
    )
}

/// The pattern of what was local, so that it is told apart by more than a colour.
fn stripes() -> &'static str {
    "<svg class=\"defs\" aria-hidden=\"true\" focusable=\"false\"><defs><pattern id=\"stripes\" width=\"5\" height=\"5\" \
     patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect class=\"ground\" width=\"5\" height=\"5\"/>\
     <line class=\"stripe\" x1=\"0\" x2=\"0\" y1=\"0\" y2=\"5\"/></pattern></defs></svg>"
}

/// Bytes in a sentence, which are not torn from their unit.
fn size(bytes: u64) -> String {
    Size(bytes).to_string().replace(' ', "\u{a0}")
}

fn rows(facts: &Facts, by: By) -> &[SavingsRow] {
    let found = facts.savings.also.iter().find(|grouping| grouping.by == by);
    found.map_or(&[], |grouping| &grouping.rows)
}

fn head(facts: &Facts) -> String {
    let (from, to) = facts.days();
    let whose = match facts.savings.scope {
        Scope::Node => format!("one machine, {}", facts.hosts.name(&facts.node)),
        Scope::Site if facts.savings.answered == 1 => "1 machine".to_owned(),
        Scope::Site => format!("{} machines", facts.savings.answered),
    };
    let date = |day: &str| {
        let named = day.parse::<jiff::civil::Date>().map(|day| day.strftime("%-d %B %Y").to_string());
        format!("<time datetime=\"{}\">{}</time>", html(day), html(&named.unwrap_or_else(|_| day.to_owned())))
    };
    let period = if from == to { date(&from) } else { format!("{} to {}", date(&from), date(&to)) };
    format!(
        "<header><p class=\"mark\">Branchline savings report</p><h1>Site {}</h1>\
         <p class=\"period\">{period} · {}</p></header>\n",
        html(&facts.site),
        html(&whose)
    )
}

/// One number, and the other one beside it: what it is a share of makes the difference.
fn headline(facts: &Facts) -> String {
    let it = &facts.savings.totals;
    let saved = facts.savings.saved;
    let wire = size(it.wan_wire);
    let (first, sum) = match (it.delivered, saved.of_delivered) {
        (0, _) => ("clients received nothing in this period".to_owned(), format!("{wire} crossed the WAN.")),
        (received, bytes) => (
            claim(bytes, "of what clients received did not have to cross the WAN", "clients received"),
            format!("Clients received {}. {wire} crossed the WAN.", size(received)),
        ),
    };
    let (second, more) = match (it.direct, saved.of_direct) {
        (0, _) => ("nothing would have crossed without Branchline".to_owned(), String::new()),
        (direct, bytes) => (
            claim(
                bytes,
                "of what would have crossed without Branchline did not",
                "would have without Branchline",
            ),
            format!("{} would have, had each machine fetched for itself.", size(direct)),
        ),
    };
    let loss = |bytes| if bytes < 0 { " loss" } else { "" };
    let number = |bytes, of| minus(&share(bytes, of).unwrap_or_else(|| "–".into()));
    format!(
        "<div class=\"headline\">\n<div><p class=\"big{}\">{}</p><p class=\"claim\">{first}</p><p class=\"sum\">{sum}</p></div>\n\
         <div><p class=\"second{}\">{}</p><p class=\"claim\">{second}</p><p class=\"sum\">{more}</p></div>\n</div>\n",
        loss(saved.of_delivered),
        number(saved.of_delivered, it.delivered),
        loss(saved.of_direct),
        number(saved.of_direct, it.direct),
    )
}

fn claim(bytes: i64, saved: &str, lost: &str) -> String {
    if bytes >= 0 {
        return saved.to_owned();
    }
    format!("nothing was saved: {} more crossed the WAN than {lost}", size(bytes.unsigned_abs()))
}

/// What makes the headline less than certain stands next to it, not at the end of the page.
fn notice(facts: &Facts) -> String {
    match facts.savings.unanswered.len() {
        0 => String::new(),
        1 => {
            "<p class=\"notice\">One machine did not answer and is not counted. It is named at the end.</p>\n"
                .into()
        }
        many => format!(
            "<p class=\"notice\">{many} machines did not answer and are not counted. They are named at the end.</p>\n"
        ),
    }
}

fn section(title: &str, lead: &str, body: &str) -> String {
    charted(title, lead, "", body)
}

/// On paper a chart stays with its title.
fn charted(title: &str, lead: &str, chart: &str, body: &str) -> String {
    format!(
        "<section>\n<div class=\"together\">\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{chart}</div>\n\
         {body}</section>\n"
    )
}

fn figure(legend: &str, chart: &str) -> String {
    format!("<figure>{legend}{chart}</figure>\n")
}

/// What the parts of the bars are.
fn legend(wire: bool) -> String {
    let entry = |class: &str, name: &str| {
        format!(
            "<li><svg aria-hidden=\"true\"><rect class=\"{class}\" width=\"20\" height=\"12\"/></svg>{name}</li>"
        )
    };
    let mut entries: String = chart::PARTS.iter().map(|(class, name)| entry(class, name)).collect();
    if wire {
        entries.push_str(
            "<li><svg aria-hidden=\"true\"><rect class=\"wire\" y=\"5\" width=\"20\" height=\"2.5\"/></svg>on the wire of the WAN</li>",
        );
    }
    format!("<ul class=\"legend\">{entries}</ul>\n")
}

fn glance(facts: &Facts) -> String {
    let it = &facts.savings.totals;
    let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let crate::node::report::Saved { of_delivered, of_direct, by_recipe } = facts.savings.saved;
    let saved = |bytes: i64| if bytes < 0 { "wan" } else { "saved" };
    let mut items = vec![
        ("Clients received".to_owned(), whole(it.delivered), "received"),
        ("Without Branchline".to_owned(), whole(it.direct), "direct"),
        ("Crossed the WAN".to_owned(), whole(it.wan_wire), "wan"),
        ("Saved of what clients received".to_owned(), of_delivered, saved(of_delivered)),
        ("Saved of what would have crossed".to_owned(), of_direct, saved(of_direct)),
    ];
    if it.rebuilt > 0 {
        items.push(("Of that, by recipes".to_owned(), by_recipe, saved(by_recipe)));
    }
    let chart = chart::signed(&items, |bytes| minus(&signed(bytes)));
    charted(
        "At a glance",
        "What crossed the WAN, against what clients received and against what would have crossed without \
         Branchline: each machine fetching for itself, as shipped.",
        &figure("", &chart),
        &tables::glance(&items),
    )
}

fn days(facts: &Facts) -> String {
    let time = fold::over_time(&facts.savings.rows, &facts.savings.from, &facts.savings.to);
    let step = time.step.name();
    let title = format!("By {step}");
    if time.items.is_empty() {
        return section(&title, "Nothing was fetched in this period.", "");
    }
    let name = |day: &jiff::civil::Date| match time.step {
        Step::Day => day.to_string(),
        Step::Week => format!("week from {day}"),
        Step::Month => day.strftime("%Y-%m").to_string(),
    };
    let items: Vec<Item> =
        time.items.iter().map(|(day, totals)| Item { name: name(day), totals: *totals }).collect();
    let table = tables::sources(
        &format!("The same figures by {step}"),
        step_head(time.step),
        &items,
        &facts.savings.totals,
    );
    charted(
        &title,
        "What clients received, by where it came from. The line across each bar is what crossed the WAN, as \
         it was on the wire, with what was fetched before anybody asked for it. Days are those of UTC.",
        &figure(&legend(true), &chart::columns(&time)),
        &table,
    )
}

fn step_head(step: Step) -> &'static str {
    match step {
        Step::Day => "Day",
        Step::Week => "Week",
        Step::Month => "Month",
    }
}

/// A section with the largest of a grouping.
fn largest(
    facts: &Facts,
    by: By,
    title: &str,
    head: &str,
    lead: &str,
    name: &dyn Fn(&str) -> String,
) -> String {
    let items = fold::top(rows(facts, by), name, |it| it.delivered);
    if items.is_empty() {
        return section(title, "Nothing was fetched in this period.", "");
    }
    let caption = format!("The same figures {}", title.to_lowercase());
    let table = tables::sources(&caption, head, &items, &facts.savings.totals);
    charted(title, lead, &figure(&legend(false), &chart::stacked(&items)), &table)
}

fn packages(facts: &Facts) -> String {
    let lead = format!(
        "The {} that clients received most of. Bytes that belong to no package, such as the catalog's, stand in \
         brackets.",
        fold::TOP
    );
    largest(facts, By::Package, "By package", "Package", &lead, &str::to_owned)
}

fn nodes(facts: &Facts) -> String {
    let lead = format!(
        "The {} machines whose clients received most. A machine that pulls for its neighbours has more on the \
         wire of the WAN than its own clients received, and so saves less than nothing by itself.",
        fold::TOP
    );
    largest(facts, By::Node, "By machine", "Machine", &lead, &|node| facts.hosts.name(node))
}

fn reasons(facts: &Facts) -> String {
    let title = "Why bytes crossed the WAN";
    let items = fold::top(rows(facts, By::Reason), str::to_owned, |it| it.wan_wire);
    if items.is_empty() {
        return section(title, "Nothing crossed the WAN in this period.", "");
    }
    let whole = |it: &Totals| i64::try_from(it.wan_wire).unwrap_or(i64::MAX);
    let bars: Vec<_> = items.iter().map(|item| (item.name.clone(), whole(&item.totals), "wan")).collect();
    let chart = chart::signed(&bars, signed);
    charted(
        title,
        "Bytes as they were on the wire. One first copy of everything is what a site cannot do without.",
        &figure("", &chart),
        &tables::reasons(&items, why, &facts.savings.totals),
    )
}

/// A reason in words.
fn why(reason: &str) -> &'static str {
    match reason {
        "cold" => "nobody on the site held it",
        "upgrade" => "an older version of its package was there, and this is what had changed",
        "preload" => "brought in before a client waited for it",
        "takeover" => "the machine that was pulling it was lost",
        "hash_failure" => "what came before did not match its hash",
        "no_peer" => "machines hold it, and none could be reached",
        "peer_busy" => "machines hold it, and were busy for too long",
        "policy" => "the machine is set not to wait for its site",
        "revalidate" => "checks whether the catalog is still current",
        "manifest" => "lists of what packages are made of",
        "partition" => "another machine, out of reach, pulled it too",
        "push" => "the site's sums, sent to a monitoring system",
        "probe" => "measured how busy the link is, so that the background gives way",
        _ => "",
    }
}

fn counted(facts: &Facts) -> String {
    let it = &facts.savings.totals;
    let headers = match it.wan_headers {
        0 => "the TCP/IP headers, which these systems do not count,".to_owned(),
        headers => format!("{} of TCP/IP headers", Size(headers)),
    };
    let sentences = [
        "Content is booked by the machine that received it, once it is verified, as fetched over the WAN, fetched \
         from a peer (another machine of the site) or held before; the three add up to what clients received."
            .to_owned(),
        format!(
            "What crossed the WAN is metered at the sockets, as it was on the wire: compressed, with the catalog, \
             HTTP and encryption ({} of {} were no package content), whether or not a client waited for it.",
            Size(it.wan_wire.saturating_sub(it.wan_chunks)),
            Size(it.wan_wire)
        ),
        "“Without Branchline” is what would have crossed if each machine had fetched for itself what its clients \
         asked for, as shipped, and had kept it for as long as it is kept now."
            .to_owned(),
        "Not counted are traffic between the machines of the site, traffic that does not go through Branchline, and \
         machines that did not answer."
            .to_owned(),
        format!(
            "To check this against a router, compare its count from the origin to these machines with the {} on the \
             wire plus {headers}, and its count the other way with {}.",
            Size(it.wan_wire),
            Size(it.wan_sent)
        ),
    ];
    let list: String = sentences.iter().map(|text| format!("<li>{}</li>\n", html(text))).collect();
    let lead = format!("All figures are one reading of the books, taken on {}.", html(&facts.made));
    section("How these figures were counted", &lead, &format!("<ol class=\"counted\">\n{list}</ol>\n"))
}

fn known(facts: &Facts) -> String {
    let mut notes = words::notes(&facts.savings, &facts.hosts);
    if facts.savings.totals.wan_duplicate > 0 {
        let twice = Size(facts.savings.totals.wan_duplicate);
        notes.push(format!("{twice} of content crossed although the site held it or was pulling it"));
    }
    let title = "What to know about them";
    if notes.is_empty() {
        let lead = "Every machine that was connected answered, givers and takers agree, no agent stopped \
                    unexpectedly, and nothing crossed twice.";
        return section(title, lead, "");
    }
    let list: String = notes.iter().map(|text| format!("<li>{}</li>\n", html(text))).collect();
    section(
        title,
        "What these figures do not know, or are not sure of.",
        &format!("<ul class=\"known\">\n{list}</ul>\n"),
    )
}

fn download(facts: &Facts, data: &str, file: Option<&OsStr>) -> String {
    let name = file.map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| facts.name().replace(".html", ".csv"));
    let name = html(&name);
    let body = match data::link(data) {
        Some(link) => {
            format!("<a class=\"data\" download=\"{name}\" href=\"{link}\">Download the data as CSV</a>\n")
        }
        None => String::new(),
    };
    let lead = format!(
        "All days, packages, reasons and machines, also those that have no bar here, in bytes. The same data lie in \
         {name} beside this page."
    );
    let (node, version) = (html(&facts.node), html(&facts.version));
    section("The data", &lead, &body)
        + &format!(
            "<footer>Made by Branchline {version} on {}, asked of node {node}.</footer>\n",
            html(&facts.made)
        )
}
