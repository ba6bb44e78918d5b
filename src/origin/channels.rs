//! Where channels point, and which versions are retired: changes of the catalog that publish nothing.
//!
//! Each is one change of the signed catalog: two admins who order the opposite at the same moment both
//! have their way, one after the other, and the later one holds. Content is never taken away: a version
//! that is in use somewhere goes on, whatever the catalog says of it.

use jiff::Timestamp;
use serde::Serialize;
use tough::schema::Targets;

use super::OriginError;
use super::catalog::{Catalog, Published, packages};
use super::client::Origin;
use super::enter::{enter, invalid, read, set};
use super::history::{self, Act, Event};
use super::keys::Keys;
use crate::core::id::{Channel, PackageName, Version};

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The package.
    pub name: PackageName,
    /// The version that was retired or taken back, or that the channel points at now.
    pub version: Version,
    /// The channel that moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Where it pointed before; none if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// Retired versions that a rollback passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Version>,
    /// It was so before.
    pub unchanged: bool,
    /// The catalog's version.
    pub catalog: u64,
}

impl Changed {
    fn new(name: &PackageName, version: &Version) -> Self {
        Self {
            name: name.clone(),
            version: version.clone(),
            channel: None,
            from: None,
            passed: Vec::new(),
            unchanged: false,
            catalog: 0,
        }
    }
}

/// Who changes which catalog.
#[derive(Debug)]
pub struct Admin<'a> {
    /// Where the catalog is.
    pub origin: &'a Origin,
    /// Its keys.
    pub keys: &'a Keys,
    /// By whom, for the history; for people.
    pub by: &'a str,
}

impl Admin<'_> {
    /// Points a channel, new or not, at a version: a later one, an earlier one, whichever.
    ///
    /// # Errors
    /// [`OriginError`]: there is no such version, it is retired, or the catalog cannot be changed.
    pub async fn promote(
        &self,
        channel: &Channel,
        name: &PackageName,
        version: &Version,
    ) -> Result<Changed, OriginError> {
        self.enter(|targets| {
            refuse_retired(name, version, find(targets, name, version)?.retired)?;
            point(targets, name, channel, (version, Act::Move), self.by)
        })
        .await
    }

    /// Retires a version: new fetches of it are refused. With `undo` takes it back.
    ///
    /// # Errors
    /// [`OriginError`]: there is no such version, a channel points at it, or the catalog cannot be changed.
    pub async fn retire(
        &self,
        name: &PackageName,
        version: &Version,
        undo: bool,
    ) -> Result<Changed, OriginError> {
        self.enter(|targets| retire(targets, (name, version), undo, self.by)).await
    }

    pub(super) async fn enter(
        &self,
        change: impl Fn(&mut Targets) -> Result<Changed, OriginError>,
    ) -> Result<Changed, OriginError> {
        let (catalog, changed) = enter(self.origin, self.keys, change).await?;
        Ok(Changed { catalog, ..changed })
    }
}

/// The catalog as it is published, by the origin's own word: for who administers it. Agents trust
/// none but the root that they were given.
///
/// # Errors
/// [`OriginError`].
pub async fn published(origin: &Origin) -> Result<Catalog, OriginError> {
    Ok(read(origin).await?.catalog)
}

/// Points a channel at a version that is there, and writes it down.
pub(super) fn point(
    targets: &mut Targets,
    name: &PackageName,
    channel: &Channel,
    (version, act): (&Version, Act),
    by: &str,
) -> Result<Changed, OriginError> {
    let versions = packages(targets).remove(name).unwrap_or_default();
    let points = |it: &Published| it.channels.contains(channel);
    let from = versions.iter().find(|(_, it)| points(it)).map(|(version, _)| version.clone());
    let changed =
        Changed { channel: Some(channel.clone()), from: from.clone(), ..Changed::new(name, version) };
    if from.as_ref() == Some(version) {
        return Ok(Changed { unchanged: true, ..changed });
    }
    for (at, it) in &versions {
        if !points(it) && at != version {
            continue;
        }
        let mut channels = it.channels.clone();
        channels.retain(|known| known != channel);
        if at == version {
            channels.insert(0, channel.clone());
        }
        set(targets, (name, at), "channels", &channels)?;
    }
    let event = Event { channel: Some(channel.clone()), from, ..Event::new(act, version, by) };
    history::add(targets, name, &event).map_err(|error| invalid(&error))?;
    Ok(changed)
}

/// No channel points at a retired version.
pub(super) fn refuse_retired(
    name: &PackageName,
    version: &Version,
    retired: Option<Timestamp>,
) -> Result<(), OriginError> {
    let Some(at) = retired else { return Ok(()) };
    let why = format!("{name}@{version} was retired on {}", at.strftime("%Y-%m-%d"));
    let hint = format!("'branchline retire {name} {version} --undo' takes it back");
    Err(OriginError::Invalid(format!("{why}, so no channel can point at it; {hint}")))
}

fn retire(
    targets: &mut Targets,
    (name, version): (&PackageName, &Version),
    undo: bool,
    by: &str,
) -> Result<Changed, OriginError> {
    let found = find(targets, name, version)?;
    let changed = Changed::new(name, version);
    if found.retired.is_some() != undo {
        return Ok(Changed { unchanged: true, ..changed });
    }
    let (act, retired) = if undo { (Act::Restore, None) } else { (Act::Retire, Some(Timestamp::now())) };
    if let (false, Some(first)) = (undo, found.channels.first()) {
        let channels: Vec<&str> = found.channels.iter().map(Channel::as_str).collect();
        let points = if channels.len() == 1 { "points" } else { "point" };
        let hint = format!(
            "move it elsewhere first, with 'branchline rollback {first} {name}' or 'branchline promote {first} {name} VERSION'"
        );
        let channels = channels.join(" and ");
        return Err(OriginError::Invalid(format!("{channels} {points} at {name}@{version}; {hint}")));
    }
    set(targets, (name, version), "retired", &retired)?;
    history::add(targets, name, &Event::new(act, version, by)).map_err(|error| invalid(&error))?;
    Ok(changed)
}

/// For its answers and errors.
pub(super) fn catalog(targets: &Targets) -> Catalog {
    Catalog::new(0, targets.expires, targets, Default::default())
}

/// A version by its own name.
fn find(targets: &Targets, name: &PackageName, version: &Version) -> Result<Published, OriginError> {
    match catalog(targets).resolve(name.as_str(), Some(version.as_str())) {
        Ok((_, found, it)) if found == *version => Ok(it),
        Ok((_, found, _)) => Err(OriginError::Invalid(format!(
            "{version} is a channel of {name}, which points at {found}; give a version"
        ))),
        Err(error) => Err(OriginError::Invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::rollback::refuse_moved;
    use super::super::{Address, keys, publish};
    use super::*;

    async fn origin(dir: &Path) -> (Origin, Keys) {
        let (tree, keys) = (dir.join("tree"), dir.join("keys"));
        keys::init(&tree, &keys).await.expect("a fresh folder");
        (Origin::open(&Address::Folder(tree)).expect("made"), Keys::open(&keys).expect("made"))
    }

    async fn publish(origin: &Origin, keys: &Keys, dir: &Path, version: &str) {
        let file = dir.join(version);
        std::fs::write(&file, format!("content {version}")).expect("room");
        let request = publish::Request {
            file,
            name: "demo".parse().expect("valid"),
            version: version.parse().expect("valid"),
            channel: Some("stable".parse().expect("valid")),
            by: "me".into(),
            recipes: Default::default(),
        };
        publish::publish(origin, keys, &request, |_| {}).await.expect("published");
    }

    #[tokio::test]
    async fn channels_move_back_and_forth_and_it_is_written_down() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, keys) = origin(dir.path()).await;
        for version in ["1", "2", "3"] {
            publish(&origin, &keys, dir.path(), version).await;
        }
        let admin = Admin { origin: &origin, keys: &keys, by: "me" };
        let (stable, name): (Channel, PackageName) =
            ("stable".parse().expect("valid"), "demo".parse().expect("valid"));
        let version = |text: &str| text.parse::<Version>().expect("valid");
        let back = async |to: Option<&str>| {
            let to = to.map(version);
            let done = admin.rollback(&stable, &name, to.as_ref()).await;
            done.map(|it| it.version.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(back(None).await, Ok("2".into()));
        assert_eq!(back(None).await, Ok("1".into()), "further back, and not to 3");
        let error = back(None).await.expect_err("the end");
        assert!(error.contains("nothing is known") && error.contains("branchline promote stable"), "{error}");
        let done = admin.promote(&stable, &name, &version("3")).await.expect("any version");
        assert_eq!((done.from, done.unchanged), (Some(version("1")), false));
        assert!(admin.promote(&stable, &name, &version("3")).await.expect("so already").unchanged);
        let error = admin.retire(&name, &version("3"), false).await.expect_err("in a channel").to_string();
        assert!(
            error.contains("stable points at demo@3") && error.contains("rollback stable demo"),
            "{error}"
        );
        assert!(back(Some("2")).await.expect_err("not before").contains("pointed at 1, not at 2"));
        // A retired version is passed over, and no channel goes there.
        admin.promote(&stable, &name, &version("2")).await.expect("back again");
        admin.retire(&name, &version("3"), false).await.expect("free");
        assert!(admin.retire(&name, &version("3"), false).await.expect("retired already").unchanged);
        let passed = admin.rollback(&stable, &name, None).await.expect("to 1");
        assert_eq!((passed.version, passed.passed), (version("1"), vec![version("3")]));
        let error = admin.promote(&stable, &name, &version("3")).await.expect_err("retired").to_string();
        assert!(error.contains("--undo"), "{error}");
        admin.retire(&name, &version("3"), true).await.expect("taken back");
        admin.promote(&stable, &name, &version("3")).await.expect("not retired any more");
        let catalog = published(&origin).await.expect("signed");
        assert!(catalog.versions(&name).all(|(_, it)| it.retired.is_none()));
        let acts: Vec<Act> = catalog.history(&name).iter().map(|event| event.act).collect();
        use Act::{Move, Restore, Retire, Rollback};
        let expected = [Move, Move, Move, Rollback, Rollback, Move, Move, Retire, Rollback, Restore, Move];
        assert_eq!(acts, expected, "and nothing of what was refused or was so already");
        assert!(catalog.history(&name).iter().all(|event| event.by == "me"));
        let error = admin.promote(&stable, &name, &version("9")).await.expect_err("unknown").to_string();
        assert!(error.contains("it has 3 (stable), 2, 1"), "{error}");
    }

    #[tokio::test]
    async fn what_is_retired_is_not_the_latest_and_is_not_published_again_into_a_channel() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, keys) = origin(dir.path()).await;
        let admin = Admin { origin: &origin, keys: &keys, by: "" };
        let name: PackageName = "demo".parse().expect("valid");
        let request = |version: &str, channel: Option<&str>| publish::Request {
            file: dir.path().join(version),
            name: name.clone(),
            version: version.parse().expect("valid"),
            channel: channel.map(|channel| channel.parse().expect("valid")),
            by: String::new(),
            recipes: Default::default(),
        };
        for version in ["1", "2"] {
            std::fs::write(dir.path().join(version), version).expect("room");
            publish::publish(&origin, &keys, &request(version, None), |_| {}).await.expect("published");
        }
        admin.retire(&name, &"2".parse().expect("valid"), false).await.expect("free");
        let latest = published(&origin).await.expect("signed").resolve("demo", None).expect("there is one");
        assert_eq!(latest.1.as_str(), "1");
        let again = request("2", Some("stable"));
        let error = publish::publish(&origin, &keys, &again, |_| {}).await.expect_err("retired");
        assert!(error.to_string().contains("--undo"), "{error}");
        publish::publish(&origin, &keys, &request("2", None), |_| {}).await.expect("the same content");
        let catalog = published(&origin).await.expect("signed");
        assert!(catalog.resolve("demo", Some("2")).expect("listed").2.retired.is_some(), "it stays retired");
        admin.retire(&name, &"1".parse().expect("valid"), false).await.expect("free");
        let error = published(&origin).await.expect("signed").resolve("demo", None).expect_err("all retired");
        assert!(error.to_string().contains("2 (retired), 1 (retired)"), "{error}");
    }

    #[tokio::test]
    async fn opposite_orders_at_the_same_moment_are_both_answered_and_the_later_one_holds() {
        let dir = tempfile::tempdir().expect("a folder");
        let (origin, keys) = origin(dir.path()).await;
        for version in ["1", "2", "3"] {
            publish(&origin, &keys, dir.path(), version).await;
        }
        let admin = Admin { origin: &origin, keys: &keys, by: "" };
        let (stable, beta): (Channel, Channel) =
            ("stable".parse().expect("valid"), "beta".parse().expect("valid"));
        let name: PackageName = "demo".parse().expect("valid");
        let [one, two, three] = ["1", "2", "3"].map(|text| text.parse::<Version>().expect("valid"));
        let orders = tokio::join!(
            admin.promote(&stable, &name, &one),
            admin.promote(&stable, &name, &two),
            admin.promote(&beta, &name, &two),
        );
        let (first, second) = (orders.0.expect("answered"), orders.1.expect("answered"));
        assert_ne!(first.catalog, second.catalog);
        let later = if first.catalog > second.catalog { first } else { second };
        let catalog = published(&origin).await.expect("signed");
        assert_eq!(catalog.resolve("demo", Some("stable")).expect("there").1, later.version);
        assert_eq!(catalog.resolve("demo", Some("beta")).expect("there").1, two, "nobody else's is lost");
        // A step back is meant from where the admin saw the channel.
        let moved = |seen: &Version, targets: &Targets| refuse_moved(targets, &name, &stable, seen);
        let now = read(&origin).await.expect("signed").targets;
        assert!(moved(&later.version, &now).is_ok());
        let error = moved(&three, &now).expect_err("not there any more").to_string();
        assert!(error.contains("was moved from 3 to") && error.contains("--to"), "{error}");
        // One retires what the other promotes: whoever is second is told why not.
        let orders = tokio::join!(admin.retire(&name, &three, false), admin.promote(&stable, &name, &three));
        assert_ne!(orders.0.is_err(), orders.1.is_err(), "{orders:?}");
    }
}
