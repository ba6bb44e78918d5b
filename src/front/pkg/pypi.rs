//! `/pypi/UPSTREAM/simple/...`: a Python package index (PEP 503), as a page or as JSON (PEP 691), with the
//! files that describe wheels (PEP 658, PEP 714).
//!
//! The upstream's address is what its `simple/` is below. Links to files become `files/SEAL/...`, with the
//! digest that the index says, so that a file is one object wherever it lies.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::named::{self, Named};
use super::splice::Splices;
use super::{Artifact, Asked, NoArtifact, Routed, accept, html};
use crate::core::ledger::Front;
use crate::core::upstream::Digest;
use crate::node::upstream::Wanted;

/// How long an index is taken to be fresh that does not say it, in seconds.
const FRESH: u64 = 60;
/// Of which file PEP 658 says that it describes a wheel.
const DESCRIPTION: &str = ".metadata";
/// Where an index is below its upstream; the second one is devpi's.
const INDEXES: [&str; 2] = ["simple", "+simple"];

const JSON: [&str; 2] = ["application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.latest+json"];
const HTML: [&str; 3] =
    ["application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+html", "text/html"];
/// What an upstream is asked for, on behalf of a client that likes JSON. It may not know it.
const ACCEPT_JSON: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
const ACCEPT_HTML: &str = "text/html";

/// An index, a project's page or a file.
///
/// # Errors
/// [`NoArtifact::NoSuch`] for all else.
pub fn route(asked: &Asked) -> Result<Routed, NoArtifact> {
    let path = asked.path.as_str();
    if let Some(link) = path.strip_prefix("files/") {
        return file(asked, link);
    }
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match parts[..] {
        [index] if INDEXES.contains(&index) => Ok(page(asked, format!("{index}/"), root)),
        [index, name] if INDEXES.contains(&index) => {
            let name =
                normalised(name).ok_or_else(|| NoArtifact::NoSuch("that is no project's name".into()))?;
            Ok(page(asked, format!("{index}/{name}/"), project))
        }
        _ => {
            Err(NoArtifact::NoSuch("a Python index has simple/ and simple/PROJECT/, and nothing else".into()))
        }
    }
}

fn page(asked: &Asked, path: String, rewrite: super::Rewrite) -> Routed {
    let json = accept::prefers(asked.accept, &JSON, &HTML);
    let accept = if json { ACCEPT_JSON } else { ACCEPT_HTML };
    let wanted = Wanted::mutable(&asked.upstream.name, &path, asked.fresh(FRESH)).accepting(accept);
    let headers = vec![("vary", "Accept".to_owned())];
    Routed::Object(Artifact { headers, ..Artifact::rewritten(wanted, Front::Pypi, rewrite) })
}

/// A file, or what describes it.
fn file(asked: &Asked, link: &str) -> Result<Routed, NoArtifact> {
    let upstream = &asked.upstream.name;
    let read = |link| Named::read(link, asked.seal, upstream);
    let (place, digest) = match read(link) {
        Ok(named) => (named.place, named.digest),
        Err(error) => {
            let named = read(link.strip_suffix(DESCRIPTION).ok_or(error)?)?;
            (format!("{}{DESCRIPTION}", named.place), named.described)
        }
    };
    let wanted = match digest {
        Some(digest) => Wanted::immutable(upstream, &place, Some(digest)),
        None => Wanted::mutable(upstream, &place, asked.fresh(FRESH)),
    };
    Ok(Routed::Object(Artifact::of(wanted, Front::Pypi)))
}

/// A project's name as PEP 503 has it: all spellings are one.
fn normalised(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    let name = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
    (!name.is_empty() && name.chars().all(fits)).then_some(name)
}

/// A checksum by which a file may be known: one that cannot be forged.
fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    let strong = matches!(algorithm, "sha256" | "sha512");
    format!("{algorithm}:{hex}").to_ascii_lowercase().parse().ok().filter(|_| strong)
}

/// The address of what was asked for, where links of the index begin.
fn address(asked: &Asked) -> Result<Url, String> {
    let path = asked.path.as_str();
    let path = path.split_once('?').map_or(path, |(path, _)| path).trim_end_matches('/');
    let url = asked.upstream.bases.first().and_then(|base| base.join(&format!("{path}/")).ok());
    url.ok_or_else(|| "its address is none".into())
}

/// The list of projects: its links lead to pages.
fn root(asked: &Asked, text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let mut splices = Splices::default();
    if !is_json(text) {
        let (page, links) = read_html(asked, text)?;
        for link in links {
            let below = page.join(&link.href).ok().and_then(|url| named::below(asked.upstream, &url));
            if let Some(path) = below {
                splices.replace(link.at, html::quoted(&format!("{}/{path}", asked.base)));
            }
        }
    }
    Ok(splices.apply(text))
}

/// A project's page: its links lead to files.
fn project(asked: &Asked, text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    if is_json(text) { project_json(asked, text) } else { project_html(asked, text) }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn read_html<'a>(asked: &Asked, text: &'a str) -> Result<(Url, Vec<html::Link<'a>>), String> {
    let found = html::links(text);
    let page = address(asked)?;
    let page = found.base.and_then(|base| page.join(&base).ok()).unwrap_or(page);
    Ok((page, found.links))
}

fn project_html(asked: &Asked, text: &str) -> Result<Vec<u8>, String> {
    let (page, links) = read_html(asked, text)?;
    let mut splices = Splices::default();
    for link in links {
        let Ok(url) = page.join(&link.href) else { continue };
        let fragment = url.fragment().map(|fragment| format!("#{fragment}")).unwrap_or_default();
        let said = url.fragment().unwrap_or_default().split('&').filter_map(|it| it.split_once('='));
        let digest = said.filter_map(|(algorithm, hex)| digest(algorithm, hex)).max();
        let described = ["data-core-metadata", "data-dist-info-metadata"].into_iter().find_map(|name| {
            let said = link.attribute(name)?;
            said.split_once('=').and_then(|(algorithm, hex)| self::digest(algorithm, hex))
        });
        if let Some(address) = rewritten(asked, url, digest, described) {
            splices.replace(link.at, html::quoted(&format!("{address}{fragment}")));
        }
    }
    Ok(splices.apply(text))
}

/// A project, as far as it is rewritten (PEP 691).
#[derive(Deserialize)]
struct Project<'a> {
    #[serde(borrow, default)]
    files: Vec<File<'a>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    url: &'a RawValue,
    #[serde(default)]
    hashes: HashMap<String, Value>,
    #[serde(default, rename = "core-metadata")]
    core_metadata: Value,
    #[serde(default, rename = "dist-info-metadata")]
    dist_info_metadata: Value,
}

fn project_json(asked: &Asked, text: &str) -> Result<Vec<u8>, String> {
    let read: Project = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let page = address(asked)?;
    let mut splices = Splices::default();
    for file in read.files {
        let url: String = serde_json::from_str(file.url.get()).map_err(|error| error.to_string())?;
        let Ok(url) = page.join(&url) else { continue };
        let best = |(algorithm, hex): (&String, &Value)| digest(algorithm, hex.as_str()?);
        let strongest = file.hashes.iter().filter_map(best).max();
        let described = [&file.core_metadata, &file.dist_info_metadata]
            .into_iter()
            .find_map(|said| said.as_object()?.iter().filter_map(best).max());
        if let Some(address) = rewritten(asked, url, strongest, described) {
            splices.replace_json(text, file.url, &address);
        }
    }
    Ok(splices.apply(text))
}

/// The address of a file at the gateway. What cannot be fetched through it stays where it is.
fn rewritten(asked: &Asked, url: Url, digest: Option<Digest>, described: Option<Digest>) -> Option<String> {
    let direct = String::from(url.clone());
    let named = Named { digest, described, ..Named::at(asked.upstream, url)? };
    let link = named.link(asked.seal, &asked.upstream.name);
    Some(link.map_or(direct, |link| format!("{}/files/{link}", asked.base)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::pkg::Path;
    use crate::front::pkg::named::Seal;
    use crate::origin::upstream::Upstream;

    const BASE: &str = "http://127.0.0.1:7420/pypi/main";
    const SHA: &str = "aa00000000000000000000000000000000000000000000000000000000000000";

    /// With a request for this path.
    fn with<T>(path: &str, accept: Option<&str>, then: impl FnOnce(&Asked) -> T) -> T {
        let upstream: Upstream = "main pypi https://a.example/r/".parse().expect("valid");
        let path = Path::parse(path).expect("a path");
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
    fn all_spellings_and_all_clients_ask_for_few_objects() {
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        let page = routed("simple/foo-bar/", Some("text/html")).expect("a page");
        assert_eq!((page.path.as_str(), page.accept.as_deref()), ("simple/foo-bar/", Some("text/html")));
        for same in ["simple/Foo_.Bar", "simple/foo.bar/", "simple/foo-bar/?x=1"] {
            assert_eq!(routed(same, None).as_ref(), Some(&page), "{same}");
        }
        let json = routed("simple/foo-bar/", Some(pip)).expect("a page");
        assert_ne!(json.key(), page.key());
        assert_eq!(routed("simple", None).expect("the list").path, "simple/");
        for none in [
            "",
            "simple/a/b/",
            "simple/%41",
            "simple/-/",
            "other",
            "files/",
            "files/x/-/here/y",
            "packages/x.whl",
        ] {
            assert_eq!(routed(none, None), None, "{none}");
        }
    }

    /// What a link of a rewritten page leads to.
    fn leads(address: &str) -> Wanted {
        let path = address.split('#').next().and_then(|it| it.strip_prefix(BASE)).expect("at the gateway");
        routed(path, None).expect("a file")
    }

    #[test]
    fn links_of_a_page_lead_to_the_gateway_and_the_rest_stays() {
        let text = format!(
            "<html><a href=\"../../p/x-1.whl#sha256={SHA}\" data-requires-python=\"&gt;=3\" data-yanked=\"bad\" \
             data-core-metadata=\"sha256={SHA}\">x-1.whl</a> <a href='https://f.example/y.tar.gz#md5=1'>y</a>\
             <a href=/r/p/z.whl>z</a> <a href='mailto:a@b'>who</a> <a href='../'>up</a></html>"
        );
        let made = with("simple/x/", None, |asked| project(asked, text.as_bytes())).expect("a page");
        let made = String::from_utf8(made).expect("text");
        let hrefs: Vec<String> = html::links(&made).links.iter().map(|link| link.href.clone()).collect();
        let digest = digest("sha256", SHA);
        let file = leads(&hrefs[0]);
        assert_eq!((file.path.as_str(), file.digest), ("p/x-1.whl", digest));
        assert!(hrefs[0].ends_with(&format!("/here/p/x-1.whl#sha256={SHA}")), "{made}");
        let description = leads(&format!("{}.metadata", hrefs[0].split('#').next().unwrap_or_default()));
        assert_eq!((description.path.as_str(), description.digest), ("p/x-1.whl.metadata", digest));
        let foreign = leads(&hrefs[1]);
        assert_eq!((foreign.path.as_str(), foreign.digest), ("https://f.example/y.tar.gz", None));
        assert!(foreign.expected_s.is_some() && hrefs[1].ends_with("y.tar.gz#md5=1"));
        assert_eq!(leads(&hrefs[2]).path, "p/z.whl");
        assert_eq!(hrefs[3..], ["mailto:a@b", "../"]);
        assert!(
            made.contains("data-requires-python=\"&gt;=3\" data-yanked=\"bad\" data-core-metadata"),
            "{made}"
        );
    }

    #[test]
    fn links_of_json_lead_to_the_gateway_and_the_rest_stays() {
        let text = format!(
            r#" {{"meta":{{"api-version":"1.1"}}, "files": [{{"filename":"x-1.whl","url":"https:\/\/f.example/x-1.whl",
            "hashes":{{"sha256":"{SHA}"}},"core-metadata":{{"sha256":"{SHA}"}},"yanked":"bad","size":1.50}},
            {{"url":"../../p/y.whl","hashes":{{}},"core-metadata":true}}], "name":"x"}}"#
        );
        let made = with("simple/x/", None, |asked| project(asked, text.as_bytes())).expect("JSON");
        let made = String::from_utf8(made).expect("text");
        let read: Value = serde_json::from_str(&made).expect("JSON");
        let url = |n: usize| read["files"][n]["url"].as_str().expect("an address").to_owned();
        let file = leads(&url(0));
        assert_eq!((file.path.as_str(), file.digest), ("https://f.example/x-1.whl", digest("sha256", SHA)));
        assert_eq!(leads(&format!("{}.metadata", url(0))).digest, digest("sha256", SHA));
        assert_eq!(leads(&url(1)).path, "p/y.whl");
        assert_eq!(leads(&format!("{}.metadata", url(1))).path, "p/y.whl.metadata");
        let back = made.replace(&url(0), r"https:\/\/f.example/x-1.whl").replace(&url(1), "../../p/y.whl");
        assert_eq!(back, text);
        for bad in ["{", "{\"files\":[{}]}", "{\"files\":[{\"url\":1}]}"] {
            assert!(with("simple/x/", None, |asked| project(asked, bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_leads_to_pages() {
        let text = b"<a href='/r/simple/x/'>x</a><a href='https://else.example/simple/y/'>y</a>";
        let made = with("simple/", None, |asked| root(asked, text)).expect("a page");
        let made = String::from_utf8(made).expect("text");
        assert_eq!(
            made,
            format!("<a href=\"{BASE}/simple/x/\">x</a><a href='https://else.example/simple/y/'>y</a>")
        );
    }
}
