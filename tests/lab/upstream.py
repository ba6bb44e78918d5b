#!/usr/bin/env python3
"""A file of a foreign web server, fetched by all machines of a site at once through their agents.

    sudo python3 tests/lab/upstream.py [--clients 8] [--size 40000000]
"""
import argparse, shutil, subprocess, threading, time

import lab
from branch import curl
from scenarios import balanced, expect, started


def fetch_all(site, hosts, path):
    """curl through each host's own gateway; the seconds of each, and their exit codes."""
    took, codes = {}, {}

    def one(host):
        began = time.monotonic()
        target = site.dir / f"got-{host}"
        codes[host] = lab.run(host, ["curl", "-sf", "-o", str(target), f"http://127.0.0.1:7420{path}"]).returncode
        took[host] = time.monotonic() - began
    threads = [threading.Thread(target=one, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [host for host, code in codes.items() if code]
    assert not failed, f"{failed} failed"
    return took


def files(clients, size):
    site, file = started(clients + 1, size=size)
    with site:
        shutil.copy(file, site.tree / "installer.bin")
        alone, plain = curl(site.hosts[0], "http://origin/installer.bin")
        first, late = site.hosts[:-1], site.hosts[-1]
        flags = ["--upstream", "vendor http http://origin/"]
        for host in first:
            site.start(host, *flags)
        for host in first:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        time.sleep(2)
        lab.zero()
        took = fetch_all(site, first, "/http/vendor/installer.bin")
        right = file.read_bytes()
        assert all((site.dir / f"got-{host}").read_bytes() == right for host in first)
        time.sleep(1.3)
        router = lab.wan()[1]
        ratio = sum(router) / sum(plain)
        slowest = max(took.values()) / alone
        expect(f"WAN bytes of {len(first)} machines against one curl", ratio <= 1.03, f"{ratio:.4f}")
        print(f"     the slowest took {slowest:.3f} of one curl ({alone:.2f} s); the first {min(took.values()) / alone:.3f}", flush=True)
        totals = balanced(site.savings(first[0]))
        expect("delivered", totals["delivered"] == len(first) * size, totals["delivered"])
        print(f"     wan {totals['wan']}, preloaded {totals['preloaded_wan']}, peer {totals['peer']}, local {totals['local']},"
              f" twice {totals['wan_duplicate']}", flush=True)
        lab.zero()
        took = fetch_all(site, first, "/http/vendor/installer.bin")
        expect("again: nothing but perhaps a question crosses", sum(lab.wan()[1]) < 5_000, f"{sum(lab.wan()[1])} bytes, {max(took.values()):.2f} s")
        lab.cut(1)
        site.start(late, *flags)
        site.wait(lambda: site.ready(late), what=f"{late} ready")
        took = fetch_all(site, [late], "/http/vendor/installer.bin")
        assert (site.dir / f"got-{late}").read_bytes() == right
        expect("with the WAN cut a ninth machine has it", True, f"{took[late]:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--size", type=int, default=40_000_000)
    options = parser.parse_args()
    files(options.clients, options.size)
