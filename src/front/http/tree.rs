//! `origin serve`: a static tree with ranges, for those who have no web server at hand. With a
//! limit on its rate it also stands in for a slow WAN, in the demo and in tests.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Mutex;

use super::range::{Wanted, is_known, wanted};
use crate::core::bitrate::Rate;
use crate::core::pace::Pace;

/// Bytes read and sent at a time.
const PIECE: u64 = 64 << 10;
/// The same when the rate is limited, so that concurrent readers get their turns.
const SMALL_PIECE: u64 = 8 << 10;

/// The served tree.
#[derive(Debug, Clone)]
struct Tree {
    root: Arc<PathBuf>,
    pace: Option<Arc<Mutex<Pace>>>,
}

/// Serves the files below a folder, at most at this rate in sum.
pub fn router(root: PathBuf, limit: Option<Rate>) -> Router {
    let pace = limit.map(|rate| Arc::new(Mutex::new(Pace::new(Instant::now(), rate))));
    Router::new().fallback(file).with_state(Tree { root: Arc::new(root), pace })
}

/// Only plain names: neither `..` nor anything hidden nor encoded leaves the tree.
fn path_of(tree: &Tree, path: &str) -> Option<PathBuf> {
    let mut target = (*tree.root).clone();
    for part in path.strip_prefix('/')?.split('/') {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+~".contains(c);
        if part.is_empty() || part.starts_with('.') || !part.chars().all(plain) {
            return None;
        }
        target.push(part);
    }
    Some(target)
}

async fn file(State(tree): State<Tree>, request: Request) -> Response {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let missing = || (StatusCode::NOT_FOUND, "no such file\n").into_response();
    let Some(path) = path_of(&tree, request.uri().path()) else { return missing() };
    let Ok(mut file) = File::open(&path).await else { return missing() };
    let Ok(meta) = file.metadata().await else { return missing() };
    if !meta.is_file() {
        return missing();
    }
    let size = meta.len();
    let changed = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let etag = format!("\"{size:x}-{:x}\"", changed.unwrap_or_default().as_nanos());
    let base = [(header::ETAG, etag.clone()), (header::ACCEPT_RANGES, "bytes".to_owned())];
    if is_known(request.headers(), &etag) {
        return (StatusCode::NOT_MODIFIED, base).into_response();
    }
    let (status, range, part) = match wanted(request.headers(), size, &etag) {
        Wanted::Whole => (StatusCode::OK, 0..size, None),
        Wanted::Part(range) => {
            let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            (StatusCode::PARTIAL_CONTENT, range, Some([(header::CONTENT_RANGE, part)]))
        }
        Wanted::Unsatisfiable => {
            let part = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, base, part).into_response();
        }
    };
    let length = [(header::CONTENT_LENGTH, (range.end - range.start).to_string())];
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else if file.seek(SeekFrom::Start(range.start)).await.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    } else {
        Body::from_stream(pieces(file, range.end - range.start, tree.pace))
    };
    match part {
        Some(part) => (status, base, length, part, body).into_response(),
        None => (status, base, length, body).into_response(),
    }
}

fn pieces(
    file: File,
    left: u64,
    pace: Option<Arc<Mutex<Pace>>>,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold((file, left, pace), |(mut file, left, pace)| async move {
        if left == 0 {
            return Ok(None);
        }
        let most = if pace.is_some() { SMALL_PIECE } else { PIECE };
        let mut piece = vec![0; left.min(most) as usize];
        file.read_exact(&mut piece).await?;
        if let Some(pace) = &pace {
            let mut pace = pace.lock().await;
            let taken = pace.take(Instant::now(), piece.len() as u64);
            let wait = pace.wait(Instant::now(), taken);
            drop(pace);
            tokio::time::sleep(wait).await;
        }
        let left = left - piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, left, pace))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_tree() {
        let tree = Tree { root: Arc::new("/srv".into()), pace: None };
        assert_eq!(path_of(&tree, "/packs/ab"), Some("/srv/packs/ab".into()));
        for bad in ["/../etc/passwd", "/packs/..%2fx", "//etc", "/.hidden", "/", "/a//b", "/a\\b"] {
            assert_eq!(path_of(&tree, bad), None, "{bad}");
        }
    }
}
