//! cargo: a source replacement in the user's `.cargo/config.toml`.

use std::path::PathBuf;

use super::block::{self, Section};
use super::{Ask, Places, Plan};

pub(super) fn files(places: &Places) -> Vec<PathBuf> {
    vec![places.cargo_home().join("config.toml")]
}

pub(super) fn plan(ask: &Ask, places: &Places) -> Result<Plan, String> {
    let upstream = ask.only()?;
    let (name, ours) = (&upstream.name, format!("branchline-{}", upstream.name.replace('.', "-")));
    let replaced = upstream.called.clone().unwrap_or_else(|| format!("{ours}-upstream"));
    let (replaced_section, own_section) = (format!("source.{replaced}"), format!("source.{ours}"));
    let mut replacement = vec![("replace-with", quoted(&ours))];
    if upstream.called.is_none() {
        let address = upstream.addresses.first().ok_or("that upstream has no address")?;
        replacement.insert(0, ("registry", quoted(&format!("sparse+{address}"))));
    }
    let registry = quoted(&format!("sparse+http://{}/cargo/{name}/", ask.gateway));
    let sections = [
        Section { name: Some(&replaced_section), pairs: replacement },
        Section { name: Some(&own_section), pairs: vec![("registry", registry)] },
        // The gateway speaks HTTP/1.1: cargo would wait for streams, with one connection where it may have two.
        Section { name: Some("http"), pairs: vec![("multiplexing", "false".to_owned())] },
    ];
    let mut plan = Plan::default();
    for path in files(places) {
        let text = places.read(&path)?;
        let wanted = block::set(text.as_deref(), &sections)?;
        // What is written in another way than by lines is not for us to change.
        let read: toml::Table = wanted.parse().map_err(|_| by_hand(&sections))?;
        let set = |section: &str| read.get("source")?.get(section)?.as_table().map(toml::Table::len);
        if set(&replaced).is_none() || set(&ours).is_none() {
            return Err(by_hand(&sections));
        }
        plan.file(path, text, Some(wanted));
    }
    Ok(plan)
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn by_hand(sections: &[Section]) -> String {
    let mut lines =
        String::from("it sets sources in a form that cannot be changed safely; write into it by hand:");
    for section in sections {
        lines.push_str(&format!("\n[{}]", section.name.unwrap_or_default()));
        section.pairs.iter().for_each(|(key, value)| lines.push_str(&format!("\n{key} = {value}")));
    }
    lines
}
