//! `/v2/...`: container registries, as the OCI distribution specification has it. Pulls only.
//!
//! Which registry is meant: containerd says it (`?ns=REGISTRY`), or the name of an upstream is the first
//! part of the image's name (`/v2/hub/library/debian/...`), or there is but one, or one is the default:
//! Docker's own mirrors stand for a single registry, and do not say which.

mod refusal;
mod registry;

use std::fmt::Write;

use serde_json::Value;
use sha2::Digest as _;

use super::{Artifact, Asked};
use crate::core::ledger::Front;
use crate::core::upstream::Digest;
use crate::node::upstream::Wanted;
pub use refusal::Refusal;
use refusal::refuse;
pub use registry::{any_of, default_of, upstream_of};

/// How long a tag is taken to be fresh, in seconds: who pushes expects it to be there soon.
const FRESH: u64 = 30;
/// The longest name of an image.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;
/// Kinds of manifests, each of which a registry gives to those alone who accept it. They are asked for in
/// this order, so that clients that accept the same things are told the same.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// The first kind of manifests, which only those get who accept nothing else.
const OLD: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A manifest or an index.
    Manifest,
    /// A layer or a configuration.
    Blob,
    /// A list: of tags, or of what refers to a manifest.
    List,
}

/// A request that makes sense.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it is about.
    pub item: Item,
    /// What to bring.
    pub artifact: Artifact,
    /// The digest that it must have.
    pub digest: Option<Digest>,
    /// The path of a list here, without its query.
    pub list: String,
}

/// What a path below `/v2/` and an upstream means; `base` of what was asked is how the client came there.
///
/// # Errors
/// [`Refusal`], for what is no request of the specification.
pub fn route(asked: &Asked) -> Result<Found, Refusal> {
    let (path, query) = asked.path.as_str().split_once('?').unwrap_or((asked.path.as_str(), ""));
    let parts: Vec<&str> = path.split('/').collect();
    let (name, kind, reference) = match &parts[..] {
        [name @ .., "tags", "list"] => (name, "tags", "list"),
        [name @ .., kind @ ("manifests" | "blobs" | "referrers"), reference] => (name, *kind, *reference),
        _ => {
            return refuse(
                404,
                "UNSUPPORTED",
                "a registry has manifests, blobs, referrers and lists of tags",
            );
        }
    };
    let name = name.join("/");
    if !is_name(&name) {
        let shown: String = name.chars().take(100).collect();
        return refuse(400, "NAME_INVALID", format!("{shown:?} is no image's name"));
    }
    let list = format!("{}/{name}/{kind}/{reference}", asked.base);
    let place = format!("v2/{name}/{kind}/{reference}");
    let upstream = &asked.upstream.name;
    let mutable = |place: &str| Wanted::mutable(upstream, place, asked.fresh(FRESH));
    let (item, digest, wanted) = match kind {
        "blobs" => {
            let digest = digest(reference)?;
            (Item::Blob, Some(digest), Wanted::immutable(upstream, &place, Some(digest)))
        }
        "manifests" if reference.contains(':') => {
            let digest = digest(reference)?;
            let wanted = Wanted::immutable(upstream, &place, Some(digest));
            (Item::Manifest, Some(digest), wanted.accepting(&MANIFESTS.join(", ")))
        }
        "manifests" if is_tag(reference) => {
            (Item::Manifest, None, mutable(&place).accepting(&accepted(asked.accept)))
        }
        "manifests" => return refuse(404, "MANIFEST_UNKNOWN", "that is no tag, and no digest"),
        "referrers" => {
            digest(reference)?;
            (Item::List, None, mutable(&with_query(&place, query, &["artifactType"])))
        }
        _ => (Item::List, None, mutable(&with_query(&place, query, &["n", "last"]))),
    };
    let mut artifact = Artifact::of(wanted, Front::Oci);
    if let (Item::Blob, Some(digest)) = (item, digest) {
        // What lies in a registry as one thing may have come as another.
        artifact.headers.push(("content-type", "application/octet-stream".into()));
        artifact.headers.push(("docker-content-digest", digest.to_string()));
    }
    Ok(Found { item, artifact, digest, list })
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    match text.parse() {
        Ok(digest @ (Digest::Sha256(_) | Digest::Sha512(_)))
            if !text.contains(|c: char| c.is_uppercase()) =>
        {
            Ok(digest)
        }
        _ => {
            refuse(400, "DIGEST_INVALID", "that is no digest: sha256 or sha512, a colon, hexadecimal digits")
        }
    }
}

/// Parts of small letters and digits, with single `.`, `_`, `__` or any number of `-` within.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.chars().all(|c| c == '-');
    let part =
        |part: &str| part.starts_with(plain) && part.ends_with(plain) && part.split(plain).all(separator);
    name.len() <= LONGEST_NAME && name.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= LONGEST_TAG
        && tag.starts_with(plain)
        && tag.chars().all(|c| plain(c) || matches!(c, '.' | '-'))
}

/// Which kinds of manifests a client takes, always in the same order: what is fetched for one client is
/// good for all that take the same.
fn accepted(accept: Option<&str>) -> String {
    let words = || accept.unwrap_or("*/*").split(',').map(|word| word.split(';').next().unwrap_or("").trim());
    let any = words().any(|word| matches!(word, "*/*" | "application/*"));
    let taken: Vec<&str> =
        MANIFESTS.into_iter().filter(|kind| any || words().any(|word| word == *kind)).collect();
    if taken.is_empty() { OLD.to_owned() } else { taken.join(", ") }
}

/// A path with those of the query's parameters that mean something there.
fn with_query(path: &str, query: &str, known: &[&str]) -> String {
    let mut path = path.to_owned();
    let meant = query.split('&').filter(|pair| known.contains(&pair.split('=').next().unwrap_or_default()));
    for (number, pair) in meant.enumerate() {
        write!(path, "{}{pair}", if number == 0 { '?' } else { '&' }).ok();
    }
    path
}

/// Where the next part of a list is, here instead of there; nothing if the upstream's `Link` says nothing
/// of that.
pub fn next_of(link: &str, list: &str, ns: Option<&str>) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.replace(['"', ' '], "").contains("rel=next") {
        return None;
    }
    let (_, query) = target.split_once('?')?;
    let next = with_query(list, query, &["n", "last", "artifactType", "nextToken", "next_page"]);
    let ns = ns.map(|ns| format!("&ns={ns}")).unwrap_or_default();
    Some(format!("<{next}{ns}>; rel=\"next\""))
}

/// The digest of a manifest, of the algorithm by which it was asked for.
pub fn digest_of(text: &[u8], like: Option<&Digest>) -> Digest {
    match like {
        Some(Digest::Sha512(_)) => Digest::Sha512(sha2::Sha512::digest(text).into()),
        _ => Digest::Sha256(sha2::Sha256::digest(text).into()),
    }
}

/// What kind of manifest this is: as its registry says, or as it says itself.
pub fn kind_of(text: &[u8], said: Option<&str>) -> String {
    let is_kind =
        |kind: &&str| kind.contains("manifest") || kind.contains("index") || kind.contains("artifact");
    if let Some(said) = said.filter(is_kind) {
        return said.to_owned();
    }
    let manifest: Value = serde_json::from_slice(text).unwrap_or_default();
    let own = manifest["mediaType"].as_str().filter(is_kind);
    let guess = match (&manifest["manifests"], &manifest["config"]) {
        (Value::Array(_), _) => MANIFESTS[0],
        (_, Value::Object(_)) => MANIFESTS[2],
        _ => said.unwrap_or("application/octet-stream"),
    };
    own.unwrap_or(guess).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Path;
    use super::super::named::Seal;
    use super::*;

    fn routed(path: &str, accept: Option<&str>) -> Result<Found, Refusal> {
        let upstream = "corp oci https://registry.example".parse().expect("valid");
        let path = Path::parse(path).expect("a path");
        route(&Asked {
            upstream: &upstream,
            path: &path,
            accept,
            base: "/v2/corp",
            seal: &Seal::new([0; 32]),
        })
    }

    #[test]
    fn digests_are_one_object_wherever_they_are() {
        let sum = format!("sha256:{}", "ab".repeat(32));
        let key = |path: String| routed(&path, None).expect("routed").artifact.wanted.key();
        let one = key(format!("a/blobs/{sum}"));
        assert_eq!(one, key(format!("b/c/blobs/{sum}")));
        assert_eq!(one, key(format!("b/c/manifests/{sum}")));
        let found = routed(&format!("a/manifests/{sum}"), Some("x/y")).expect("routed");
        assert_eq!(found.artifact.wanted.path, format!("v2/a/manifests/{sum}"));
        assert_eq!((found.item, found.artifact.wanted.expected_s), (Item::Manifest, None));
    }

    #[test]
    fn clients_that_take_the_same_share_a_tag() {
        let wanted = |accept| routed("a/b/manifests/v1.2", accept).expect("routed").artifact.wanted;
        let all = MANIFESTS.join(", ");
        let turned =
            format!("{}, {};q=0.5,{},{OLD}, {}", MANIFESTS[3], MANIFESTS[1], MANIFESTS[0], MANIFESTS[2]);
        assert_eq!(wanted(None).accept.as_deref(), Some(all.as_str()));
        assert_eq!(wanted(Some(&turned)).key(), wanted(Some("*/*")).key());
        assert_ne!(wanted(Some(MANIFESTS[3])).key(), wanted(None).key());
        assert_eq!(wanted(Some("text/html")).accept.as_deref(), Some(OLD));
        assert_eq!(wanted(None).expected_s, Some(FRESH));
    }

    #[test]
    fn lists_come_in_parts() {
        let found = routed("a/b/tags/list?last=v1&x=y&n=2", None).expect("routed");
        assert_eq!(found.artifact.wanted.path, "v2/a/b/tags/list?last=v1&n=2");
        let link = "<http://registry.example/v2/a/b/tags/list?last=v3&n=2>; rel=\"next\"";
        let next = next_of(link, &found.list, Some("corp"));
        assert_eq!(next.as_deref(), Some("</v2/corp/a/b/tags/list?last=v3&n=2&ns=corp>; rel=\"next\""));
        assert_eq!(next_of("<x?n=1>; rel=prev", "l", None), None);
        assert_eq!(next_of("nonsense", "l", None), None);
    }

    #[test]
    fn nonsense_has_a_code_of_its_own() {
        for (path, status, code) in [
            ("a/manifests/-x", 404, "MANIFEST_UNKNOWN"),
            ("a/manifests/md5:00", 400, "DIGEST_INVALID"),
            ("a/blobs/latest", 400, "DIGEST_INVALID"),
            ("A/manifests/x", 400, "NAME_INVALID"),
            ("a..b/manifests/x", 400, "NAME_INVALID"),
            ("a//b/manifests/x", 400, "NAME_INVALID"),
            ("-a/manifests/x", 400, "NAME_INVALID"),
            ("manifests/x", 400, "NAME_INVALID"),
            ("_catalog", 404, "UNSUPPORTED"),
            ("a/blobs/uploads", 400, "DIGEST_INVALID"),
            ("a/blobs/uploads/", 404, "UNSUPPORTED"),
        ] {
            let refused = routed(path, None).expect_err(path);
            let is: Value = serde_json::from_str(&refused.body()).expect("JSON");
            assert_eq!((refused.status, is["errors"][0]["code"].as_str()), (status, Some(code)), "{path}");
        }
        for good in ["a", "a/b.c/d__e/f---g", "0/a_b"] {
            assert!(is_name(good), "{good}");
        }
    }

    #[test]
    fn manifests_say_what_they_are() {
        let kind = |text: &str, said| kind_of(text.as_bytes(), said);
        assert_eq!(kind("{}", Some(MANIFESTS[3])), MANIFESTS[3]);
        assert_eq!(
            kind(&format!("{{\"mediaType\":\"{}\"}}", MANIFESTS[1]), Some("text/plain")),
            MANIFESTS[1]
        );
        assert_eq!(kind("{\"manifests\":[]}", None), MANIFESTS[0]);
        assert_eq!(kind("{\"config\":{}}", None), MANIFESTS[2]);
        assert_eq!(kind("no json", None), "application/octet-stream");
    }
}
