//! `/apt/UPSTREAM/...`, and whatever apt asks a proxy for: Debian archives.
//!
//! What a Release file names by its hash is known by it, and what lies in a pool never changes; all other
//! files may. apt asks itself for its indexes to be checked each time, so their own age matters to others.

use url::Url;

use super::{Artifact, Asked, NoArtifact, Routed};
use crate::core::ledger::Front;
use crate::core::upstream::Digest;
use crate::node::upstream::Wanted;
use crate::origin::upstream::{Kind, Upstream};

/// How long an index is taken to be fresh whose upstream does not say it, in seconds.
const INDEX: u64 = 60;
/// ... and a package of an archive without a pool, which may be built again under the same name.
const OUTSIDE_A_POOL: u64 = 24 * 3600;

/// The file at a path.
///
/// # Errors
/// [`NoArtifact::NoSuch`] for what is named by a hash that is none.
pub fn route(asked: &Asked) -> Result<Routed, NoArtifact> {
    let (upstream, path, file) = (&asked.upstream.name, asked.path.as_str(), asked.path.file());
    let wanted = match by_hash(file)? {
        Some(digest) => Wanted::immutable(upstream, path, Some(digest)),
        None if never_changes(file) => Wanted::immutable(upstream, path, None),
        None if file.ends_with(".deb") => Wanted::mutable(upstream, path, asked.fresh(OUTSIDE_A_POOL)),
        None => Wanted::mutable(upstream, path, asked.fresh(INDEX)),
    };
    Ok(Routed::Object(Artifact::of(wanted, Front::Apt)))
}

/// The digest in `.../by-hash/SHA256/...`. By MD5 and SHA-1, which can be forged, a file is known by its
/// place alone.
fn by_hash(file: &str) -> Result<Option<Digest>, NoArtifact> {
    let mut parts = file.rsplitn(4, '/');
    let (Some(hash), Some(algorithm), Some("by-hash")) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let algorithm = match algorithm {
        "SHA256" => "sha256",
        "SHA512" => "sha512",
        _ => return Ok(None),
    };
    let digest = format!("{algorithm}:{hash}").parse();
    digest.map(Some).map_err(|_| NoArtifact::NoSuch(format!("{hash:.140} is no {algorithm} in hexadecimal")))
}

/// Whether there will never be another file in this place: packages in a pool, and the steps from one
/// index to the next, which are named by their time.
fn never_changes(file: &str) -> bool {
    let mut folders: Vec<&str> = file.split('/').collect();
    let Some(name) = folders.pop().filter(|name| !name.is_empty()) else { return false };
    let is_step =
        folders.last().is_some_and(|folder| folder.ends_with(".diff")) && !name.starts_with("Index");
    is_step || folders.contains(&"pool")
}

/// The upstream that an address lies below, and the path there; that with the longest address, if it
/// lies below several. Clients of the proxy speak plain HTTP on their own machine, so an upstream's
/// `https` is not asked of them.
pub fn proxied<'a, U>(
    upstreams: impl Iterator<Item = &'a U>,
    host: &str,
    port: Option<u16>,
    path: &str,
) -> Option<(&'a U, String)>
where
    U: AsRef<Upstream>,
{
    let fits = |base: &Url| {
        let of_scheme = url::Url::port(base);
        let same_host = base.host_str().is_some_and(|base| base.eq_ignore_ascii_case(host));
        let same_port = of_scheme == port.filter(|port| *port != 80) || base.port_or_known_default() == port;
        let below = path.strip_prefix(base.path()).filter(|_| same_host && same_port)?;
        Some((base.path().len(), below.to_owned()))
    };
    let apt = upstreams.filter(|upstream| upstream.as_ref().kind == Kind::Apt);
    let found = apt.flat_map(|upstream| {
        let below = upstream.as_ref().bases.iter().filter_map(fits);
        below.map(move |(length, path)| (length, upstream, path))
    });
    found.max_by_key(|(length, ..)| *length).map(|(_, upstream, path)| (upstream, path))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Path;
    use super::super::named::Seal;
    use super::*;

    fn wanted(path: &str) -> Result<Wanted, NoArtifact> {
        let upstream: Upstream = "debian apt http://a.example/debian".parse().expect("valid");
        let path = Path::parse(path)?;
        let (base, seal) = ("http://g/apt/debian", Seal::new([1; 32]));
        let asked = Asked { upstream: &upstream, path: &path, accept: None, base, seal: &seal };
        match route(&asked)? {
            Routed::Object(artifact) => Ok(artifact.wanted),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_change_is_told_from_what_never_does() {
        for (path, expected) in [
            ("dists/bookworm/InRelease", Some(60)),
            ("dists/bookworm/main/binary-amd64/Packages.xz", Some(60)),
            ("dists/bookworm/main/binary-amd64/Packages.diff/Index", Some(60)),
            ("dists/bookworm/main/binary-amd64/Packages.diff/T-2026-01-01-0800.00-F-2025.gz", None),
            ("dists/bookworm/main/by-hash/SHA1/abc", Some(60)),
            ("pool/main/h/hello/hello_2.10-3_amd64.deb", None),
            ("pool/main/h/hello/", Some(60)),
            ("hello_1_all.deb", Some(24 * 3600)),
            ("./Packages", Some(60)),
            ("by-hash", Some(60)),
        ] {
            let wanted = wanted(path).expect(path);
            assert_eq!((wanted.expected_s, wanted.digest), (expected, None), "{path}");
        }
    }

    #[test]
    fn what_is_named_by_its_hash_is_one_object_wherever_it_lies() {
        let hash = "A1".repeat(32);
        let of = |place: &str| wanted(&format!("{place}/by-hash/SHA256/{hash}")).expect("a digest");
        let digest = of("dists/a").digest.expect("a digest");
        assert_eq!(digest.to_string(), format!("sha256:{}", hash.to_lowercase()));
        assert_eq!(of("dists/a").key(), of("dists/b/main").key());
        assert!(wanted(&format!("x/by-hash/SHA512/{}", hash.repeat(2))).expect("longer").digest.is_some());
        for bad in ["zz", "", &hash[2..]] {
            let error = wanted(&format!("x/by-hash/SHA256/{bad}")).expect_err(bad);
            assert!(matches!(error, NoArtifact::NoSuch(_)), "{error}");
        }
    }

    #[test]
    fn only_what_lies_below_an_upstream_is_proxied() {
        let specs = [
            "debian apt https://Deb.example/debian http://mirror.example:8080/d",
            "deeper apt http://deb.example/debian/deeper",
            "files http http://files.example/",
        ];
        let all = specs.map(|spec| Arc::new(spec.parse::<Upstream>().expect("valid")));
        let find = |host: &str, port, path: &str| {
            proxied(all.iter(), host, port, path).map(|(upstream, path)| format!("{} {path}", upstream.name))
        };
        for (host, port, path, found) in [
            ("deb.example", None, "/debian/dists/x", "debian dists/x"),
            ("DEB.example", Some(80), "/debian/a?b", "debian a?b"),
            ("deb.example", Some(443), "/debian/a", "debian a"),
            ("deb.example", None, "/debian/deeper/a", "deeper a"),
            ("mirror.example", Some(8080), "/d/", "debian "),
        ] {
            assert_eq!(find(host, port, path).as_deref(), Some(found), "{host} {path}");
        }
        for (host, port, path) in [
            ("other.example", None, "/debian/x"),
            ("deb.example", Some(81), "/debian/x"),
            ("mirror.example", None, "/d/x"),
            ("deb.example", None, "/debian"),
            ("deb.example", None, "/debian-security/x"),
            ("deb.example", None, "/"),
            ("files.example", None, "/x"),
            ("", None, ""),
        ] {
            assert_eq!(find(host, port, path), None, "{host} {path}");
        }
    }
}
