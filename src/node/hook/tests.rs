//! Hooks that behave, and hooks that do not; real commands all of them.

use super::*;

fn arrival(version: &str) -> Arrival {
    let (package, channel) = ("tool".to_owned(), "stable".to_owned());
    Arrival { package, version: version.to_owned(), channel, size: 9, sha256: "00ff".into() }
}

fn config(command: &str, timeout: Duration) -> Config {
    Config::new(command, None, timeout, "http://127.0.0.1:7420".into()).expect("a command")
}

fn hooks(dir: &Path, command: &str, timeout: Duration) -> Arc<Hooks> {
    let follow = ["tool@stable".parse().expect("valid")];
    Arc::new(Hooks::open(dir, Some(config(command, timeout)), &follow))
}

/// One run, and what has become of it.
async fn run(command: &str, timeout: Duration) -> HookResult {
    let dir = tempfile::tempdir().expect("a folder");
    let hooks = hooks(dir.path(), command, timeout);
    let keeper = tokio::spawn(hooks.clone().keep());
    let result = hooks.run_again(arrival("1")).await.expect("an end");
    keeper.abort();
    assert_eq!(hooks.status().last.map(|it| (it.ok, it.output)), Some((result.ok, String::new())));
    result
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_is_no_command_is_refused_before_the_agent_starts() {
    let new = |command: &str, timeout| Config::new(command, None, timeout, String::new());
    for bad in ["", "   ", "'unclosed", "''"] {
        assert!(new(bad, LONG).expect_err("no command").contains("hook"), "{bad:?}");
    }
    assert!(new("true", Duration::ZERO).expect_err("no time").contains("hook_timeout"));
    let words = new("/bin/x --name 'two words' \"$HOME\"", LONG).expect("valid").command;
    assert_eq!(words, ["/bin/x", "--name", "two words", "$HOME"], "no shell reads it");
}

#[tokio::test]
async fn a_hook_is_told_what_has_arrived_and_nothing_else() {
    let result = run("sh -c 'pwd; env; cat; echo on stderr >&2'", LONG).await;
    assert!(result.ok && result.exit_code == Some(0), "{result:?}");
    for line in [
        "/",
        "BRANCHLINE_PACKAGE=tool",
        "BRANCHLINE_VERSION=1",
        "BRANCHLINE_CHANNEL=stable",
        "BRANCHLINE_SIZE=9",
        "BRANCHLINE_SHA256=00ff",
        "BRANCHLINE_URL=http://127.0.0.1:7420/packages/tool/1",
        "on stderr",
    ] {
        assert!(result.output.lines().any(|it| it == line), "{line} in {}", result.output);
    }
    assert!(!result.output.contains("CARGO"), "the agent's environment is its own");
}

#[tokio::test]
async fn failures_of_every_kind_are_told_apart() {
    let failed = run("sh -c 'echo no; exit 3'", LONG).await;
    assert_eq!((failed.ok, failed.exit_code, &failed.output[..]), (false, Some(3), "no\n"));
    let killed = run("sh -c 'kill -9 $$'", LONG).await;
    assert_eq!((killed.ok, killed.signal), (false, Some(9)));
    let missing = run("/nowhere/at-all", LONG).await;
    assert!(missing.error.as_deref().is_some_and(|why| why.contains("/nowhere/at-all")), "{missing:?}");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("no-program");
    std::fs::write(&file, "echo").expect("room");
    let not_executable = run(&file.display().to_string(), LONG).await;
    assert!(not_executable.error.is_some() && !not_executable.ok, "{not_executable:?}");
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_all_that_it_has_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("pid");
    // Neither it nor its child heeds the friendly signal, and the child holds its output open.
    let script = format!(
        "trap \"\" TERM; sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > {}; while :; do sleep 1; done\" & echo begun; while :; do sleep 1; done",
        file.display()
    );
    let command = shlex::try_join(["sh", "-c", &script]).expect("no zero byte");
    let result = run(&command, Duration::from_millis(1500)).await;
    assert!(result.timed_out && !result.ok && result.output.contains("begun"), "{result:?}");
    let pid = std::fs::read_to_string(&file).expect("it ran").trim().to_owned();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    for _ in 0..500 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn a_flood_of_output_is_read_and_its_end_kept() {
    let result = run("sh -c 'head -c 30000000 /dev/zero | tr \"\\\\0\" x; echo; echo the end'", LONG).await;
    assert!(result.ok, "{}", result.end());
    assert!(result.output.len() < 9000 && result.output.ends_with("x\nthe end\n"), "{}", result.output.len());
}

#[tokio::test]
async fn what_a_hook_leaves_running_does_not_hold_it_up() {
    let result = run("sh -c 'sleep 30 & echo started'", LONG).await;
    assert!(result.ok && result.output == "started\n", "{result:?}");
    assert!(result.seconds < 20.0, "it did not wait for what runs on");
}

#[tokio::test]
async fn it_runs_once_for_a_version_in_order_and_again_only_if_it_was_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("log");
    let command = |pause: &str| {
        let script = format!("echo $BRANCHLINE_VERSION >> {}; {pause}", log.display());
        shlex::try_join(["sh", "-c", &script]).expect("no zero byte")
    };
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().collect::<Vec<_>>().join(" ");
    let follow: Selector = "tool@stable".parse().expect("valid");
    let wait = async |expected: &str| {
        for _ in 0..1000 {
            if lines() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} instead of {expected}", lines());
    };
    // It hangs, and the agent goes.
    let first = hooks(dir.path(), &command("sleep 60"), LONG);
    first.arrived(&follow, arrival("1")).await;
    first.arrived(&follow, arrival("1")).await;
    first.arrived(&follow, arrival("2")).await;
    let keeper = tokio::spawn(first.clone().keep());
    wait("1").await;
    keeper.abort();
    assert!(keeper.await.is_err());
    // What was cut off is repeated, and what waited is run; what has run is not.
    for _ in 0..2 {
        let again = hooks(dir.path(), &command("true"), LONG);
        let keeper = tokio::spawn(again.clone().keep());
        again.arrived(&follow, arrival("2")).await;
        wait("1 1 2").await;
        for _ in 0..1000 {
            if again.results().len() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(again.results().len(), 2);
        keeper.abort();
        keeper.await.ok();
    }
    // Damage to what was remembered is put aside.
    std::fs::write(dir.path().join("hooks.json"), "{").expect("room");
    assert!(hooks(dir.path(), "true", LONG).results().is_empty());
    assert!(dir.path().join("hooks.damaged").exists());
}

#[tokio::test]
async fn root_runs_it_as_another_user_with_that_users_groups() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut config = config("sh -c 'id -u; id -G; id -g'", LONG);
    config.user = HookUser::find("nobody").expect("a user of every machine");
    let (end, output) = run::run(&config, &arrival("1")).await;
    assert_eq!(end, End::Exit(0), "{output}");
    let own = std::process::Command::new("id").args(["-G", "nobody"]).output().expect("id").stdout;
    let own = String::from_utf8_lossy(&own).trim().to_owned();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0] != "0" && lines[1] == own && lines[2] != "0", "{output}");
}
