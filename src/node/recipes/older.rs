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
    let (blob, manifest) = chosen.older.ok_or("it is against a version that the catalog does not know")?;
    if blob != expected.blob {
        return Err("it is against another version than the origin says".to_owned());
    }
    opened(node, &[(blob, manifest)], chosen.place == Place::Site, expected).await
}

/// The contents of a file that is made of these blobs, which may be fetched from members that hold them.
///
/// # Errors
/// In words; also if they are not what is expected.
pub(in crate::node) async fn opened(
    node: &Node,
    blobs: &[(BlobId, ManifestId)],
    fetched: bool,
    expected: &Reference,
) -> Result<Span, String> {
    let how = match expected.parse {
        PARSE => How::ToRead { choices: false },
        PARSE_CHOICES => How::ToRead { choices: true },
        other => return Err(format!("it was written for another version of Branchline (rules {other})")),
    };
    let room = expected.size.saturating_add(expected.contents);
    if node.inner.store.disk_free().is_some_and(|free| free < room + node.inner.config.disk_reserve.0) {
        return Err(format!(
            "the disk has no room for the {room} bytes that opening the older version takes"
        ));
    }
    let (file, folder) = (copied(node, blobs, fetched).await?, node.scratch()?);
    // What is unpacked on the way may be a little longer than what it holds.
    let most = expected.contents.saturating_add(expected.contents / 8).saturating_add(SOME_MORE);
    let limits = Limits { contents: most, ..Limits::default() };
    let opened = blocking(move || {
        let begun = Instant::now();
        unpack(file, how, &limits, &folder).map(|(span, hash)| (span, hash, begun.elapsed()))
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

/// These blobs one after the other, in a file that nobody changes.
///
/// # Errors
/// In words.
pub(in crate::node) async fn copied(
    node: &Node,
    blobs: &[(BlobId, ManifestId)],
    fetched: bool,
) -> Result<File, String> {
    let mut file = tempfile::tempfile_in(node.scratch()?).map_err(|error| error.to_string())?;
    for &(blob, manifest) in blobs {
        if fetched && !node.holds_all_of(&blob) {
            fetch(node, blob, manifest).await?;
        }
        let held = node.inner.store.get(&blob).ok_or("it has just gone from the store")?;
        let copied = blocking(move || copy(&held, &mut file).map(|()| file)).await;
        file = copied.ok_or("the agent is stopping")?.map_err(|error| error.to_string())?;
    }
    Ok(file)
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

fn unpack(file: File, how: How, limits: &Limits, folder: &Path) -> Result<(Span, [u8; 32]), RecipeError> {
    let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?);
    let opened = open(&Span::of(file)?, how, limits, folder, &mut out)?;
    let contents = Span::of(out.into_inner().map_err(std::io::IntoInnerError::into_error)?)?;
    Ok((contents, opened.hash))
}

/// Copies a blob, verified.
fn copy(blob: &Arc<dyn Blob>, file: &mut File) -> Result<(), RecipeError> {
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
    Ok(())
}
