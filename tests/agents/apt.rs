//! A real apt-get fetches from a real nginx through the agents of a site.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::tools::{Nginx, is_missing, run};
use crate::support::{Agent, Stage, assert_balanced, noise, request, wait_for};

const TOOLS: [&str; 6] = ["apt-get", "apt-ftparchive", "dpkg-scanpackages", "dpkg-deb", "gpg", "nginx"];

/// A signed archive with packages `demo` and `demo-data`, in a folder.
struct Archive(PathBuf);

impl Archive {
    fn new(dir: &Path) -> Self {
        let archive = Self(dir.to_owned());
        let keys = archive.0.join("keys");
        std::fs::create_dir_all(&keys).expect("room");
        run(Command::new("chmod").arg("700").arg(&keys));
        let generate =
            ["--passphrase", "", "--quick-gen-key", "demo@example.org", "rsa2048", "sign", "never"];
        archive.gpg(&generate);
        archive.gpg(&["--output", &dir.join("key.gpg").display().to_string(), "--export"]);
        archive.publish("1.0");
        archive
    }

    fn root(&self) -> PathBuf {
        self.0.join("www")
    }

    fn gpg(&self, arguments: &[&str]) {
        run(Command::new("gpg")
            .args(["--batch", "--yes", "-q", "--homedir"])
            .arg(self.0.join("keys"))
            .args(arguments));
    }

    /// Adds a version of both packages.
    fn publish(&self, version: &str) {
        let debian = self.root().join("debian");
        for (name, size, depends) in [("demo", 20_000, "Depends: demo-data\n"), ("demo-data", 3_000_000, "")]
        {
            let build = self.0.join(format!("build-{name}"));
            std::fs::create_dir_all(build.join("DEBIAN")).expect("room");
            let control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
                 {depends}Description: for tests\n"
            );
            std::fs::write(build.join("DEBIAN/control"), control).expect("room");
            std::fs::write(build.join("data"), noise(&format!("{name} {version}"), size)).expect("room");
            let pool = debian.join(format!("pool/main/d/{name}"));
            std::fs::create_dir_all(&pool).expect("room");
            run(Command::new("dpkg-deb")
                .args(["-Znone", "--root-owner-group", "--build"])
                .arg(build)
                .arg(pool));
        }
        let binary = debian.join("dists/stable/main/binary-amd64");
        std::fs::create_dir_all(&binary).expect("room");
        let scan = Command::new("dpkg-scanpackages").args(["-m", "pool"]).current_dir(&debian).output();
        std::fs::write(binary.join("Packages"), scan.expect("it runs").stdout).expect("room");
        run(Command::new("gzip").args(["-kf9", "Packages"]).current_dir(&binary));
        for algorithm in ["SHA256", "SHA512"] {
            let named = binary.join("by-hash").join(algorithm);
            std::fs::create_dir_all(&named).expect("room");
            for file in ["Packages", "Packages.gz"] {
                let sum =
                    run(Command::new(format!("{}sum", algorithm.to_lowercase())).arg(binary.join(file)));
                let sum = sum.split(' ').next().expect("a sum");
                std::fs::copy(binary.join(file), named.join(sum)).expect("room");
            }
        }
        let dist = debian.join("dists/stable");
        let mut release = Command::new("apt-ftparchive");
        for option in ["Suite=stable", "Acquire-By-Hash=yes", "Components=main", "Architectures=amd64"] {
            release.args(["-o", &format!("APT::FTPArchive::Release::{option}")]);
        }
        let release = release.arg("release").arg("dists/stable").current_dir(&debian).output();
        std::fs::write(dist.join("Release"), release.expect("it runs").stdout).expect("room");
        let path = |name: &str| dist.join(name).display().to_string();
        self.gpg(&["--clearsign", "--output", &path("InRelease"), &path("Release")]);
        self.gpg(&["--detach-sign", "--armor", "--output", &path("Release.gpg"), &path("Release")]);
    }

    fn deb(&self, name: &str, version: &str) -> Vec<u8> {
        let path = format!("debian/pool/main/d/{name}/{name}_{version}_all.deb");
        std::fs::read(self.root().join(path)).expect("published")
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let keys = self.0.join("keys");
        Command::new("gpgconf").arg("--homedir").arg(keys).args(["--kill", "gpg-agent"]).status().ok();
    }
}

/// One machine's apt, with folders of its own: nothing of this machine's is read or written.
struct Apt(PathBuf);

impl Apt {
    fn new(dir: PathBuf, archive: &Archive, url: &str, options: &str) -> Self {
        for folder in ["state/lists/partial", "cache/archives/partial", "etc", "none", "down"] {
            std::fs::create_dir_all(dir.join(folder)).expect("room");
        }
        let key = archive.0.join("key.gpg");
        let source = format!("deb [signed-by={}] {url} stable main\n", key.display());
        std::fs::write(dir.join("etc/sources.list"), source).expect("room");
        std::fs::write(dir.join("status"), "").expect("room");
        let here = dir.display();
        let config = format!(
            "Dir \"{here}\"; Dir::State \"{here}/state\"; Dir::State::status \"{here}/status\"; \
             Dir::Cache \"{here}/cache\"; Dir::Etc \"{here}/etc\"; Dir::Log \"{here}\"; \
             Dir::Etc::parts \"{here}/none\"; Dir::Etc::sourceparts \"{here}/none\"; \
             Dir::Etc::preferencesparts \"{here}/none\"; APT::Architecture \"amd64\"; \
             APT::Architectures {{ \"amd64\"; }}; APT::Sandbox::User \"root\"; Debug::NoLocking \"1\"; \
             Acquire::Languages \"none\"; {options}\n"
        );
        std::fs::write(dir.join("apt.conf"), config).expect("room");
        Self(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("APT_CONFIG", self.0.join("apt.conf")).env("LC_ALL", "C");
        command.current_dir(self.0.join("down"));
        command
    }

    fn get(&self, arguments: &[&str]) -> String {
        let said = run(&mut self.command(arguments));
        assert!(!said.contains("W: Failed") && !said.contains("Err:"), "{arguments:?}: {said}");
        said
    }

    /// Update, and what an installation would download.
    fn install(&self, archive: &Archive, version: &str) {
        self.get(&["update"]);
        self.get(&["-y", "--download-only", "install", "demo"]);
        for name in ["demo", "demo-data"] {
            let file = self.0.join(format!("cache/archives/{name}_{version}_all.deb"));
            let got = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(got == archive.deb(name, version), "{name} {version}");
        }
    }
}

/// A site of agents with this upstream, and a machine's apt for each.
fn site(stage: &Stage, count: usize, spec: &str) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..count {
        agents.push(joining(stage, &agents, &n.to_string(), spec));
    }
    wait_for("a full mesh", || agents.iter().all(|it| it.api("status")["members"] == count - 1));
    agents
}

fn joining(stage: &Stage, agents: &[Agent], name: &str, spec: &str) -> Agent {
    let peer = agents.first().map(Agent::peer);
    let peer = peer.iter().flat_map(|peer| ["--peer", peer]).collect::<Vec<_>>();
    stage.agent(name, &[&peer, &["--upstream", spec][..]].concat())
}

fn through(stage: &Stage, agent: &Agent, archive: &Archive, name: &str) -> Apt {
    let url = format!("http://{}/apt/lab", agent.gateway);
    Apt::new(stage.dir.path().join(format!("apt-{name}")), archive, &url, "")
}

fn delivered(agent: &Agent) -> u64 {
    let savings = agent.api("savings");
    assert_balanced(&savings);
    savings["totals"]["delivered"].as_u64().expect("a figure")
}

#[test]
fn machines_install_through_their_site_and_without_the_archive() {
    if is_missing("machines_install_through_their_site_and_without_the_archive", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let archive = Archive::new(&stage.dir.path().join("archive"));
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &archive.root());
    let spec = format!("lab apt http://{}/debian", nginx.address);
    let mut agents = site(&stage, 3, &spec);
    let clients: Vec<Apt> =
        agents.iter().enumerate().map(|(n, it)| through(&stage, it, &archive, &n.to_string())).collect();
    let together = |version: &str| {
        std::thread::scope(|scope| {
            for client in &clients {
                let archive = &archive;
                scope.spawn(move || client.install(archive, version));
            }
        });
    };
    together("1.0");
    let mut asked = nginx.asked();
    println!("{asked:#?}");
    let full = asked.extract_if(.., |line| line.starts_with("200 ")).count();
    // InRelease, the index, two packages; InRelease may have been checked again for one that came later.
    assert_eq!(full, 4, "{asked:?}");
    assert!(asked.iter().all(|line| line == "304 /debian/dists/stable/InRelease"), "{asked:?}");
    for agent in &agents {
        assert!(delivered(agent) > 3_020_000);
        let rows = agent.api("savings?by=front")["rows"].to_string();
        assert!(rows.contains("\"front\":\"apt\""), "{rows}");
    }
    // A second time nothing but the question whether it is still current crosses.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    clients.iter().for_each(|client| drop(client.get(&["update"])));
    let asked = nginx.asked();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.starts_with("304 ")), "{asked:?}");
    // What is new is seen at once, however fresh the old might seem.
    archive.publish("1.1");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    together("1.1");
    assert_eq!(nginx.asked().iter().filter(|line| line.starts_with("200 ")).count(), 4);
    // What apt broke off is taken up where it was.
    let file = "cache/archives/demo-data_1.1_all.deb";
    let client = &clients[0];
    run(Command::new("truncate").args(["-s", "1000000"]).arg(client.0.join(file)));
    let original = archive.root().join("debian/pool/main/d/demo-data/demo-data_1.1_all.deb");
    run(Command::new("touch").arg("-r").arg(original).arg(client.0.join(file)));
    std::fs::rename(client.0.join(file), client.0.join("cache/archives/partial/demo-data_1.1_all.deb"))
        .expect("the same folder");
    let before = delivered(&agents[0]);
    client.install(&archive, "1.1");
    let more = delivered(&agents[0]) - before;
    assert!((2_000_000..2_200_000).contains(&more), "{more} bytes");
    // The archive is gone, and a machine comes that has nothing.
    drop(nginx);
    agents.push(joining(&stage, &agents, "late", &spec));
    let late = through(&stage, &agents[3], &archive, "late");
    late.install(&archive, "1.1");
    late.get(&["download", "demo"]);
    let answer = agents[3].get("/apt/lab/dists/stable/InRelease");
    assert!(answer.head.contains("cache-status: branchline; hit"), "{}", answer.head);
}

#[test]
fn apt_may_take_the_gateway_for_its_proxy() {
    if is_missing("apt_may_take_the_gateway_for_its_proxy", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let archive = Archive::new(&stage.dir.path().join("archive"));
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &archive.root());
    let url = format!("http://{}/debian", nginx.address);
    let agents = site(&stage, 2, &format!("lab apt {url}"));
    for (n, agent) in agents.iter().enumerate() {
        let proxy = format!("Acquire::http::Proxy \"http://{}\";", agent.gateway);
        let client = Apt::new(stage.dir.path().join(format!("apt-{n}")), &archive, &url, &proxy);
        client.install(&archive, "1.0");
    }
    assert_eq!(nginx.asked().iter().filter(|line| line.starts_with("200 ")).count(), 4);
    // By the other way it is the same file.
    let answer = agents[0].get("/apt/lab/pool/main/d/demo/demo_1.0_all.deb");
    assert!(answer.status == 200 && answer.body == archive.deb("demo", "1.0"));
    assert!(nginx.asked().is_empty());
    // It is a proxy for nothing else, not even for its own pages under another name.
    let gateway = agents[0].gateway;
    let (elsewhere, own) = (format!("http://{}/x", nginx.address), format!("http://{gateway}/api/v1/status"));
    for refused in
        [elsewhere.as_str(), &own, "http://169.254.169.254/debian/x", "https://deb.example/debian/x"]
    {
        let answer = request(gateway, refused, "").expect("an answer");
        assert_eq!(answer.status, 403, "{refused}: {}", answer.text());
        assert!(answer.text().contains("apt upstreams alone"), "{}", answer.text());
    }
    let out = request(gateway, &format!("{url}/../x"), "").expect("an answer");
    assert_eq!(out.status, 400, "{}", out.text());
    let mut line = TcpStream::connect(gateway).expect("the gateway");
    write!(line, "CONNECT {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", nginx.address).expect("sent");
    let mut said = String::new();
    line.read_to_string(&mut said).expect("text");
    assert!(said.starts_with("HTTP/1.1 403") && said.contains("plain http://"), "{said}");
    assert!(nginx.asked().is_empty(), "nothing was passed on");
}

#[test]
fn an_archive_that_lies_leaves_nothing_behind() {
    if is_missing("an_archive_that_lies_leaves_nothing_behind", &["nginx"]) {
        return;
    }
    let stage = Stage::new("1gbit");
    let root = stage.dir.path().join("www");
    let hash = "00".repeat(32);
    std::fs::create_dir_all(root.join("x/by-hash/SHA256")).expect("room");
    std::fs::create_dir_all(root.join("pool")).expect("room");
    std::fs::write(root.join("x/by-hash/SHA256").join(&hash), noise("wrong", 700_000)).expect("room");
    std::fs::write(root.join("pool/a_1_all.deb"), "a login page").expect("room");
    let nginx = Nginx::start(&stage.dir.path().join("nginx"), &root);
    let agents = site(&stage, 2, &format!("lab apt http://{}", nginx.address));
    let path = format!("/apt/lab/x/by-hash/SHA256/{hash}");
    for agent in &agents {
        // Its beginning may have been handed out before the end was known to be wrong; then it breaks off,
        // at times before the first byte.
        let answer = request(agent.gateway, &path, "");
        let (status, length) = answer.map_or((0, 0), |answer| (answer.status, answer.body.len()));
        assert!(status == 502 || length < 700_000, "{status} {length}");
    }
    assert_eq!(agents[0].get("/apt/lab/x/by-hash/SHA256/zz").status, 404);
    assert_eq!(agents[0].get("/apt/lab/pool/none_1_all.deb").status, 404);
    // A wrong file in a pool is cured by asking for it anew, as with `-o Acquire::http::No-Cache=true`.
    let path = "/apt/lab/pool/a_1_all.deb";
    agents.iter().for_each(|agent| assert_eq!(agent.get(path).text(), "a login page"));
    std::fs::write(root.join("pool/a_1_all.deb"), "the true package").expect("room");
    assert_eq!(agents[1].get(path).text(), "a login page");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let anew = request(agents[1].gateway, path, "Cache-Control: no-cache\r\n").expect("an answer");
    assert_eq!(anew.text(), "the true package");
    // By its date and its name it is not sent again, and a part is.
    let date = anew.head.lines().find_map(|line| line.strip_prefix("last-modified: ")).expect("a date");
    let get = |headers: String| request(agents[1].gateway, path, &headers).expect("an answer");
    assert_eq!(get(format!("If-Modified-Since: {date}\r\n")).status, 304);
    let part = get(format!("Range: bytes=4-\r\nIf-Range: {date}\r\n"));
    assert_eq!((part.status, part.text().as_str()), (206, "true package"));
}

#[test]
fn a_private_archive_is_for_machines_that_have_its_login() {
    if is_missing("a_private_archive_is_for_machines_that_have_its_login", &TOOLS) {
        return;
    }
    let stage = Stage::new("1gbit");
    let archive = Archive::new(&stage.dir.path().join("archive"));
    let nginx = Nginx::guarded(&stage.dir.path().join("nginx"), &archive.root(), "Basic YW5uOnNlY3JldA==");
    let agents = site(&stage, 2, &format!("lab apt http://{}/debian", nginx.address));
    // As apt_auth.conf(5) has it; without the scheme apt sends nothing over plain HTTP.
    let client = |agent: &Agent, name: &str, login: &str| {
        let client = through(&stage, agent, &archive, name);
        let entry = format!("machine http://{}/apt/lab {login}\n", agent.gateway);
        std::fs::write(client.0.join("etc/auth.conf"), entry).expect("room");
        client
    };
    for (n, agent) in agents.iter().enumerate() {
        client(agent, &n.to_string(), "login ann password secret").install(&archive, "1.0");
    }
    let asked = nginx.asked();
    let full = |of: &str| asked.iter().filter(|line| line.starts_with("200 ") && line.contains(of)).count();
    assert_eq!((full("/by-hash/"), full("/pool/")), (1, 2), "one copy for both: {asked:?}");
    for (name, login) in [("none", ""), ("wrong", "login ann password guess")] {
        let output = client(&agents[0], name, login).command(&["update"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("401"), "{name}: {said}");
    }
    assert!(agents.iter().all(|agent| !agent.log().contains("YW5u") && !agent.log().contains("secret")));
}
