//! sled databases and the locks around them: of one process at a time, and not taken for damaged because
//! another has not let go yet.

use std::io::ErrorKind;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Who was killed, and a child that it had just forked, keep their locks for a moment.
const PATIENCE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(10);

/// Opens a database in a folder, and makes it if it is not there; blocks. The cache is in bytes.
/// `damaged` takes one that cannot be read out of the way, and it is begun anew.
///
/// # Errors
/// In words: it is in use elsewhere, or the system refuses it. It is left as it is then.
pub fn open(dir: &Path, cache: u64, damaged: impl FnOnce(&sled::Error)) -> Result<sled::Db, String> {
    // sled's own timer would write to the disk each second, whether there is anything to write or not.
    let open = || sled::Config::new().path(dir).cache_capacity(cache).flush_every_ms(None).open();
    let opened = patiently(open, is_held).or_else(|error| {
        if is_held(&error) || is_refused(&error) {
            return Err(error);
        }
        damaged(&error);
        open()
    });
    opened.map_err(|error| format!("{}: {error}", dir.display()))
}

/// Tries again for a while what fails because somebody else holds a lock.
pub(super) fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_held(&error) && begun.elapsed() < PATIENCE => sleep(STEP),
            done => return done,
        }
    }
}

/// sled has no kind of error for it.
fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// The system does not let this process have it: that says nothing about what is in it.
fn is_refused(error: &sled::Error) -> bool {
    let sled::Error::Io(error) = error else { return false };
    let is_misshapen = matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    );
    error.raw_os_error().is_some() && !is_misshapen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect_whole(error: &sled::Error) {
        panic!("taken for damaged: {error}");
    }

    #[test]
    fn one_that_is_in_use_is_waited_for_and_not_taken_for_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("db");
        let first = open(&path, 1 << 20, expect_whole).expect("a fresh folder");
        first.insert("key", "value").and_then(|_| first.flush()).expect("room");
        let held = open(&path, 1 << 20, expect_whole).expect_err("it is in use");
        assert!(held.contains("could not acquire lock"), "{held}");
        let letting_go = std::thread::spawn(move || {
            sleep(PATIENCE / 10);
            drop(first);
        });
        let second = open(&path, 1 << 20, expect_whole).expect("let go");
        assert_eq!(second.get("key").expect("readable").expect("kept").as_ref(), b"value");
        letting_go.join().expect("no panic");
    }

    #[test]
    fn what_the_system_refuses_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        // A name that is too long: root may do everything else.
        let refused = open(&dir.path().join("n".repeat(300)), 1 << 20, expect_whole);
        assert!(refused.is_err_and(|error| error.contains("too long")));
    }

    #[test]
    fn one_that_cannot_be_read_is_begun_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("db");
        std::fs::write(&path, b"no database").expect("room");
        let mut was_told = false;
        open(&path, 1 << 20, |_| {
            was_told = true;
            std::fs::remove_file(&path).expect("its own file");
        })
        .expect("begun anew");
        assert!(was_told);
    }
}
