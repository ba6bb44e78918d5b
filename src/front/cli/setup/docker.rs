//! Docker: `registry-mirrors` in `/etc/docker/daemon.json`. JSON has no comments, so ours is known by the
//! gateway's address; what else is in the file stays as it is, to the letter.

use std::path::PathBuf;

use serde_json::Value;

use super::{Ask, Places, Plan};

const KEY: &str = "registry-mirrors";

fn file(places: &Places) -> PathBuf {
    places.etc("docker/daemon.json")
}

fn mirror(ask: &Ask) -> String {
    format!("http://{}", ask.gateway)
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let path = file(places);
    let text = places.read(&path)?;
    let wanted = add(text.as_deref(), &mirror(ask))?;
    plan.file(path, text, Some(wanted));
    plan.note("tell Docker to read it: systemctl reload docker");
    plan.note("Docker uses mirrors for the images of its own hub alone, and goes there itself if this agent does not answer; of several oci upstreams the hub's is the one with default=yes");
    Ok(plan)
}

pub(super) fn undo(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let path = file(places);
    if let Some(text) = places.read(&path)? {
        let left = remove(&text, &mirror(ask))?;
        if left.as_ref() == Some(&text) && text.contains(KEY) {
            plan.note(format!(
                "{} names other mirrors, and not {}; --gateway says which is ours",
                path.display(),
                mirror(ask)
            ));
        }
        plan.file(path, Some(text), left);
    }
    plan.note("tell Docker to read it: systemctl reload docker");
    Ok(plan)
}

fn made(mirror: &str) -> String {
    format!("{{\n  \"{KEY}\": [\"{mirror}\"]\n}}\n")
}

fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    if !value.is_object() || !matches!(&value[KEY], Value::Null | Value::Array(_)) {
        return Err("it is not of the form that Docker reads".into());
    }
    Ok(value)
}

fn mirrors(value: &Value) -> Vec<Value> {
    value[KEY].as_array().cloned().unwrap_or_default()
}

/// Adds a mirror, as the first.
fn add(text: Option<&str>, mirror: &str) -> Result<String, String> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(made(mirror)) };
    let value = parse(text)?;
    let known = mirrors(&value);
    if known.iter().any(|known| known == mirror) {
        return Ok(text.to_owned());
    }
    let (object, array) = places_in(text)?;
    let (at, new) = match (array, known.is_empty()) {
        (Some(at), false) => (at, format!("\"{mirror}\", ")),
        (Some(at), true) => (at, format!("\"{mirror}\" ")),
        (None, _) => {
            let more = value.as_object().is_some_and(|object| !object.is_empty());
            (object, format!("\"{KEY}\": [\"{mirror}\"]{}", if more { ", " } else { "" }))
        }
    };
    let new = format!("{}{new}{}", &text[..at], &text[at..]);
    match parse(&new) {
        Ok(it) if mirrors(&it).first().is_some_and(|first| first == mirror) => Ok(new),
        _ => Err(format!("it cannot be changed safely: add \"{mirror}\" to \"{KEY}\" by hand")),
    }
}

/// Takes it away; `None` if the file was made for it.
fn remove(text: &str, mirror: &str) -> Result<Option<String>, String> {
    if text == made(mirror) {
        return Ok(None);
    }
    let mut value = parse(text)?;
    let (before, mut left) = (mirrors(&value), mirrors(&value));
    left.retain(|known| known != mirror);
    if left.len() == before.len() {
        return Ok(Some(text.to_owned()));
    }
    let (object, array) = places_in(text)?;
    let own = format!("\"{KEY}\": [\"{mirror}\"]");
    let inserted = [
        (Some(object), format!("{own}, ")),
        (Some(object), own),
        (array, format!("\"{mirror}\", ")),
        (array, format!("\"{mirror}\" ")),
    ];
    for (at, ours) in inserted {
        if let Some((at, rest)) = at.and_then(|at| Some((at, text[at..].strip_prefix(ours.as_str())?))) {
            return Ok(Some(format!("{}{rest}", &text[..at])));
        }
    }
    // Somebody has moved it.
    if left.is_empty() {
        value.as_object_mut().map(|object| object.remove(KEY));
    } else {
        value[KEY] = Value::Array(left);
    }
    let pretty = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
    Ok(Some(format!("{pretty}\n")))
}

/// Where the object begins, and the list of mirrors if there is one; `text` is a JSON object.
fn places_in(text: &str) -> Result<(usize, Option<usize>), String> {
    let object = text.find('{').ok_or("it is no JSON object")? + 1;
    let (mut depth, mut string, mut escaped, mut start) = (1, false, false, 0);
    for (at, byte) in text.bytes().enumerate().skip(object) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' if string => {
                string = false;
                let after = text[at + 1..].trim_start();
                let list =
                    after.strip_prefix(':').map(str::trim_start).and_then(|list| list.strip_prefix('['));
                if let (1, KEY, Some(list)) = (depth, &text[start..at], list) {
                    return Ok((object, Some(text.len() - list.len())));
                }
            }
            b'"' => (string, start) = (true, at + 1),
            b'{' | b'[' if !string => depth += 1,
            b'}' | b']' if !string => depth -= 1,
            _ => {}
        }
    }
    Ok((object, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_to_the_letter() {
        let ours = "http://127.0.0.1:7420";
        for theirs in [
            "{}",
            "{ }\n",
            "{\"registry-mirrors\":[]}",
            "{\"registry-mirrors\": []}",
            "{\n\t\"registry-mirrors\": [\n\t\t\"https://m\"\n\t],\n\t\"debug\": true }\n",
            "{\"a\": {\"registry-mirrors\": [\"x\"]}, \"b\\\"{\": [\"registry-mirrors\"]}",
            "\n {\"debug\": true}",
        ] {
            let with = add(Some(theirs), ours).expect(theirs);
            let value = parse(&with).expect(theirs);
            assert_eq!(value[KEY][0], ours, "{with}");
            assert_eq!(add(Some(&with), ours).as_ref(), Ok(&with), "repeated");
            assert_eq!(remove(&with, ours), Ok(Some(theirs.to_owned())), "{with}");
            assert_eq!(remove(theirs, ours), Ok(Some(theirs.to_owned())));
        }
        let made = add(None, ours).expect("made");
        assert_eq!(remove(&made, ours), Ok(None));
        let moved = "{\"registry-mirrors\": [\"https://m\", \"http://127.0.0.1:7420\"], \"debug\": true}";
        let left = remove(moved, ours).expect("removed").expect("left");
        assert_eq!(
            parse(&left).expect("JSON"),
            serde_json::json!({"registry-mirrors": ["https://m"], "debug": true})
        );
        for bad in ["[]", "nonsense", "{\"registry-mirrors\": \"x\"}"] {
            assert!(add(Some(bad), ours).is_err(), "{bad}");
        }
    }
}
