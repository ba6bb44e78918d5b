//! Which registry is meant.

use std::sync::Arc;

use super::refusal::{Refusal, refuse};
use crate::origin::upstream::{Kind, Upstream};

/// The upstream that is meant, and the rest of the path below it; `path` is what comes after `/v2/`, and
/// `ns` what containerd says.
///
/// # Errors
/// [`Refusal`], if no upstream is meant.
pub fn upstream_of<'a>(
    upstreams: &[Arc<Upstream>],
    path: &'a str,
    ns: Option<&str>,
) -> Result<(Arc<Upstream>, &'a str), Refusal> {
    any_of(upstreams)?;
    let registries = || upstreams.iter().filter(|upstream| upstream.kind == Kind::Oci);
    if let Some(ns) = ns {
        let Some(found) = registries().find(|upstream| is_called(upstream, ns)) else {
            let ns: String = ns.chars().take(100).collect();
            return refuse(
                404,
                "NAME_UNKNOWN",
                format!("there is no oci upstream for the registry {ns:?} here"),
            );
        };
        return Ok((found.clone(), path));
    }
    let named = path.split_once('/').and_then(|(first, rest)| {
        let found = registries().find(|upstream| upstream.name == first)?;
        Some((found.clone(), rest))
    });
    if let Some(named) = named {
        return Ok(named);
    }
    match default_of(upstreams) {
        Some(upstream) => Ok((upstream, path)),
        None => {
            let names: Vec<&str> = registries().map(|upstream| upstream.name.as_str()).collect();
            let text = "several registries are configured: begin the image's name with one of";
            refuse(404, "NAME_UNKNOWN", format!("{text} {}", names.join(", ")))
        }
    }
}

/// Whether there is any.
///
/// # Errors
/// [`Refusal`] if not.
pub fn any_of(upstreams: &[Arc<Upstream>]) -> Result<(), Refusal> {
    if upstreams.iter().any(|upstream| upstream.kind == Kind::Oci) {
        return Ok(());
    }
    let text = "there is no oci upstream here; the agent's configuration names them: upstream = [\"corp oci https://registry.example\"]";
    refuse(404, "NAME_UNKNOWN", text)
}

/// The registry that is meant where nothing says which: the only one, or the one that is configured so.
pub fn default_of(upstreams: &[Arc<Upstream>]) -> Option<Arc<Upstream>> {
    let registries: Vec<_> = upstreams.iter().filter(|upstream| upstream.kind == Kind::Oci).collect();
    match &registries[..] {
        [only] => Some((*only).clone()),
        all => all.iter().find(|upstream| upstream.is_default).map(|upstream| (*upstream).clone()),
    }
}

/// Whether containerd may mean this upstream by a name: its own, its host's, or what it is called.
fn is_called(upstream: &Upstream, ns: &str) -> bool {
    upstream.name == ns || upstream.called.as_deref() == Some(ns) || has_host(upstream, ns)
}

fn has_host(upstream: &Upstream, host: &str) -> bool {
    upstream.bases.iter().any(|base| {
        base.host_str() == Some(host) || base[url::Position::BeforeHost..url::Position::AfterPort] == *host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(specs: &[&str]) -> Vec<Arc<Upstream>> {
        specs.iter().map(|spec| Arc::new(spec.parse().expect("valid"))).collect()
    }

    #[test]
    fn the_registry_that_is_meant() {
        let two = upstreams(&[
            "hub oci https://registry-1.hub.example as=hub.example default=yes",
            "corp oci http://registry.example:5000",
            "debian apt http://x",
        ]);
        let meant = |all: &[Arc<Upstream>], path: &str, ns| {
            upstream_of(all, path, ns).map(|(found, rest)| (found.name.clone(), rest.to_owned()))
        };
        let is = |name: &str, rest: &str| Ok((name.to_owned(), rest.to_owned()));
        assert_eq!(meant(&two, "a/b", Some("hub.example")), is("hub", "a/b"));
        assert_eq!(meant(&two, "a/b", Some("registry.example:5000")), is("corp", "a/b"));
        assert_eq!(meant(&two, "hub/b", Some("corp")), is("corp", "hub/b"));
        assert_eq!(meant(&two, "corp/a/b", None), is("corp", "a/b"));
        assert_eq!(meant(&two, "a/b", None), is("hub", "a/b"), "as Docker's mirrors have it");
        assert_eq!(meant(&two, "debian/b", None), is("hub", "debian/b"), "that is no registry");
        assert_eq!(meant(&two[1..], "a/b", None), is("corp", "a/b"));
        for (all, ns) in [(&two[..], Some("other.example")), (&two[2..], None)] {
            assert_eq!(meant(all, "a/b", ns).map_err(|it| it.status), Err(404));
        }
        let none = upstreams(&["a oci https://a", "b oci https://b"]);
        assert!(meant(&none, "x/y", None).is_err_and(|it| it.text.contains("a, b")));
    }
}
