//! Who may use how much.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Caps, Rates};
use crate::core::flight::Urgency;
use crate::core::id::NodeId;

/// Background may always have this part of the limit.
pub(super) const BACKGROUND: u64 = 20;

/// Somebody that pulls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) demand: Rates,
    pub(super) share: Rates,
    pub(super) heard: Instant,
}

/// What there is to share out, in bytes per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For all together.
    pub(super) total: u64,
    /// What the schedule allows of it.
    pub(super) caps: Caps,
}

/// Everybody's share: urgent first, then foreground, then background, within what the schedule allows
/// of the two together. What nobody asks for is headroom, in equal parts, so that who needs more may
/// have it before it has asked.
pub(super) fn share_out(bounds: Bounds, askers: &BTreeMap<NodeId, Asker>) -> Vec<(NodeId, Rates)> {
    let demands = |urgency| askers.values().map(|asker| asker.demand.of(urgency)).collect::<Vec<u64>>();
    let sum = |parts: &[u64]| parts.iter().sum::<u64>();
    let urgent = divide(bounds.total, &demands(Urgency::Urgent));
    let left = bounds.total - sum(&urgent);
    let most = left.min(bounds.caps.of(Urgency::Foreground));
    let idle = demands(Urgency::Background);
    let most_idle = most.min(bounds.caps.of(Urgency::Background));
    let floor = if idle.iter().any(|&demand| demand > 0) { most_idle.min(most / BACKGROUND) } else { 0 };
    let foreground = divide(most - floor, &demands(Urgency::Foreground));
    let background = divide(most_idle.min(most - sum(&foreground)), &idle);
    let each = |spare: u64| spare / askers.len().max(1) as u64;
    let spare = left - sum(&foreground) - sum(&background);
    let spare_foreground = spare.min(most - sum(&foreground) - sum(&background));
    let spare_background = spare_foreground.min(most_idle - sum(&background));
    let parts = urgent.into_iter().zip(foreground).zip(background);
    askers
        .iter()
        .zip(parts)
        .map(|((node, asker), ((urgent, foreground), background))| {
            let mut share = Rates { urgent, foreground, background };
            // The headroom goes to the most urgent kind that is asked for.
            match asker.demand {
                Rates { urgent: 1.., .. } => share.urgent += each(spare),
                Rates { foreground: 1.., .. } => share.foreground += each(spare_foreground),
                _ => share.background += each(spare_background),
            }
            (*node, share)
        })
        .collect()
}

/// Max-min fair parts: nobody gets more than it asks for, and nobody could get more without taking
/// from one that has no more than it.
fn divide(total: u64, demands: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|&index| demands[index]);
    let mut parts = vec![0; demands.len()];
    let mut left = total;
    for (place, &index) in order.iter().enumerate() {
        let equal = left / (demands.len() - place) as u64;
        parts[index] = demands[index].min(equal);
        left -= parts[index];
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates() -> impl Strategy<Value = Rates> {
        let demand = || prop_oneof![Just(0), 0u64..2_000_000];
        (demand(), demand(), demand()).prop_map(|(urgent, foreground, background)| Rates {
            urgent,
            foreground,
            background,
        })
    }

    proptest! {
        /// No kind ever gets more than it may, whoever asks for what.
        #[test]
        fn shares_keep_to_all_bounds(
            total in 1u64..1_000_000,
            (foreground, background) in (0u64..1_500_000, 0u64..1_500_000),
            demands in proptest::collection::vec(rates(), 1..9),
        ) {
            let now = Instant::now();
            let ask = |(n, demand): (usize, Rates)| {
                (NodeId::from_bytes([n as u8; 32]), Asker { demand, share: Rates::default(), heard: now })
            };
            let askers: BTreeMap<NodeId, Asker> = demands.iter().copied().enumerate().map(ask).collect();
            let shares = share_out(Bounds { total, caps: Caps { foreground, background } }, &askers);
            let sum = |of: fn(&Rates) -> u64| shares.iter().map(|(_, share)| of(share)).sum::<u64>();
            prop_assert!(sum(Rates::sum) <= total);
            prop_assert!(sum(|it| it.foreground + it.background) <= foreground);
            prop_assert!(sum(|it| it.background) <= background);
            // Nothing lies idle that somebody could use.
            let wanted: u64 = demands.iter().map(|demand| demand.urgent).sum();
            prop_assert!(sum(|it| it.urgent) + demands.len() as u64 >= total.min(wanted));
        }

        #[test]
        fn parts_are_max_min_fair(total in 0u64..1_000_000, demands in proptest::collection::vec(0u64..400_000, 0..9)) {
            let parts = divide(total, &demands);
            let sum: u64 = parts.iter().sum();
            prop_assert!(sum <= total);
            prop_assert!(sum + demands.len() as u64 >= total.min(demands.iter().sum()));
            let most = parts.iter().copied().max().unwrap_or(0);
            for (part, demand) in parts.iter().zip(&demands) {
                prop_assert!(part == demand || part + demands.len() as u64 > most);
            }
        }
    }
}
