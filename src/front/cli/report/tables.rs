//! The tables below the charts: the same figures, to be read out, checked and copied.

use super::super::escape::html;
use super::super::savings::words::{share, signed};
use super::fold::Item;
use crate::core::bitrate::Size;
use crate::core::ledger::Totals;

/// The heads of the figures of [`row`].
const HEADS: [&str; 8] = [
    "Clients received",
    "over the WAN",
    "from peers",
    "from the local cache",
    "On the wire of the WAN",
    "Without Branchline",
    "Saved, of received",
    "Saved, of without",
];

/// With a proper minus, as typesetters have it.
pub(super) fn minus(number: &str) -> String {
    number.replace('-', "\u{2212}")
}

/// Digits by threes, with spaces that do not break.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn cell(text: &str) -> String {
    let class = if text.starts_with('-') { " class=\"loss\"" } else { "" };
    format!("<td{class}>{}</td>", html(&minus(text)))
}

/// A table in a frame that scrolls where it is wider than the page, also by keys.
fn frame(caption: &str, heads: &[&str], body: &str, foot: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", html(head))).collect();
    let caption = html(caption);
    let foot = if foot.is_empty() { String::new() } else { format!("<tfoot>{foot}</tfoot>") };
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><caption>{caption}</caption>\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n{foot}</table></div>\n"
    )
}

fn row(name: &str, it: &Totals) -> String {
    let saved = |bytes: i64, of: u64| share(bytes, of).unwrap_or_else(|| "–".into());
    let mut cells: Vec<String> = [it.delivered, it.wan, it.peer, it.local, it.wan_wire, it.direct]
        .map(|it| Size(it).to_string())
        .to_vec();
    cells.push(saved(it.saved_of_delivered(), it.delivered));
    cells.push(saved(it.saved_of_direct(), it.direct));
    let cells: String = cells.iter().map(|text| cell(text)).collect();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", html(name))
}

/// Items by where their content came from, with their sum.
pub(super) fn sources(caption: &str, head: &str, items: &[Item], sum: &Totals) -> String {
    let mut heads = vec![head];
    heads.extend(HEADS);
    let body: String = items.iter().map(|item| row(&item.name, &item.totals)).collect();
    frame(caption, &heads, &body, &row("All", sum))
}

/// Why bytes crossed the WAN.
pub(super) fn reasons(items: &[Item], why: impl Fn(&str) -> &'static str, total: &Totals) -> String {
    let figures = |it: &Totals| {
        let part = share(i64::try_from(it.wan_wire).unwrap_or(i64::MAX), total.wan_wire);
        let cells = [Size(it.wan_wire).to_string(), part.unwrap_or_else(|| "–".into())];
        let cells = cells.into_iter().chain([it.wan, it.wan_duplicate].map(|it| Size(it).to_string()));
        cells.map(|text| cell(&text)).collect::<String>()
    };
    let line = |item: &Item| {
        let (name, why) = (html(&item.name), html(why(&item.name)));
        format!(
            "<tr><th scope=\"row\">{name} <span class=\"why\">{why}</span></th>{}</tr>\n",
            figures(&item.totals)
        )
    };
    let mut sum = Totals::default();
    items.iter().for_each(|item| sum.add(&item.totals));
    let heads = ["Reason", "On the wire of the WAN", "Share", "Content", "Of it, crossed twice"];
    let foot = format!("<tr><th scope=\"row\">All</th>{}</tr>", figures(&sum));
    frame("The same figures by reason", &heads, &items.iter().map(line).collect::<String>(), &foot)
}

/// Both denominators, and what is left of them.
pub(super) fn glance(items: &[(String, i64, &str)]) -> String {
    let line = |(name, bytes, _): &(String, i64, &str)| {
        let exact = cell(&grouped(*bytes));
        format!("<tr><th scope=\"row\">{}</th>{}{exact}</tr>\n", html(name), cell(&signed(*bytes)))
    };
    frame("The same figures", &["", "Amount", "in bytes"], &items.iter().map(line).collect::<String>(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_can_be_read() {
        assert_eq!(grouped(-1_234_567), "-1\u{202f}234\u{202f}567");
        assert_eq!(
            (grouped(999), grouped(0), grouped(1000)),
            ("999".into(), "0".into(), "1\u{202f}000".into())
        );
    }

    #[test]
    fn losses_stand_out_and_names_stay_text() {
        let it = Totals { delivered: 1000, wan: 1000, direct: 4000, wan_wire: 1500, ..Totals::default() };
        let item = Item { name: "a<b>@1".into(), totals: it };
        let text = sources("Rows & sums", "Package", std::slice::from_ref(&item), &it);
        assert!(text.contains("a&lt;b&gt;@1") && !text.contains("<b>"), "{text}");
        assert!(text.contains("<td class=\"loss\">\u{2212}50.0 %</td><td>62.5 %</td>"), "{text}");
        assert!(text.contains("Rows &amp; sums"), "{text}");
        let text = reasons(&[item], |_| "why <i>", &it);
        assert!(text.contains("<td>1.5 kB</td><td>100.0 %</td>") && !text.contains("<i>"), "{text}");
    }
}
