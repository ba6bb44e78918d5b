//! Whether this node finds the others of its site, and they it.

use super::Check;
use crate::net::{Census, census};
use crate::node::Node;

const TEST: &str = "discovery";

/// Who answers by multicast.
pub(super) struct Company {
    /// None where that is switched off.
    pub(super) census: Option<Census>,
    /// Why it could not be asked.
    error: Option<String>,
}

pub(super) async fn take(node: &Node) -> Company {
    let config = &node.inner.config;
    if !config.mdns {
        return Company { census: None, error: None };
    }
    match census(config.site_key.derive("discovery", &config.site), node.me(), config.listen).await {
        Ok(census) => Company { census: Some(census), error: None },
        Err(error) => Company { census: None, error: Some(error.to_string()) },
    }
}

pub(super) fn check(node: &Node, company: &Company) -> Check {
    let (members, peers) = (node.inner.net.contacts().len(), node.inner.config.peers.len());
    if let Some(error) = &company.error {
        return Check::failed(
            TEST,
            format!("no multicast socket can be opened: {error}"),
            "The system does not let this process use UDP port 5353.",
            "Let it, or name members with 'peer' and set no_mdns = true.",
        );
    }
    match &company.census {
        Some(census) => by_multicast(census, members, peers),
        None => by_name(members, peers),
    }
}

/// Without multicast.
fn by_name(members: usize, peers: usize) -> Check {
    match (members, peers) {
        (0, 0) => Check::failed(
            TEST,
            "this node looks for nobody",
            "no_mdns is set, and no member is named.",
            "Name a machine of the site with 'peer', or take no_mdns out.",
        ),
        (0, _) => Check::skipped(
            TEST,
            format!(
                "there is no multicast to test (no_mdns); none of {peers} named peers is connected: see ports"
            ),
        ),
        _ => Check::passed(
            TEST,
            format!("{members} members connected by name; multicast is switched off (no_mdns)"),
        ),
    }
}

fn by_multicast(census: &Census, members: usize, peers: usize) -> Check {
    let heard = census.members.len();
    if census.interfaces == 0 {
        return Check::failed(
            TEST,
            "there is nowhere to ask",
            "No network interface of this machine has an IPv4 address.",
            "Look at this machine's network.",
        );
    }
    if !census.own {
        return Check::failed(
            TEST,
            "what this machine sends by multicast does not even reach itself",
            "A firewall on this machine drops UDP port 5353, or its multicast is switched off.",
            "Let UDP port 5353 in and out to 224.0.0.251, or name members with 'peer'.",
        );
    }
    let connected = format!("{members} connected");
    match (heard, members) {
        (0, 0) => nobody(census, peers),
        (0, _) => {
            let why = "none answers by multicast, so machines that start anew find each other by 'peer' only";
            Check::passed(TEST, format!("{connected}; {why}"))
        }
        (heard, 0) => Check::passed(
            TEST,
            format!("{heard} machines of this site answer by multicast, none is connected: see ports"),
        ),
        (heard, _) => {
            Check::passed(TEST, format!("{heard} machines of this site answer by multicast; {connected}"))
        }
    }
}

/// Nobody of this site answers, and none is connected.
fn nobody(census: &Census, peers: usize) -> Check {
    let seen = "no other machine of this site answers";
    if peers > 0 {
        return Check::skipped(
            TEST,
            format!("{seen} by multicast, and none of {peers} named peers is connected: see ports"),
        );
    }
    if census.strangers > 0 {
        let seen = format!("{seen}, and {} of another site do", census.strangers);
        let cause = "Their site name or their site key is not this machine's.";
        return Check::failed(
            TEST,
            seen,
            cause,
            "Give all machines of a site the same 'site', and the same file as 'site_key'.",
        );
    }
    if census.others > 0 {
        let seen = format!("{seen}; {} other machines do, so multicast works", census.others);
        let cause = "No other agent of this site runs on this network.";
        return Check::failed(
            TEST,
            seen,
            cause,
            "If it is the first one, nothing. Otherwise start the others, or name one in another network with 'peer'.",
        );
    }
    Check::failed(
        TEST,
        format!("{seen}, nor does anybody else on this network"),
        "It is alone on its network, or the network lets no multicast through (as many a Wi-Fi, and every router).",
        "If it is the first one, nothing. Otherwise name a machine of the site with 'peer'.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::core::id::NodeId;

    #[test]
    fn each_silence_has_its_cause() {
        let of = |heard: usize, own, strangers, others| Census {
            interfaces: 1,
            own,
            members: (0..heard as u8).map(|n| (NodeId::from_bytes([n; 32]), Vec::new())).collect(),
            strangers,
            others,
        };
        let found = |census: &Census, members, peers| by_multicast(census, members, peers);
        let cause = |census: &Census| found(census, 0, 0).cause.expect("a cause");
        assert!(cause(&Census::default()).contains("IPv4"));
        assert!(cause(&of(0, false, 0, 0)).contains("firewall on this machine"));
        assert!(cause(&of(0, true, 1, 1)).contains("site key"));
        assert!(cause(&of(0, true, 0, 4)).contains("No other agent"));
        assert!(cause(&of(0, true, 0, 0)).contains("no multicast through"));
        for (heard, members) in [(2, 0), (2, 2), (0, 2)] {
            assert_eq!(found(&of(heard, true, 0, 2), members, 0).state, State::Passed);
        }
        assert_eq!(found(&of(0, true, 0, 0), 0, 1).state, State::Skipped, "ports says it");
        let states = [(0, 0), (0, 1), (1, 0)].map(|(members, peers)| by_name(members, peers).state);
        assert_eq!(states, [State::Failed, State::Skipped, State::Passed]);
    }
}
