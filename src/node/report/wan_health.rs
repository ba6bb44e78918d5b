//! What is wrong with the site's WAN windows and its month.

use super::health::{Fault, Severity, fault};
use super::wan::{Wan, WanMonth};
use crate::core::bitrate::Size;
use crate::core::window::Then;

/// A share of the month that is to be warned of is reached.
pub(super) fn month(wan: &Wan) -> Option<Fault> {
    let WanMonth { bytes, used: Some(used), reached: Some(reached), then, over, .. } = *wan.month.as_ref()?
    else {
        return None;
    };
    let cause = format!("{} of {} have crossed since its first day.", Size(used), Size(bytes));
    let remedy = "Raise bytes under [month] ('branchline wan schedule'), or open the WAN for a while \
                  ('branchline wan open').";
    if over {
        let effect = match then {
            Then::Warn => "Nothing is closed: the schedule says so.",
            Then::Background => "What nobody waits for is not fetched until the next month.",
            Then::All => "Only what the site holds is served until the next month, and urgent requests.",
        };
        let severity = if then == Then::All { Severity::Error } else { Severity::Warning };
        return Some(fault(
            "wan_month_over",
            severity,
            ["The month's WAN bytes are used up", &cause, effect, remedy],
        ));
    }
    let title = format!("{reached} % of the month's WAN bytes are used");
    let effect = match then {
        Then::Warn => "None, also when all are used.",
        Then::Background => "None yet. When all are used, what nobody waits for is fetched no more.",
        Then::All => "None yet. When all are used, nothing is fetched any more but what is urgent.",
    };
    Some(fault("wan_month_warning", Severity::Warning, [&title, &cause, effect, remedy]))
}

/// The schedule means nothing to this version.
pub(super) fn schedule(wan: &Wan) -> Option<Fault> {
    let why = wan.unreadable.as_ref()?;
    let effect = "This node does not keep to it, and if it holds the site's budget nobody does.";
    let remedy = "Update this machine, or give the schedule anew with 'branchline wan schedule'.";
    let what = ["The site's WAN schedule cannot be read", why.as_str(), effect, remedy];
    Some(fault("wan_schedule_unreadable", Severity::Error, what))
}

/// The clock that decides is not this node's.
pub(super) fn clocks(wan: &Wan) -> Option<Fault> {
    let what = [
        "This machine's clock differs from the one that decides on WAN windows",
        "By the one another window holds than by the other.",
        "The site keeps to the other clock; what this node says of coming windows is off.",
        "Let both machines set their clocks by NTP.",
    ];
    wan.clocks_differ.then(|| fault("wan_clocks_differ", Severity::Info, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(used: Option<u64>, then: Then) -> Wan {
        let over = used.is_some_and(|used| used >= 100);
        let reached = used.filter(|used| *used >= 50).map(|used| used.min(100) as u32);
        let month = WanMonth { bytes: 100, used, began: String::new(), reached, then, over, away: None };
        Wan { month: Some(month), ..Wan::default() }
    }

    #[test]
    fn each_share_is_one_fault() {
        let found = |wan: &Wan| month(wan).map(|fault| (fault.id, fault.severity));
        assert_eq!(found(&Wan::default()), None);
        assert_eq!(found(&used(None, Then::All)), None);
        assert_eq!(found(&used(Some(49), Then::All)), None);
        assert_eq!(found(&used(Some(50), Then::All)), Some(("wan_month_warning".into(), Severity::Warning)));
        assert_eq!(found(&used(Some(100), Then::Warn)), Some(("wan_month_over".into(), Severity::Warning)));
        assert_eq!(found(&used(Some(100), Then::All)), Some(("wan_month_over".into(), Severity::Error)));
    }
}
