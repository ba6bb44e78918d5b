#!/usr/bin/env python3
"""containerd, podman and Docker themselves, each set up by `branchline setup`: a whole site pulls an image at once.

    sudo python3 tests/lab/containers.py containerd|podman|docker|all [--clients 8] [--size 100000000]

Needs Debian's docker-registry and skopeo, and of each client its own: containerd, podman, docker.io. Every machine has
its own daemon and store, unpacks what it pulls, and sees its own /etc.
"""
import argparse, shutil, tarfile, threading, time

import lab
from branch import payload
from oci import image, registry, skopeo
from scenarios import balanced, expect, started

REPOSITORY = "team/app:v1"


def layer(folder, number, size):
    """A layer with one file of noise: a tar file."""
    file, made = payload(folder / "file", size, seed=b"tar%d" % number), folder / "layer.tar"
    with tarfile.open(made, "w") as tar:
        tar.add(file, arcname=f"opt/file{number}")
    file.unlink()
    return made.read_bytes()


class Client:
    """One machine's runtime: its own root, and an /etc of its own laid over the system's."""
    etc, spec, prepare = (), "corp oci http://origin:5000", "true"

    def __init__(self, site, host):
        self.site, self.host, self.root, self.daemon = site, host, site.dir / f"{self.name}-{host}", None

    def fresh(self, configure):
        """Stops it, throws away what it holds, and starts it as `configure` has it."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in ("etc", *(f"etc/{it}" for it in self.etc)):
            (self.root / folder).mkdir(parents=True)
        configure(self)
        self.start()

    def set_up(self):
        said = lab.run(self.host, [self.site.bin, "setup", self.name, "--root", self.root], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        return said.stdout

    def shell(self, line):
        """The command that runs this line where its own folders lie in /etc."""
        laid = " && ".join(f"mkdir -p /etc/{it} && mount --bind {self.root}/etc/{it} /etc/{it}" for it in self.etc)
        return ["sh", "-ec", f"{laid} && {self.prepare} && {line}"]

    def run(self, line, ok=True):
        run = lab.run(self.host, self.shell(line), capture_output=True, text=True)
        assert not ok or run.returncode == 0, f"{self.host}: {line}: {run.stderr[-800:]}"
        return run

    def begin(self, line, ready):
        log = open(self.site.dir / f"{self.name}-{self.host}.log", "ab")
        self.daemon = lab.popen(self.host, self.shell(f"exec {line}"), stdout=log, stderr=log)
        self.site.servers.append(self.daemon)
        self.site.wait(lambda: self.run(ready, ok=False).returncode == 0, what=f"{self.name} on {self.host}")

    def start(self):
        pass

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(20)
            self.daemon = None


class Containerd(Client):
    name, etc = "containerd", ("containerd",)

    def direct(self):
        folder = self.root / "etc/containerd/certs.d/origin:5000"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text('server = "http://origin:5000"\n[host."http://origin:5000"]\n')

    def start(self):
        config = self.root / "config.toml"
        config.write_text(f'version = 2\nroot = "{self.root}/root"\nstate = "{self.root}/state"\n'
                          'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                          f'[grpc]\naddress = "{self.root}/it.sock"\n')
        self.ctr = f"ctr --address {self.root}/it.sock"
        self.begin(f"containerd --config {config}", f"{self.ctr} version")

    def pull(self):
        self.run(f"{self.ctr} images pull --snapshotter native --hosts-dir /etc/containerd/certs.d origin:5000/{REPOSITORY}")

    def forget(self):
        self.run(f"{self.ctr} images rm --sync origin:5000/{REPOSITORY}")

    def config(self):
        listed = self.run(f"{self.ctr} content ls -q").stdout.split()
        return [digest for digest in listed if digest == self.site.config]


class Podman(Client):
    name, etc = "podman", ("containers",)

    def direct(self):
        folder = self.root / "etc/containers/registries.conf.d"
        folder.mkdir(parents=True)
        (folder / "direct.conf").write_text('[[registry]]\nlocation = "origin:5000"\ninsecure = true\n')

    def start(self):
        policy = self.root / "etc/containers/policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.podman = f"podman --root {self.root}/root --runroot {self.root}/run --storage-driver vfs"

    def pull(self):
        self.run(f"{self.podman} pull -q origin:5000/{REPOSITORY}")

    def forget(self):
        self.run(f"{self.podman} rmi -f origin:5000/{REPOSITORY}")

    def config(self):
        return [f"sha256:{it}" for it in self.run(f"{self.podman} images -q --no-trunc").stdout.replace("sha256:", "").split()]


class Docker(Client):
    name, etc = "docker", ("docker",)
    prepare = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"  # which a namespace's own /sys lacks
    reference = REPOSITORY

    def direct(self):
        (self.root / "etc/docker/daemon.json").write_text('{"insecure-registries": ["origin:5000"]}')
        self.reference = f"origin:5000/{REPOSITORY}"

    def start(self):
        at = f"unix://{self.root}/it.sock"
        self.docker = f"docker -H {at}"
        self.begin(f"dockerd -H {at} --data-root {self.root}/root --exec-root {self.root}/exec --pidfile {self.root}/pid "
                   "--storage-driver vfs --iptables=false --ip6tables=false --bridge none", f"{self.docker} version")

    def set_up(self):
        self.reference = REPOSITORY           # its own hub, which the mirror stands for
        return super().set_up()

    def pull(self):
        self.run(f"{self.docker} pull -q {self.reference}")

    def forget(self):
        self.run(f"{self.docker} rmi -f {self.reference}")

    def config(self):
        return self.run(f"{self.docker} images -q --no-trunc").stdout.split()


def at_once(clients):
    """All pull; seconds of the slowest, and WAN bytes."""
    failed = []

    def one(client):
        try:
            client.pull()
        except AssertionError as error:
            failed.append(str(error))
    lab.zero()
    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert not failed, failed
    time.sleep(0.3)
    for client in clients:
        assert client.site.config in client.config(), f"{client.host}: {client.config()}"
    return took, sum(lab.wan()[1])


def play(kind, count, size):
    print(f"== {kind.name}", flush=True)
    site, _ = started(count + 1, size=1000)
    with site:
        layers = (layer(site.dir, number, size) for number, size in enumerate([size, size // 10, 100_000]))
        _, config, moved = image(site.dir / "layout", layers)
        site.config = config["digest"]
        registry(site)
        skopeo("origin", f"oci:{site.dir}/layout", f"docker://origin:5000/{REPOSITORY}")
        clients = [kind(site, host) for host in site.hosts]
        first, late = clients[:-1], clients[-1]
        try:
            first[0].fresh(kind.direct)
            alone, plain = at_once(first[:1])
            for client in first:
                site.start(client.host, "--upstream", kind.spec)
            for client in first:
                site.wait(lambda: site.ready(client.host), what=f"{client.host} ready")
            time.sleep(2)
            for client in first:
                client.fresh(kind.set_up)
            took, crossed = at_once(first)
            expect(f"WAN bytes of {count} machines against one direct pull", crossed <= 1.03 * plain, f"{crossed / plain:.4f}")
            print(f"     the slowest took {took / alone:.3f} of one direct pull ({alone:.2f} s)", flush=True)
            totals = balanced(site.savings(site.hosts[0]))
            through = totals["wan"] + totals["preloaded_wan"]
            expect("each blob crosses once", through <= moved and totals["wan_duplicate"] == 0, f"{through} of {moved} bytes")
            for client in first:
                client.forget()
            took, crossed = at_once(first)
            expect("again: nothing but a question crosses", crossed < 10_000, f"{crossed} bytes, {took:.2f} s")
            lab.cut(1)
            site.start(late.host, "--upstream", kind.spec)
            site.wait(lambda: site.ready(late.host), what=f"{late.host} ready")
            late.fresh(kind.set_up)
            took, _ = at_once([late])
            expect("with the WAN cut another machine has it", True, f"{took:.2f} s")
        finally:
            for client in clients:
                client.stop()


KINDS = {kind.name: kind for kind in (Containerd, Podman, Docker)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=[*KINDS, "all"])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--size", type=int, default=100_000_000)
    options = parser.parse_args()
    for name in KINDS if options.client == "all" else [options.client]:
        play(KINDS[name], options.clients, options.size)
