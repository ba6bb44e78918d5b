//! `/npm/UPSTREAM/...`: an npm registry: what it says of packages, in full and abbreviated, and tarballs.
//!
//! Tarballs become `-/files/SEAL/...`, with the digest that the registry says (`integrity`, or the `shasum` of
//! old packages), so that a tarball is one object wherever it lies.

use std::collections::HashMap;

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::named::Named;
use super::splice::Splices;
use super::{Artifact, Asked, NoArtifact, Path, Routed, accept};
use crate::core::ledger::Front;
use crate::core::upstream::Digest;
use crate::node::upstream::Wanted;

/// How long what is said of a package is taken to be fresh that does not say it itself, in seconds.
const FRESH: u64 = 60;
/// The same of a tarball that is asked for without its digest: a version is published once.
const TARBALL_FRESH: u64 = 3600;
/// Where tarballs are that the registry named with their digest.
const FILES: &str = "-/files/";

/// What installing needs of a package.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
const FULL: &str = "application/json";
/// What a registry is asked for that may not know the abbreviated form.
const ACCEPT_ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// A request's path, in which clients write the slash of `@scope/name` as `%2f`: it is a slash here.
///
/// # Errors
/// [`NoArtifact::BadPath`].
pub fn path(text: &str) -> Result<Path, NoArtifact> {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let plain = |part: &str| {
        let lower = part.to_ascii_lowercase();
        let start = if lower.starts_with("%40") { 3 } else { usize::from(lower.starts_with('@')) };
        match lower.find("%2f").filter(|_| start > 0) {
            Some(slash) => format!("@{}/{}", &part[start..slash], &part[slash + 3..]),
            None if start > 0 => format!("@{}", &part[start..]),
            None => part.to_owned(),
        }
    };
    // What a seal is on stays as it is.
    if path.trim_start_matches('/').starts_with(FILES) {
        return Path::parse(text);
    }
    let parts = path.split('/').map(plain).collect::<Vec<_>>();
    Path::parse(&format!("{}{query}", parts.join("/")))
}

/// A package, one of its versions, its tags, or a tarball.
///
/// # Errors
/// [`NoArtifact::NoSuch`] for what a registry does beside handing out packages.
pub fn route(asked: &Asked) -> Result<Routed, NoArtifact> {
    let path = asked.path.as_str();
    if let Some(link) = path.strip_prefix(FILES) {
        let named = Named::read(link, asked.seal, &asked.upstream.name)?;
        return Ok(tarball(asked, &named.place, named.digest));
    }
    let path = path.split_once('?').map_or(path, |(path, _)| path).trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["-", "ping"] => Ok(Routed::Text {
            status: 200,
            headers: vec![("content-type", FULL.to_owned())],
            body: "{}".to_owned(),
        }),
        ["-", "npm", "v1", "keys"] => Ok(said(asked, path.to_owned())),
        ["-", "package", ref name @ .., "dist-tags"] => match package(name) {
            Some((name, [])) => Ok(said(asked, format!("-/package/{name}/dist-tags"))),
            _ => Err(nothing()),
        },
        ref parts => match package(parts) {
            Some((name, [])) => Ok(about(asked, name)),
            Some((name, [version])) if is_word(version) => Ok(about(asked, format!("{name}/{version}"))),
            Some((_, ["-", file])) if is_word(file) => Ok(tarball(asked, path, None)),
            _ => Err(nothing()),
        },
    }
}

fn nothing() -> NoArtifact {
    let text = "the gateway has packages, their versions, tags and tarballs; for searches, audits and accounts ask the registry itself";
    NoArtifact::NoSuch(text.into())
}

/// A package's name, as registries know it in a path, and what follows it.
fn package<'a, 'b>(parts: &'b [&'a str]) -> Option<(String, &'b [&'a str])> {
    match parts {
        [scope, name, rest @ ..] if scope.strip_prefix('@').is_some_and(is_word) && is_word(name) => {
            Some((format!("{scope}%2f{name}"), rest))
        }
        [name, rest @ ..] if is_word(name) => Some(((*name).to_owned(), rest)),
        _ => None,
    }
}

fn is_word(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~!'()*+".contains(c);
    !word.is_empty() && !word.starts_with('.') && word != "-" && word.chars().all(fits)
}

/// What the registry says, as it is.
fn said(asked: &Asked, path: String) -> Routed {
    let wanted = Wanted::mutable(&asked.upstream.name, &path, asked.fresh(FRESH));
    Routed::Object(Artifact::of(wanted, Front::Npm))
}

/// What the registry says of a package or of a version.
fn about(asked: &Asked, path: String) -> Routed {
    let abbreviated = accept::prefers(asked.accept, &[ABBREVIATED], &[FULL]);
    let accept = if abbreviated { ACCEPT_ABBREVIATED } else { FULL };
    let wanted = Wanted::mutable(&asked.upstream.name, &path, asked.fresh(FRESH)).accepting(accept);
    let headers = vec![("vary", "Accept".to_owned())];
    Routed::Object(Artifact { headers, ..Artifact::rewritten(wanted, Front::Npm, rewrite) })
}

fn tarball(asked: &Asked, place: &str, digest: Option<Digest>) -> Routed {
    let upstream = &asked.upstream.name;
    let wanted = match digest {
        Some(digest) => Wanted::immutable(upstream, place, Some(digest)),
        None => Wanted::mutable(upstream, place, asked.fresh(TARBALL_FRESH)),
    };
    Routed::Object(Artifact::of(wanted, Front::Npm))
}

/// What a registry says, as far as it is rewritten: of all versions, or of one.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    versions: HashMap<String, Version<'a>>,
    #[serde(borrow, default)]
    dist: Option<Dist<'a>>,
}

#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow, default)]
    dist: Option<Dist<'a>>,
}

#[derive(Deserialize)]
struct Dist<'a> {
    #[serde(borrow, default)]
    tarball: Option<&'a RawValue>,
    #[serde(default)]
    integrity: Value,
    #[serde(default)]
    shasum: Value,
}

impl Dist<'_> {
    /// The strongest that it says.
    fn digest(&self) -> Option<Digest> {
        let old = || format!("sha1:{}", self.shasum.as_str()?).parse().ok();
        self.integrity.as_str().and_then(integrity).or_else(old)
    }
}

/// The strongest digest of a Subresource Integrity text: `sha512-BASE64`, several by spaces.
fn integrity(text: &str) -> Option<Digest> {
    let one = |text: &str| {
        let (algorithm, digest) = text.split_once('-')?;
        let digest = digest.split_once('?').map_or(digest, |(digest, _)| digest);
        let bytes = base64::engine::general_purpose::STANDARD.decode(digest).ok()?;
        Digest::new(algorithm, &bytes).ok()
    };
    text.split_ascii_whitespace().filter_map(one).max()
}

fn rewrite(asked: &Asked, text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let said: Said = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let base = asked.upstream.bases.first().ok_or("it has no address")?;
    let versions = said.versions.into_values().filter_map(|version| version.dist);
    let mut splices = Splices::default();
    for dist in versions.chain(said.dist) {
        let Some(tarball) = dist.tarball else { continue };
        let url: Option<String> = serde_json::from_str(tarball.get()).ok();
        let url = url.and_then(|url| base.join(&url).ok());
        if let Some(address) = url.and_then(|url| rewritten(asked, url, dist.digest())) {
            splices.replace_json(text, tarball, &address);
        }
    }
    Ok(splices.apply(text))
}

/// The address of a tarball at the gateway. What cannot be fetched through it stays where it is.
fn rewritten(asked: &Asked, url: Url, digest: Option<Digest>) -> Option<String> {
    let named = Named { digest, ..Named::at(asked.upstream, url)? };
    let link = named.link(asked.seal, &asked.upstream.name)?;
    Some(format!("{}/{FILES}{link}", asked.base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::pkg::named::Seal;
    use crate::origin::upstream::Upstream;

    const BASE: &str = "http://127.0.0.1:7420/npm/main";

    fn with<T>(text: &str, accept: Option<&str>, then: impl FnOnce(&Asked) -> T) -> T {
        let upstream: Upstream = "main npm https://a.example/".parse().expect("valid");
        let path = path(text).expect("a path");
        let seal = Seal::new([1; 32]);
        then(&Asked { upstream: &upstream, path: &path, accept, base: BASE, seal: &seal })
    }

    fn routed(path: &str, accept: Option<&str>) -> Option<Wanted> {
        match with(path, accept, route) {
            Ok(Routed::Object(artifact)) => Some(artifact.wanted),
            _ => None,
        }
    }

    #[test]
    fn all_spellings_ask_for_few_objects() {
        let asked = |path: &str| routed(path, None).map(|wanted| wanted.path);
        for (path, wanted) in [
            ("left-pad", "left-pad"),
            ("/left-pad/?write=true", "left-pad"),
            ("left-pad/1.3.0", "left-pad/1.3.0"),
            ("@s%2fname", "@s%2fname"),
            ("%40s%2Fname", "@s%2fname"),
            ("@s/name", "@s%2fname"),
            ("@s/name/latest", "@s%2fname/latest"),
            ("@s%2fname/-/name-1.0.0.tgz", "@s/name/-/name-1.0.0.tgz"),
            ("left-pad/-/left-pad-1.3.0.tgz", "left-pad/-/left-pad-1.3.0.tgz"),
            ("-/package/@s%2fname/dist-tags", "-/package/@s%2fname/dist-tags"),
            ("-/npm/v1/keys", "-/npm/v1/keys"),
        ] {
            assert_eq!(asked(path).as_deref(), Some(wanted), "{path}");
        }
        for none in [
            "",
            "-",
            "-/v1/search?text=x",
            "-/all",
            "@s",
            "@s/",
            "a/b/c",
            ".hidden",
            "a/-/b/c",
            "-/files/a/-/here/b",
        ] {
            assert_eq!(asked(none), None, "{none}");
        }
        for bad in ["@s%2f..%2fx", "@s%2f%2e%2e", "a%2fb", "@%2f../x", "@s%2fa%2fb", "@s%5cx"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        let abbreviated = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";
        let keys = [None, Some("application/json"), Some(abbreviated)].map(|accept| routed("x", accept));
        let keys = keys.map(|wanted| wanted.expect("a package").key());
        assert!(keys[0] == keys[1] && keys[1] != keys[2]);
    }

    #[test]
    fn tarballs_lead_to_the_gateway_with_the_strongest_digest() {
        let sha512 = "sha512-".to_owned() + &"A".repeat(86) + "==";
        let sha1 = "00".repeat(20);
        let text = format!(
            r#"{{"_rev": "1", "versions": {{"1.0.0": {{"x": 1.50, "dist": {{"shasum": "{sha1}", "integrity": "sha1-x {sha512}?a",
            "tarball": "https://a.example/@s%2fname/-/name-1.0.0.tgz"}}}}, "0.9.0": {{"dist": {{"shasum": "{sha1}",
            "tarball": "http://b.example/name-0.9.0.tgz"}}}}, "0.8.0": {{}}}}, "dist-tags": {{"latest": "1.0.0"}}}}"#
        );
        let made = with("@s%2fname", None, |asked| rewrite(asked, text.as_bytes())).expect("JSON");
        let made = String::from_utf8(made).expect("text");
        let read: Value = serde_json::from_str(&made).expect("JSON");
        let tarball = |version: &str| {
            let address = read["versions"][version]["dist"]["tarball"].as_str().expect("an address");
            (
                address.to_owned(),
                routed(address.strip_prefix(BASE).expect("at the gateway"), None).expect("a file"),
            )
        };
        let ((first, new), (second, old)) = (tarball("1.0.0"), tarball("0.9.0"));
        assert_eq!((new.path.as_str(), new.digest), ("@s%2fname/-/name-1.0.0.tgz", integrity(&sha512)));
        assert_eq!(new.digest, Some(Digest::Sha512([0; 64])));
        assert_eq!(
            (old.path.as_str(), old.digest),
            ("http://b.example/name-0.9.0.tgz", Some(Digest::Sha1([0; 20])))
        );
        let back = made.replace(&first, "https://a.example/@s%2fname/-/name-1.0.0.tgz");
        assert_eq!(back.replace(&second, "http://b.example/name-0.9.0.tgz"), text);
        let one = r#"{"name":"x","dist":{"tarball":"https://a.example/x.tgz"}}"#;
        let made = with("x/latest", None, |asked| rewrite(asked, one.as_bytes())).expect("JSON");
        assert!(String::from_utf8(made).expect("text").contains("/-/here/x.tgz"));
        assert!(with("x", None, |asked| rewrite(asked, b"<html>")).is_err());
    }
}
