#!/usr/bin/env python3
"""The scenarios that the tests on real hosts play; each prints what it saw and fails by assertion.

    sudo python3 tests/lab/scenarios.py NAME|all
"""
import shutil, subprocess, sys, time

import lab
from branch import Site, curl, fetch, payload


def expect(what, ok, seen):
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {seen}", flush=True)
    assert ok, what


def balanced(savings):
    for row in [*savings["rows"], savings["totals"]]:
        assert row["delivered"] == row["wan"] + row["peer"] + row["local"], row
    return savings["totals"]


def same(site, hosts, file, name="demo"):
    right = file.read_bytes()
    for host in hosts:
        assert (site.dir / f"got-{host}-{name}").read_bytes() == right, f"{host} has another file"


def started(clients, size=24_000_000, **net):
    site = Site(clients, **net)
    file = payload(site.dir / "payload", size)
    shutil.copy(file, site.tree / "plain")
    site.publish(file, "1")
    return site, file


def one_copy():
    site, file = started(8)
    with site:
        alone, plain = curl(site.hosts[0], "http://origin/plain")
        lab.zero()
        site.start_all()
        took, last = fetch(site, site.hosts, "1")
        same(site, site.hosts, file)
        time.sleep(1.3)
        router = lab.wan()[1]
        totals = balanced(site.savings())
        expect("WAN bytes of 8 against one curl", sum(router) <= 1.02 * sum(plain), f"{sum(router) / sum(plain):.4f}")
        agrees = (totals["wan_wire"] + totals["wan_headers"]) / router[0]
        expect("the ledger agrees with the router within 1 %", 0.99 < agrees < 1.01, f"{agrees:.4f}")
        expect("and each client's machine is taken to fetch for itself", totals["direct"] == 8 * file.stat().st_size, totals["direct"])
        report = site.savings()
        expect("givers and takers agree", not report["disagreements"], report["disagreements"])
        expect("each client was handed the file", totals["delivered"] == 8 * file.stat().st_size, totals)
        expect("nothing crossed twice", totals["wan"] + totals["preloaded_wan"] == file.stat().st_size, totals["wan_duplicate"])
        print(f"time of the last against one curl: {last / alone:.3f}")


def same_instant():
    site, file = started(6, size=12_000_000)
    with site:
        lab.zero()
        site.start_all(settle=False)
        # The gateway is up before the site is found; clients ask right away.
        for host in site.hosts:
            site.wait(lambda: lab.run(host, ["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:7420/healthz"]).returncode == 0, what=f"{host}'s gateway")
        took, last = fetch(site, site.hosts, "1")
        same(site, site.hosts, file)
        time.sleep(1.3)
        totals = balanced(site.savings())
        crossed = totals["wan"] + totals["preloaded_wan"]
        expect("one copy, found by multicast alone", crossed == file.stat().st_size, f"{crossed / file.stat().st_size:.3f}")


def small():
    site, file = started(8, size=10_000)
    with site:
        site.start_all()
        time.sleep(2)
        lab.zero()
        took, last = fetch(site, site.hosts, "1")
        same(site, site.hosts, file)
        time.sleep(1.3)
        totals = balanced(site.savings())
        expect("one copy", totals["wan"] + totals["preloaded_wan"] == 10_000, totals)
        expect("one request", lab.wan()[1][0] < 13_000, lab.wan()[1])


def lead_of(site):
    for host in site.hosts:
        for flight in site.api(host, "flights") or []:
            if flight["role"] == "lead":
                return host, flight
    return None, None


def lead_killed():
    site, file = started(6)
    with site:
        alone, plain = curl(site.hosts[0], "http://origin/plain")
        site.start_all()
        lab.zero()
        began = time.monotonic()
        running = [(host, *site.get(host, "1")) for host in site.hosts]
        half = lambda: (lambda f: f[1] and f[1]["chunks"] and f[1]["held"] >= f[1]["chunks"] / 2)(lead_of(site))
        site.wait(half, what="half of it")
        lead, _ = lead_of(site)
        site.stop(lead)
        survivors = [host for host in site.hosts if host != lead]
        for host, process, _ in running:
            if host == lead:
                process.kill()
            else:
                assert process.wait(60) == 0, f"{host} failed"
        last = time.monotonic() - began
        same(site, survivors, file)
        router = lab.wan()[1]
        time.sleep(1.3)
        totals = balanced(site.savings(survivors[0]))
        expect("WAN bytes against one curl", sum(router) <= 1.08 * sum(plain), f"{sum(router) / sum(plain):.4f}")
        print(f"time against one curl: {last / alone:.3f}; repeated and booked: {totals['wan_duplicate']} bytes")
        # Its disk was not lost: what it had resumes.
        site.start(lead)
        site.wait(lambda: site.ready(lead), what="the killed one back")
        wan = lab.wan()[1][0]
        fetch(site, [lead], "1")
        same(site, [lead], file)
        expect("the killed one needs no WAN", lab.wan()[1][0] - wan < 60_000, lab.wan()[1][0] - wan)


def wan_cut():
    site, file = started(5)
    with site:
        alone, plain = curl(site.hosts[0], "http://origin/plain")
        site.start_all()
        lab.zero()
        began = time.monotonic()
        running = [(host, *site.get(host, "1")) for host in site.hosts]
        time.sleep(2.0)
        lab.cut(1)
        time.sleep(20)
        lab.heal(1)
        healed = time.monotonic()
        for host, process, _ in running:
            assert process.wait(90) == 0, f"{host} failed"
        after = time.monotonic() - healed
        same(site, site.hosts, file)
        router = lab.wan()[1]
        time.sleep(1.3)
        totals = balanced(site.savings())
        expect("done soon after it healed", after < alone + 12, f"{after:.1f} s after, one curl takes {alone:.1f} s")
        expect("WAN bytes against one curl", sum(router) <= 1.10 * sum(plain), f"{sum(router) / sum(plain):.4f}; booked as repeated {totals['wan_duplicate']}")


def disk_full():
    site, file = started(4)
    with site:
        small = site.dir / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)], check=True)
        try:
            full, others = site.hosts[0], site.hosts[1:]
            for host in others:
                site.start(host)
            site.start(full, state=small / "state")
            for host in site.hosts:
                site.wait(lambda: site.ready(host), what=f"{host} ready")
            lab.zero()
            process, target = site.get(full, "1")
            took, last = fetch(site, others, "1")
            same(site, others, file)
            code = process.wait(60)
            said = (site.dir / f"get-{full}.log").read_text()
            expect("the full node's client gets the file, passed through", code == 0, said.strip().splitlines()[-2:])
            same(site, [full], file)
            time.sleep(1.3)
            totals = balanced(site.savings(others[0]))
            crossed = totals["wan"] + totals["preloaded_wan"]
            expect("one copy all the same", crossed <= 1.02 * file.stat().st_size, crossed / file.stat().st_size)
            expect("the full node lives", site.api(full, "status") is not None, "yes")
        finally:
            site.stop(site.hosts[0])
            subprocess.run(["umount", "-l", str(small)])


def partition():
    site, file = started(5)
    with site:
        alone, plain = curl(site.hosts[0], "http://origin/plain")
        site.start_all()
        lab.zero()
        running = [(host, *site.get(host, "1")) for host in site.hosts]
        site.wait(lambda: lead_of(site)[0], what="a lead")
        lead, _ = lead_of(site)
        away = next(host for host in site.hosts if host != lead)
        time.sleep(1.0)
        lab.port(away, False)
        time.sleep(6)
        lab.port(away, True)
        for host, process, _ in running:
            assert process.wait(90) == 0, f"{host} failed"
        same(site, site.hosts, file)
        router = lab.wan()[1]
        expect("WAN bytes against one curl", sum(router) <= 1.05 * sum(plain), f"{sum(router) / sum(plain):.4f}")


def subnets():
    """Two subnets that no multicast crosses, joined by one address that all are given."""
    site, file = started(6, size=12_000_000, subnets=2)
    with site:
        seed = f"/ip4/{lab.addr(site.hosts[0])}/tcp/7421"
        for host in site.hosts:
            site.start(host, "--no-mdns", *(["--peer", seed] if host != site.hosts[0] else []))
        members = lambda host: len(site.api(host, "peers") or [])
        site.wait(lambda: all(members(host) == 5 for host in site.hosts), what="all meet all by one seed")
        nets = {lab.addr(host).rsplit(".", 1)[0] for host in site.hosts}
        expect("there are two subnets", len(nets) == 2, nets)
        lab.zero()
        took, last = fetch(site, site.hosts, "1")
        same(site, site.hosts, file)
        time.sleep(1.3)
        totals = balanced(site.savings())
        crossed = totals["wan"] + totals["preloaded_wan"]
        expect("one copy for both", crossed == file.stat().st_size, f"{crossed / file.stat().st_size:.3f}")
        # Without the seed the others keep together, and a newcomer finds them by any other.
        site.stop(site.hosts[0])
        site.publish(payload(site.dir / "second", 3_000_000, b"second"), "2")
        lab.zero()
        fetch(site, site.hosts[1:], "2")
        time.sleep(1.3)
        totals = balanced(site.savings(site.hosts[1]))
        expect("and without the seed", lab.wan()[1][0] < 3_400_000, lab.wan()[1][0])


def offline():
    """Four hold a package; the WAN is cut; a fifth machine with an empty state joins and gets it, by its channel."""
    site, file = started(5, size=12_000_000)
    with site:
        where = ("--origin", site.tree, "--keys", site.keys)
        site.cli("promote", "stable", "demo", "1", *where)
        site.publish(payload(site.dir / "lonely", 3_000_000, b"lonely"), "1", name="lonely")
        late, early = site.hosts[-1], site.hosts[:-1]
        for host in early:
            site.start(host, "--catalog-interval", "5")
        for host in early:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        fetch(site, early, "stable")
        same(site, early, file)
        lab.cut(1)
        time.sleep(1)  # what was on the line
        lab.zero()
        site.start(late)
        site.wait(lambda: site.ready(late), what="the fifth ready")
        took, _ = fetch(site, [late], "stable")
        same(site, [late], file)
        expect("by channel, at a machine that joined later", True, f"{took[late]:.2f} s")
        # The counter is before the cut: what the origin's kernel sends for old connections counts, and is lost.
        expect("and nothing came over the WAN", lab.wan()[1][0] < 1000, lab.wan()[1])
        books = site.savings(late, "node")["totals"]
        expect("as its ledger says", (books["wan"], books["wan_wire"], books["peer"]) == (0, 0, file.stat().st_size), books)
        time.sleep(5)
        again, _ = fetch(site, early, "stable")
        expect("the others do not wait long either", max(again.values()) < 8, f"{max(again.values()):.2f} s at most")
        noticed = lambda host: (site.api(host, "status") or {}).get("outage")
        site.wait(lambda: all(map(noticed, early)), 60, "the outage is noticed")
        again, _ = fetch(site, early, "stable")
        expect("and then not at all", max(again.values()) < 3, f"{max(again.values()):.2f} s at most")
        began = time.monotonic()
        process, _ = site.get(late, "1", "lonely")
        code, took = process.wait(60), time.monotonic() - began
        said = (site.dir / f"get-{late}.log").read_text().strip().splitlines()[-1]
        expect("what nobody holds is refused soon", code == 1 and "out of reach since" in said, f"{took:.1f} s: {said}")
        began = time.monotonic()
        process, _ = site.get(late, "1", "nothing")
        code, took = process.wait(60), time.monotonic() - began
        said = (site.dir / f"get-{late}.log").read_text().strip().splitlines()[-1]
        expect("and what nobody knows", code == 1 and "may have been published since" in said, f"{took:.1f} s: {said}")
        outage = site.api(late, "status")["outage"]
        expect("status says what works", (outage["versions"], outage["fetchable"]) == (2, 1), outage)
        text = lab.run(late, [site.bin, "status"], capture_output=True, text=True).stdout
        print(next((line for line in text.splitlines() if line.startswith("origin")), text), flush=True)
        lab.heal(1)
        healed = time.monotonic()
        site.wait(lambda: site.api(late, "status")["outage"] is None, 60, "it is over")
        print(f"noticed {time.monotonic() - healed:.1f} s after it healed", flush=True)
        fetch(site, [late], "1", name="lonely")


ALL = dict(offline=offline, one_copy=one_copy, subnets=subnets, same_instant=same_instant, small=small, lead_killed=lead_killed, wan_cut=wan_cut,
           disk_full=disk_full, partition=partition)

if __name__ == "__main__":
    for name in ALL if sys.argv[1:] == ["all"] else sys.argv[1:]:
        print(f"-- {name}", flush=True)
        ALL[name]()
