//! What happened to a package's channels and versions: kept in the signed catalog, beside the versions.
//!
//! Of each package the last [`MOST`] events are kept, so that the catalog, which every site fetches,
//! stays small. A reader that does not know this part skips it, and an event of a later version that is
//! not understood here is skipped and kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tough::schema::Targets;

use crate::core::id::{Channel, PackageName, Version};

/// Events that are kept of each package.
pub const MOST: usize = 50;
/// Where they are in the signed part of the catalog.
const FIELD: &str = "history";
/// Of a person's name, so many letters are kept.
const LONGEST_NAME: usize = 100;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// A channel was pointed at a version, by a publish or a promotion.
    #[default]
    Move,
    /// A channel went back to a version that it had pointed at before.
    Rollback,
    /// A version was retired.
    Retire,
    /// A version was taken back from retirement.
    Restore,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, to the second.
    pub at: Timestamp,
    /// What was done.
    #[serde(default)]
    pub act: Act,
    /// The channel that moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Where it pointed before; none if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// Where it points since, or the version that was retired or taken back.
    pub version: Version,
    /// By whom, for people; empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl Event {
    /// An event of now.
    pub(super) fn new(act: Act, version: &Version, by: &str) -> Self {
        let now = Timestamp::now();
        let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let by = by.chars().take(LONGEST_NAME).collect();
        Self { at, act, channel: None, from: None, version: version.clone(), by }
    }
}

/// The events of a package, the oldest first.
pub(super) fn of(targets: &Targets, name: &PackageName) -> Vec<Event> {
    let events = targets._extra.get(FIELD).and_then(|all| all.get(name.as_str()));
    let events = events.and_then(Value::as_array).into_iter().flatten();
    // The last ones alone, however many somebody wrote.
    let events: Vec<&Value> = events.collect();
    let kept = &events[events.len().saturating_sub(MOST)..];
    kept.iter().filter_map(|event| serde_json::from_value((*event).clone()).ok()).collect()
}

/// Adds an event; the oldest ones make room.
pub(super) fn add(targets: &mut Targets, name: &PackageName, event: &Event) -> serde_json::Result<()> {
    let event = serde_json::to_value(event)?;
    let all = targets._extra.entry(FIELD.to_owned()).or_insert_with(|| Value::Object(Default::default()));
    if !all.is_object() {
        *all = Value::Object(Default::default());
    }
    let Some(all) = all.as_object_mut() else { return Ok(()) };
    let events = all.entry(name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
    match events.as_array_mut() {
        Some(events) => {
            events.push(event);
            events.drain(..events.len().saturating_sub(MOST));
        }
        None => *events = Value::Array(vec![event]),
    }
    Ok(())
}

/// The versions that a channel can go back to, the nearest first: those that it pointed at before
/// `current`, where it points. A rollback takes away what it left, so that the next one goes further back.
pub(super) fn before(events: &[Event], channel: &Channel, current: &Version) -> Vec<Version> {
    let mut stack: Vec<Version> = Vec::new();
    for event in events.iter().filter(|event| event.channel.as_ref() == Some(channel)) {
        if stack.is_empty() {
            // Where it pointed before all that is known.
            stack.extend(event.from.clone());
        }
        match event.act {
            Act::Move => {}
            Act::Rollback => {
                let below = &stack[..stack.len().saturating_sub(1)];
                let back = below.iter().rposition(|version| *version == event.version);
                // What it went back to may be older than what is kept: nothing kept lies before it.
                stack.truncate(back.unwrap_or(0));
            }
            Act::Retire | Act::Restore => continue,
        }
        stack.push(event.version.clone());
    }
    // A program that knows no history may have moved it since.
    if stack.last() == Some(current) {
        stack.pop();
    }
    stack.reverse();
    stack
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;

    fn version(number: u8) -> Version {
        number.to_string().parse().expect("valid")
    }

    fn stable() -> Channel {
        "stable".parse().expect("valid")
    }

    /// Moves to these, one after the other; 0 stands for a rollback.
    fn history(moves: &[u8]) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut at: Option<Version> = None;
        for &number in moves {
            let back = at.as_ref().and_then(|at| before(&events, &stable(), at).first().cloned());
            let (act, to) = match (number, back) {
                (0, Some(back)) => (Act::Rollback, back),
                (0, None) => continue,
                (number, _) => (Act::Move, version(number)),
            };
            let event = Event::new(act, &to, "");
            events.push(Event { channel: Some(stable()), from: at.replace(to), ..event });
        }
        events
    }

    fn names(events: &[Event]) -> Vec<String> {
        let Some(last) = events.last() else { return Vec::new() };
        before(events, &stable(), &last.version).iter().map(ToString::to_string).collect()
    }

    fn numbers(moves: &[u8]) -> Vec<String> {
        names(&history(moves))
    }

    #[test]
    fn rollbacks_go_further_back_each_time() {
        assert_eq!(numbers(&[1, 2, 3]), ["2", "1"]);
        assert_eq!(numbers(&[1, 2, 3, 0]), ["1"]);
        assert!(numbers(&[1, 2, 3, 0, 0]).is_empty());
        assert_eq!(numbers(&[1, 2, 3, 0, 4]), ["2", "1"], "and a new version stands on what it replaced");
        assert_eq!(numbers(&[1, 2, 1]), ["2", "1"], "going forward to an old version is no rollback");
        assert!(numbers(&[]).is_empty() && numbers(&[0]).is_empty());
    }

    #[test]
    fn a_history_that_was_cut_goes_as_far_as_it_is_known() {
        let all = history(&[1, 2, 3, 4, 0]);
        assert_eq!(names(&all[2..]), ["2"]);
        assert!(names(&all[4..]).is_empty(), "it went back to 3, and nothing is known of what was before");
        // Moved on by a program that writes no history.
        let found = before(&all, &stable(), &version(9));
        assert_eq!(found, [3, 2, 1].map(version), "where it pointed last comes first");
    }

    #[test]
    fn only_the_last_events_are_kept_and_unknown_ones_do_no_harm() {
        let mut targets = Targets::new("1.0.0".into(), NonZeroU64::MIN, Timestamp::now());
        let name: PackageName = "demo".parse().expect("valid");
        let odd = serde_json::json!({"demo": [{"act": "sell", "version": "1"}, 7], "other": "words"});
        targets._extra.insert(FIELD.into(), odd);
        add(&mut targets, &name, &Event::new(Act::Move, &version(1), "me")).expect("written");
        assert_eq!(of(&targets, &name).len(), 1);
        for number in 0..2 * MOST as u8 {
            add(&mut targets, &name, &Event::new(Act::Move, &version(number), "me")).expect("written");
        }
        let kept = of(&targets, &name);
        assert_eq!((kept.len(), kept[0].version.clone()), (MOST, version(MOST as u8)));
        let other: PackageName = "other".parse().expect("valid");
        assert!(of(&targets, &other).is_empty());
        add(&mut targets, &other, &Event::new(Act::Retire, &version(1), "")).expect("written");
        assert_eq!(of(&targets, &other).len(), 1);
    }

    proptest! {
        /// A stack of the versions, kept apart, says the same.
        #[test]
        fn a_channel_is_a_stack(moves in prop::collection::vec(0u8..6, 0..40)) {
            let mut stack: Vec<u8> = Vec::new();
            for &number in &moves {
                match number {
                    0 if stack.len() > 1 => { stack.pop(); }
                    0 => {}
                    number => stack.push(number),
                }
            }
            stack.pop();
            let expected: Vec<String> = stack.iter().rev().map(ToString::to_string).collect();
            prop_assert_eq!(numbers(&moves), expected);
        }
    }
}
