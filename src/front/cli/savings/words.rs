//! The savings in sentences: both denominators, what it cost, and what the figures do not know.

use super::super::hosts::Hosts;
use crate::core::bitrate::Size;
use crate::node::report::Savings;

/// A part of a whole, such as `87.5 %`; negative if there is less than nothing of it. `None` without a
/// whole.
pub(in super::super) fn share(part: i64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let share = (1000.0 * part as f64 / whole as f64).round() / 10.0;
    // Neither "-0.0 %", nor "100.0 %" where something crossed.
    let share = if share == 0.0 { 0.0 } else { share };
    let not_all = i128::from(part) < i128::from(whole);
    Some(if share >= 100.0 && not_all { "99.9 %".into() } else { format!("{share:.1} %") })
}

/// A difference in bytes, with its sign.
pub(in super::super) fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", Size(bytes.unsigned_abs()))
}

/// What was saved, of what, and what it cost.
pub(in super::super) fn sentences(savings: &Savings) -> Vec<String> {
    let it = &savings.totals;
    let wire = Size(it.wan_wire);
    let mut said = Vec::new();
    let saved = |bytes: i64, of: u64, what: &str| match share(bytes, of) {
        Some(share) if bytes < 0 => {
            format!("{share} saved, {} more crossed than {what}", signed(bytes.saturating_neg()))
        }
        Some(share) => format!("{share} saved"),
        None => String::new(),
    };
    if it.delivered == 0 {
        said.push(format!("Clients received nothing; {wire} crossed the WAN."));
    } else {
        let saved = saved(savings.saved.of_delivered, it.delivered, "they received");
        said.push(format!("Clients received {}, {wire} crossed the WAN: {saved}.", Size(it.delivered)));
    }
    if it.direct > 0 {
        let saved = saved(savings.saved.of_direct, it.direct, "would have");
        said.push(format!(
            "Without Branchline {} would have crossed, each machine fetching for itself: {saved}.",
            Size(it.direct)
        ));
    }
    if it.rebuilt > 0 {
        let by_recipe = savings.saved.by_recipe;
        said.push(format!(
            "Of that, {} by recipes, since new versions came as what has changed, and {} by sharing.",
            signed(by_recipe),
            signed(savings.saved.of_direct.saturating_sub(by_recipe))
        ));
    }
    if it.preloaded_media > 0 {
        said.push(format!("{} came from bundles, over no wire at all.", Size(it.preloaded_media)));
    }
    if it.wan_wire > 0 {
        said.push(overhead(savings));
    }
    said.push(match it.wan_duplicate {
        0 => "Nothing crossed twice.".into(),
        twice => format!("{} of content crossed although the site held it or was pulling it.", Size(twice)),
    });
    said
}

fn overhead(savings: &Savings) -> String {
    let it = &savings.totals;
    let more = it.wan_wire.saturating_sub(it.wan_chunks);
    let part = share(i64::try_from(more).unwrap_or(i64::MAX), it.wan_wire).unwrap_or_default();
    let headers = match it.wan_headers {
        0 => "TCP/IP headers come on top, and this system does not count them".to_owned(),
        headers => format!("TCP/IP headers took {} on top", Size(headers)),
    };
    format!(
        "Of what crossed, {} ({part}) was no package content but catalog, manifests, HTTP and encryption; \
         {headers}, and {} went the other way.",
        Size(more),
        Size(it.wan_sent)
    )
}

/// What the figures do not know, or are not sure of. Empty if there is nothing of the kind.
pub(in super::super) fn notes(savings: &Savings, hosts: &Hosts) -> Vec<String> {
    let mut notes = Vec::new();
    if !savings.unanswered.is_empty() {
        let names: Vec<_> = savings.unanswered.iter().map(|node| hosts.name(node)).collect();
        notes.push(format!("not counted, since they did not answer: {}", names.join(", ")));
    }
    if savings.totals.wan_estimated > 0 {
        notes.push(format!(
            "{} of what crossed the WAN is an estimate: it was on its way when connections broke off",
            Size(savings.totals.wan_estimated)
        ));
    }
    notes.extend(savings.disagreements.iter().map(|it| {
        format!(
            "{} says that it gave {} to {}, which says that it received {}; the receiver's figure counts",
            hosts.name(&it.giver),
            Size(it.given),
            hosts.name(&it.taker),
            Size(it.taken)
        )
    }));
    notes.extend(savings.gaps.iter().map(|gap| {
        format!(
            "{} did not stop as it should after {}: up to a second of its books may be missing",
            hosts.name(&gap.node),
            gap.after
        )
    }));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Totals;
    use crate::node::report::{Disagreement, NodeGap, Saved};

    #[test]
    fn shares() {
        let text = |part, whole| share(part, whole);
        assert_eq!(text(875, 1000).as_deref(), Some("87.5 %"));
        assert_eq!(text(-120, 1000).as_deref(), Some("-12.0 %"));
        assert_eq!(text(-1, 1_000_000).as_deref(), Some("0.0 %"));
        assert_eq!(text(999_999, 1_000_000).as_deref(), Some("99.9 %"), "not all of it");
        assert_eq!(text(7, 7).as_deref(), Some("100.0 %"));
        assert_eq!(text(7, 0), None);
        assert_eq!(signed(-1_500_000), "-1.5 MB");
    }

    #[test]
    fn both_denominators_and_losses_are_spelled_out() {
        let totals = Totals {
            delivered: 1_000_000,
            direct: 2_000_000,
            wan_wire: 1_500_000,
            wan_chunks: 1_200_000,
            ..Totals::default()
        };
        let savings = Savings { totals, saved: Saved::by(&totals), ..Savings::default() };
        let said = sentences(&savings);
        assert_eq!(
            said[0],
            "Clients received 1.0 MB, 1.5 MB crossed the WAN: -50.0 % saved, 500.0 kB more crossed than they received."
        );
        assert_eq!(
            said[1],
            "Without Branchline 2.0 MB would have crossed, each machine fetching for itself: 25.0 % saved."
        );
        assert!(said[2].contains("300.0 kB (20.0 %)") && said[2].contains("does not count"), "{}", said[2]);
        assert_eq!(said[3], "Nothing crossed twice.");
        assert_eq!(sentences(&Savings::default())[0], "Clients received nothing; 0 B crossed the WAN.");
    }

    #[test]
    fn what_came_from_bundles_is_told() {
        let totals = Totals { preloaded_media: 70_000_000, ..Totals::default() };
        let savings = Savings { totals, saved: Saved::by(&totals), ..Savings::default() };
        assert_eq!(sentences(&savings)[1], "70.0 MB came from bundles, over no wire at all.");
    }

    #[test]
    fn what_is_not_known_is_told() {
        let hosts = Hosts::new([("aaaaaaaa".to_owned(), "pc-1".to_owned())]);
        let savings = Savings {
            unanswered: vec!["bbbbbbbb".into()],
            disagreements: vec![Disagreement {
                giver: "aaaaaaaa".into(),
                taker: "bbbbbbbb".into(),
                given: 20_000_000,
                taken: 10_000_000,
            }],
            gaps: vec![NodeGap {
                node: "aaaaaaaa".into(),
                after: "2026-11-01T00:00:00Z".into(),
                estimated: 0,
            }],
            ..Savings::default()
        };
        let said = notes(&savings, &hosts).join("\n");
        assert!(said.contains("did not answer: …bbbbbb"), "{said}");
        assert!(said.contains("pc-1 (aaaaaa) says that it gave 20.0 MB to …bbbbbb"), "{said}");
        assert!(said.contains("after 2026-11-01T00:00:00Z: up to a second"), "{said}");
        assert_eq!(notes(&Savings::default(), &hosts), [""; 0]);
    }
}
