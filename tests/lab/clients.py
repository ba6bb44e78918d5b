#!/usr/bin/env python3
"""Package managers on real hosts: eight machines install the same thing at the same moment.

    sudo python3 tests/lab/clients.py apt|cargo|all [--machines 8]

For each client: one machine alone and directly; eight at once through their agents; a second round; a ninth
machine with the WAN cut. Bytes are the router's. With as many machines as this one has processors, the time is
that of the site and not of clients that wait for a processor. A client is a class at the end of this file.
"""
import argparse, hashlib, io, json, os, shutil, subprocess, tarfile, time

import lab
from branch import Site
from scenarios import balanced, expect



def noise(seed, size):
    return hashlib.shake_256(seed.encode()).digest(size)


def nginx(site, root):
    """A real web server in the data centre, at http://origin:8080/."""
    own = site.dir / "nginx"
    own.mkdir()
    temporary = "".join(f"{kind}_temp_path tmp; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (own / "nginx.conf").write_text(
        "user root; worker_processes 1; daemon off; pid nginx.pid; error_log error.log; events { worker_connections 512; } "
        f"http {{ types {{ }} default_type application/octet-stream; {temporary} log_format short '$status $request_uri'; "
        f"access_log access.log short; server {{ listen 0.0.0.0:8080; root {root}; }} }}\n")
    site.servers.append(lab.popen("origin", ["nginx", "-p", own, "-e", "error.log", "-c", own / "nginx.conf"]))
    site.wait(lambda: lab.run("origin", ["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:8080/"]).returncode == 0, what="nginx")
    return own / "access.log"


def long_ago(root):
    """Files of a repository are not of this very second."""
    then = time.time() - 40 * 24 * 3600
    for folder, _, files in os.walk(root):
        for file in files:
            os.utime(os.path.join(folder, file), (then, then))


def at_once(client, site, hosts, line, limit=300):
    """Runs this line of shell for each host; seconds of the slowest, and WAN bytes."""
    lab.zero()
    began, running = time.monotonic(), []
    for host in hosts:
        log = open(site.dir / f"client-{host}.log", "wb")
        running.append((host, lab.popen(host, ["sh", "-ec", line(host)], stdout=log, stderr=log, env=client.env(host))))
    for host, process in running:
        code = process.wait(limit)
        assert code == 0, f"{host}: {(site.dir / f'client-{host}.log').read_text()[-2000:]}"
    took = time.monotonic() - began
    time.sleep(0.3)
    return took, sum(lab.wan()[1])


def play(kind, machines, **net):
    site = Site(machines + 1, **net)
    with site:
        client = kind(site)
        log = nginx(site, client.root)
        asked = lambda: (lines := log.read_text().splitlines(), log.write_text(""))[0]
        hosts, ninth = site.hosts[:machines], site.hosts[machines]
        client.machine(ninth, direct=True)
        alone, plain = at_once(client, site, [ninth], client.install)
        client.check(ninth)
        asked()
        for host in hosts:
            site.start(host, "--upstream", client.spec)
        for host in hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        site.wait(lambda: all(len(site.api(host, "peers") or []) == machines - 1 for host in hosts), what="a full mesh")
        for host in site.hosts:
            client.machine(host)
        last, crossed = at_once(client, site, hosts, client.install)
        for host in hosts:
            client.check(host)
        requests = asked()
        full = [line for line in requests if line.startswith("200 ")]
        time.sleep(1.3)
        totals = balanced(site.savings())
        print(f"{client.name}: alone {alone:.2f} s and {plain} bytes; {machines} at once {last:.2f} s and {crossed} bytes; "
              f"{len(requests)} requests, {len(full)} of them for content; content over the WAN {totals['wan'] + totals['preloaded_wan']}")
        expect("no file crossed twice", len(full) == len(set(full)), sorted(line for line in full if full.count(line) > 1))
        print(f"{'ok  ' if crossed <= 1.03 * plain else 'over'} router bytes of {machines} against one: {crossed / plain:.4f} (goal 1.03)")
        print(f"{'ok  ' if last <= 1.15 * alone else 'over'} time of the slowest against one: {last / alone:.3f} (goal 1.15)")
        time.sleep(2)
        took, again = at_once(client, site, hosts, client.again)
        requests = asked()
        expect("a second round checks, and fetches nothing", all(line.startswith("304 ") for line in requests), f"{len(requests)} requests, {again} bytes, {took:.2f} s")
        lab.cut(1)
        site.start(ninth, "--upstream", client.spec)
        site.wait(lambda: site.ready(ninth), what="the ninth ready")
        took, _ = at_once(client, site, [ninth], client.install)
        client.check(ninth)
        expect("the WAN is cut, and a ninth machine installs the same", True, f"{took:.2f} s")
        lab.heal(1)


def apt_home(home, source):
    """A machine of its own for apt, as far as apt knows."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc", "none"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "etc/sources.list").write_text(source + "\n")
    (home / "status").write_text("")
    (home / "apt.conf").write_text(
        f'Dir "{home}"; Dir::State "{home}/state"; Dir::State::status "{home}/status"; Dir::Cache "{home}/cache"; '
        f'Dir::Etc "{home}/etc"; Dir::Log "{home}"; Dir::Etc::parts "{home}/none"; Dir::Etc::sourceparts "{home}/none"; '
        f'Dir::Etc::preferencesparts "{home}/none"; APT::Architecture "amd64"; APT::Architectures {{ "amd64"; }}; '
        'APT::Sandbox::User "root"; Debug::NoLocking "1"; Acquire::Languages "none";\n')


class Client:
    def __init__(self, site):
        self.site, self.root = site, site.dir / "www"
        self.root.mkdir()
        self.make()
        long_ago(self.root)

    def home(self, host):
        return self.site.dir / f"{self.name}-{host}"

    def env(self, host):
        return dict(os.environ)

    def machine(self, host, direct=False):
        """An empty machine, set up to ask the upstream, or its agent."""
        shutil.rmtree(self.home(host), ignore_errors=True)
        self.home(host).mkdir()
        self.configure(host, self.direct if direct else self.gateway)


class Apt(Client):
    """Twelve packages of 18 MB, and an index of 1.2 MB, of an archive made by dpkg-scanpackages and apt-ftparchive."""
    name, spec = "apt", "lab apt http://origin:8080/debian"
    direct, gateway = "http://origin:8080/debian", "http://127.0.0.1:7420/apt/lab"
    sizes = [12_000_000, *[2_000_000] * 3, *[50_000] * 8]

    def make(self):
        debian = self.root / "debian"
        binary = debian / "dists/stable/main/binary-amd64"
        binary.mkdir(parents=True)
        others = ", ".join(f"demo-{n}" for n in range(1, len(self.sizes)))
        for n, size in enumerate(self.sizes):
            build, pool = self.site.dir / f"build-{n}", debian / f"pool/main/d/demo-{n}"
            (build / "DEBIAN").mkdir(parents=True)
            (build / "DEBIAN/control").write_text(
                f"Package: demo-{n}\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
                f"{'' if n else f'Depends: {others}' + chr(10)}Description: for tests\n")
            (build / "data").write_bytes(noise(f"deb{n}", size))
            pool.mkdir(parents=True)
            subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", build, pool], check=True, capture_output=True)
        scan = subprocess.run(["dpkg-scanpackages", "pool"], cwd=debian, check=True, capture_output=True).stdout
        # As an archive of some thousand packages has it.
        filler = "".join(f"Package: other-{n}\nVersion: 1\nArchitecture: all\nFilename: pool/o/{n}.deb\nSize: 1\n"
                         f"SHA256: {noise(str(n), 32).hex()}\nDescription: {noise(f'd{n}', 200).hex()}\n\n" for n in range(5000))
        (binary / "Packages").write_bytes(filler.encode() + scan)
        subprocess.run(["gzip", "-k9", "Packages"], cwd=binary, check=True)
        for algorithm in ("sha256", "sha512"):
            named = binary / "by-hash" / algorithm.upper()
            named.mkdir(parents=True)
            for file in ("Packages", "Packages.gz"):
                shutil.copy(binary / file, named / hashlib.new(algorithm, (binary / file).read_bytes()).hexdigest())
        options = [f"-oAPT::FTPArchive::Release::{it}" for it in ("Suite=stable", "Acquire-By-Hash=yes", "Components=main", "Architectures=amd64")]
        release = subprocess.run(["apt-ftparchive", *options, "release", "dists/stable"], cwd=debian, check=True, capture_output=True).stdout
        (debian / "dists/stable/Release").write_bytes(release)
        keys = self.site.dir / "gpg"
        keys.mkdir(mode=0o700)
        gpg = lambda *line: subprocess.run(["gpg", "--homedir", keys, "--batch", "-q", *line], check=True, capture_output=True)
        gpg("--passphrase", "", "--quick-gen-key", "demo@example.org", "rsa2048", "sign", "never")
        gpg("--output", self.site.dir / "key.gpg", "--export")
        gpg("--clearsign", "--output", debian / "dists/stable/InRelease", debian / "dists/stable/Release")
        subprocess.run(["gpgconf", "--homedir", keys, "--kill", "gpg-agent"], check=True)

    def configure(self, host, url):
        apt_home(self.home(host), f"deb [signed-by={self.site.dir}/key.gpg] {url} stable main")

    def env(self, host):
        return {**os.environ, "APT_CONFIG": str(self.home(host) / "apt.conf"), "LC_ALL": "C"}

    def install(self, host):
        return "apt-get update; apt-get -y --download-only install demo-0"

    def again(self, host):
        return f"apt-get update; rm {self.home(host)}/cache/archives/*.deb; apt-get -y --download-only install demo-0"

    def check(self, host):
        for n in range(len(self.sizes)):
            got = self.home(host) / f"cache/archives/demo-{n}_1.0_all.deb"
            assert got.read_bytes() == (self.root / f"debian/pool/main/d/demo-{n}/demo-{n}_1.0_all.deb").read_bytes(), got


class Cargo(Client):
    """Twenty crates of 6 MB of a sparse registry."""
    name, spec = "cargo", "lab cargo http://origin:8080/index"
    direct, gateway = "http://origin:8080/index/", "http://127.0.0.1:7420/cargo/lab/"
    sizes = [3_000_000, 1_000_000, *[100_000] * 18]

    def make(self):
        index, files = self.root / "index", self.root / "files"
        files.mkdir()
        for n, size in enumerate(self.sizes):
            name = f"demo-{n:02}"
            content = {"Cargo.toml": f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n'.encode(),
                       "src/lib.rs": b"", "data": noise(name, size)}
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w:gz") as tar:
                for path, data in content.items():
                    entry = tarfile.TarInfo(f"{name}-1.0.0/{path}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
            (files / name / "1.0.0").mkdir(parents=True)
            (files / name / "1.0.0/download").write_bytes(made.getvalue())
            (index / "de/mo").mkdir(parents=True, exist_ok=True)
            (index / "de/mo" / name).write_text(json.dumps(
                {"name": name, "vers": "1.0.0", "deps": [], "cksum": hashlib.sha256(made.getvalue()).hexdigest(),
                 "features": {}, "yanked": False}) + "\n")
        (index / "config.json").write_text('{"dl": "http://origin:8080/files"}\n')

    def configure(self, host, url):
        home = self.home(host)
        (home / "home").mkdir()
        (home / "app/src").mkdir(parents=True)
        (home / "home/config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "lab"\n[source.lab]\nregistry = "sparse+{url}"\n'
            # As 'branchline setup cargo' has it.
            + ("[http]\nmultiplexing = false\n" if url == self.gateway else ""))
        needs = "".join(f'demo-{n:02} = "1"\n' for n in range(len(self.sizes)))
        (home / "app/Cargo.toml").write_text(
            f'[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n{needs}[workspace]\n')
        (home / "app/src/main.rs").write_text("fn main() {}\n")

    def env(self, host):
        return {**os.environ, "CARGO_HOME": str(self.home(host) / "home")}

    def install(self, host):
        return f"cd {self.home(host)}/app; cargo fetch"

    def again(self, host):
        return f"cd {self.home(host)}/app; cargo update; rm -r {self.home(host)}/home/registry/cache; cargo fetch"

    def check(self, host):
        cache, = (self.home(host) / "home/registry/cache").iterdir()
        for n in range(len(self.sizes)):
            got = cache / f"demo-{n:02}-1.0.0.crate"
            assert got.read_bytes() == (self.root / f"files/demo-{n:02}/1.0.0/download").read_bytes(), got


CLIENTS = {kind.name: kind for kind in (Apt, Cargo)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=[*CLIENTS, "all"])
    parser.add_argument("--machines", type=int, default=8)
    options = parser.parse_args()
    for name in CLIENTS if options.client == "all" else [options.client]:
        play(CLIENTS[name], options.machines)
