#!/usr/bin/env python3
"""pip and npm on real hosts: eight machines install the same thing at the same moment.

    sudo BRANCHLINE_VERDACCIO=FOLDER python3 tests/lab/languages.py pip|npm|all [--machines 8]

For each: one machine alone and directly; eight at once through their agents; a second round; a ninth machine
with the WAN cut. Bytes are the router's. With as many machines as this one has processors, the time is that of the
site and not of interpreters that wait for a processor.
"""
import argparse, json, os, shutil, subprocess, sys, time
from pathlib import Path

import lab
from branch import ROOT, Site, payload
from scenarios import balanced, expect

INDEX = ROOT / "tests/agents/support/index.py"


def plain(name, home):
    """The environment of a machine where nothing is configured."""
    left = {key: value for key, value in os.environ.items() if not key.lower().startswith(("pip_", "npm_", "uv_"))}
    return {**left, "HOME": str(home), "PIP_CONFIG_FILE": "/dev/null", "NO_UPDATE_NOTIFIER": "1", "LAB_CLIENT": name}


def at_once(site, client, hosts, url):
    """Each host installs; seconds until the last is done, and bytes over the WAN."""
    lab.zero()
    began, running = time.monotonic(), []
    for host in hosts:
        log = open(site.dir / f"client-{host}.log", "wb")
        home = site.dir / f"home-{client.name}-{host}"
        home.mkdir(exist_ok=True)
        process = lab.popen(host, client.command(home, url), stdout=log, stderr=log, cwd=home, env=plain(client.name, home))
        running.append((host, process))
    for host, process in running:
        code = process.wait(300)
        assert code == 0, f"{host}: {(site.dir / f'client-{host}.log').read_text()[-2000:]}"
    took = time.monotonic() - began
    for host in hosts:
        client.check(site.dir / f"home-{client.name}-{host}")
    time.sleep(0.5)
    return took, sum(lab.wan()[1])


def play(kind, machines):
    site = Site(machines + 1)
    with site:
        client = kind(site)
        hosts, ninth = site.hosts[:machines], site.hosts[machines]
        alone, one = at_once(site, client, [ninth], client.direct)
        shutil.rmtree(site.dir / f"home-{client.name}-{ninth}")
        before = client.asked()
        flags = ["--upstream", client.spec]
        for host in hosts:
            site.start(host, *flags)
        for host in hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        site.wait(lambda: all(len(site.api(host, "peers") or []) == machines - 1 for host in hosts), what="a full mesh")
        last, crossed = at_once(site, client, hosts, client.gateway)
        asked = client.asked()[len(before):]
        time.sleep(1.3)
        totals = balanced(site.savings())
        print(f"{client.name}: alone {alone:.2f} s and {one} bytes; {machines} at once {last:.2f} s and {crossed} bytes; "
              f"content over the WAN {totals['wan'] + totals['preloaded_wan']}, twice {totals['wan_duplicate']}", flush=True)
        whole = [path for path, status in asked if status == 200]
        expect("nothing was asked for twice", len(whole) == len(set(whole)), f"{len(asked)} requests")
        print(f"{'ok  ' if crossed <= 1.03 * one else 'over'} router bytes of {machines} against one: {crossed / one:.4f} (goal 1.03)")
        print(f"{'ok  ' if last <= 1.15 * alone else 'over'} time of the slowest against one: {last / alone:.3f} (goal 1.15)", flush=True)
        # Machines that have forgotten everything, a while later.
        time.sleep(3)
        for host in hosts:
            shutil.rmtree(site.dir / f"home-{client.name}-{host}")
        before = client.asked()
        took, again = at_once(site, client, hosts, client.gateway)
        asked = client.asked()[len(before):]
        # npm looks for a newer npm, which that registry does not have.
        expect("a second round checks, and fetches nothing", all(status != 200 for _, status in asked),
               f"{len(asked)} requests, {again} bytes, {took:.2f} s")
        lab.cut(1)
        site.start(ninth, *flags)
        site.wait(lambda: site.ready(ninth), what="the ninth ready")
        site.wait(lambda: len(site.api(ninth, "peers") or []) == machines, what="its neighbours")
        took, _ = at_once(site, client, [ninth], client.gateway)
        expect("the WAN is cut, and a ninth machine installs the same", True, f"{took:.2f} s")
        lab.heal(1)


class Pip:
    """Six wheels of 20 MB of an index in JSON, whose files are at another host."""
    name, direct, gateway = "pip", "http://origin:8080/simple/", "http://127.0.0.1:7420/pypi/lab/simple/"
    spec = "lab pypi http://origin:8080/ private-redirects=yes max-age=2"
    sizes = [10_000_000, 4_000_000, 3_000_000, 2_000_000, 1_000_000, 20_000]

    def __init__(self, site):
        wheels, self.log = site.dir / "wheels", site.dir / "index.log"
        wheels.mkdir()
        make = lambda *words: subprocess.run([sys.executable, INDEX, "wheel", wheels, *map(str, words)], check=True, capture_output=True)
        names = [f"demo-{n}" for n in range(1, len(self.sizes))]
        make("demo-0", "1.0", self.sizes[0], *names)
        for name, size in zip(names, self.sizes[1:]):
            make(name, "1.0", size)
        log = open(self.log, "wb")
        for port, more in ((8081, []), (8080, ["http://origin:8081/files"])):
            site.servers.append(lab.popen("origin", [sys.executable, INDEX, "serve", wheels, port, *more], stdout=log, stderr=log))
            site.wait(lambda: lab.run("origin", ["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/"]).returncode == 0, what="the index")

    def command(self, home, url):
        return [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check", "--trusted-host", "origin",
                "--root-user-action", "ignore", "--no-compile", "--target", home / "site", "--index-url", url, "demo-0"]

    def check(self, home):
        for n, size in enumerate(self.sizes):
            assert (home / f"site/demo_{n}/noise.bin").stat().st_size == size

    def asked(self):
        return [(line.split()[1], int(line.split()[2])) for line in self.log.read_text().splitlines()]


class Npm:
    """Six packages of 20 MB of verdaccio, one of them with a scope."""
    name, direct, gateway = "npm", "http://origin:8080/", "http://127.0.0.1:7420/npm/lab/"
    spec = "lab npm http://origin:8080/ max-age=2"
    sizes = [10_000_000, 4_000_000, 3_000_000, 2_000_000, 1_000_000, 20_000]

    def __init__(self, site):
        folder, self.log = site.dir / "verdaccio", site.dir / "verdaccio.log"
        folder.mkdir()
        (folder / "config.yaml").write_text(
            "storage: ./storage\nuplinks: {}\nweb: { enable: false }\nmax_body_size: 100mb\n"
            "packages:\n  '**': { access: $all, publish: $all, unpublish: $all }\nlog: { type: stdout, format: json, level: http }\n")
        prefix = os.environ.get("BRANCHLINE_VERDACCIO")
        program = Path(prefix) / "node_modules/.bin/verdaccio" if prefix else "verdaccio"
        log = open(self.log, "wb")
        site.servers.append(lab.popen("origin", [program, "-c", folder / "config.yaml", "-l", "0.0.0.0:8080"],
                                      stdout=log, stderr=log, env=plain("verdaccio", folder)))
        site.wait(lambda: lab.run("origin", ["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:8080/-/ping"]).returncode == 0, 60, "verdaccio")
        names = ["@lab/demo-0", *[f"demo-{n}" for n in range(1, len(self.sizes))]]
        for name, size in zip(names, self.sizes):
            package = folder / name.replace("/", "-")
            package.mkdir()
            needs = {other: "^1.0.0" for other in names[1:]} if name == names[0] else {}
            (package / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "dependencies": needs}))
            payload(package / "noise.bin", size, name.encode())
            (package / ".npmrc").write_text("//origin:8080/:_authToken=anybody\n")
            done = subprocess.run(lab.argv("origin", ["npm", "publish", "--access", "public", "--registry", self.direct]), cwd=package,
                                  env=plain("npm", folder), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def command(self, home, url):
        return ["npm", "install", "--silent", "--prefix", home / "project", "--cache", home / "cache", "--registry", url, "@lab/demo-0"]

    def check(self, home):
        for n, size in enumerate(self.sizes):
            name = "@lab/demo-0" if n == 0 else f"demo-{n}"
            assert (home / f"project/node_modules/{name}/noise.bin").stat().st_size == size

    def asked(self):
        found = []
        for line in self.log.read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            asked = said.get("request", {})
            # One line before the answer has begun, and one when it has ended.
            ended = said.get("bytes", {}).get("out") or said.get("status") == 304
            if asked.get("method") == "GET" and ended and not asked["url"].startswith("/-/"):
                found.append((asked["url"], said["status"]))
        return found


ALL = dict(pip=Pip, npm=Npm)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=[*ALL, "all"])
    parser.add_argument("--machines", type=int, default=8)
    options = parser.parse_args()
    for wanted in ALL if options.client == "all" else [options.client]:
        print(f"-- {wanted}", flush=True)
        play(ALL[wanted], options.machines)
