//! Writing the files: each appears whole or not at all, and nothing of somebody else's is overwritten.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{data, page};

/// So much of a file tells whether it is a report.
const HEAD: u64 = 1024;

/// Where the report and its data go.
pub(super) struct Place {
    pub(super) page: PathBuf,
    pub(super) data: PathBuf,
}

impl Place {
    /// The data go beside the page, under its name.
    ///
    /// # Errors
    /// If both would be the same file.
    pub(super) fn new(page: PathBuf) -> anyhow::Result<Self> {
        let data = page.with_extension("csv");
        if page.file_name().is_none() || page == data {
            bail!(
                "{} is no name for the page: its data are written beside it as .csv; end it in .html",
                page.display()
            );
        }
        Ok(Self { page, data })
    }

    /// Whether both may be written. A report takes the place of an earlier one, as when a job writes last
    /// month's to the same name each month; anything else is kept.
    ///
    /// # Errors
    /// Names what stands there.
    pub(super) fn check(&self, force: bool) -> anyhow::Result<()> {
        let marks = [(&self.page, page::MARK), (&self.data, data::MARK)];
        marks.into_iter().try_for_each(|(path, mark)| may_replace(path, mark, force))
    }

    /// Writes both files.
    ///
    /// # Errors
    /// If there is no room, or no leave.
    pub(super) fn write(&self, page: &str, data: &str) -> anyhow::Result<()> {
        // Both are on disk before either has its name.
        let drafts = [draft(&self.data, data)?, draft(&self.page, page)?];
        for (draft, path) in drafts.into_iter().zip([&self.data, &self.page]) {
            draft.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn may_replace(path: &Path, mark: &str, force: bool) -> anyhow::Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    if !there.is_file() {
        bail!("{} is there and is no plain file; choose another name with -o", path.display());
    }
    if force {
        return Ok(());
    }
    let mut head = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(HEAD).read_to_end(&mut head).with_context(|| format!("cannot read {}", path.display()))?;
    if head.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        return Ok(());
    }
    bail!(
        "{} is there and is no Branchline report; choose another name with -o, or overwrite it with --force",
        path.display()
    )
}

fn draft(path: &Path, text: &str) -> anyhow::Result<tempfile::TempPath> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let cannot = || format!("cannot write to {}", folder.display());
    let mut draft =
        tempfile::Builder::new().prefix(".branchline-").tempfile_in(folder).with_context(cannot)?;
    draft.write_all(text.as_bytes()).with_context(cannot)?;
    // As any other program would create it.
    draft.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(cannot)?;
    draft.as_file().sync_all().with_context(cannot)?;
    Ok(draft.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_are_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r.html");
        let place = Place::new(path.clone()).expect("a name");
        assert!(place.check(false).is_ok(), "nothing there");
        std::fs::write(&path, "my thesis").expect("room");
        let error = place.check(false).expect_err("somebody else's").to_string();
        assert!(error.contains("no Branchline report") && error.contains("--force"), "{error}");
        assert!(place.check(true).is_ok());
        place.write(&format!("<!doctype html>{}", page::MARK), data::MARK).expect("written");
        assert!(place.check(false).is_ok(), "a report");
        std::fs::write(&place.data, "a,b").expect("room");
        assert!(place.check(false).is_err(), "data of somebody else");
        std::fs::remove_file(&path).expect("there");
        std::fs::create_dir(&path).expect("room");
        assert!(place.check(true).is_err(), "a folder");
        let left = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(left, 2, "no drafts are left");
    }

    #[test]
    fn page_and_data_are_two_files() {
        assert!(Place::new("x.csv".into()).is_err() && Place::new("/".into()).is_err());
        assert_eq!(Place::new("a/b.html".into()).expect("a name").data, Path::new("a/b.csv"));
    }
}
