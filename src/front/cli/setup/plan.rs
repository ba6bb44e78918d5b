//! What is about to be written: shown first, then written so that a file is the old or the new one.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// Where configuration lies.
#[derive(Debug, Clone)]
pub(super) struct Places {
    root: PathBuf,
    home: PathBuf,
    cargo_home: Option<PathBuf>,
    /// For all users of the machine, where a tool knows both.
    pub(super) system: bool,
}

impl Places {
    /// Those of this machine; with a `root` those below it, and nothing that the environment says.
    pub(super) fn new(root: Option<PathBuf>, system: bool) -> Self {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        match root {
            Some(root) => {
                let home = root.join(home.strip_prefix("/").unwrap_or(Path::new("root")));
                Self { root, home, cargo_home: None, system }
            }
            None => {
                let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
                Self { root: "/".into(), home, cargo_home, system }
            }
        }
    }

    pub(super) fn etc(&self, path: &str) -> PathBuf {
        self.root.join("etc").join(path)
    }

    pub(super) fn home(&self, path: &str) -> PathBuf {
        self.home.join(path)
    }

    pub(super) fn cargo_home(&self) -> PathBuf {
        self.cargo_home.clone().unwrap_or_else(|| self.home(".cargo"))
    }

    /// What is in a file; `None` if there is none.
    ///
    /// # Errors
    /// In words.
    pub(super) fn read(&self, path: &Path) -> Result<Option<String>, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}

/// A file that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Everything that changes, and what people are to know of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Notes what a file is to become, if that is something else.
    pub(super) fn file(&mut self, path: PathBuf, before: Option<String>, after: Option<String>) {
        if before != after {
            self.changes.push(Change { path, before, after });
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            text.push_str(&change.describe());
        }
        text
    }

    /// Writes all files.
    ///
    /// # Errors
    /// Which could not be written, and why; those before it are.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        self.changes.iter().try_for_each(Change::apply)
    }
}

impl Change {
    fn describe(&self) -> String {
        let what = match (&self.before, &self.after) {
            (None, _) => "new",
            (_, None) => "removed",
            _ => "changed",
        };
        let lines = |text: &Option<String>| -> Vec<String> {
            text.as_deref().unwrap_or_default().lines().map(str::to_owned).collect()
        };
        let (before, after) = (lines(&self.before), lines(&self.after));
        // Ours is one place or a few: what is the same before it and after it is not shown.
        let same = before.iter().zip(&after).take_while(|(old, new)| old == new).count();
        let rest = before[same..].iter().rev().zip(after[same..].iter().rev());
        let tail = rest.take_while(|(old, new)| old == new).count();
        let mut text = format!("{} ({what})\n", self.path.display());
        let shown = |sign: char, lines: &[String]| -> String {
            lines.iter().map(|line| format!("  {sign} {line}\n")).collect()
        };
        text.push_str(&shown('-', &before[same..before.len() - tail]));
        text.push_str(&shown('+', &after[same..after.len() - tail]));
        text
    }

    fn apply(&self) -> anyhow::Result<()> {
        let failed =
            || format!("{} could not be written; system files need root: use sudo", self.path.display());
        // Where it is a link, what it leads to is changed.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let Some(after) = &self.after else {
            std::fs::remove_file(&self.path).with_context(failed)?;
            // containerd has a folder for each file.
            if path.file_name().is_some_and(|name| name == "hosts.toml") {
                std::fs::remove_dir(folder).ok();
            }
            return Ok(());
        };
        std::fs::create_dir_all(folder).with_context(failed)?;
        let mode = std::fs::metadata(&path).map_or(0o644, |known| known.permissions().mode());
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        file.write_all(after.as_bytes()).with_context(failed)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&path).with_context(failed)?;
        Ok(())
    }
}
