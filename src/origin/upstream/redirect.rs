//! Where an upstream may send its clients.

use std::net::IpAddr;

use url::{Host, Url};

/// How often in a row.
pub(super) const MOST: usize = 6;

/// Why a redirect is not followed, judged by its address.
pub(super) fn refusal(from: &Url, to: &Url) -> Option<&'static str> {
    if !matches!(to.scheme(), "http" | "https") || to.host().is_none() {
        return Some("that is no web address");
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return Some("that is not encrypted, and the upstream is");
    }
    None
}

/// Whether a host is written as an address; names have to be looked up.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

/// Whether an address is of this machine, of its network, or of no network at all: not where a
/// repository of the world would send anybody.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_unspecified()
                || ip.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private(ip.into()),
            None => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_is_told_from_the_outside() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_private(ip.parse().expect("an address")), "{ip}");
        }
        let url = |text: &str| Url::parse(text).expect("an address");
        assert!(refusal(&url("https://a/"), &url("http://b/")).is_some());
        assert!(refusal(&url("http://a/"), &url("file:///etc/passwd")).is_some());
        assert!(refusal(&url("http://a/"), &url("https://b/")).is_none());
    }
}
