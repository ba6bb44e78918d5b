//! Marked lines in a text file that belongs to somebody else: what is put there can be told from the rest,
//! replaced, and taken away so that the rest is as it was, whatever was changed there since.

const BEGIN: &str = "# branchline setup: begin";
const END: &str = "# branchline setup: end";
/// Before a line that is set aside as long as ours stands.
const ASIDE: &str = "# branchline setup: set aside: ";
/// There was no such file.
const MADE: &str = " (this file was made for it)";
/// The line before had no end.
const JOINED: &str = " (the line before had no end)";

/// The text as it is without what is ours; `None` if nothing is left of a file that was made for it.
///
/// # Errors
/// In words, if it cannot be told what is ours.
pub(super) fn strip(text: &str) -> Result<Option<String>, String> {
    let (mut left, mut inside, mut made) = (String::with_capacity(text.len()), false, false);
    for line in text.split_inclusive('\n') {
        if inside {
            inside = !line.starts_with(END);
        } else if line.starts_with(BEGIN) {
            inside = true;
            made |= line.contains(MADE);
            if line.contains(JOINED) && left.ends_with('\n') {
                left.pop();
            }
        } else {
            left.push_str(line.strip_prefix(ASIDE).unwrap_or(line));
        }
    }
    match inside {
        true => Err(format!("it has a line {BEGIN:?} and no line {END:?} after it: take ours away by hand")),
        false => Ok((!(made && left.is_empty())).then_some(left)),
    }
}

/// Puts lines before a byte of a text, which is stripped.
fn insert(text: &str, at: usize, lines: &str, made: bool) -> String {
    let (before, after) = text.split_at(at);
    let joined = !before.is_empty() && !before.ends_with('\n');
    let (made, gap) = (if made { MADE } else { "" }, if joined { "\n" } else { "" });
    let joined = if joined { JOINED } else { "" };
    format!("{before}{gap}{BEGIN}{made}{joined}\n{}\n{END}\n{after}", lines.trim_end())
}

/// A file of which all is ours, but for what others have added to it: theirs comes after.
///
/// # Errors
/// As [`strip`].
pub(super) fn at_top(text: Option<&str>, lines: &str) -> Result<String, String> {
    let stripped = strip(text.unwrap_or_default())?;
    let made = text.is_none() || stripped.is_none();
    Ok(insert(&stripped.unwrap_or_default(), 0, lines, made))
}

/// Ours before the first line that begins so, or at the end.
///
/// # Errors
/// As [`strip`].
pub(super) fn before(text: Option<&str>, first: &str, lines: &str) -> Result<String, String> {
    let stripped = strip(text.unwrap_or_default())?;
    let made = text.is_none() || stripped.is_none();
    let stripped = stripped.unwrap_or_default();
    let mut at = 0;
    for line in stripped.split_inclusive('\n') {
        if line.trim_start().starts_with(first) {
            break;
        }
        at += line.len();
    }
    Ok(insert(&stripped, at, lines, made))
}

/// Keys of a section, in INI or TOML, each with its value as it is written there.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// None: before all sections.
    pub(super) name: Option<&'a str>,
    pub(super) pairs: Vec<(&'a str, String)>,
}

/// Sets keys. Other lines that set the same are set aside.
///
/// # Errors
/// As [`strip`].
pub(super) fn set(text: Option<&str>, sections: &[Section]) -> Result<String, String> {
    let stripped = strip(text.unwrap_or_default())?;
    let made = text.is_none() || stripped.is_none();
    let start = stripped.unwrap_or_default();
    Ok(sections.iter().fold(start, |text, section| set_one(&text, section, made)))
}

fn set_one(text: &str, section: &Section, made: bool) -> String {
    let pairs: Vec<String> = section.pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let mut lines = pairs.join("\n");
    let mut out = String::with_capacity(text.len());
    let mut place = section.name.is_none().then_some(0);
    let (mut here, mut aside) = (section.name.is_none(), false);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            here = section.name.is_some_and(|name| plain(line) == plain(&format!("[{name}]")));
            out.push_str(line);
            if here {
                place.get_or_insert(out.len());
            }
            aside = false;
            continue;
        }
        let goes_on = aside && line.starts_with([' ', '\t']) && !line.trim().is_empty();
        let key = line.split(['=', ':']).next().unwrap_or_default();
        aside = goes_on || (here && section.pairs.iter().any(|(ours, _)| plain(key) == plain(ours)));
        if aside {
            out.push_str(ASIDE);
        }
        out.push_str(line);
    }
    if let (None, Some(name)) = (place, section.name) {
        lines = format!("[{name}]\n{lines}");
    }
    let place = place.unwrap_or(out.len());
    insert(&out, place, &lines, made)
}

/// A key or a section's name without what makes no difference.
fn plain(text: &str) -> String {
    let text = text.split('#').next().unwrap_or_default();
    text.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\''))
        .map(|c| if c == '_' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(value: &str) -> [Section<'static>; 1] {
        [Section { name: Some("global"), pairs: vec![("index-url", value.to_owned())] }]
    }

    #[test]
    fn keys_are_set_in_their_section_and_theirs_come_back() {
        let theirs = "[install]\nindex-url = a\n[global]\nproxy = p\nindex_url = b\n    c\ntimeout = 1";
        let ours = set(Some(theirs), &index("x")).expect("set");
        let lines: Vec<&str> = ours.lines().collect();
        assert_eq!(&lines[..3], ["[install]", "index-url = a", "[global]"]);
        assert_eq!(lines[4], "index-url = x");
        assert!(ours.contains(&format!("\n{ASIDE}index_url = b\n{ASIDE}    c\ntimeout = 1")), "{ours}");
        assert_eq!(set(Some(&ours), &index("x")).as_ref(), Ok(&ours), "repeated");
        let other = set(Some(&ours), &index("y")).expect("set");
        assert!(!other.contains("= x"));
        assert_eq!(strip(&other), Ok(Some(theirs.to_owned())));
    }

    #[test]
    fn a_file_that_was_made_goes_again() {
        for made in [set(None, &index("x")), at_top(None, "a\nb"), before(None, "[host", "a")] {
            let made = made.expect("made");
            assert_eq!(strip(&made), Ok(None), "{made}");
            assert_eq!(strip(&format!("{made}# theirs\n")), Ok(Some("# theirs\n".to_owned())));
        }
        let twice = at_top(Some(&at_top(None, "a").expect("made")), "a").expect("made");
        assert_eq!(strip(&twice), Ok(None));
        assert_eq!(
            strip(&at_top(Some(""), "a").expect("made")),
            Ok(Some(String::new())),
            "it was there, and empty"
        );
        assert!(strip(&format!("{BEGIN}\nx\n")).is_err());
    }

    proptest! {
        #[test]
        fn whatever_was_there_is_there_again(
            lines in proptest::collection::vec("(\\[global\\]|\\[x\\]|index-url ?= ?[a-z]{0,3}| +a|[a-z=\\[\\]#\" \r]{0,9})", 0..9),
            end in any::<bool>(),
        ) {
            let text = format!("{}{}", lines.join("\n"), if end { "\n" } else { "" });
            let sections = [
                Section { name: Some("global"), pairs: vec![("index-url", "x".to_owned())] },
                Section { name: None, pairs: vec![("a", "y".to_owned())] },
            ];
            let ours = set(Some(&text), &sections).expect("set");
            prop_assert_eq!(set(Some(&ours), &sections), Ok(ours.clone()));
            prop_assert_eq!(strip(&ours), Ok(Some(text.clone())));
            let ours = before(Some(&text), "[x", "y").expect("put");
            prop_assert_eq!(strip(&ours), Ok(Some(text)));
        }
    }
}
