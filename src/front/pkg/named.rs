//! Files that an index named. A rewritten index leads to the gateway with all that is known of a file:
//! `SEAL/DIGESTS/PLACE`, where the place is `here/PATH` below the upstream or `https/HOST/PATH` anywhere.
//! The seal is made with a secret of the site, so that nothing can be fetched through the gateway that no
//! index has named, and nothing under another digest than the index's. All nodes of a site make the same
//! seals: what one of them has named, all of them know.

use url::{Position, Url};

use super::{NoArtifact, Path};
use crate::core::upstream::Digest;
use crate::origin::upstream::Upstream;

/// No byte of a path may hide behind these codes, as [`Path`] has it; in a place they are written with a
/// `%25` for their `%`.
const HIDDEN: [&str; 7] = ["25", "2f", "5c", "00", "0a", "0d", "2e"];
/// Of a file that has no digest.
const NONE: &str = "-";
const HERE: &str = "here/";
const SCHEMES: [(&str, &str); 2] = [("https/", "https://"), ("http/", "http://")];

/// The site's secret for names of files.
#[derive(Clone)]
pub struct Seal([u8; 32]);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// All nodes of a site have the same secret.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Over what the codes of a place stand for: clients write more of them, or fewer.
    fn make(&self, upstream: &str, digests: &str, place: &str) -> String {
        let sealed = [upstream.as_bytes(), b"\n", digests.as_bytes(), b"\n", &decode(place)].concat();
        blake3::keyed_hash(&self.0, &sealed).to_hex()[..32].to_owned()
    }

    fn fits(&self, seal: &str, upstream: &str, digests: &str, place: &str) -> bool {
        let right = self.make(upstream, digests, place);
        aws_lc_rs::constant_time::verify_slices_are_equal(seal.as_bytes(), right.as_bytes()).is_ok()
    }
}

/// A file that an index named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where it is: a path below its upstream, or an address.
    pub place: String,
    /// Its digest, if the index says it.
    pub digest: Option<Digest>,
    /// The digest of the file that describes it, if the index says it.
    pub described: Option<Digest>,
}

impl Named {
    /// The file at an address; `None` if that is nowhere that a file could be fetched from.
    pub fn at(upstream: &Upstream, mut url: Url) -> Option<Self> {
        url.set_fragment(None);
        let fetched = matches!(url.scheme(), "http" | "https") && url.username().is_empty();
        if !fetched || url.password().is_some() || url.path().ends_with('/') {
            return None;
        }
        let place = below(upstream, &url).unwrap_or_else(|| String::from(url));
        Some(Self { place, digest: None, described: None })
    }

    /// How it is called at the gateway; `None` if it cannot be.
    pub fn link(&self, seal: &Seal, upstream: &str) -> Option<String> {
        let foreign = SCHEMES
            .iter()
            .find_map(|(short, scheme)| Some(format!("{short}{}", hide(self.place.strip_prefix(scheme)?))));
        let place = foreign.unwrap_or_else(|| format!("{HERE}{}", hide(&self.place)));
        Path::parse(&place).ok()?;
        let digests = self.digests();
        let made = seal.make(upstream, &digests, &self.place);
        Some(format!("{made}/{digests}/{place}"))
    }

    fn digests(&self) -> String {
        let digest = self.digest.map_or_else(|| NONE.to_owned(), |digest| digest.to_string());
        self.described.map_or_else(|| digest.clone(), |described| format!("{digest},{described}"))
    }

    /// What a link leads to.
    ///
    /// # Errors
    /// [`NoArtifact::NoSuch`] if no index of the upstream has named it.
    pub fn read(link: &str, seal: &Seal, upstream: &str) -> Result<Self, NoArtifact> {
        let named = || {
            let mut parts = link.splitn(3, '/');
            let (made, digests, place) = (parts.next()?, parts.next()?, parts.next()?);
            let digests = &String::from_utf8(decode(digests)).ok()?;
            let foreign =
                SCHEMES.iter().find_map(|(short, scheme)| Some((*scheme, place.strip_prefix(short)?)));
            let (scheme, rest) = foreign.or_else(|| Some(("", place.strip_prefix(HERE)?)))?;
            let place = if scheme.is_empty() { show(rest) } else { format!("{scheme}{}", at_host(rest)?) };
            if !seal.fits(made, upstream, digests, &place) {
                return None;
            }
            let (digest, described) =
                digests.split_once(',').map_or((&digests[..], None), |(digest, other)| (digest, Some(other)));
            Some(Self {
                place,
                digest: digest.parse().ok(),
                described: described.and_then(|digest| digest.parse().ok()),
            })
        };
        let none = "no index of this upstream has named this file here, or the site's key has changed since; read the index again";
        named().ok_or_else(|| NoArtifact::NoSuch(none.into()))
    }
}

/// The path of an address below its upstream, with its query.
pub fn below(upstream: &Upstream, url: &Url) -> Option<String> {
    let below = |base: &Url| {
        let here = base.origin() == url.origin();
        let path = url[Position::BeforePath..Position::AfterQuery].strip_prefix(base.path());
        path.filter(|_| here).map(str::to_owned)
    };
    let plain = |path: &String| !SCHEMES.iter().any(|(_, scheme)| path.starts_with(scheme));
    upstream.bases.iter().find_map(below).filter(plain)
}

fn hide(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut pieces = text.split('%');
    hidden.extend(pieces.next());
    for piece in pieces {
        let code = piece.get(..2).unwrap_or_default().to_ascii_lowercase();
        hidden.push_str(if HIDDEN.contains(&code.as_str()) { "%25" } else { "%" });
        hidden.push_str(piece);
    }
    hidden
}

fn show(text: &str) -> String {
    text.replace("%25", "%")
}

/// A host and a path; some clients write the colon before a port as a code.
fn at_host(text: &str) -> Option<String> {
    let (host, path) = text.split_once('/')?;
    Some(format!("{}/{}", String::from_utf8(decode(host)).ok()?, show(path)))
}

/// What the codes in a text stand for.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|code| byte == b'%' && !code.starts_with('+'));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(meant) => {
                decoded.push(meant);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEAL: Seal = Seal::new([7; 32]);

    fn upstream() -> Upstream {
        "main pypi https://a.example/root/ https://b.example/".parse().expect("valid")
    }

    fn named(url: &str) -> Option<Named> {
        Named::at(&upstream(), Url::parse(url).expect(url))
    }

    #[test]
    fn a_link_says_where_a_file_is() {
        let digest = "sha256:aa00000000000000000000000000000000000000000000000000000000000000";
        for (url, place, link) in [
            ("https://a.example/root/p/x-1%2Bcu.whl#sha256=1", "p/x-1%2Bcu.whl", "here/p/x-1%2Bcu.whl"),
            ("https://b.example/p/x.whl?a=%2f", "p/x.whl?a=%2f", "here/p/x.whl?a=%252f"),
            ("https://a.example/x", "https://a.example/x", "https/a.example/x"),
            (
                "http://c.example:81/@s%2Fn/x.tgz",
                "http://c.example:81/@s%2Fn/x.tgz",
                "http/c.example:81/@s%252Fn/x.tgz",
            ),
        ] {
            let file = Named { digest: digest.parse().ok(), ..named(url).expect(url) };
            assert_eq!(file.place, place);
            let made = file.link(&SEAL, "main").expect("a link");
            assert!(made.ends_with(&format!("/{digest}/{link}")), "{made}");
            assert_eq!(Named::read(&made, &SEAL, "main"), Ok(file));
        }
        for bad in ["ftp://a.example/x", "https://u:p@a.example/x", "mailto:a@b", "https://a.example/dir/"] {
            assert_eq!(named(bad), None, "{bad}");
        }
        let hidden = named("https://b.example/https://c.example/x").expect("an address");
        assert_eq!(
            (hidden.place.as_str(), hidden.link(&SEAL, "main")),
            ("https://b.example/https://c.example/x", None)
        );
    }

    #[test]
    fn what_no_index_named_is_not_fetched() {
        let file = named("https://c.example/x").expect("a file");
        let link = file.link(&SEAL, "main").expect("a link");
        assert!(Named::read(&link, &SEAL, "other").is_err());
        assert!(Named::read(&link, &Seal::new([8; 32]), "main").is_err());
        assert!(Named::read(&link.replace("c.example", "d.example"), &SEAL, "main").is_err());
        assert!(Named::read(&link.replace("https/", "http/"), &SEAL, "main").is_err());
        let digest = format!("sha1:{}", "00".repeat(20));
        assert!(Named::read(&link.replace("/-/", &format!("/{digest}/")), &SEAL, "main").is_err());
        for bad in ["", "/", "//", "a/b", "a/-/here/x", &"/".repeat(99)] {
            assert!(Named::read(bad, &SEAL, "main").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_place_comes_back(path in "[!-~]{1,60}", query in proptest::option::of("[!-~]{0,20}")) {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let url = Url::parse(&format!("https://a.example/root/{path}{query}"));
            if let Some(file) = url.ok().and_then(|url| Named::at(&upstream(), url))
                && let Some(link) = file.link(&SEAL, "main")
            {
                prop_assert!(Path::parse(&link).is_ok());
                prop_assert_eq!(Named::read(&link, &SEAL, "main"), Ok(file));
            }
        }
    }
}
