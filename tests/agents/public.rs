//! The public registries themselves, by pip, npm and cargo, as `branchline setup` leaves them: what the first
//! machine fetched, the second one has from it.
//!
//! Only where a registry's address is given, as the tool knows it: `BRANCHLINE_PUBLIC_PYPI` (the folder above
//! `simple/`), `BRANCHLINE_PUBLIC_NPM`, `BRANCHLINE_PUBLIC_CARGO` (of the sparse index).

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::support::tools::{is_missing, run};
use crate::support::{Agent, Stage, assert_balanced, succeed, wait_for};

/// A machine whose tool was set up.
struct Machine {
    agent: Agent,
    /// Its home, and what of the system's folders was written for it.
    home: PathBuf,
}

impl Machine {
    /// A command as somebody at this machine gives it, in a folder of its own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let of_a_tool = |name: &str| ["pip_", "npm_", "cargo_"].iter().any(|tool| name.starts_with(tool));
        // rustup's cargo looks for its toolchain at home, the real one.
        let rustup = std::env::var("HOME").unwrap_or_default() + "/.rustup";
        command.env("RUSTUP_HOME", std::env::var("RUSTUP_HOME").unwrap_or(rustup));
        for (name, _) in std::env::vars().filter(|(name, _)| of_a_tool(&name.to_lowercase())) {
            command.env_remove(name);
        }
        let work = self.home.join("work");
        std::fs::create_dir_all(&work).expect("room");
        command.env("HOME", &self.home).current_dir(work);
        command
    }

    fn has(&self, file: &str) -> bool {
        self.home.join("work").join(file).is_file()
    }
}

/// Two machines of a site, set up for a tool whose upstream is this; none if it was not given.
fn machines(tool: &str, kind: &str) -> Option<(Stage, [Machine; 2])> {
    let variable = format!("BRANCHLINE_PUBLIC_{}", kind.to_uppercase());
    let Ok(url) = std::env::var(&variable) else {
        let why = format!("{variable} gives no address");
        writeln!(std::io::stderr(), "skipped on this machine: {tool} at its public registry: {why}").ok();
        return None;
    };
    let called = if kind == "cargo" { " as=crates-io" } else { "" };
    let upstream = ["--upstream".to_owned(), format!("public {kind} {url}{called}")];
    let stage = Stage::new("1gbit");
    let first = stage.agent("first", &[&upstream[0], &upstream[1]]);
    let second = stage.agent("second", &[&upstream[0], &upstream[1], "--peer", &first.peer()]);
    wait_for("two members", || second.api("status")["members"] == 1);
    let machine = |agent: Agent, name: &str| {
        let (home, gateway) = (stage.dir.path().join(format!("home-{name}")), agent.gateway.to_string());
        std::fs::create_dir_all(&home).expect("room");
        let root = home.join("root").display().to_string();
        succeed(&["setup", tool, "--gateway", &gateway, "--root", &root]);
        Machine { agent, home }
    };
    let both = [machine(first, "first"), machine(second, "second")];
    Some((stage, both))
}

/// A file that `setup` has written for a machine, wherever its home was.
fn written(machine: &Machine, name: &str) -> PathBuf {
    let find =
        Command::new("find").arg(machine.home.join("root")).args(["-type", "f", "-name", name]).output();
    PathBuf::from(String::from_utf8_lossy(&find.expect("find runs").stdout).trim())
}

/// Nothing crossed twice, and the second machine had its files from the first.
fn assert_shared(machines: &[Machine; 2]) {
    wait_for("books of both", || {
        let savings = machines[1].agent.api("savings?scope=site");
        assert_balanced(&savings);
        let figure = |name: &str| savings["totals"][name].as_u64().unwrap_or_default();
        assert_eq!(figure("wan_duplicate"), 0, "{savings}");
        figure("peer") > 0 && figure("delivered") >= 2 * figure("wan")
    });
}

#[test]
fn pip() {
    if is_missing("pip at its public registry", &["pip", "find"]) {
        return;
    }
    let Some((_stage, machines)) = machines("pip", "pypi") else { return };
    for machine in &machines {
        let mut pip = machine.command("pip");
        pip.env("PIP_CONFIG_FILE", written(machine, "pip.conf"));
        run(pip.args(["download", "-q", "--no-cache-dir", "--no-deps", "packaging==24.1"]));
        assert!(machine.has("packaging-24.1-py3-none-any.whl"));
    }
    assert_shared(&machines);
}

#[test]
fn npm() {
    if is_missing("npm at its public registry", &["npm", "find"]) {
        return;
    }
    let Some((_stage, machines)) = machines("npm", "npm") else { return };
    for machine in &machines {
        let mut npm = machine.command("npm");
        run(npm.arg("--userconfig").arg(written(machine, ".npmrc")).args(["pack", "-s", "is-odd@3.0.1"]));
        assert!(machine.has("is-odd-3.0.1.tgz"));
    }
    assert_shared(&machines);
}

#[test]
fn cargo() {
    if is_missing("cargo at its public registry", &["cargo", "find"]) {
        return;
    }
    let Some((_stage, machines)) = machines("cargo", "cargo") else { return };
    for machine in &machines {
        let work = machine.home.join("work");
        std::fs::create_dir_all(work.join("src")).expect("room");
        std::fs::write(work.join("src/lib.rs"), "").expect("room");
        let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                        [dependencies]\nitoa = \"=1.0.11\"\n[workspace]\n";
        std::fs::write(work.join("Cargo.toml"), manifest).expect("room");
        let config = written(machine, "config.toml");
        let mut cargo = machine.command(env!("CARGO"));
        run(cargo.args(["fetch", "-q"]).env("CARGO_HOME", config.parent().expect("a folder")));
        assert!(machine.has("Cargo.lock"));
    }
    assert_shared(&machines);
}
