//! The links of a page, as far as an index has any: a reader that never fails, since browsers do not
//! either, and that leaves alone what it does not understand.

use std::ops::Range;

/// A link of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link<'a> {
    /// Where its address stands in the text, with its quotation marks.
    pub at: Range<usize>,
    /// Its address.
    pub href: String,
    attributes: Vec<Attribute<'a>>,
}

/// What of a page leads somewhere.
#[derive(Debug, Default)]
pub struct Links<'a> {
    /// What addresses are relative to, if the page says so itself.
    pub base: Option<String>,
    /// In their order.
    pub links: Vec<Link<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute<'a> {
    name: &'a str,
    /// Without its quotation marks.
    value: &'a str,
    /// With them.
    at: Range<usize>,
}

impl Link<'_> {
    /// Another attribute.
    pub fn attribute(&self, name: &str) -> Option<String> {
        value_of(&self.attributes, name).map(|attribute| decode(attribute.value))
    }
}

/// Reads a page.
pub fn links(text: &str) -> Links<'_> {
    let mut found = Links::default();
    let mut scanner = Scanner { text, at: 0 };
    while let Some(name) = scanner.next_tag() {
        let attributes = scanner.attributes();
        let href = value_of(&attributes, "href").cloned();
        match (name.to_ascii_lowercase().as_str(), href) {
            ("a", Some(href)) => {
                let (at, href) = (href.at.clone(), decode(href.value.trim()));
                found.links.push(Link { at, href, attributes });
            }
            ("base", Some(href)) if found.base.is_none() => found.base = Some(decode(href.value.trim())),
            ("script", _) => scanner.skip_past("</script"),
            ("style", _) => scanner.skip_past("</style"),
            _ => {}
        }
    }
    found
}

/// As the value of an attribute, with its quotation marks.
pub fn quoted(value: &str) -> String {
    let escaped =
        value.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    format!("\"{escaped}\"")
}

fn value_of<'a, 'b>(attributes: &'b [Attribute<'a>], name: &str) -> Option<&'b Attribute<'a>> {
    attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name))
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Moves on while this holds; what was passed.
    fn pass(&mut self, holds: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !holds(*byte)).unwrap_or(rest.len());
        let passed = self.text.get(self.at..self.at + length).unwrap_or_default();
        self.at += length;
        passed
    }

    /// Moves past the next such text, whatever its case, or to the end.
    fn skip_past(&mut self, what: &str) {
        let rest = &self.text.as_bytes()[self.at..];
        let found = rest.windows(what.len()).position(|here| here.eq_ignore_ascii_case(what.as_bytes()));
        self.at += found.map_or(rest.len(), |found| found + what.len());
    }

    /// The name of the next tag that opens something; the scanner stands behind it.
    fn next_tag(&mut self) -> Option<&'a str> {
        loop {
            self.pass(|byte| byte != b'<');
            self.peek()?;
            self.at += 1;
            if self.text[self.at..].starts_with("!--") {
                self.skip_past("-->");
            } else if self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
                return Some(self.pass(|byte| !is_space(byte) && !matches!(byte, b'>' | b'/')));
            }
        }
    }

    /// The attributes of a tag; the scanner stands behind its end.
    fn attributes(&mut self) -> Vec<Attribute<'a>> {
        let mut attributes = Vec::new();
        loop {
            self.pass(|byte| is_space(byte) || byte == b'/');
            match self.peek() {
                None => return attributes,
                Some(b'>') => {
                    self.at += 1;
                    return attributes;
                }
                Some(b'=') => self.at += 1,
                Some(_) => attributes.push(self.attribute()),
            }
        }
    }

    fn attribute(&mut self) -> Attribute<'a> {
        let name = self.pass(|byte| !is_space(byte) && !matches!(byte, b'=' | b'>' | b'/'));
        self.pass(is_space);
        if self.peek() != Some(b'=') {
            return Attribute { name, value: "", at: self.at..self.at };
        }
        self.at += 1;
        self.pass(is_space);
        let start = self.at;
        let value = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                let value = self.pass(|byte| byte != quote);
                self.at = (self.at + 1).min(self.text.len());
                value
            }
            _ => self.pass(|byte| !is_space(byte) && byte != b'>'),
        };
        Attribute { name, value, at: start..self.at }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

/// What an attribute's value means; references of which an index has no need stay as they are.
fn decode(value: &str) -> String {
    let mut decoded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once('&') {
        decoded.push_str(before);
        let reference = behind.split_once(';').filter(|(name, _)| name.len() <= 8);
        let meant = reference.and_then(|(name, left)| Some((meaning(name)?, left)));
        let (c, left) = meant.unwrap_or(('&', behind));
        decoded.push(c);
        rest = left;
    }
    decoded + rest
}

fn meaning(name: &str) -> Option<char> {
    let number = || {
        let number = name.strip_prefix('#')?;
        match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        }
    };
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => number().and_then(char::from_u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_are_found_wherever_they_hide() {
        let page = "<!DOCTYPE html><base href='/x/'><!-- <a href=no> --><script>'<a href=no>'</script>\
            <A  data-yanked  HREF = \"a&amp;b&#x2f;&#47;&unknown;&\" data-requires-python='&gt;=3.8'>a</a>\
            <a href=plain/>b</a><a name=c>c</a><abbr href=no><a href='ü\n'>";
        let found = links(page);
        assert_eq!(found.base.as_deref(), Some("/x/"));
        let hrefs: Vec<&str> = found.links.iter().map(|link| link.href.as_str()).collect();
        assert_eq!(hrefs, ["a&b//&unknown;&", "plain/", "ü"]);
        let first = &found.links[0];
        assert_eq!(&page[first.at.clone()], "\"a&amp;b&#x2f;&#47;&unknown;&\"");
        assert_eq!(first.attribute("data-requires-python").as_deref(), Some(">=3.8"));
        assert_eq!(first.attribute("data-yanked").as_deref(), Some(""));
        assert_eq!(first.attribute("data-other"), None);
        assert_eq!(&page[found.links[1].at.clone()], "plain/");
        assert_eq!(quoted("a\"<&>"), "\"a&quot;&lt;&amp;&gt;\"");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(<a |href|=|'|\"|>|<!--|-->|<script|</|&#|;|x|ü| ){0,40}") {
            for link in links(&text).links {
                prop_assert!(text.get(link.at).is_some());
            }
        }

        #[test]
        fn what_is_quoted_is_what_is_read(value in "\\PC{0,40}") {
            let page = format!("<a href={}>", quoted(&value));
            prop_assert_eq!(&links(&page).links[0].href, &value.trim());
        }
    }
}
