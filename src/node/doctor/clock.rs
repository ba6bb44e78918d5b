//! Whether this machine's clock is right, by the origin's and by the members'.

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{Check, apart};
use crate::node::Node;

const TEST: &str = "clock";
/// What a member is asked: its clock, in milliseconds since 1970-01-01 UTC.
pub(in crate::node) const CLOCK: &str = "clock";
const ASKED: usize = 8;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// Clocks may be so far apart: the schedules of a site and the times of catalogs go by minutes.
const MAY_DIFFER: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn check(node: &Node) -> Check {
    let contacts = node.inner.net.contacts();
    let members = join_all(contacts.iter().take(ASKED).map(|contact| ahead_of(node, contact.node))).await;
    judge(node.catalog().clock_ahead(), members.into_iter().flatten().collect())
}

/// How far this clock is ahead of a member's.
async fn ahead_of(node: &Node, member: crate::core::id::NodeId) -> Option<SignedDuration> {
    let asked = Timestamp::now();
    let clock: i64 = node.ask_report(member, CLOCK.to_owned(), PATIENCE).await?;
    let half = Timestamp::now().duration_since(asked) / 2;
    let clock = Timestamp::from_millisecond(clock).ok()?;
    Some(asked.duration_since(clock) + half)
}

pub(super) fn judge(origin: Option<SignedDuration>, mut members: Vec<SignedDuration>) -> Check {
    members.sort_unstable();
    let site = members.get(members.len() / 2).copied();
    let is_off = |by: &SignedDuration| by.abs() > MAY_DIFFER;
    let way = |by: SignedDuration| {
        format!("{} {}", apart(by), if by.is_negative() { "behind" } else { "ahead of" })
    };
    let mine = "Let this machine set its clock by NTP ('timedatectl set-ntp true').";
    match (origin.filter(is_off), site.filter(is_off)) {
        (Some(by), None) if site.is_some() => {
            let seen = format!(
                "this clock is {} the origin's, and like those of {} members",
                way(by),
                members.len()
            );
            Check::failed(
                TEST,
                seen,
                "The origin's clock is wrong.",
                "Let the origin's server set its clock by NTP: it dates its catalogs by it.",
            )
        }
        (Some(by), _) => Check::failed(
            TEST,
            format!("this clock is {} the origin's", way(by)),
            "This machine's clock is wrong.",
            mine,
        ),
        (None, Some(by)) if members.len() > 1 || origin.is_some() => {
            let seen = format!("this clock is {} those of the members", way(by));
            let (cause, remedy) = match origin {
                // The origin is right, as far as it can be known.
                Some(_) => (
                    "The members' clocks are wrong: the origin's agrees with this one.",
                    "Let them set their clocks by NTP.",
                ),
                None => ("This machine's clock is wrong.", mine),
            };
            Check::failed(TEST, seen, cause, remedy)
        }
        (None, Some(by)) => {
            let seen = format!("this clock is {} that of the one member", way(by));
            Check::failed(
                TEST,
                seen,
                "One of the two clocks is wrong.",
                "Let both machines set their clocks by NTP.",
            )
        }
        (None, None) => match (origin, site) {
            (None, None) => Check::skipped(TEST, "there is no other clock to compare it with"),
            (Some(by), None) => Check::passed(TEST, format!("{} from the origin's", apart(by))),
            (None, Some(by)) => Check::passed(TEST, format!("{} from the members'", apart(by))),
            (Some(by), Some(site)) => Check::passed(
                TEST,
                format!("{} from the origin's, {} from the members'", apart(by), apart(site)),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn who_is_wrong_is_who_differs_from_the_others() {
        let s = SignedDuration::from_secs;
        let cause = |origin, members: &[i64]| {
            judge(origin, members.iter().map(|by| s(*by)).collect()).cause.unwrap_or_default()
        };
        assert_eq!(judge(None, Vec::new()).state, State::Skipped);
        assert_eq!(judge(Some(s(1)), vec![s(0), s(-2)]).state, State::Passed);
        assert!(cause(Some(s(3600)), &[3601]).starts_with("This machine's"));
        assert!(cause(Some(s(3600)), &[]).starts_with("This machine's"));
        assert!(cause(Some(s(-3600)), &[0, 1]).starts_with("The origin's"));
        assert!(cause(Some(s(0)), &[-7200, -7200, 0]).starts_with("The members'"));
        assert!(cause(None, &[90, 91, 92]).starts_with("This machine's"));
        assert!(cause(None, &[90]).starts_with("One of the two"));
        assert_eq!(cause(None, &[0, 0, 7200]), "", "one member of many is not this machine's trouble");
        assert!(judge(Some(s(-3720)), Vec::new()).seen.contains("behind the origin's"));
    }
}
