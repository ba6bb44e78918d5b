//! `/cargo/UPSTREAM/...`: a registry with a sparse index (RFC 2789).
//!
//! Its `config.json` is rewritten so that cargo comes here for crates, with the checksum that the index
//! names: a crate is known by it wherever it lies. From where it comes says the upstream's own
//! `config.json`, which is read again for it: a client's word names no address.

use super::{Artifact, Asked, NoArtifact, Path, Routed};
use crate::core::ledger::Front;
use crate::core::upstream::Digest;
use crate::node::upstream::Wanted;
use crate::origin::upstream::Upstream;

/// How long what the index says of a crate is taken to be fresh, in seconds.
const INDEX: u64 = 60;
/// ... and where crates are.
const CONFIG: u64 = 3600;
/// What says that.
const CONFIG_FILE: &str = "config.json";
/// Where crates are here: no folder of an index has such a long name.
const CRATES: &str = "crates";
/// No name or version is longer, in bytes.
const LONGEST: usize = 200;

/// `config.json`, a file of the index, or a crate.
///
/// # Errors
/// [`NoArtifact::NoSuch`] for all others.
pub fn route(asked: &Asked) -> Result<Routed, NoArtifact> {
    let (upstream, file) = (&asked.upstream.name, asked.path.file());
    let config = Wanted::mutable(upstream, CONFIG_FILE, asked.fresh(CONFIG));
    if file == CONFIG_FILE {
        return Ok(Routed::Object(Artifact::rewritten(config, Front::Cargo, rewrite)));
    }
    if file.starts_with("crates/") {
        // What is no crate's path needs no question.
        Crate::parse(file)?;
        return Ok(Routed::Via { text: Artifact::of(config, Front::Cargo), then: found });
    }
    if !is_of_index(file) {
        return Err(NoArtifact::NoSuch(format!("no cargo index has a file {file:.100}")));
    }
    let wanted = Wanted::mutable(upstream, file, asked.fresh(INDEX));
    Ok(Routed::Object(Artifact::of(wanted, Front::Cargo)))
}

/// Whether an index would have this file for some crate: `1/a`, `2/ab`, `3/a/abc`, `ab/cd/abcd`.
fn is_of_index(file: &str) -> bool {
    let Some((folder, name)) = file.rsplit_once('/') else { return false };
    is_word(name) && folder.eq_ignore_ascii_case(&folder_of(name))
}

fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(fits)
}

/// In which folder of an index a crate is. Of ASCII, as [`is_word`] has it.
fn folder_of(name: &str) -> String {
    match name.len() {
        length @ (1 | 2) => length.to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

/// A crate as it is asked for: `crates/NAME/VERSION/CHECKSUM`.
struct Crate<'a> {
    name: &'a str,
    version: &'a str,
    checksum: &'a str,
    digest: Digest,
}

impl<'a> Crate<'a> {
    fn parse(file: &'a str) -> Result<Self, NoArtifact> {
        let no = || NoArtifact::NoSuch(format!("{file:.200} is no crate: crates/NAME/VERSION/SHA256"));
        let parts: Vec<&str> = file.splitn(4, '/').collect();
        let [CRATES, name, version, checksum] = parts[..] else { return Err(no()) };
        let digest = format!("sha256:{checksum}").parse().map_err(|_| no())?;
        if !is_word(name) || !is_word(version) {
            return Err(no());
        }
        Ok(Self { name, version, checksum, digest })
    }

    /// Its address, by what a `config.json` says.
    fn address(&self, dl: &str) -> String {
        let (folder, lower) = (folder_of(self.name), folder_of(&self.name.to_ascii_lowercase()));
        let markers = [
            ("{crate}", self.name),
            ("{version}", self.version),
            ("{prefix}", &folder),
            ("{lowerprefix}", &lower),
            ("{sha256-checksum}", self.checksum),
        ];
        if !markers.iter().any(|(marker, _)| dl.contains(marker)) {
            return format!("{dl}/{}/{}/download", self.name, self.version);
        }
        markers.iter().fold(dl.to_owned(), |address, (marker, value)| address.replace(marker, value))
    }
}

/// The crate of a path, where the upstream's `config.json` says.
fn found(upstream: &Upstream, path: &Path, config: &[u8]) -> Result<Artifact, String> {
    let asked = Crate::parse(path.file()).map_err(|error| error.to_string())?;
    let config = parse(config)?;
    let dl = config["dl"].as_str().unwrap_or_default();
    if !["http://", "https://"].iter().any(|scheme| dl.starts_with(scheme)) {
        return Err("it does not say where crates are (dl)".into());
    }
    let wanted = Wanted::immutable(&upstream.name, &asked.address(dl), Some(asked.digest));
    Ok(Artifact::of(wanted, Front::Cargo))
}

/// `config.json` as clients get it.
fn rewrite(asked: &Asked, config: &[u8]) -> Result<Vec<u8>, String> {
    let mut config = parse(config)?;
    config["dl"] = format!("{}/{CRATES}/{{crate}}/{{version}}/{{sha256-checksum}}", asked.base).into();
    // This agent has what is required, and its clients need not.
    if let Some(map) = config.as_object_mut().filter(|_| asked.upstream.credentials.is_some()) {
        map.remove("auth-required");
    }
    serde_json::to_vec(&config).map_err(|error| error.to_string())
}

fn parse(config: &[u8]) -> Result<serde_json::Value, String> {
    let config = serde_json::from_slice::<serde_json::Value>(config).map_err(|error| error.to_string())?;
    if config.is_object() { Ok(config) } else { Err("it is no object".into()) }
}

#[cfg(test)]
mod tests {
    use super::super::named::Seal;
    use super::*;

    const SUM: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn upstream() -> Upstream {
        "main cargo https://index.example/".parse().expect("valid")
    }

    const SEAL: Seal = Seal::new([1; 32]);

    fn routed(path: &str) -> Result<Routed, NoArtifact> {
        let (upstream, path) = (upstream(), Path::parse(path)?);
        let base = "http://g/cargo/main";
        route(&Asked { upstream: &upstream, path: &path, accept: None, base, seal: &SEAL })
    }

    fn rewritten(config: &[u8]) -> Result<Vec<u8>, String> {
        let (upstream, path) = (upstream(), Path::parse("config.json").expect("a path"));
        let base = "http://g/cargo/main";
        rewrite(&Asked { upstream: &upstream, path: &path, accept: None, base, seal: &SEAL }, config)
    }

    #[test]
    fn the_index_is_asked_for_what_it_may_have() {
        for good in ["1/a", "2/ab", "3/a/abc", "se/rd/serde", "se/rd/Serde_json", "ma/dl/madl"] {
            let Ok(Routed::Object(artifact)) = routed(good) else { panic!("{good}") };
            assert_eq!((artifact.wanted.path.as_str(), artifact.wanted.expected_s), (good, Some(INDEX)));
            assert!(artifact.rewrite.is_none());
        }
        for bad in ["", "a", "1/ab", "3/b/abc", "se/rd/other", "se/rd/", "x/y/z", "config.json/x", "1/%41"] {
            assert!(matches!(routed(bad), Err(NoArtifact::NoSuch(_))), "{bad}");
        }
    }

    #[test]
    fn crates_lie_where_the_upstream_says_and_nowhere_else() {
        let path = format!("crates/Serde/1.0.0+x/{SUM}");
        let Ok(Routed::Via { text, then }) = routed(&path) else { panic!("{path}") };
        assert_eq!(text.wanted.path, CONFIG_FILE);
        let at = |dl: &str| {
            let config = format!("{{\"dl\": \"{dl}\"}}");
            let found = then(&upstream(), &Path::parse(&path).expect("a path"), config.as_bytes());
            found.map(|artifact| {
                assert_eq!(artifact.wanted.digest.map(|it| it.to_string()), Some(format!("sha256:{SUM}")));
                artifact.wanted.path
            })
        };
        for (dl, address) in [
            ("https://c.example/crates", "https://c.example/crates/Serde/1.0.0+x/download".to_owned()),
            (
                "http://c/{prefix}/{lowerprefix}/{crate}-{version}",
                "http://c/Se/rd/se/rd/Serde-1.0.0+x".into(),
            ),
            ("https://c/{sha256-checksum}", format!("https://c/{SUM}")),
        ] {
            assert_eq!(at(dl), Ok(address));
        }
        for bad in ["file:///etc/passwd", "", "crates"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        for bad in ["crates/a/1", "crates/a/1/zz", "crates/a/1/", "crates/a%20/1/x", "crates/a/1/x/y"] {
            assert!(matches!(routed(bad), Err(NoArtifact::NoSuch(_))), "{bad}");
        }
        let long = format!("crates/{}/1/{SUM}", "a".repeat(LONGEST + 1));
        assert!(routed(&long).is_err());
    }

    #[test]
    fn cargo_is_led_back_here() {
        let config = br#"{"dl": "https://c/x", "api": "https://c", "auth-required": true}"#;
        let made = rewritten(config).expect("made");
        let made = parse(&made).expect("JSON");
        assert_eq!(made["dl"], "http://g/cargo/main/crates/{crate}/{version}/{sha256-checksum}");
        assert_eq!((&made["api"], &made["auth-required"]), (&"https://c".into(), &true.into()));
        for bad in [&b"<html>"[..], b"[]", b"3", b""] {
            assert!(rewritten(bad).is_err());
        }
    }
}
