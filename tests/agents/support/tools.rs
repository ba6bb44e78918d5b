//! Real programs that tests need: package managers, and the web server that they fetch from.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use super::{Surroundings, free_port, wait_for};

/// Whether a program that the test needs is missing, which is said by name. `BRANCHLINE_CLIENTS=required`
/// makes that a failure.
pub fn is_missing(test: &str, programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&paths).any(|path| path.join(program).is_file());
    let missing: Vec<&str> = programs.iter().filter(|program| !is_there(program)).copied().collect();
    if missing.is_empty() {
        return false;
    }
    let missing = missing.join(", ");
    assert!(std::env::var_os("BRANCHLINE_CLIENTS").is_none(), "{test} was skipped: no {missing}");
    // Past the test runner, which shows nothing of tests that pass.
    writeln!(std::io::stderr(), "skipped on this machine: {test}: it needs {missing}").ok();
    true
}

/// Runs a command that must succeed, and returns what it wrote.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {said}");
    said
}

/// A clock that processes go by instead of this machine's: by libfaketime, and only what it is on the wall.
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Right at first. Nothing, which is said by name, where there is no libfaketime.
    pub fn new(test: &str, dir: &Path) -> Option<Self> {
        if is_missing(test, &["faketime"]) {
            return None;
        }
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|it| it.path());
        let folders = folders.chain(["/usr/lib64", "/usr/lib"].map(PathBuf::from));
        let library = folders.map(|it| it.join("faketime/libfaketimeMT.so.1")).find(|it| it.is_file());
        let Some(library) = library else {
            writeln!(std::io::stderr(), "skipped on this machine: {test}: no libfaketimeMT.so.1").ok();
            return None;
        };
        let clock = Self { file: dir.join("clock"), library };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it, as faketime has it: `+1h`, `-3d`. It is noticed within a second.
    pub fn set(&self, shift: &str) {
        // Whole or not at all: it is read at any time.
        let draft = self.file.with_extension("draft");
        std::fs::write(&draft, shift).and_then(|()| std::fs::rename(&draft, &self.file)).expect("room");
    }

    /// Of processes that go by it.
    pub fn surroundings(&self) -> Surroundings {
        let environment = vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        Surroundings { environment, ..Surroundings::default() }
    }
}

/// A system whose calls fail, as a failing disk makes them: of those that `what` names, those that `when` says
/// (`3+`: from the third one on), if they concern one of these files. Nothing, which is said by name, where
/// no process may be traced.
pub fn failing(test: &str, what: &str, when: &str, files: &[&Path]) -> Option<Surroundings> {
    if is_missing(test, &["strace"]) {
        return None;
    }
    if !Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|it| it.success())
    {
        writeln!(std::io::stderr(), "skipped on this machine: {test}: strace may trace nothing").ok();
        return None;
    }
    // The tracer is a child, so that whoever kills the process kills the right one.
    let mut tracer: Vec<String> = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).into();
    tracer.extend([
        "-e".into(),
        format!("trace={what}"),
        "-e".into(),
        format!("inject={what}:error=EIO:when={when}"),
    ]);
    tracer.extend(files.iter().flat_map(|file| ["-P".to_owned(), file.display().to_string()]));
    Some(Surroundings { tracer, ..Surroundings::default() })
}

/// A real nginx that serves a folder, with `ETag` and `Last-Modified`, and dies with the test.
pub struct Nginx {
    process: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Nginx {
    /// Serves `root`; its own files go to `dir`.
    pub fn start(dir: &Path, root: &Path) -> Self {
        Self::configured(dir, root, "")
    }

    /// The same for those alone who send this `Authorization`.
    pub fn guarded(dir: &Path, root: &Path, authorization: &str) -> Self {
        let challenge = "add_header WWW-Authenticate 'Basic realm=\"lab\"' always;";
        Self::configured(
            dir,
            root,
            &format!("{challenge} if ($http_authorization != \"{authorization}\") {{ return 401; }}"),
        )
    }

    fn configured(dir: &Path, root: &Path, more: &str) -> Self {
        std::fs::create_dir_all(dir).expect("room");
        let address = free_port();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path tmp;")).concat();
        // As root it would else change to a user who cannot read the tests' folder.
        let user = if is_root() { "user root;" } else { "" };
        let config = format!(
            "{user} worker_processes 1; daemon off; pid nginx.pid; error_log error.log; \
             events {{ worker_connections 512; }} http {{ types {{ }} default_type application/octet-stream; \
             {temporary} log_format short '$status $request_uri'; access_log access.log short; \
             server {{ listen {address}; root {}; {more} }} }}",
            root.display()
        );
        std::fs::write(dir.join("nginx.conf"), config).expect("room");
        let process = Command::new("nginx")
            .arg("-p")
            .arg(dir)
            .args(["-e", "error.log", "-c"])
            .arg(dir.join("nginx.conf"))
            .spawn()
            .expect("nginx runs");
        wait_for("nginx", || TcpStream::connect(address).is_ok());
        Self { process, address, log: dir.join("access.log") }
    }

    /// What it was asked since the last time: the status and the path of each request.
    pub fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        std::fs::write(&self.log, "").expect("room");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers are to go with it.
        Command::new("kill").arg(self.process.id().to_string()).status().ok();
        self.process.wait().ok();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
