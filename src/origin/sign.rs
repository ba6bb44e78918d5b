//! Signing a catalog: targets, snapshot and timestamp, in the order in which they are published.

use std::collections::HashMap;
use std::num::NonZeroU64;

use aws_lc_rs::rand::SystemRandom;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tough::editor::signed::SignedRole;
use tough::schema::{Hashes, KeyHolder, Metafile, Role, Root, Snapshot, Targets, Timestamp as TimestampRole};

use super::OriginError;
use super::keys::Keys;

/// A catalog is good for so long without a new publish. `origin renew` signs it anew.
const CATALOG_DAYS: i64 = 180;

fn metafile<R: Role + Serialize>(role: &SignedRole<R>) -> Metafile {
    Metafile {
        length: Some(*role.length()),
        hashes: Some(Hashes { sha256: role.sha256().to_vec().into(), _extra: HashMap::new() }),
        version: role.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

/// Until when a catalog that is signed now is good.
pub(super) fn expiry() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * CATALOG_DAYS)
}

/// The files of a catalog, by name, in the order to write them: the one that makes the others
/// known comes last.
pub(super) async fn sign_catalog(
    root: &Root,
    mut targets: Targets,
    keys: &Keys,
    version: NonZeroU64,
    expires: Timestamp,
) -> Result<Vec<(String, Vec<u8>)>, OriginError> {
    let unsigned = |error: tough::error::Error| {
        OriginError::Invalid(format!(
            "the catalog could not be signed: {error}; are these the keys of this origin?"
        ))
    };
    let (holder, rng, keys) = (KeyHolder::Root(root.clone()), SystemRandom::new(), keys.catalog());
    targets.version = version;
    targets.expires = expires;
    let targets = SignedRole::new(targets, &holder, &keys, &rng).await.map_err(unsigned)?;
    let mut snapshot = Snapshot::new("1.0.0".to_owned(), version, expires);
    snapshot.meta.insert("targets.json".to_owned(), metafile(&targets));
    let snapshot = SignedRole::new(snapshot, &holder, &keys, &rng).await.map_err(unsigned)?;
    let mut timestamp = TimestampRole::new("1.0.0".to_owned(), version, expires);
    timestamp.meta.insert("snapshot.json".to_owned(), metafile(&snapshot));
    let timestamp = SignedRole::new(timestamp, &holder, &keys, &rng).await.map_err(unsigned)?;
    Ok(vec![
        (format!("{version}.targets.json"), targets.buffer().clone()),
        (format!("{version}.snapshot.json"), snapshot.buffer().clone()),
        ("timestamp.json".to_owned(), timestamp.buffer().clone()),
    ])
}
