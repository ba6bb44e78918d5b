//! Small files that a crash leaves as they were before or as they were to be, and never in between.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file; blocks.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(file).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Writes a value as JSON; blocks. What cannot be written is told in the log alone: the agent goes on
/// with what it remembers.
pub(super) fn write_json(file: &Path, value: &impl Serialize) {
    let written = serde_json::to_vec(value).map_err(io::Error::other).and_then(|bytes| write(file, &bytes));
    if let Err(error) = written {
        tracing::error!(file = %file.display(), %error, "could not be written down, and is forgotten by a restart");
    }
}

/// Reads a value; one that cannot be read is put aside.
pub(super) fn read_json<T: DeserializeOwned + Default>(file: &Path) -> T {
    let Ok(bytes) = std::fs::read(file) else { return T::default() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        let aside = file.with_extension("damaged");
        tracing::error!(%error, file = %file.display(), aside = %aside.display(), "is damaged, and was put aside");
        std::fs::rename(file, aside).ok();
        T::default()
    })
}
