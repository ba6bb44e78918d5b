//! Much content of a folder at a time: in large blocks, each read into memory that nobody cleared before.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::OriginError;

/// Bytes that are read in one turn of a thread.
const BLOCK: u64 = 1 << 20;

/// A range of a file below `folder`, in blocks. It ends early where the file does.
pub(super) fn blocks(
    folder: &Path,
    path: &str,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes, OriginError>> {
    let (file, path) = (folder.join(path), path.to_owned());
    let from = (Source::Closed(file), range);
    let blocks = futures::stream::try_unfold(from, move |(source, left)| {
        let path = path.clone();
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || source.read(left));
            let read = read.await.map_err(|error| OriginError::Failed(error.to_string()))?;
            read.map(|(block, rest)| (!block.is_empty()).then_some((block, rest)))
                .map_err(|error| explain(&error, path))
        }
    });
    blocks.boxed()
}

/// A file that is opened when it is first read.
enum Source {
    Closed(PathBuf),
    Open(File),
}

impl Source {
    /// The next block, and what is left after it.
    fn read(self, left: Range<u64>) -> io::Result<(Bytes, (Self, Range<u64>))> {
        let mut file = match self {
            Self::Open(file) => file,
            Self::Closed(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(left.start))?;
                file
            }
        };
        let length = BLOCK.min(left.end - left.start);
        let mut block = Vec::with_capacity(length as usize);
        file.by_ref().take(length).read_to_end(&mut block)?;
        Ok((block.into(), (Self::Open(file), left.start + length..left.end)))
    }
}

fn explain(error: &io::Error, path: String) -> OriginError {
    match error.kind() {
        io::ErrorKind::NotFound => OriginError::NotFound { path },
        io::ErrorKind::PermissionDenied => OriginError::Denied { path },
        _ => OriginError::Failed(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn read(folder: &Path, path: &str, range: Range<u64>) -> Result<Vec<u8>, OriginError> {
        let blocks: Vec<Bytes> = blocks(folder, path, range).try_collect().await?;
        assert!(blocks.iter().all(|block| block.len() as u64 <= BLOCK && !block.is_empty()));
        Ok(blocks.concat())
    }

    #[tokio::test]
    async fn a_range_comes_in_blocks_and_ends_where_the_file_does() {
        let folder = tempfile::tempdir().expect("room");
        let content: Vec<u8> = (0..5 * BLOCK / 2).map(|n| (n % 251) as u8).collect();
        std::fs::write(folder.path().join("pack"), &content).expect("room");
        let end = content.len() as u64;
        for range in [0..end, 7..7, 7..8, 100..BLOCK + 100, BLOCK - 1..2 * BLOCK, end - 3..end] {
            let got = read(folder.path(), "pack", range.clone()).await.expect("it is there");
            assert!(got == content[range.start as usize..range.end as usize], "{range:?}");
        }
        let got = read(folder.path(), "pack", end - 3..end + 3 * BLOCK).await.expect("a part of it");
        assert_eq!(got, content[content.len() - 3..]);
        assert!(matches!(read(folder.path(), "none", 0..1).await, Err(OriginError::NotFound { .. })));
    }
}
