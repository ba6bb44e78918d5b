#!/usr/bin/env python3
"""A container image of a real registry behind the WAN, pulled by all machines of a site at once by skopeo.

    sudo python3 tests/lab/oci.py [--clients 8] [--size 200000000]

Needs Debian's docker-registry and skopeo. Each machine pulls through its own agent into a folder.
"""
import argparse, hashlib, json, shutil, subprocess, threading, time

import lab
from branch import payload
from scenarios import balanced, expect, started

KIND = "application/vnd.oci.image"


def image(folder, contents):
    """An image of these layers, as an OCI layout in `folder`; what describes the layers and the config, and the bytes
    that a pull moves."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(content, kind):
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return {"mediaType": f"{KIND}.{kind}", "digest": f"sha256:{name}", "size": len(content)}
    layers = [put(content, "layer.v1.tar") for content in contents]
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
    config = put(json.dumps(config).encode(), "config.v1+json")
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": f"{KIND}.manifest.v1+json",
                               "config": config, "layers": layers}).encode(), "manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layers, config, sum(it["size"] for it in [*layers, config, manifest])


def registry(site):
    config = site.dir / "registry.yml"
    config.write_text(json.dumps({"version": "0.1", "http": {"addr": "0.0.0.0:5000"},
                                  "storage": {"filesystem": {"rootdirectory": str(site.dir / "registry")}}}))
    log = open(site.dir / "registry.log", "ab")
    site.servers.append(lab.popen("origin", ["docker-registry", "serve", config], stdout=log, stderr=log))
    site.wait(lambda: lab.run("origin", ["curl", "-sf", "http://origin:5000/v2/"]).returncode == 0, what="the registry")


def skopeo(host, source, target):
    run = lab.run(host, ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
                         source, target])
    assert run.returncode == 0, f"{host}: {run.stderr[-500:]}"


def pull(site, hosts, source):
    """All at once; the seconds of each."""
    took, failed = {}, []

    def one(host):
        target = site.dir / f"pulled-{host}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        began = time.monotonic()
        try:
            skopeo(host, source, f"dir:{target}")
            took[host] = time.monotonic() - began
        except AssertionError as error:
            failed.append(str(error))
    threads = [threading.Thread(target=one, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    return took


def whole(site, host, layers):
    """Whether every layer is what its name says."""
    for layer in layers:
        run = subprocess.run(["sha256sum", site.dir / f"pulled-{host}" / layer["digest"][7:]], capture_output=True, text=True)
        assert run.stdout.split()[0] == layer["digest"][7:], host
    shutil.rmtree(site.dir / f"pulled-{host}")


def oci(clients, size):
    site, _ = started(clients + 1, size=1000)
    with site:
        folder = site.dir / "layout"
        noise = (payload(site.dir / "layer", size, seed=b"layer%d" % number).read_bytes()
                 for number, size in enumerate([size, size // 10, 100_000]))
        layers, _, moved = image(folder, noise)
        registry(site)
        skopeo("origin", f"oci:{folder}", "docker://origin:5000/team/app:v1")
        first, late = site.hosts[:-1], site.hosts[-1]
        lab.zero()
        alone = pull(site, first[:1], "docker://origin:5000/team/app:v1")[first[0]]
        time.sleep(0.3)
        plain = sum(lab.wan()[1])
        whole(site, first[0], layers)
        flags = ["--upstream", "corp oci http://origin:5000"]
        for host in first:
            site.start(host, *flags)
        for host in first:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        time.sleep(2)
        lab.zero()
        source = "docker://127.0.0.1:7420/corp/team/app:v1"
        took = pull(site, first, source)
        time.sleep(1.3)
        ratio = sum(lab.wan()[1]) / plain
        for host in first:
            whole(site, host, layers)
        expect(f"WAN bytes of {len(first)} machines against one direct pull", ratio <= 1.03, f"{ratio:.4f}")
        print(f"     the slowest took {max(took.values()) / alone:.3f} of one direct pull ({alone:.2f} s)", flush=True)
        totals = balanced(site.savings(first[0]))
        crossed = totals["wan"] + totals["preloaded_wan"]
        expect("each blob crosses once", crossed <= moved and totals["wan_duplicate"] == 0,
               f"{crossed} of {moved} bytes, twice {totals['wan_duplicate']}")
        lab.zero()
        took = pull(site, first, source)
        expect("again: nothing but perhaps a question crosses", sum(lab.wan()[1]) < 10_000,
               f"{sum(lab.wan()[1])} bytes, {max(took.values()):.2f} s")
        for host in first:
            shutil.rmtree(site.dir / f"pulled-{host}")
        lab.cut(1)
        site.start(late, *flags)
        site.wait(lambda: site.ready(late), what=f"{late} ready")
        took = pull(site, [late], source)
        whole(site, late, layers)
        expect("with the WAN cut a ninth machine has it", True, f"{took[late]:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", nargs="?", choices=["pull"], default="pull")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--size", type=int, default=210_000_000)
    options = parser.parse_args()
    oci(options.clients, options.size)
