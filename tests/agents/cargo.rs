//! A real cargo builds from a sparse registry through the agents of a site.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::tools::{Nginx, is_missing, run};
use crate::support::{Agent, Stage, assert_balanced, request, wait_for};
use sha2::Digest as _;

const TOOLS: [&str; 2] = ["cargo", "nginx"];

/// A registry of two crates, of which one needs the other, in a folder: its sparse index and its crates.
struct Registry(PathBuf);

/// Where crates are, of all the ways that there are.
const WHERE: &str = "/files/{prefix}/{crate}-{version}.crate";

impl Registry {
    fn new(dir: &Path) -> Self {
        let registry = Self(dir.to_owned());
        std::fs::create_dir_all(registry.root().join("index")).expect("room");
        registry
    }

    fn root(&self) -> PathBuf {
        self.0.join("www")
    }

    fn configure(&self, server: std::net::SocketAddr) {
        let config = format!("{{\"dl\": \"http://{server}{WHERE}\", \"api\": \"http://{server}\"}}");
        std::fs::write(self.root().join("index/config.json"), config).expect("room");
    }

    /// Packages a crate as cargo does, and enters it into the index.
    fn publish(&self, name: &str, folder: &str, version: &str) {
        let source = self.0.join(format!("{name}-{version}"));
        std::fs::create_dir_all(source.join("src")).expect("room");
        let about = "edition = \"2021\"\ndescription = \"for tests\"\nlicense = \"MIT\"";
        let manifest =
            format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\n{about}\n[workspace]\n");
        std::fs::write(source.join("Cargo.toml"), manifest).expect("room");
        let code = format!("pub const VERSION: &str = \"{name} {version}\";\n");
        std::fs::write(source.join("src/lib.rs"), code).expect("room");
        run(Command::new("cargo")
            .args(["package", "-q", "--no-verify", "--allow-dirty", "--offline"])
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .env("CARGO_HOME", self.0.join("home"))
            .current_dir(&source));
        let file =
            std::fs::read(self.0.join(format!("target/package/{name}-{version}.crate"))).expect("made");
        let sum: String = sha2::Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        let files = self.root().join("files").join(folder);
        std::fs::create_dir_all(&files).expect("room");
        std::fs::write(files.join(format!("{name}-{version}.crate")), file).expect("room");
        let line = serde_json::json!({
            "name": name, "vers": version, "deps": [], "cksum": sum, "features": {}, "yanked": false
        });
        let index = self.root().join("index").join(folder);
        std::fs::create_dir_all(&index).expect("room");
        let before = std::fs::read_to_string(index.join(name)).unwrap_or_default();
        std::fs::write(index.join(name), format!("{before}{line}\n")).expect("room");
    }
}

/// A machine with a project that needs both crates, and a cargo home of its own.
struct Machine(PathBuf);

impl Machine {
    fn new(dir: PathBuf, agent: &Agent) -> Self {
        std::fs::create_dir_all(dir.join("home")).expect("room");
        std::fs::create_dir_all(dir.join("app/src")).expect("room");
        let config = format!(
            "[source.crates-io]\nreplace-with = \"lab\"\n[source.lab]\nregistry = \"sparse+http://{}/cargo/lab/\"\n",
            agent.gateway
        );
        std::fs::write(dir.join("home/config.toml"), config).expect("room");
        let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n\
                        tiny = \"1\"\nwee-lib = \"1\"\n[workspace]\n";
        std::fs::write(dir.join("app/Cargo.toml"), manifest).expect("room");
        let code = "fn main() { println!(\"{}, {}\", tiny::VERSION, wee_lib::VERSION) }\n";
        std::fs::write(dir.join("app/src/main.rs"), code).expect("room");
        Self(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).env("CARGO_HOME", self.0.join("home"));
        command.env("CARGO_TARGET_DIR", self.0.join("target")).current_dir(self.0.join("app"));
        command
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }
}

fn agent(stage: &Stage, agents: &[Agent], name: &str, spec: &str) -> Agent {
    let peer = agents.first().map(Agent::peer);
    let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
    stage.agent(name, &[&peer, &["--upstream", spec][..]].concat())
}

#[test]
fn machines_build_through_their_site_and_without_the_registry() {
    if is_missing("machines_build_through_their_site_and_without_the_registry", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let registry = Registry::new(&stage.dir.path().join("registry"));
    registry.publish("tiny", "ti/ny", "1.0.0");
    registry.publish("wee-lib", "we/e-", "1.2.0");
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &registry.root());
    registry.configure(nginx.address);
    // What changes is checked each second here, and not each minute.
    let spec = format!("lab cargo http://{}/index max-age=1", nginx.address);
    let mut agents = Vec::new();
    for n in 0..3 {
        agents.push(agent(&stage, &agents, &n.to_string(), &spec));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == 2));
    let machine = |name: &str, agent: &Agent| Machine::new(stage.dir.path().join(format!("m-{name}")), agent);
    let machines: Vec<Machine> =
        agents.iter().enumerate().map(|(n, agent)| machine(&n.to_string(), agent)).collect();
    let together = |arguments: &[&str]| {
        std::thread::scope(|scope| {
            machines.iter().for_each(|machine| drop(scope.spawn(|| machine.cargo(arguments))));
        });
    };
    together(&["fetch"]);
    let asked = nginx.asked();
    println!("{asked:#?}");
    let full = |asked: &[String]| asked.iter().filter(|line| line.starts_with("200 ")).count();
    assert_eq!(full(&asked), 5, "config.json, two of the index, two crates: {asked:?}");
    assert!(asked.contains(&"200 /files/we/e-/wee-lib-1.2.0.crate".into()), "{asked:?}");
    assert!(machines[1].cargo(&["run", "-q"]).contains("tiny 1.0.0, wee-lib 1.2.0"));
    for agent in &agents {
        let savings = agent.api("savings");
        assert_balanced(&savings);
        let rows = agent.api("savings?by=front")["rows"].to_string();
        assert!(rows.contains("\"front\":\"cargo\""), "{rows}");
    }
    nginx.asked();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    together(&["update"]);
    assert_eq!(full(&nginx.asked()), 0, "only checks");
    registry.publish("tiny", "ti/ny", "1.0.1");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    together(&["update"]);
    together(&["fetch"]);
    let asked = nginx.asked();
    assert_eq!(full(&asked), 2, "what the index says of it, and the new crate: {asked:?}");
    // The registry is gone, and a machine comes that has nothing.
    drop(nginx);
    agents.push(agent(&stage, &agents, "late", &spec));
    let late = machine("late", &agents[3]);
    assert!(late.cargo(&["run", "-q"]).contains("tiny 1.0.1, wee-lib 1.2.0"));
}

#[test]
fn a_registry_that_lies_leaves_nothing_behind() {
    if is_missing("a_registry_that_lies_leaves_nothing_behind", &["nginx"]) {
        return;
    }
    let stage = Stage::new("1gbit");
    let root = stage.dir.path().join("www");
    std::fs::create_dir_all(root.join("index")).expect("room");
    std::fs::create_dir_all(root.join("none")).expect("room");
    std::fs::write(root.join("a-1.crate"), "not what the index names").expect("room");
    std::fs::write(root.join("none/config.json"), "<html>log in</html>").expect("room");
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &root);
    let config = |to: &str| std::fs::write(root.join("index/config.json"), format!("{{\"dl\": \"{to}\"}}"));
    config(&format!("http://{}/{{crate}}-{{version}}.crate", nginx.address)).expect("room");
    let specs = [
        format!("lab cargo http://{}/index", nginx.address),
        format!("bad cargo http://{}/none", nginx.address),
    ];
    let agent = stage.agent("0", &["--upstream", &specs[0], "--upstream", &specs[1]]);
    let sum = "00".repeat(32);
    let path = format!("/cargo/lab/crates/a/1/{sum}");
    for _ in 0..2 {
        let answer = agent.get(&path);
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains("not the one that its index names"), "{}", answer.text());
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let crates = nginx.asked().iter().filter(|line| line.contains(".crate")).count();
    assert_eq!(crates, 2, "it was asked anew each time");
    assert_eq!(agent.get("/cargo/lab/crates/a/1/zz").status, 404);
    assert_eq!(agent.get("/cargo/lab/1/a").status, 404);
    assert_eq!(agent.get("/cargo/lab/index/a/b/c").status, 404);
    let answer = agent.get("/cargo/bad/config.json");
    assert!(answer.status == 502 && answer.text().contains("not what belongs there"), "{}", answer.text());
    assert_eq!(agent.get(&format!("/cargo/bad/crates/a/1/{sum}")).status, 502);
    // Where the index sends is followed no further than a redirect: not into this machine.
    config("http://127.0.0.2:1/x").expect("room");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let anew =
        request(agent.gateway, "/cargo/lab/config.json", "Cache-Control: no-cache\r\n").expect("an answer");
    assert_eq!(anew.status, 200);
    let answer = agent.get(&path);
    assert!(answer.status == 502 && answer.text().contains("private network"), "{}", answer.text());
}

#[test]
fn a_crate_behind_a_hub_comes_as_what_has_changed() {
    if is_missing("a_crate_behind_a_hub_comes_as_what_has_changed", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let registry = Registry::new(&stage.dir.path().join("registry"));
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &registry.root());
    registry.configure(nginx.address);
    let publish = |version: &str| {
        let source = registry.0.join(format!("tiny-{version}"));
        std::fs::create_dir_all(&source).expect("room");
        let line = |n: usize| {
            let word = blake3::hash(&n.to_le_bytes()).to_hex();
            format!("{n}: {word} of {}\n", if n.is_multiple_of(9000) { version } else { "any" })
        };
        std::fs::write(source.join("data"), (0..30_000).map(line).collect::<String>()).expect("room");
        registry.publish("tiny", "ti/ny", version);
        let made = registry.root().join(format!("files/ti/ny/tiny-{version}.crate"));
        std::fs::metadata(made).expect("made").len()
    };
    publish("1.0.0");
    registry.publish("wee-lib", "we/e-", "1.2.0");
    let spec = format!("lab cargo http://{}/index max-age=1", nginx.address);
    let hub = stage.agent("hub", &["--role", "hub", "--upstream", &spec]);
    let spec = format!("lab cargo http://{}/cargo/lab hub=yes max-age=1", hub.gateway);
    let agent = stage.agent("0", &["--upstream", &spec]);
    let machine = Machine::new(stage.dir.path().join("m"), &agent);
    machine.cargo(&["fetch"]);
    let crossed = || agent.api("savings")["totals"]["wan_chunks"].as_u64().expect("a figure");
    let (before, size) = (crossed(), publish("1.1.0"));
    // What changes is checked each second, at the hub and here.
    wait_for("the new version", || machine.cargo(&["update"]).contains("1.1.0"));
    machine.cargo(&["fetch"]);
    let upgrade = crossed() - before;
    assert!(size > 500_000 && upgrade * 4 < size, "{upgrade} of {size}");
    assert!(machine.cargo(&["run", "-q"]).contains("tiny 1.1.0"));
}

#[test]
fn a_private_registry_is_for_machines_that_have_its_token() {
    if is_missing("a_private_registry_is_for_machines_that_have_its_token", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let registry = Registry::new(&stage.dir.path().join("registry"));
    registry.publish("tiny", "ti/ny", "1.0.0");
    registry.publish("wee-lib", "we/e-", "1.2.0");
    let nginx = Nginx::guarded(&stage.dir.path().join("nginx"), &registry.root(), "of-ann");
    let config =
        format!("{{\"dl\": \"http://{}{WHERE}\", \"api\": null, \"auth-required\": true}}", nginx.address);
    std::fs::write(registry.root().join("index/config.json"), config).expect("room");
    let spec = format!("lab cargo http://{}/index", nginx.address);
    let first = agent(&stage, &[], "0", &spec);
    let agents = [agent(&stage, std::slice::from_ref(&first), "1", &spec), first];
    wait_for("both", || agents.iter().all(|it| it.api("status")["members"] == 1));
    let machine = |name: &str, agent: &Agent, token: &str| {
        let machine = Machine::new(stage.dir.path().join(format!("m-{name}")), agent);
        let config = format!(
            "[source.crates-io]\nreplace-with = \"lab\"\n[registries.lab]\nindex = \"sparse+http://{}/cargo/lab/\"\n\
             [registry]\nglobal-credential-providers = [\"cargo:token\"]\n",
            agent.gateway
        );
        std::fs::write(machine.0.join("home/config.toml"), config).expect("room");
        let token = format!("[registries.lab]\ntoken = \"{token}\"\n");
        std::fs::write(machine.0.join("home/credentials.toml"), token).expect("room");
        machine
    };
    for (n, agent) in agents.iter().enumerate() {
        let said = machine(&n.to_string(), agent, "of-ann").cargo(&["run", "-q"]);
        assert!(said.contains("tiny 1.0.0, wee-lib 1.2.0"), "{said}");
    }
    let asked = nginx.asked();
    let crates = asked.iter().filter(|line| line.starts_with("200 /files/")).count();
    assert_eq!(crates, 2, "one copy for both: {asked:?}");
    let wrong = machine("wrong", &agents[0], "of-bob");
    let output = wrong.command(&["fetch"]).output().expect("cargo runs");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(agents.iter().all(|agent| !agent.log().contains("of-ann")));
}
