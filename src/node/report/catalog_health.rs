//! What is wrong with the catalog, and with the way to the origin.

use jiff::SignedDuration;

use super::health::{Facts, Fault, Severity, day, fault, sentence};

/// So long before its end an admin is told of the catalog's.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 14);

/// It has ended, or will soon.
pub(super) fn expiry(facts: &Facts) -> Option<Fault> {
    let expires = facts.catalog_expires?;
    let (when, left) = (day(expires), expires.duration_since(facts.now));
    let remedy = "Run 'branchline origin renew' on the machine that has the origin's keys.";
    if left.is_negative() {
        let cause = format!("Its signature was good until {when}.");
        if let Some(until) = facts.channels_until.filter(|until| *until >= facts.now) {
            let cause = format!("Its signature was good until {when}, and the origin is out of reach.");
            let effect = format!(
                "Channels are followed by it all the same until {} (offline_grace); then only versions that \
                 the site holds can be fetched, by their number.",
                day(until)
            );
            let remedy = "Bring the line to the origin back, and look whether its catalog was renewed.";
            let what = ["The catalog has expired and is used a while longer", &cause, &effect, remedy];
            let since = Some(expires.to_string());
            return Some(Fault { since, ..fault("catalog_in_grace", Severity::Warning, what) });
        }
        let effect = "Channels are not followed and new packages are not served; versions that this node \
                      holds can still be fetched by their number.";
        let what = ["The catalog has expired", &cause, effect, remedy];
        let since = Some(expires.to_string());
        return Some(Fault { since, ..fault("catalog_expired", Severity::Error, what) });
    }
    let cause = format!("Its signature is good until {when}, and nobody has renewed or published since.");
    let effect = "Nothing yet. From then on only versions that are held can be fetched, by their number.";
    let what = ["The catalog will expire soon", &cause, effect, remedy];
    (left < SOON).then(|| fault("catalog_expiring", Severity::Warning, what))
}

/// It cannot be brought up to date.
pub(super) fn check(facts: &Facts) -> Option<Fault> {
    let (since, why) = facts.catalog_failing.as_ref()?;
    let remedy = format!(
        "Look whether {} can be reached from here; 'curl' on this machine tells more. It is tried again \
         by itself.",
        facts.origin
    );
    let (id, severity, title, effect) = if facts.catalog_expires.is_some() {
        let effect = match &facts.outage {
            Some(outage) => sentence(&outage.what_works()),
            None => "What is held is served; what is new or newly published is not seen.".to_owned(),
        };
        ("catalog_not_refreshed", Severity::Warning, "The catalog cannot be brought up to date", effect)
    } else {
        let effect = "No package can be found.".to_owned();
        ("catalog_missing", Severity::Error, "There is no catalog yet", effect)
    };
    let found = fault(id, severity, [title, &sentence(why), &effect, &remedy]);
    Some(Fault { since: Some(since.to_string()), ..found })
}

/// Others reach the origin, and this node does not.
pub(super) fn own_way(facts: &Facts) -> Option<Fault> {
    let outage = facts.outage.as_ref().filter(|_| facts.catalog_failing.is_none())?;
    let remedy = format!("Look what is in the way between this machine and {}.", facts.origin);
    let (cause, effect) = (sentence(&outage.why), sentence(&outage.what_works()));
    let what = ["This node does not reach the origin, others do", &cause, &effect, &remedy];
    Some(Fault { since: Some(outage.since.clone()), ..fault("origin_not_reached", Severity::Warning, what) })
}
