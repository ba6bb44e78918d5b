//! Charts, drawn as SVG. Lengths along a chart are shares of its width, so that it fits a telephone as well
//! as a page and letters keep their size; heights are in pixels.

use super::super::escape::html;
use super::fold::{Item, Step, Time};
use crate::core::bitrate::Size;
use crate::core::ledger::Totals;

/// Of a chart over time, in pixels.
const HEIGHT: f64 = 250.0;
const ABOVE: f64 = 10.0;
const BELOW: f64 = 26.0;
/// Names of days below a chart: more would run into one another on a telephone.
const NAMES: usize = 5;
/// Bars are no wider, in percent, when there are few.
const WIDEST: f64 = 7.0;

/// The classes of the parts of a bar: from the WAN, from peers, from the local cache.
pub(super) const PARTS: [(&str, &str); 3] =
    [("wan", "over the WAN"), ("peer", "from peers"), ("local", "from the local cache")];

/// Where content that clients received came from.
pub(super) fn sources(totals: &Totals) -> [u64; 3] {
    [totals.wan, totals.peer, totals.local]
}

/// Start and length of each part, where `whole` is as long as `length`. Parts follow on one another.
fn spans(parts: &[u64], whole: u64, length: f64) -> Vec<(f64, f64)> {
    let scale = if whole == 0 { 0.0 } else { length / whole as f64 };
    let mut end = 0.0;
    let span = |part: &u64| {
        let start = end;
        end += *part as f64 * scale;
        (start, end - start)
    };
    parts.iter().map(span).collect()
}

/// Start and length of bars that may be less than nothing, and where nothing is, in percent.
fn signed_spans(values: &[i64]) -> (f64, Vec<(f64, f64)>) {
    let most = values.iter().copied().max().unwrap_or(0).max(0) as f64;
    let least = values.iter().copied().min().unwrap_or(0).min(0) as f64;
    let scale = if most > least { 100.0 / (most - least) } else { 0.0 };
    let zero = -least * scale;
    let span = |value: &i64| {
        let length = *value as f64 * scale;
        if length < 0.0 { (zero + length, -length) } else { (zero, length) }
    };
    (zero, values.iter().map(span).collect())
}

/// A number that a scale ends with, and how many steps lead there.
fn scale(most: u64) -> (u64, u64) {
    if most == 0 {
        return (1, 1);
    }
    let mut unit = 1u64;
    while let Some(next) = unit.checked_mul(10).filter(|next| *next <= most) {
        unit = next;
    }
    let tenths = [(10, 2), (15, 3), (20, 4), (30, 3), (40, 4), (50, 5), (60, 3), (80, 4), (100, 5)];
    let fits = |(tenths, steps): (u64, u64)| {
        let end = (u128::from(unit) * u128::from(tenths)).div_ceil(10);
        (end >= u128::from(most)).then(|| (u64::try_from(end).unwrap_or(u64::MAX), steps))
    };
    tenths.into_iter().find_map(fits).unwrap_or((most, 1))
}

/// A bar that lies, of parts with classes. The text is read out and shown under the mouse.
fn lying(parts: &[(f64, f64, &str)], zero: Option<f64>, text: &str) -> String {
    let rect = |(start, length, class): &(f64, f64, &str)| {
        format!("<rect class=\"{class}\" x=\"{start:.3}%\" width=\"{length:.3}%\" height=\"100%\"/>")
    };
    let rects: String = parts.iter().filter(|(_, length, _)| *length > 0.0).map(rect).collect();
    let axis =
        zero.map(|at| format!("<line class=\"zero\" x1=\"{at:.3}%\" x2=\"{at:.3}%\" y1=\"0\" y2=\"100%\"/>"));
    let text = html(text);
    format!(
        "<svg class=\"bar\" aria-hidden=\"true\" focusable=\"false\"><title>{text}</title>{rects}{}</svg>",
        axis.unwrap_or_default()
    )
}

/// One line of a chart of lying bars: what, how long, how much.
fn line(name: &str, bar: &str, value: &str) -> String {
    let name = html(name);
    let value = html(value);
    format!("<li><span class=\"name\">{name}</span>{bar}<span class=\"value\">{value}</span></li>\n")
}

/// Lying bars of where content came from, the longest as long as the chart.
pub(super) fn stacked(items: &[Item]) -> String {
    let sum = |it: &Totals| sources(it).into_iter().fold(0, u64::saturating_add);
    let whole = items.iter().map(|item| sum(&item.totals)).max().unwrap_or(0);
    let draw = |item: &Item| {
        let parts = spans(&sources(&item.totals), whole, 100.0);
        let parts = parts.into_iter().zip(PARTS).map(|((start, length), (class, _))| (start, length, class));
        let bar = lying(&parts.collect::<Vec<_>>(), None, &in_words(&item.name, &item.totals));
        line(&item.name, &bar, &Size(item.totals.delivered).to_string())
    };
    format!("<ul class=\"bars stacked\">\n{}</ul>\n", items.iter().map(draw).collect::<String>())
}

/// Lying bars of one kind, which may be less than nothing.
pub(super) fn signed(items: &[(String, i64, &str)], value: impl Fn(i64) -> String) -> String {
    let (zero, spans) = signed_spans(&items.iter().map(|(_, value, _)| *value).collect::<Vec<_>>());
    let axis = (zero > 0.0).then_some(zero);
    let draw = |((name, bytes, class), (start, length)): (&(String, i64, &str), (f64, f64))| {
        let value = value(*bytes);
        line(name, &lying(&[(start, length, class)], axis, &format!("{name}: {value}")), &value)
    };
    format!("<ul class=\"bars\">\n{}</ul>\n", items.iter().zip(spans).map(draw).collect::<String>())
}

/// A row's figures in words.
fn in_words(name: &str, it: &Totals) -> String {
    let parts =
        sources(it).into_iter().zip(PARTS).map(|(bytes, (_, part))| format!("{} {part}", Size(bytes)));
    format!("{name}: {}; on the wire of the WAN {}", parts.collect::<Vec<_>>().join(", "), Size(it.wan_wire))
}

/// Standing bars over time, with a mark for what crossed the WAN as it was on the wire: content that came
/// before a client asked for it is in no bar, and yet crossed.
pub(super) fn columns(time: &Time) -> String {
    let most = time.items.iter().map(|(_, it)| it.delivered.max(it.wan_wire)).max().unwrap_or(0);
    let (end, steps) = scale(most);
    let high = HEIGHT - ABOVE - BELOW;
    let level = |bytes: u64| ABOVE + high - high * bytes as f64 / end as f64;
    let (mut grid, mut names) = (String::new(), String::new());
    for step in 0..=steps {
        let bytes = (u128::from(end) * u128::from(step) / u128::from(steps)) as u64;
        let y = level(bytes);
        grid.push_str(&format!("<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        let name = Size(bytes).to_string().replace(".0 ", " ");
        names.push_str(&format!("<text x=\"100%\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", y + 4.0));
    }
    let slot = 100.0 / time.items.len().max(1) as f64;
    let bars: String =
        time.items.iter().enumerate().map(|(at, bar)| standing(at, bar, slot, &level, high, end)).collect();
    let text = format!(
        "One bar a {}: content that clients received, by where it came from. The table below has the figures.",
        time.step.name()
    );
    format!(
        "<div class=\"columns\">\n<svg class=\"levels\" height=\"{HEIGHT}\" aria-hidden=\"true\" focusable=\"false\">{names}</svg>\n\
         <svg class=\"plot\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{text}\">{grid}{bars}{}</svg>\n</div>\n",
        day_names(time, slot)
    )
}

fn standing(
    at: usize,
    (day, it): &(jiff::civil::Date, Totals),
    slot: f64,
    level: &dyn Fn(u64) -> f64,
    high: f64,
    end: u64,
) -> String {
    let width = (slot * 0.72).min(WIDEST);
    let x = slot * at as f64 + (slot - width) / 2.0;
    let mut bar = format!("<g><title>{}</title>", html(&in_words(&day.to_string(), it)));
    for ((start, length), (class, _)) in spans(&sources(it), end, high).into_iter().zip(PARTS) {
        if length > 0.0 {
            let y = ABOVE + high - start - length;
            bar.push_str(&format!(
                "<rect class=\"{class}\" x=\"{x:.3}%\" y=\"{y:.2}\" width=\"{width:.3}%\" height=\"{length:.2}\"/>"
            ));
        }
    }
    if it.wan_wire > 0 {
        let (x, width, y) = (x - slot * 0.08, width + slot * 0.16, level(it.wan_wire) - 1.0);
        bar.push_str(&format!(
            "<rect class=\"wire\" x=\"{x:.3}%\" y=\"{y:.2}\" width=\"{width:.3}%\" height=\"2\"/>"
        ));
    }
    format!("{bar}</g>")
}

/// As many days by name as have room.
fn day_names(time: &Time, slot: f64) -> String {
    let every = time.items.len().div_ceil(NAMES).max(1);
    let form = if time.step == Step::Month { "%b %Y" } else { "%-d %b" };
    let name = |(at, (day, _)): (usize, &(jiff::civil::Date, Totals))| {
        let x = slot * (at as f64 + 0.5);
        // The outermost would else be cut off.
        let (x, anchor) = match x {
            x if x < 6.0 => (0.0, "start"),
            x if x > 94.0 => (100.0, "end"),
            x => (x, "middle"),
        };
        format!(
            "<text x=\"{x:.3}%\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 6.0,
            day.strftime(form)
        )
    };
    time.items.iter().enumerate().step_by(every).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_bar_add_up() {
        assert_eq!(spans(&[1, 2, 1], 8, 100.0), [(0.0, 12.5), (12.5, 25.0), (37.5, 12.5)]);
        assert_eq!(spans(&[1, 2], 0, 100.0), [(0.0, 0.0), (0.0, 0.0)]);
        let parts = [333_333_333, 1, 999_999_999_999, 7];
        let spans = spans(&parts, parts.iter().sum(), 100.0);
        assert!((spans.iter().map(|(_, length)| length).sum::<f64>() - 100.0).abs() < 1e-9);
        for pair in spans.windows(2) {
            assert!((pair[0].0 + pair[0].1 - pair[1].0).abs() < 1e-9, "each begins where the last one ends");
        }
    }

    #[test]
    fn losses_lie_on_the_other_side_of_nothing() {
        assert_eq!(signed_spans(&[100, 50]), (0.0, vec![(0.0, 100.0), (0.0, 50.0)]));
        assert_eq!(signed_spans(&[300, -100]), (25.0, vec![(25.0, 75.0), (0.0, 25.0)]));
        assert_eq!(signed_spans(&[-10, -20]), (100.0, vec![(50.0, 50.0), (0.0, 100.0)]));
        assert_eq!(signed_spans(&[0, 0]), (0.0, vec![(0.0, 0.0), (0.0, 0.0)]));
        let (zero, spans) = signed_spans(&[i64::MAX, i64::MIN]);
        assert!((zero - 50.0).abs() < 1e-9 && spans[1].0.abs() < 1e-9);
    }

    #[test]
    fn scales_end_with_round_numbers() {
        assert_eq!(scale(0), (1, 1));
        assert_eq!(scale(1_000), (1_000, 2));
        assert_eq!(scale(1_201), (1_500, 3));
        assert_eq!(scale(73_000_000_000), (80_000_000_000, 4));
        for most in [1, 2, 7, 99, 101, 12_345_678, u64::MAX] {
            assert!(scale(most).0 >= most, "{most}");
        }
    }

    #[test]
    fn names_of_publishers_stay_text() {
        let item = Item { name: "<script>x</script>\"".into(), totals: Totals::default() };
        assert!(!stacked(std::slice::from_ref(&item)).contains("<script"));
        assert!(!signed(&[(item.name, -1, "wan")], |_| "<b>".into()).contains("<b>"));
    }

    #[test]
    fn columns_are_as_high_as_what_they_stand_for() {
        let it = Totals { delivered: 100, wan: 25, peer: 50, local: 25, wan_wire: 50, ..Totals::default() };
        let day = jiff::civil::date(2026, 11, 1);
        let text = columns(&Time { step: Step::Day, items: vec![(day, it)] });
        let high = HEIGHT - ABOVE - BELOW;
        for (class, height) in [("wan", high / 4.0), ("peer", high / 2.0), ("local", high / 4.0)] {
            let rect = text.split("<rect ").find(|rect| rect.contains(&format!("class=\"{class}\"")));
            assert!(
                rect.is_some_and(|rect| rect.contains(&format!("height=\"{height:.2}\""))),
                "{class}: {text}"
            );
        }
        assert!(text.contains("1 Nov") && text.contains("100 B"), "{text}");
    }
}
