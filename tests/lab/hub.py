#!/usr/bin/env python3
"""A hub between a site and its upstreams: unchanged package managers upgrade at the price of what changed.

    sudo python3 tests/lab/hub.py apt|pip                 with packages made for the purpose; the tests play these
    sudo python3 tests/lab/hub.py apt|pip OLD NEW [--prefer time]     a pair of .deb or .whl of your own

One machine upgrades directly; then eight at once, through their agents, whose upstream is the hub in the data
centre. Bytes are the router's, indexes included.
"""
import argparse, hashlib, os, shutil, subprocess, sys, time, zipfile
from pathlib import Path

import lab
from branch import ROOT, Site
from clients import apt_home, long_ago, nginx
from recipes import members, wheel
from scenarios import balanced, expect

MACHINES = 8
ASKED = argparse.Namespace(files=[], prefer="bytes")
INDEX = ROOT / "tests/agents/support/index.py"


def deb(path, version):
    """Text as a package manager ships it, packed by xz; a later version has changed one file in ten."""
    build = path.with_suffix(".build")
    (build / "DEBIAN").mkdir(parents=True)
    (build / "DEBIAN/control").write_text(
        f"Package: demo\nVersion: {version}.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: for tests\n")
    for name, content in members(version, 150, 5000):
        file = build / "usr/share" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    subprocess.run(["dpkg-deb", "-Zxz", "--root-owner-group", "--build", build, path], check=True, capture_output=True)


class Apt:
    """An archive with one package and an index of some thousand others, by dpkg-scanpackages and apt-ftparchive."""
    spec, path = "lab apt http://127.0.0.1:8080/debian", "apt/lab"
    direct, gateway = "http://origin:8080/debian", "http://127.0.0.1:7420/apt/lab"

    def __init__(self, site):
        self.site, self.root = site, site.dir / "www"
        self.debian = self.root / "debian"
        (self.debian / "pool/main/d").mkdir(parents=True)
        (self.debian / "dists/stable/main/binary-amd64").mkdir(parents=True)
        self.files = [Path(file) for file in ASKED.files]
        if not self.files:
            self.files = [site.dir / f"demo_{version}.0_all.deb" for version in (1, 2)]
            for version, file in enumerate(self.files, 1):
                deb(file, version)
        nginx(site, self.root)

    def release(self, number):
        file = self.files[number - 1]
        fields = subprocess.run(["dpkg-deb", "-f", file, "Package"], check=True, capture_output=True, text=True).stdout
        self.package = fields.strip()
        shutil.copy(file, self.debian / "pool/main/d" / file.name.replace("%3a", "_"))
        binary = self.debian / "dists/stable/main/binary-amd64"
        scan = subprocess.run(["dpkg-scanpackages", "-m", "pool"], cwd=self.debian, check=True, capture_output=True).stdout
        noise = lambda text: hashlib.sha256(text.encode()).hexdigest()
        filler = "".join(f"Package: other-{n}\nVersion: {1 + (number if n % 50 == 0 else 0)}\nArchitecture: all\nFilename: pool/o/{n}.deb\n"
                         f"Size: 1\nSHA256: {noise(str(n))}\nDescription: {noise(f'd{n}')}\n\n" for n in range(5000))
        (binary / "Packages").write_bytes(filler.encode() + scan)
        subprocess.run(["xz", "-kf", "Packages"], cwd=binary, check=True)
        for algorithm in ("sha256", "sha512"):
            named = binary / "by-hash" / algorithm.upper()
            named.mkdir(parents=True, exist_ok=True)
            for name in ("Packages", "Packages.xz"):
                shutil.copy(binary / name, named / hashlib.new(algorithm, (binary / name).read_bytes()).hexdigest())
        release = self.debian / "dists/stable/Release"
        release.unlink(missing_ok=True)
        options = [f"-oAPT::FTPArchive::Release::{it}" for it in ("Suite=stable", "Acquire-By-Hash=yes", "Components=main", "Architectures=amd64")]
        release.write_bytes(subprocess.run(["apt-ftparchive", *options, "release", "dists/stable"], cwd=self.debian,
                                           check=True, capture_output=True).stdout)
        long_ago(self.root)

    def configure(self, home, url):
        apt_home(home, f"deb [trusted=yes] {url} stable main")
        (home / "got").mkdir()

    def upgrade(self, home):
        return f"cd {home}/got; rm -f *; apt-get -q update; apt-get -q download {self.package}"

    def env(self, home):
        return {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}

    def check(self, home, number):
        got, = (home / "got").iterdir()
        assert got.read_bytes() == self.files[number - 1].read_bytes(), got


class Pip:
    """An index in JSON, with one wheel."""
    spec, path = "lab pypi http://127.0.0.1:8080/ max-age=1", "pypi/lab"
    direct, gateway = "http://origin:8080/simple/", "http://127.0.0.1:7420/pypi/lab/simple/"

    def __init__(self, site):
        self.site, self.wheels = site, site.dir / "wheels"
        self.wheels.mkdir()
        self.files = [Path(file) for file in ASKED.files]
        if not self.files:
            self.files = [self.made(version) for version in (1, 2)]
        log = open(site.dir / "index.log", "wb")
        site.servers.append(lab.popen("origin", [sys.executable, INDEX, "serve", self.wheels, 8080], stdout=log, stderr=log))
        site.wait(lambda: lab.run("origin", ["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:8080/"]).returncode == 0, what="the index")

    def made(self, version):
        file = wheel(self.site.dir / f"demo-{version}.0-py3-none-any.whl", version)
        with zipfile.ZipFile(file, "a") as archive:
            info = f"demo-{version}.0.dist-info"
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: demo\nVersion: {version}.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", f"{info}/RECORD,,\n")
        return file

    def release(self, number):
        file = self.files[number - 1]
        self.package = file.name.split("-")[0]
        shutil.copy(file, self.wheels / file.name)

    def configure(self, home, url):
        self.urls = {**getattr(self, "urls", {}), home: url}
        home.mkdir(exist_ok=True)

    def upgrade(self, home):
        return (f"rm -rf {home}/got; {sys.executable} -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check "
                f"--trusted-host origin --dest {home}/got --index-url {self.urls[home]} {self.package}")

    def env(self, home):
        left = {key: value for key, value in os.environ.items() if not key.lower().startswith("pip_")}
        return {**left, "HOME": str(home), "PIP_CONFIG_FILE": "/dev/null"}

    check = Apt.check


def at_once(site, client, homes, number):
    """Each host takes the newest version; seconds of the slowest, and WAN bytes."""
    lab.zero()
    began, running = time.monotonic(), []
    for host, home in homes.items():
        log = open(site.dir / f"client-{host}.log", "wb")
        running.append((host, lab.popen(host, ["sh", "-ec", client.upgrade(home)], stdout=log, stderr=log, env=client.env(home))))
    for host, process in running:
        code = process.wait(400)
        assert code == 0, f"{host}: {(site.dir / f'client-{host}.log').read_text()[-2000:]}"
    took = time.monotonic() - began
    for home in homes.values():
        client.check(home, number)
    time.sleep(1.3)
    return took, sum(lab.wan()[1])


def play(kind):
    with Site(MACHINES + 1) as site:
        client = kind(site)
        hosts, alone = site.hosts[:MACHINES], site.hosts[MACHINES]
        log = open(site.dir / "hub.log", "wb")
        site.servers.append(lab.popen("origin", [
            site.bin, "agent", "--site", "hq", "--site-key", site.key, "--origin", "http://127.0.0.1", "--trust", site.tree / "catalog/root.json",
            "--state-dir", site.dir / "state-hub", "--disk-reserve", "0", "--no-mdns", "--role", "hub", "--gateway", "0.0.0.0:7420",
            "--upstream", client.spec], stdout=log, stderr=log))
        kind_of, name = client.path.split("/")
        upstream = f"{name} {kind_of} http://origin:7420/{client.path} hub=yes" + (" max-age=1" if kind is Pip else "")
        for host in hosts:
            site.start(host, "--upstream", upstream, "--prefer", ASKED.prefer)
        for host in hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        site.wait(lambda: all(len(site.api(host, "peers") or []) == MACHINES - 1 for host in hosts), what="a full mesh")
        homes = {host: site.dir / f"home-{host}" for host in site.hosts}
        for host, home in homes.items():
            client.configure(home, client.gateway if host in hosts else client.direct)
        eight, one = {host: homes[host] for host in hosts}, {alone: homes[alone]}
        for number, what in ((1, "new to the site"), (2, "an upgrade")):
            client.release(number)
            time.sleep(2)
            plain, direct = at_once(site, client, one, number)
            before = site.savings()["totals"]
            last, crossed = at_once(site, client, eight, number)
            totals = balanced(site.savings())
            by = {name: totals[name] - before[name] for name in ("wan_recipes", "rebuilt", "wan_chunks")}
            print(f"{kind.__name__.lower()}, {what}: {client.files[number - 1].name}: one alone {direct / 1e3:.0f} kB and {plain:.1f} s; "
                  f"{MACHINES} behind the hub {crossed / 1e3:.0f} kB = {crossed / direct:.4f}, last after {last:.1f} s; "
                  f"{by['rebuilt'] / 1e3:.0f} kB rebuilt from {by['wan_recipes'] / 1e3:.0f} kB", flush=True)
        for it in site.api(hosts[0], "recipes?scope=site") or []:
            print(f"    {it['package']}: {[way['bytes'] for way in it['ways']]}, chosen {it['chosen']}, {it['outcome']}")
        if not ASKED.files:
            expect("an upgrade costs what has changed", crossed < 0.25 * direct, f"{crossed / direct:.4f}")
            expect("and came by recipe", by["rebuilt"] > 10 * by["wan_recipes"] > 0, by)


ALL = dict(apt=Apt, pip=Pip)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ALL)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--prefer", default="bytes")
    ASKED = parser.parse_args()
    play(ALL[ASKED.name])
