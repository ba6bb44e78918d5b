//! What an upstream asks of its users. Never shown, and sent to that upstream alone.

use std::fmt;

use http::header::HeaderValue;

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(HeaderValue);

impl Credentials {
    /// A token; `None` if the text is none.
    pub fn token(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        Self::of(format!("Bearer {text}")).filter(|_| plain)
    }

    /// The header as it is given; `None` if that cannot be sent.
    pub fn verbatim(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        Self::of(text.to_owned()).filter(|_| plain)
    }

    /// A user and a password; `None` if they cannot be sent.
    pub fn basic(user: &str, password: &str) -> Option<Self> {
        let password = password.trim_end_matches(['\r', '\n']);
        if user.is_empty() || user.contains(':') {
            return None;
        }
        Self::of(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
    }

    fn of(text: String) -> Option<Self> {
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// What tells others apart, and them from none.
    pub fn realm(&self) -> [u8; 32] {
        *blake3::hash(self.0.as_bytes()).as_bytes()
    }

    /// For the header.
    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n)) as usize & 63] as char;
            text.push(if n <= three.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_sent_as_they_should_and_never_shown() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("a:b?c", "YTpiP2M=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        let it = Credentials::basic("ann", "secret\n").expect("valid");
        assert_eq!(it.value(), "Basic YW5uOnNlY3JldA==");
        assert!(!format!("{it:?} {:?}", it.value()).contains("YW5u"));
        assert_eq!(Credentials::verbatim("Bearer abc\n").expect("valid").value(), "Bearer abc");
        assert!(Credentials::verbatim("").is_none() && Credentials::verbatim("a\nb").is_none());
        assert!(Credentials::token("two words").is_none() && Credentials::basic("a:b", "c").is_none());
    }
}
