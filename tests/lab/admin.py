#!/usr/bin/env python3
"""What site admins order, on real hosts; each scenario prints what it saw and fails by assertion.

    sudo python3 tests/lab/admin.py NAME [--machines 12] [--size 24000000]
"""
import argparse, time

import lab
from branch import fetch
from scenarios import balanced, expect, same, started

MINUTE = 60


def holders(site, hosts, package):
    """The hosts that say that they hold all of a package."""
    name, version = package.split("@")
    holds = lambda host: any(it["name"] == name and it["version"] == version and it["held"] == "complete"
                             for it in site.api(host, "packages") or [])
    return [host for host in hosts if holds(host)]


def kept(site, host, package):
    status = site.api(host, "status") or {}
    return next((it for it in status.get("keeping", []) if it["package"] == package), None)


def order(site, host, *command):
    """An admin of that host gives an order."""
    return site.cli(*command, "--state-dir", site.dir / f"state-{host}").strip()


def coverage(machines, size):
    """Machines are lost one by one, always one that holds a copy, until three are left."""
    site, file = started(machines, size=size)
    with site:
        site.start_all()
        hosts = list(site.hosts)
        print("     " + order(site, hosts[0], "seed", "demo@1", "--copies", "3").replace("\n", "; "), flush=True)
        site.wait(lambda: len(holders(site, hosts, "demo@1")) >= 3, MINUTE, "three copies")
        time.sleep(3)
        here = holders(site, hosts, "demo@1")
        expect("copies after the seed", len(here) == 3, here)
        crossed = balanced(site.savings(hosts[-1]))
        crossed = crossed["wan"] + crossed["preloaded_wan"]
        expect("one copy over the WAN", crossed == file.stat().st_size, f"{crossed / file.stat().st_size:.3f}")
        took = []
        while len(hosts) > 3:
            lost = holders(site, hosts, "demo@1")[0]
            hosts.remove(lost)
            before = lab.wan()[1]
            began = time.monotonic()
            # By turns its power fails, and its cable: then it goes on and believes that it is alone.
            if len(hosts) % 2:
                lab.crash(lost)
            else:
                lab.port(lost, False)
            site.wait(lambda: len(holders(site, hosts, "demo@1")) >= 3, MINUTE, f"a new copy after {lost} is lost")
            took.append(time.monotonic() - began)
            time.sleep(1)
            catalog = sum(lab.wan()[1]) - sum(before)
            # The site looks for a newer catalog meanwhile, once a minute.
            expect(f"{lost} lost, {len(hosts)} left: the copy is back", catalog < 20_000,
                   f"after {took[-1]:.1f} s, {catalog} bytes over the WAN for the catalog")
        site.wait(lambda: (kept(site, hosts[0], "demo@1") or {}).get("copies") == 3, MINUTE, "the status to say so")
        expect("status", True, kept(site, hosts[0], "demo@1"))
        print(f"repairs took {min(took):.1f} to {max(took):.1f} s", flush=True)


def media(machines, size):
    """A site that has never been online has a package from a bundle, which one of its machines reads."""
    site, file = started(machines, size=size)
    with site:
        bundle = site.dir / "stick.bundle"
        print("     " + site.cli("export", "demo@1", "--origin", site.tree, "--trust", site.tree / "catalog/root.json",
                                 "-o", bundle).replace("\n", "; "), flush=True)
        lab.cut(1)
        lab.zero()
        site.start_all()
        began = time.monotonic()
        print("     " + order(site, site.hosts[0], "import", bundle).replace("\n", "; "), flush=True)
        imported = time.monotonic() - began
        took, last = fetch(site, site.hosts, "1")
        same(site, site.hosts, file)
        down, up = lab.wan()[1]
        expect("bytes that came over the WAN", down == 0, f"{down}, and {up} of attempts to reach the origin went out")
        time.sleep(1.3)
        totals = balanced(site.savings())
        size = file.stat().st_size
        expect("and by the ledger", totals["wan_wire"] == 0 and totals["wan"] + totals["preloaded_wan"] == 0, totals)
        expect("one copy from the bundle", totals["preloaded_media"] == size, totals["preloaded_media"] / size)
        expect("each client was handed the file", totals["delivered"] == machines * size, totals["delivered"] / size)
        print(f"imported in {imported:.2f} s, the last of {machines} had it {last:.2f} s after all asked", flush=True)


ALL = dict(coverage=coverage, media=media)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--machines", type=int, default=12)
    parser.add_argument("--size", type=int, default=24_000_000)
    options = parser.parse_args()
    for name in ALL if options.names == ["all"] else options.names:
        print(f"-- {name}", flush=True)
        ALL[name](options.machines, options.size)
