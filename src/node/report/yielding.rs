//! How what is pulled in the background gives way to others on the site's link.

use serde::{Deserialize, Serialize};

use super::Node;
use crate::core::yielding::{State, TARGET};

/// Of `GET /api/v1/status`: this node's background on the WAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YieldingStatus {
    /// `off` (by configuration), `unable`, `idle`, `starting`, `free`, `gives_way` or `looking`.
    pub state: String,
    /// Why, in words.
    pub why: String,
    /// The round trip to the origin with an empty queue, in milliseconds.
    pub base_ms: Option<f64>,
    /// How long packets wait in the queue before the link, in milliseconds.
    pub queueing_ms: Option<f64>,
    /// The wait that is aimed at, in milliseconds.
    pub target_ms: f64,
    /// What the background may take at present, in bytes per second.
    pub rate: Option<u64>,
    /// The best that it took of late, in bytes per second.
    pub best: u64,
    /// Seconds in which something was pulled in the background, since the start.
    pub active_s: f64,
    /// Of them, those in which it gave way.
    pub held_back_s: f64,
    /// Bytes that could have come in that time and were left to others, by the best rate.
    pub left: u64,
    /// Probes that were answered.
    pub probes: u64,
    /// Probes that were not.
    pub probes_lost: u64,
    /// What probes took from the WAN, in bytes, both ways and with headers.
    pub probe_bytes: u64,
}

impl Node {
    pub(in crate::node) fn yielding_status(&self) -> YieldingStatus {
        let giving_way = &self.inner.giving_way;
        let (active, unable, bytes) = (giving_way.is_active(), giving_way.unable(), giving_way.bytes());
        let on = self.inner.config.background_yield;
        let controller = giving_way.controller();
        let sums = controller.sums();
        let (state, why) = match (unable, controller.state()) {
            _ if !on => ("off", "background_yield = false".to_owned()),
            (Some(why), _) => ("unable", why),
            _ if !active => ("idle", "nothing is pulled in the background".to_owned()),
            (_, State::Starting) => ("starting", "it looks how fast the link is".to_owned()),
            (_, State::Free) => ("free", "the queue before the link is short".to_owned()),
            (_, State::GivesWay) => ("gives_way", "others fill the queue before the link".to_owned()),
            (_, State::Looking) => {
                ("looking", "it steps back for a moment to see the link without it".to_owned())
            }
        };
        let ms = |time: std::time::Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let measuring = on && active;
        YieldingStatus {
            state: state.to_owned(),
            why,
            base_ms: controller.base().map(ms),
            queueing_ms: controller.queueing().filter(|_| measuring).map(ms),
            target_ms: ms(TARGET),
            rate: measuring.then(|| controller.cap().rate),
            best: controller.best(),
            active_s: sums.active.as_secs_f64(),
            held_back_s: sums.held_back.as_secs_f64(),
            left: sums.left,
            probes: sums.answered,
            probes_lost: sums.lost,
            probe_bytes: bytes,
        }
    }
}
