//! `GET /api/v1/wan` and `POST /api/v1/admin/wan`: when the site may take how much from the WAN.

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::admin::Body;
use super::error::HttpError;
use crate::core::orders::{WanSchedule, Whole};
use crate::core::window::{Hold, Kind, Schedule};
use crate::node::Node;
use crate::node::errands::Outcomes;
use crate::node::report::Wan;

/// An opening or a closing of at most so long, in seconds: what is to last belongs in the schedule.
const LONGEST_HOLD: i64 = 31 * 24 * 3600;

/// What an admin orders of the WAN.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WanOrder {
    /// What.
    pub change: WanChange,
    /// Who wants it, for people.
    #[serde(default)]
    pub by: String,
}

/// What is to change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WanChange {
    /// Another schedule; nothing: none at all.
    Schedule(Option<String>),
    /// Something that stands over the schedule for so many seconds.
    Hold {
        /// What it is.
        kind: Kind,
        /// For how long.
        seconds: i64,
    },
    /// What stands over the schedule is taken back.
    Release {},
}

pub(super) async fn show(State(node): State<Node>) -> Json<Wan> {
    Json(node.wan_of_site().await)
}

pub(super) async fn order(
    State(node): State<Node>,
    Body(order): Body<WanOrder>,
) -> Result<Json<Outcomes>, HttpError> {
    let WanOrder { change, by } = order;
    let outcomes = match change {
        WanChange::Schedule(toml) => {
            if let Some(toml) = &toml {
                toml.parse::<Schedule>().map_err(|error| HttpError::bad_request(error.to_string()))?;
            }
            node.give_order(by, Whole, toml.map(|toml| WanSchedule { toml })).await?
        }
        WanChange::Hold { kind, seconds } => {
            let until = end(seconds).ok_or_else(|| {
                HttpError::bad_request(
                    "an opening or closing lasts from a second to 31 days; what is to last \
                                        belongs in the schedule",
                )
            })?;
            node.give_order(by, Whole, Some(Hold { until, kind })).await?
        }
        WanChange::Release {} => node.give_order::<Hold>(by, Whole, None).await?,
    };
    Ok(Json(outcomes))
}

fn end(seconds: i64) -> Option<Timestamp> {
    let lasts = (1..=LONGEST_HOLD).contains(&seconds).then_some(SignedDuration::from_secs(seconds))?;
    Timestamp::now().checked_add(lasts).ok()
}
