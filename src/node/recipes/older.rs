//! The older version that a recipe takes for granted, opened.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::weigh::Chosen;
use crate::core::flight::Urgency;
use crate::core::id::{BlobId, ManifestId};
use crate::core::recipe::{Place, Reference};
use crate::node::{Node, blocking};
use crate::recipe::{How, Limits, PARSE, PARSE_CHOICES, RecipeError, Span, open};
use crate::store::{Blob, PIECE, StoreError};

/// What may be unpacked beyond the contents, in bytes.
const SOME_MORE: u64 = 16 << 20;

/// The contents of the older version, as the recipe says that they are.
///
/// # Errors
/// In words.
pub(super) async fn contents(node: &Node, chosen: &Chosen, expected: &Reference) -> Result<Span, String> {
    let how = match expected.parse {
        PARSE => How::ToRead { choices: false },
        PARSE_CHOICES => How::ToRead { choices: true },
        other => return Err(format!("it was written for another version of Branchline (rules {other})")),
    };
    let (blob, manifest) = chosen.older.ok_or("it is against a version that the catalog does not know")?;
    if blob != expected.blob {
        return Err("it is against another version than the origin says".to_owned());
    }
    if chosen.place == Place::Site {
        fetch(node, blob, manifest).await?;
    }
    let held = node.inner.store.get(&blob).ok_or("the older version has just gone from the store")?;
    let room = held.manifest().size().saturating_add(expected.contents);
    let folder = node.scratch()?;
    if node.inner.store.disk_free().is_some_and(|free| free < room + node.inner.config.disk_reserve.0) {
        return Err(format!(
            "the disk has no room for the {room} bytes that opening the older version takes"
        ));
    }
    // What is unpacked on the way may be a little longer than what it holds.
    let most = expected.contents.saturating_add(expected.contents / 8).saturating_add(SOME_MORE);
    let limits = Limits { contents: most, ..Limits::default() };
    let opened = blocking(move || {
        let begun = Instant::now();
        unpack(&held, how, &limits, &folder).map(|(span, hash)| (span, hash, begun.elapsed()))
    });
    let opened = opened.await.ok_or("the agent is stopping")?;
    let (contents, hash, took) = opened.map_err(|error| format!("the older version: {error}"))?;
    if contents.len() != expected.contents || hash != expected.hash {
        return Err("the older version has other contents than it takes for granted".to_owned());
    }
    if !took.is_zero() {
        node.inner.recipes.speeds().open = contents.len() as f64 / took.as_secs_f64();
    }
    Ok(contents)
}

/// Fetches the older version from the members that hold it.
async fn fetch(node: &Node, blob: BlobId, manifest: ManifestId) -> Result<(), String> {
    let mut ticket = node.inner.live.enter_to_keep(blob, node.inner.inputs.clone());
    ticket.want(manifest, Urgency::Foreground).await;
    loop {
        let end = ticket.news.borrow_and_update().end.clone();
        if let Some(end) = end {
            return end.map_err(|failure| format!("the older version could not be fetched: {}", failure.why));
        }
        ticket.news.changed().await.map_err(|_| "the agent is stopping")?;
    }
}

fn unpack(
    blob: &Arc<dyn Blob>,
    how: How,
    limits: &Limits,
    folder: &Path,
) -> Result<(Span, [u8; 32]), RecipeError> {
    let file = copy(blob, folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?);
    let opened = open(&Span::of(file)?, how, limits, folder, &mut out)?;
    let contents = Span::of(out.into_inner().map_err(std::io::IntoInnerError::into_error)?)?;
    Ok((contents, opened.hash))
}

/// A verified copy, which nobody changes.
fn copy(blob: &Arc<dyn Blob>, folder: &Path) -> Result<File, RecipeError> {
    let mut file = tempfile::tempfile_in(folder)?;
    let (manifest, mut next) = (blob.manifest().clone(), 0);
    let failed = |error: StoreError| RecipeError::Codec(error.to_string());
    while next < manifest.count() {
        let bytes = blob.read_run(next, PIECE as u64).map_err(failed)?;
        file.write_all(&bytes)?;
        let mut read = 0;
        while read < bytes.len() as u64 {
            let length = manifest.chunk(next).map_or(u64::MAX, |chunk| u64::from(chunk.length));
            read = read.saturating_add(length);
            next += 1;
        }
    }
    Ok(file)
}
