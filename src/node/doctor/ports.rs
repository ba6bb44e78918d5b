//! Whether machines of the site can connect to this one, and this one to them.

use futures::future::join_all;

use super::discovery::Company;
use super::{Check, some};
use crate::net::{Contact, Knock, Multiaddr, Obstacle, knock_at};
use crate::node::Node;

const TEST: &str = "ports";
/// What a member is asked: to knock where this node says that it listens.
pub(in crate::node) const KNOCK: &str = "knock";
/// So many members are asked, and so many machines tried.
const ASKED: usize = 3;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) async fn check(node: &Node, company: &Company) -> Check {
    let mut contacts = node.inner.net.contacts();
    // Who has this node's own connection says nothing of the way here.
    contacts.sort_by_key(|contact| contact.inbound);
    if contacts.is_empty() { to_others(node, company).await } else { from_others(node, &contacts).await }
}

/// What members see who knock here.
async fn from_others(node: &Node, contacts: &[Contact]) -> Check {
    let asked = contacts.iter().take(ASKED).map(|contact| async move {
        let knocks = node.ask_report::<Vec<Knock>>(contact.node, KNOCK.to_owned(), PATIENCE).await;
        knocks.filter(|knocks| !knocks.is_empty()).map(|knocks| (contact.hello.host.clone(), knocks))
    });
    let answers: Vec<(String, Vec<Knock>)> = join_all(asked).await.into_iter().flatten().collect();
    judge(&answers, contacts.iter().filter(|contact| contact.inbound).count(), contacts.len())
}

fn judge(answers: &[(String, Vec<Knock>)], inbound: usize, members: usize) -> Check {
    let open = |knocks: &[Knock]| knocks.iter().find(|it| it.obstacle.is_none()).map(|it| it.address.clone());
    let (reached, shut): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, knocks)| open(knocks).is_some());
    if let Some((host, knocks)) = shut.first() {
        let hosts: Vec<String> = shut.iter().map(|(host, _)| host.clone()).collect();
        return shut_out(&hosts, host, knocks);
    }
    if let Some((host, address)) = reached.first().and_then(|(host, knocks)| Some((host, open(knocks)?))) {
        return Check::passed(TEST, format!("{host} reaches this node at {address}"));
    }
    if inbound > 0 {
        return Check::passed(TEST, format!("{inbound} of {members} members have connected to this node"));
    }
    Check::skipped(TEST, "no member says whether it reaches this node: they are of an older version")
}

/// What keeps a member out that has knocked at all of this node's addresses.
fn shut_out(hosts: &[String], host: &str, knocks: &[Knock]) -> Check {
    let address = knocks.first().map_or("its addresses", |it| &it.address);
    let obstacle = knocks.first().and_then(|it| it.obstacle.clone()).unwrap_or(Obstacle::Silent);
    let seen = format!("{} cannot connect to this node at {address}: {obstacle}", some(hosts));
    let port = address.rsplit(':').next().unwrap_or(address);
    let (cause, remedy) = match obstacle {
        Obstacle::Refused => (
            format!("Nothing listens at {address}, or a firewall on this machine refuses connections there."),
            format!(
                "See 'listening' in 'branchline status', and let TCP port {port} in from the site's network."
            ),
        ),
        Obstacle::NoRoute => (
            format!("{host} has no route to {address}."),
            "Look at the routes between the two, or give 'listen' an address that the site can reach."
                .to_owned(),
        ),
        Obstacle::Silent | Obstacle::Other(_) => (
            "What is sent there gets lost: most often a firewall on this machine, else one between them."
                .to_owned(),
            format!("Let TCP port {port} in from the site's network, on this machine first."),
        ),
    };
    Check::failed(TEST, seen, cause, remedy)
}

/// No member is connected: what becomes of connections to those that should be.
async fn to_others(node: &Node, company: &Company) -> Check {
    let listen = node.inner.config.listen;
    let unreached = node.inner.net.unreached();
    let heard = company.census.iter().flat_map(|census| census.members.values());
    let mut machines: Vec<(Vec<Multiaddr>, Option<String>)> =
        unreached.into_iter().map(|it| (it.addresses, Some(it.why))).collect();
    if machines.is_empty() {
        machines.extend(heard.map(|addresses| (addresses.clone(), None)));
    }
    let tried = machines
        .iter()
        .take(ASKED)
        .map(|(addresses, why)| async move { (knock_at(addresses).await, why.as_deref()) });
    for (knocks, why) in join_all(tried).await {
        if let Some(check) = outbound(&knocks, why) {
            return check;
        }
    }
    if !machines.is_empty() {
        let why = "machines of the site answer, and none is connected yet: try again in a moment";
        return Check::skipped(TEST, why);
    }
    if listen.ip().is_loopback() {
        let seen = format!("it listens at {listen} only");
        let cause = "No other machine reaches an address of loopback.";
        return Check::failed(
            TEST,
            seen,
            cause,
            "Set listen = \"0.0.0.0:7421\", unless all agents are on this machine.",
        );
    }
    let why = format!("it listens at {listen}; no other machine of the site is there to knock");
    Check::skipped(TEST, why)
}

/// What stands between this node and one machine that is no member.
fn outbound(knocks: &[Knock], why: Option<&str>) -> Option<Check> {
    let first = knocks.first()?;
    let address = &first.address;
    let seen = format!("a machine of the site at {address} cannot be connected");
    let strange = why.filter(|why| why.contains("not a member of this site"));
    if knocks.iter().any(|knock| knock.obstacle.is_none()) {
        let (cause, remedy) = match (strange, why) {
            (Some(_), _) => (
                "It has another site name or another site key.".to_owned(),
                "Give both machines the same 'site', and the same file as 'site_key'.",
            ),
            (None, Some(why)) => (
                format!("It answers, and the handshake fails: {why}."),
                "Look whether a branchline agent of the same version listens there.",
            ),
            // It was heard of just now: there was no time to connect to it.
            (None, None) => return None,
        };
        return Some(Check::failed(TEST, seen, cause, remedy));
    }
    let obstacle = first.obstacle.clone().unwrap_or(Obstacle::Silent);
    let seen = format!("{seen}: {obstacle}");
    let (cause, remedy) = match obstacle {
        Obstacle::Refused => (
            format!("Nothing listens at {address}: no agent runs there, or it listens elsewhere."),
            "Start the agent there, or correct the address under 'peer'.".to_owned(),
        ),
        Obstacle::NoRoute => (
            format!("There is no route from here to {address}."),
            "Look at this machine's network, or correct the address under 'peer'.".to_owned(),
        ),
        Obstacle::Silent | Obstacle::Other(_) => (
            "What is sent there gets lost: the machine is off, or a firewall there or between drops it."
                .to_owned(),
            format!("Let TCP port {} in on that machine.", address.rsplit(':').next().unwrap_or_default()),
        ),
    };
    Some(Check::failed(TEST, seen, cause, remedy))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn knock(obstacle: Option<Obstacle>) -> Knock {
        Knock { address: "10.1.0.11:7421".into(), obstacle }
    }

    #[test]
    fn members_say_whether_they_get_in() {
        let answer = |host: &str, obstacle| (host.to_owned(), vec![knock(obstacle)]);
        let open = judge(&[answer("a", None)], 0, 1);
        assert_eq!(
            (open.state, open.seen.as_str()),
            (State::Passed, "a reaches this node at 10.1.0.11:7421")
        );
        let shut = judge(&[answer("a", None), answer("b", Some(Obstacle::Silent))], 1, 2);
        assert_eq!(shut.state, State::Failed, "one that does not get in is one too many");
        assert!(shut.seen.starts_with("b cannot connect") && shut.cause.expect("one").contains("firewall"));
        let refused = judge(&[answer("b", Some(Obstacle::Refused))], 0, 1);
        assert!(refused.remedy.expect("one").contains("TCP port 7421"));
        assert_eq!(judge(&[], 2, 3).state, State::Passed, "older members that have connected");
        assert_eq!(judge(&[], 0, 3).state, State::Skipped);
        let two = (String::from("c"), vec![knock(Some(Obstacle::NoRoute)), knock(None)]);
        assert_eq!(judge(&[two], 0, 1).state, State::Passed, "any of its addresses will do");
    }

    #[test]
    fn a_machine_that_is_no_member_has_one_cause() {
        let cause = |obstacle, why| outbound(&[knock(obstacle)], why)?.cause;
        let strange = "the other node is not a member of this site: its site name or site key differs";
        assert!(cause(None, Some(strange)).expect("one").contains("another site key"));
        assert!(cause(None, Some("it hung up")).expect("one").contains("it hung up"));
        assert!(cause(Some(Obstacle::Refused), Some(strange)).expect("one").contains("Nothing listens"));
        assert!(cause(Some(Obstacle::Silent), None).expect("one").contains("firewall"));
        assert_eq!(cause(None, None), None);
    }
}
