//! An upstream as an admin writes it: `NAME KIND URL [MIRROR...] [option=value...]`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::Credentials;

/// Which protocol an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An apt repository.
    Apt,
    /// A Python package index.
    Pypi,
    /// An npm registry.
    Npm,
    /// A container registry.
    Oci,
    /// A cargo registry with a sparse index.
    Cargo,
    /// Files.
    Http,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Apt, Self::Pypi, Self::Npm, Self::Oci, Self::Cargo, Self::Http];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Oci => "oci",
            Self::Cargo => "cargo",
            Self::Http => "http",
        }
    }
}

/// A foreign repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// How it is called in the gateway's paths.
    pub name: String,
    /// Its protocol.
    pub kind: Kind,
    /// Where it is, and its mirrors; each ends with a slash.
    pub bases: Vec<Url>,
    /// What it asks of its users.
    pub credentials: Option<Credentials>,
    /// Its first address is the gateway of a hub, which has objects by recipe.
    pub is_hub: bool,
    /// Container tools are asked to log in at the gateway, for what the registry does not give to anybody.
    pub logins: bool,
    /// It may redirect to addresses of private networks.
    pub private_redirects: bool,
    /// What changes there is taken to be fresh for so long, if it does not say itself.
    pub max_age: Option<Duration>,
    /// How its tools call it if not by its address: a registry's public name, cargo's name of a source.
    pub called: Option<String>,
    /// The one that is meant where a client does not say which.
    pub is_default: bool,
}

/// A text that is no upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an upstream: {0}; write NAME KIND URL, such as 'debian apt https://mirror.example/debian'")]
pub struct InvalidUpstream(String);

fn invalid(text: impl Into<String>) -> InvalidUpstream {
    InvalidUpstream(text.into())
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or_else(|| invalid("it is empty"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.len() > 64 || name.starts_with('.') || !name.chars().all(fits) {
            return Err(invalid(format!("{name:?} is no name; letters, digits, '-', '_' and '.' make one")));
        }
        let kind = words.next().unwrap_or_default();
        let known = || Kind::ALL.map(Kind::as_str).join(", ");
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
        let kind = kind.ok_or_else(|| invalid(format!("after its name comes its kind: {}", known())))?;
        let mut upstream = Self {
            name: name.to_owned(),
            kind,
            bases: Vec::new(),
            credentials: None,
            is_hub: false,
            logins: false,
            private_redirects: false,
            max_age: None,
            called: None,
            is_default: false,
        };
        let mut user = None;
        let mut password = None;
        // Some registries of cargo want the bare token, and cargo sends what it is given.
        let token: fn(&str) -> Option<Credentials> =
            if kind == Kind::Cargo { Credentials::verbatim } else { Credentials::token };
        for word in words {
            match word.split_once('=') {
                Some(("token-file", path)) => {
                    let found = token(&read(path)?);
                    upstream.credentials =
                        Some(found.ok_or_else(|| invalid(format!("{path} holds no token")))?);
                }
                Some(("token-env", name)) => {
                    let found = std::env::var(name).ok().and_then(|text| token(&text));
                    let missing = || invalid(format!("the environment has no token in {name}"));
                    upstream.credentials = Some(found.ok_or_else(missing)?);
                }
                Some(("user", name)) => user = Some(name.to_owned()),
                Some(("password-file", path)) => password = Some(read(path)?),
                Some(("max-age", seconds)) => {
                    let age = seconds.parse().map_err(|_| invalid("max-age is a number of seconds"))?;
                    upstream.max_age = Some(Duration::from_secs(age));
                }
                Some(("as", name)) => upstream.called = Some(name.to_owned()),
                Some(("default", "yes")) => upstream.is_default = true,
                Some(("hub", "yes")) => upstream.is_hub = true,
                Some(("logins", "yes")) if kind == Kind::Oci => upstream.logins = true,
                Some(("private-redirects", "yes")) => upstream.private_redirects = true,
                _ => upstream.bases.push(base(word)?),
            }
        }
        match (user, password) {
            (None, None) => {}
            (Some(user), Some(password)) => {
                let basic = Credentials::basic(&user, &password);
                upstream.credentials = Some(basic.ok_or_else(|| invalid("user or password cannot be sent"))?);
            }
            _ => return Err(invalid("user and password-file belong together")),
        }
        if kind == Kind::Oci {
            upstream.bases.iter_mut().for_each(without_v2);
        }
        if upstream.bases.is_empty() {
            return Err(invalid("it has no address"));
        }
        Ok(upstream)
    }
}

fn read(path: &str) -> Result<String, InvalidUpstream> {
    std::fs::read_to_string(path).map_err(|error| invalid(format!("cannot read {path}: {error}")))
}

fn base(text: &str) -> Result<Url, InvalidUpstream> {
    let no = || invalid(format!("{:?} is no http:// or https:// address", without_password(text)));
    let mut url = Url::parse(text).map_err(|_| no())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(no());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("an address holds no password: give user= and password-file=, or token-file="));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("an upstream's address has no query and no fragment"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Registries are written with the beginning of their API and without.
fn without_v2(base: &mut Url) {
    if let Some(path) = base.path().strip_suffix("v2/").map(str::to_owned) {
        base.set_path(&path);
    }
}

fn without_password(text: &str) -> String {
    match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(end)) if start + 2 <= end => format!("{}//...{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind.as_str())?;
        self.bases.iter().try_for_each(|base| write!(f, " {base}"))
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_read_and_mistakes_are_named() {
        let it: Upstream =
            "debian apt http://a.example/debian https://b.example/debian/ max-age=5".parse().expect("valid");
        assert_eq!(it.bases[0].as_str(), "http://a.example/debian/");
        assert_eq!((it.kind, it.bases.len(), it.max_age), (Kind::Apt, 2, Some(Duration::from_secs(5))));
        let it: Upstream =
            "hub oci https://registry.example/v2/ as=example.org default=yes".parse().expect("valid");
        assert_eq!(it.bases[0].as_str(), "https://registry.example/");
        assert_eq!((it.called.as_deref(), it.is_default), (Some("example.org"), true));
        for (bad, hint) in [
            ("", "empty"),
            ("a/b apt http://x", "letters"),
            ("a ftp http://x", "pypi"),
            ("a apt", "no address"),
            ("a apt x", "no http"),
            ("a apt http://u:secret@x/", "password-file"),
            ("a apt http://x user=ann", "together"),
            ("a apt http://x max-age=soon", "seconds"),
            ("a apt http://x token-file=/nowhere/at/all", "cannot read"),
        ] {
            let error = bad.parse::<Upstream>().expect_err(bad).to_string();
            assert!(error.contains(hint) && !error.contains("secret"), "{error}");
        }
    }
}
