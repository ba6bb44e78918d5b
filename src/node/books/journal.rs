//! What was booked since the books were last written down: one line of JSON an entry, appended within
//! milliseconds and not waited for. The system keeps it when this process is killed; a power cut can
//! take it, and with it no more than a second.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::core::id::BlobId;
use crate::core::ledger::{Extents, Row, RowKey, WanReason};

/// The longest that it gets, in bytes.
const MOST: u64 = 64 << 20;

/// One line. Each says all of its subject, so that the last one of a subject counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A row, as it is now.
    Row(RowKey, Box<Row>),
    /// What clients were handed of a blob; `None` if that begins anew.
    Handed(BlobId, Option<Extents>),
    /// What is on its way over the WAN, by all connections.
    Flying(Vec<Flying>),
}

/// What is on its way over the WAN on one connection, as it lets one guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flying {
    pub(super) package: String,
    pub(super) reason: WanReason,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens a journal, and returns what it holds. A line that was cut short is the last one, and lost.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let held = std::fs::read(path).unwrap_or_default();
        let (mut entries, mut whole) = (Vec::new(), 0);
        for line in held.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let Ok(entry) = serde_json::from_slice(line) else { break };
            entries.push(entry);
            whole += line.len() as u64;
        }
        let file = File::options().create(true).append(true).open(path)?;
        // What follows a torn line would be lost with it.
        file.set_len(whole)?;
        Ok((Self { file }, entries))
    }

    /// Appends entries, unless it has grown far beyond a second's because they cannot be written down.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if self.file.metadata()?.len() > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines)
    }

    /// All of it is written down elsewhere.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_all_that_is_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let entry = |n: u8| Entry::Handed(BlobId::of(&[n]), None);
        let (mut journal, held) = Journal::open(&path).expect("a fresh folder");
        assert_eq!(held, []);
        journal.append(&[entry(1), entry(2)]).expect("room");
        journal.append(&[entry(3)]).expect("room");
        drop(journal);
        let length = std::fs::metadata(&path).expect("it is there").len();
        File::options().write(true).open(&path).and_then(|file| file.set_len(length - 5)).expect("room");
        let (mut journal, held) = Journal::open(&path).expect("its own file");
        assert_eq!(held, [entry(1), entry(2)]);
        journal.append(&[entry(4)]).expect("room");
        let (mut journal, held) = Journal::open(&path).expect("its own file");
        assert_eq!(held, [entry(1), entry(2), entry(4)], "and not what follows it");
        journal.clear().expect("its own file");
        assert_eq!(Journal::open(&path).expect("its own file").1, []);
    }
}
