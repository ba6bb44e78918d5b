//! What can be tried of a configuration while no agent runs with it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use jiff::SignedDuration;

use super::origin::Asked;
use super::{Check, Checkup, clock, disk, origin};
use crate::node::{Config, blocking};
use crate::origin::{Doubt, Fetch, Keeper, Origin};

/// Tries what an agent with this configuration depends on, and what would keep it from starting. The few
/// KiB that the catalog takes are in nobody's books.
pub async fn checkup(config: &Config, gateway: SocketAddr) -> Checkup {
    let ports = ports(config.listen, gateway);
    let why = |what: &str| format!("{what} while no agent runs");
    let discovery = Check::skipped("discovery", why("nobody is looked for"));
    let (dir, reserve) = (config.state_dir.clone(), config.disk_reserve);
    let disk = blocking(move || disk::examine(nearest(&dir), reserve)).await;
    let disk = disk.unwrap_or_else(|| Check::skipped("disk", "it could not be tried"));
    let (asked, ahead) = ask(config).await;
    let clock = clock::judge(ahead, Vec::new());
    let origin = origin::verdict(asked, &disk, &clock).await;
    let transfer = Check::skipped("transfer", why("nothing is brought"));
    Checkup { checks: vec![ports, discovery, clock, disk, origin, transfer], faults: Vec::new() }
}

/// An agent makes its state directory where there is none yet.
fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|it| it.exists()).unwrap_or(Path::new("."))
}

/// Whether both ports are free.
fn ports(listen: SocketAddr, gateway: SocketAddr) -> Check {
    const TEST: &str = "ports";
    for (key, address) in [("listen", listen), ("gateway", gateway)] {
        let Err(error) = std::net::TcpListener::bind(address) else { continue };
        let seen = format!("{key} = {address}: {error}");
        let (cause, remedy) = match error.kind() {
            ErrorKind::AddrInUse => (
                "Another program listens there, which may be another agent.".to_owned(),
                format!(
                    "See who it is with 'ss -ltnp sport = :{}'; stop it, or give '{key}' another port.",
                    address.port()
                ),
            ),
            ErrorKind::AddrNotAvailable => (
                "This machine does not have that address.".to_owned(),
                format!("Give '{key}' an address of this machine, or 0.0.0.0 for all of them."),
            ),
            ErrorKind::PermissionDenied => {
                ("Ports below 1024 are for root.".to_owned(), format!("Give '{key}' a port above."))
            }
            _ => ("The system refuses it.".to_owned(), format!("Give '{key}' another address.")),
        };
        return Check::failed(TEST, seen, cause, remedy);
    }
    Check::passed(TEST, format!("{listen} and {gateway} are free"))
}

/// Asks the origin, and forgets what it says; with how far this clock is ahead of its.
async fn ask(config: &Config) -> (Option<Asked>, Option<SignedDuration>) {
    let Some(home) = &config.home else { return (None, None) };
    let mut ahead = None;
    let ask = async {
        let origin = Origin::open(&home.address)?;
        let dir = tempfile::tempdir().map_err(|error| Doubt::Unkept(error.to_string()))?;
        let keeper = Keeper::open(dir.path(), Some(home.trust.clone())).await?;
        let catalog = keeper.refresh(Fetch::Origin(origin.clone())).await;
        ahead = origin.meter().clock_ahead();
        catalog
    };
    let asked = Asked::from(&home.address, ask).await;
    (Some(asked), ahead)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let (taken, free) = (held.local_addr().expect("bound"), SocketAddr::from(([127, 0, 0, 1], 0)));
        assert_eq!(ports(free, free).state, State::Passed);
        let check = ports(free, taken);
        assert!(check.seen.starts_with("gateway = ") && check.cause.expect("one").contains("another agent"));
        let foreign = ports("192.0.2.1:7421".parse().expect("valid"), free);
        assert!(foreign.cause.expect("one").contains("does not have that address"));
    }
}
