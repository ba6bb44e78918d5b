"""A Branchline site in the lab: an origin with nginx-like serving, agents, clients, and the books.

Used by scenarios.py (tests) and bench.py (measurements). Everything runs as real processes in
network namespaces; the payload is a file of the caller's, or bytes made for the purpose.
"""
import contextlib, hashlib, http.client, json, os, shutil, signal, subprocess, tempfile, threading, time
from pathlib import Path

import lab

ROOT = Path(__file__).resolve().parents[2]


def program():
    path = os.environ.get("BRANCHLINE") or next(
        (p for p in (ROOT / "target/release/branchline", ROOT / "target/debug/branchline") if p.exists()), None)
    if not path:
        raise SystemExit("build branchline first: cargo build --release")
    return str(path)


def payload(path, size, seed=b"payload"):
    """A file of bytes that do not compress."""
    with open(path, "wb") as out:
        state, left = hashlib.shake_256(seed), size
        block = state.digest(1 << 20)
        n = 0
        while left > 0:
            piece = hashlib.shake_256(seed + n.to_bytes(8, "big")).digest(min(left, 1 << 20))
            out.write(piece)
            left -= len(piece)
            n += 1
    return Path(path)


class Site:
    """Builds the lab and an origin; agents are started one by one or together."""

    def __init__(self, clients, **net):
        self.dir = Path(tempfile.mkdtemp(prefix="branchline-lab-"))
        self.agents, self.servers = {}, []
        lab.up(clients=clients, **net)
        self.hosts = lab.clients(1)
        self.bin = program()
        self.tree, self.keys, self.key = self.dir / "tree", self.dir / "keys", self.dir / "site.key"
        self.cli("origin", "init", "--root", self.tree, "--keys", self.keys)
        self.cli("site", "keygen", self.key)
        self.serve_origin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lab.down()
        for process in [*self.agents.values(), *self.servers]:
            with contextlib.suppress(Exception):
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def cli(self, *args):
        run = subprocess.run([self.bin, *map(str, args)], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{args}: {run.stderr}")
        return run.stdout

    def serve_origin(self):
        log = open(self.dir / "origin.log", "ab")
        self.servers.append(lab.popen("origin", [self.bin, "origin", "serve", "--root", self.tree,
                                                 "--listen", "0.0.0.0:80"], stdout=log, stderr=log))
        self.wait(lambda: lab.run("origin", ["curl", "-sf", "-o", "/dev/null", "http://origin/catalog/root.json"]).returncode == 0)

    def publish(self, file, version, name="demo"):
        self.cli("publish", file, "--name", name, "--version", version, "--origin", self.tree, "--keys", self.keys)

    def wait(self, done, limit=30, what="something"):
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                raise RuntimeError(f"{what} did not happen within {limit} s")
            time.sleep(0.05)

    def start(self, host, *flags, state=None):
        state = state or self.dir / f"state-{host}"
        log = open(self.dir / f"{host}.log", "ab")
        self.agents[host] = lab.popen(host, [
            self.bin, "agent", "--site", "lab", "--site-key", self.key, "--origin", "http://origin",
            "--trust", self.tree / "catalog/root.json", "--state-dir", state, "--disk-reserve", "0", *flags],
            stdout=log, stderr=log, env={**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "info")})
        return self.agents[host]

    def ready(self, host):
        return lab.run(host, ["curl", "-sf", "http://127.0.0.1:7420/healthz"]).returncode == 0

    def start_all(self, *flags, settle=True):
        for host in self.hosts:
            self.start(host, *flags)
        if settle:
            for host in self.hosts:
                self.wait(lambda: self.ready(host), what=f"{host} ready")

    def api(self, host, path):
        """What that host's gateway says, asked from within its namespace; None if it does not."""
        line = http.client.HTTPConnection("127.0.0.1", 7420, timeout=10)
        try:
            with lab.inside(host):
                line.connect()
            line.request("GET", f"/api/v1/{path}")
            answer = line.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            line.close()

    def get(self, host, version, name="demo"):
        """A client on that host begins to fetch; returns the process."""
        target = self.dir / f"got-{host}-{name}"
        log = open(self.dir / f"get-{host}.log", "ab")
        return lab.popen(host, [self.bin, "get", f"{name}@{version}", "-o", target], stdout=log, stderr=log), target

    def stop(self, host, how=signal.SIGKILL):
        self.agents[host].send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            self.agents[host].wait()

    def savings(self, host=None, scope="site"):
        return self.api(host or self.hosts[0], f"savings?scope={scope}")

    def log(self, host):
        return (self.dir / f"{host}.log").read_text(errors="replace")


def fetch(site, hosts, version, gap=0.0, timeout=300, name="demo"):
    """All hosts' clients fetch; returns the seconds of each from its own start, and of the last from the first's."""
    began, waiting, took, failed = time.monotonic(), [], {}, []

    def wait(host, start, process):
        try:
            if process.wait(timeout):
                failed.append(f"{host}: {(site.dir / f'get-{host}.log').read_text()[-500:]}")
            took[host] = time.monotonic() - start
        except subprocess.TimeoutExpired:
            failed.append(f"{host} is not done after {timeout} s")

    for host in hosts:
        process, _ = site.get(host, version, name)
        waiting.append(threading.Thread(target=wait, args=(host, time.monotonic(), process)))
        waiting[-1].start()
        if gap:
            time.sleep(gap)
    for thread in waiting:
        thread.join()
    if failed:
        raise RuntimeError("; ".join(failed))
    return took, time.monotonic() - began


def curl(host, url, out="/dev/null"):
    """Seconds and WAN bytes (down, up) of one plain download."""
    lab.zero()
    start = time.monotonic()
    run = lab.run(host, ["curl", "-sf", "-o", out, url])
    if run.returncode:
        raise RuntimeError(f"curl {url}: {run.returncode}")
    took = time.monotonic() - start
    time.sleep(0.2)
    return took, lab.wan()[1]
