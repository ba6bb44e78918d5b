//! The part of a request's path that is meant for an upstream.

use super::NoArtifact;

/// A path below an upstream, as it was sent, with its query: checked, and without a slash at its
/// beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

/// No path is longer, in bytes.
const LONGEST: usize = 8 << 10;

impl Path {
    /// Checks one.
    ///
    /// # Errors
    /// [`NoArtifact::BadPath`] if it could lead somewhere else.
    pub fn parse(text: &str) -> Result<Self, NoArtifact> {
        let bad = || NoArtifact::BadPath(text.chars().take(100).collect());
        let text = text.trim_start_matches('/');
        let (path, _) = text.split_once('?').unwrap_or((text, ""));
        if text.len() > LONGEST
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
            || text.contains(['#', '\\'])
        {
            return Err(bad());
        }
        let lower = path.to_ascii_lowercase();
        if ["%2f", "%5c", "%00", "%0a", "%0d"].iter().any(|hidden| lower.contains(hidden)) {
            return Err(bad());
        }
        // A dot may hide behind its code.
        let leads_out = |part: &str| part == "%2e" || part.replace("%2e", ".") == "..";
        if lower.split('/').any(leads_out) || path.contains("://") {
            return Err(bad());
        }
        // Flat apt repositories are asked for `./Packages`.
        let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
        Ok(Self(format!("{}{}", parts.join("/"), &text[path.len()..])))
    }

    /// As it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without its query.
    pub fn file(&self) -> &str {
        self.0.split('?').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_refused() {
        for good in ["/pool/main/a/a_1.0%2b1_amd64.deb", "x", "", "a?b=../c", "@scope%40x/y"] {
            assert_eq!(Path::parse(good).expect(good).as_str(), good.trim_start_matches('/'));
        }
        for (sent, meant) in [("./Packages", "Packages"), ("a/./b/.?c=./d", "a/b?c=./d"), ("a/./", "a/")] {
            assert_eq!(Path::parse(sent).expect(sent).as_str(), meant);
        }
        for bad in [
            "../x",
            "a/../b",
            "a/%2e%2E/b",
            "a%2Fb",
            "a%5cb",
            "a\\b",
            "http://x/",
            "a/%2e/b",
            "a b",
            "a\nb",
            "ä",
            "a#b",
            "a%00",
        ] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert!(Path::parse(&"x".repeat(LONGEST + 1)).is_err());
    }
}
