//! Configuration of what keeps the store in order, resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::bail;

use crate::core::lapse::Lapse;
use crate::node::hook;

/// How often what is held is read back, unless told otherwise.
pub(super) const VERIFY_INTERVAL: Lapse = Lapse::days(30);
/// A hook is ended after so long, unless told otherwise.
const HOOK_TIMEOUT: Duration = Duration::from_secs(600);

/// The hook, if there is one.
///
/// # Errors
/// What is wrong with it, by the key's name.
pub(super) fn hook(
    command: Option<&str>,
    user: Option<&str>,
    timeout: Option<Lapse>,
    gateway: SocketAddr,
) -> anyhow::Result<Option<hook::Config>> {
    let Some(command) = command else {
        if user.is_some() || timeout.is_some() {
            bail!("hook_user and hook_timeout say nothing without hook");
        }
        return Ok(None);
    };
    let timeout = timeout.map_or(HOOK_TIMEOUT, Lapse::duration);
    let gateway = format!("http://{}", reachable(gateway));
    hook::Config::new(command, user, timeout, gateway).map(Some).map_err(anyhow::Error::msg)
}

/// Where a program of this machine reaches what listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_checked_before_it_starts() {
        let gateway: SocketAddr = "0.0.0.0:7420".parse().expect("valid");
        assert_eq!(reachable(gateway).to_string(), "127.0.0.1:7420");
        assert_eq!(reachable("[::]:1".parse().expect("valid")).to_string(), "[::1]:1");
        assert!(hook(None, None, None, gateway).expect("none").is_none());
        assert!(hook(Some("/bin/true --quiet"), None, None, gateway).expect("valid").is_some());
        let word =
            |command, user, timeout| hook(command, user, timeout, gateway).expect_err("wrong").to_string();
        assert!(word(None, Some("deploy"), None).contains("without hook"));
        assert!(word(Some("'x"), None, None).contains("quotes"));
        assert!(word(Some("x"), Some("no-such-user-here"), None).contains("no user"));
        assert!(word(Some("x"), None, Some(Lapse::days(0))).contains("hook_timeout"));
    }
}
