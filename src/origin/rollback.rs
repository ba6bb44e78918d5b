//! Taking a channel back to where it pointed before.

use std::collections::BTreeMap;

use tough::schema::Targets;

use super::OriginError;
use super::catalog::{Published, packages};
use super::channels::{Admin, Changed, catalog, point, refuse_retired};
use super::enter::read;
use super::history::{self, Act};
use crate::core::id::{Channel, PackageName, Version};

impl Admin<'_> {
    /// Points a channel at the version that it pointed at before, or at one further back. Retired
    /// versions are passed over.
    ///
    /// Without `to` it is meant from where the channel points when this is called: of two admins who roll it
    /// back at the same moment one does, and the other is told.
    ///
    /// # Errors
    /// [`OriginError`]: nothing is known of what was before, somebody else has moved the channel meanwhile, or
    /// the catalog cannot be changed.
    pub async fn rollback(
        &self,
        channel: &Channel,
        name: &PackageName,
        to: Option<&Version>,
    ) -> Result<Changed, OriginError> {
        let seen = match to {
            Some(_) => None,
            None => {
                let versions = packages(&read(self.origin).await?.targets).remove(name).unwrap_or_default();
                points_at(&versions, channel).cloned()
            }
        };
        self.enter(|targets| {
            if let Some(seen) = &seen {
                refuse_moved(targets, name, channel, seen)?;
            }
            let (version, passed) = back(targets, name, channel, to)?;
            let moved = point(targets, name, channel, (&version, Act::Rollback), self.by)?;
            Ok(Changed { passed, ..moved })
        })
        .await
    }
}

fn points_at<'a>(versions: &'a BTreeMap<Version, Published>, channel: &Channel) -> Option<&'a Version> {
    versions.iter().find(|(_, it)| it.channels.contains(channel)).map(|(version, _)| version)
}

/// One step back from elsewhere is not what was meant.
pub(super) fn refuse_moved(
    targets: &Targets,
    name: &PackageName,
    channel: &Channel,
    seen: &Version,
) -> Result<(), OriginError> {
    let versions = packages(targets).remove(name).unwrap_or_default();
    let Some(current) = points_at(&versions, channel).filter(|current| *current != seen) else {
        return Ok(());
    };
    Err(OriginError::Invalid(format!(
        "{channel} of {name} was moved from {seen} to {current} a moment ago, and is left there; to go further back, say where to: 'branchline rollback {channel} {name} --to VERSION'"
    )))
}

/// Where a rollback leads, and the retired versions that it passes over.
fn back(
    targets: &Targets,
    name: &PackageName,
    channel: &Channel,
    to: Option<&Version>,
) -> Result<(Version, Vec<Version>), OriginError> {
    let versions = packages(targets).remove(name).unwrap_or_default();
    let Some(current) = points_at(&versions, channel) else {
        // The error names what there is.
        let error = catalog(targets).resolve(name.as_str(), Some(channel.as_str())).err();
        let error = error.map_or_else(
            || format!("{name} has no channel {channel}; {channel} is a version of it"),
            |error| error.to_string(),
        );
        return Err(OriginError::Invalid(error));
    };
    let mut before = history::before(&history::of(targets, name), channel, current);
    before.retain(|version| versions.contains_key(version));
    let hint = format!("'branchline promote {channel} {name} VERSION' moves it to any version");
    let refuse = |why: String| Err(OriginError::Invalid(format!("{why}; {hint}")));
    let known: Vec<String> = before.iter().map(ToString::to_string).collect();
    if let Some(to) = to {
        if to == current {
            return Ok((to.clone(), Vec::new()));
        }
        if !before.contains(to) {
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return refuse(format!("before {current}, {channel} of {name} pointed at {known}, not at {to}"));
        }
        refuse_retired(name, to, versions.get(to).and_then(|it| it.retired))?;
        return Ok((to.clone(), Vec::new()));
    }
    let is_retired = |version: &Version| versions.get(version).is_some_and(|it| it.retired.is_some());
    match before.iter().position(|version| !is_retired(version)) {
        Some(at) => Ok((before[at].clone(), before[..at].to_vec())),
        None if before.is_empty() => {
            refuse(format!("nothing is known of where {channel} of {name} pointed before {current}"))
        }
        None => refuse(format!(
            "all that {channel} of {name} pointed at before {current} is retired ({})",
            known.join(", ")
        )),
    }
}
