//! Who may use how much.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Rates;
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

/// Everybody's share. What nobody asks for is headroom, in equal parts, so that who needs more may
/// have it before it has asked.
pub(super) fn share_out(limit: u64, askers: &BTreeMap<NodeId, Asker>) -> Vec<(NodeId, Rates)> {
    let urgent: Vec<u64> = askers.values().map(|asker| asker.demand.foreground).collect();
    let idle: Vec<u64> = askers.values().map(|asker| asker.demand.background).collect();
    let floor = if idle.iter().any(|&demand| demand > 0) { limit / BACKGROUND } else { 0 };
    let foreground = divide(limit - floor, &urgent);
    let left = limit - foreground.iter().sum::<u64>();
    let background = divide(left, &idle);
    let spare = (left - background.iter().sum::<u64>()) / (askers.len().max(1) as u64);
    let parts = foreground.into_iter().zip(background);
    askers
        .iter()
        .zip(parts)
        .map(|((node, asker), (foreground, background))| {
            // The headroom goes to the kind that is asked for.
            let to_background = asker.demand.foreground == 0;
            let (more, other) = if to_background { (0, spare) } else { (spare, 0) };
            (*node, Rates { foreground: foreground + more, background: background + other })
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

    proptest! {
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
