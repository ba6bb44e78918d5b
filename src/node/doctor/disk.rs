//! Whether the disk takes what is written, and gives it back.

use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::time::Instant;

use super::Check;
use crate::core::bitrate::Size;
use crate::node::{Node, blocking};

const TEST: &str = "disk";
/// What is written, in blocks of so many bytes.
const BLOCKS: usize = 8;
const BLOCK: usize = 1 << 20;

pub(super) async fn check(node: &Node) -> Check {
    let (dir, reserve) = (node.inner.config.state_dir.clone(), node.inner.config.disk_reserve);
    let checked = blocking(move || examine(&dir, reserve)).await;
    checked.unwrap_or_else(|| Check::skipped(TEST, "the agent is stopping"))
}

/// Writes a file in a state directory, has it on the disk, and reads it back from there; blocks.
pub(super) fn examine(dir: &Path, reserve: Size) -> Check {
    let free = match rustix::fs::statvfs(dir) {
        Ok(stat) => Size(stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(error) => return broken(dir, "cannot be looked at", &error.into()),
    };
    if free < reserve {
        return Check::failed(
            TEST,
            format!("{free} are free for {}, and {reserve} are to stay free", dir.display()),
            "The disk is full, or disk_reserve asks for more than it has.",
            "Free some space, or lower cache_size or disk_reserve.",
        );
    }
    let begun = Instant::now();
    match write_and_read(dir) {
        Err(error) => broken(dir, "cannot be written and read", &error),
        Ok(false) => Check::failed(
            TEST,
            format!("what was written to {} came back as something else", dir.display()),
            "The disk, its cable or this machine's memory is broken.",
            "Save what matters, and replace the disk. Branchline hands out nothing that does not match its hash.",
        ),
        Ok(true) => {
            let (written, ms) = (Size((BLOCKS * BLOCK) as u64), begun.elapsed().as_millis());
            Check::passed(TEST, format!("{written} written, flushed and read back in {ms} ms; {free} free"))
        }
    }
}

fn broken(dir: &Path, what: &str, error: &io::Error) -> Check {
    let seen = format!("{} {what}: {error}", dir.display());
    let (cause, remedy) = match error.kind() {
        ErrorKind::NotFound => ("There is no such folder.", "Make it, or correct 'state_dir'."),
        ErrorKind::PermissionDenied => {
            ("It belongs to another user.", "Run the agent as that user, or give it the folder with 'chown'.")
        }
        ErrorKind::ReadOnlyFilesystem => (
            "The file system is mounted read-only.",
            "See the system's log: disks are, when they fail. Mount it again, or replace it.",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
            "The disk, or what this user may have of it, is full.",
            "Free some space, or give the agent another 'state_dir'.",
        ),
        _ => ("The disk or its file system fails.", "See the system's log for what it says of this disk."),
    };
    Check::failed(TEST, seen, cause, remedy)
}

/// False if what comes back is not what was written.
fn write_and_read(dir: &Path) -> io::Result<bool> {
    // Without a name, so that nothing is left behind by whoever is killed here.
    let mut file = tempfile::tempfile_in(dir)?;
    let block = |n: usize| {
        let mut block = vec![0; BLOCK];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut block);
        block
    };
    for n in 0..BLOCKS {
        file.write_all(&block(n))?;
    }
    file.sync_all()?;
    // From the disk, where the system lets go of its copy.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok();
    file.rewind()?;
    let mut read = vec![0; BLOCK];
    for n in 0..BLOCKS {
        file.read_exact(&mut read)?;
        if read != block(n) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_disk_is_written_and_read_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let check = examine(dir.path(), Size(0));
        assert_eq!(check.state, State::Passed, "{check:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        let full = examine(dir.path(), Size(u64::MAX));
        assert!(full.cause.expect("one").contains("disk_reserve"));
        let missing = examine(&dir.path().join("missing"), Size(0));
        assert_eq!(missing.cause.as_deref(), Some("There is no such folder."));
        let read_only = broken(dir.path(), "cannot be written", &ErrorKind::ReadOnlyFilesystem.into());
        assert!(read_only.cause.expect("one").contains("read-only"));
    }
}
