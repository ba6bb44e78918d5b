#!/usr/bin/env python3
"""Upgrades by recipe on a site of real hosts: what they cost on the router, and that nothing can go wrong with them.

    recipes.py upgrade neighbour damaged killed        the scenarios that the tests play
    recipes.py pair OLD NEW [--clients 8] [--prefer time]      a pair of versions of your own: the figures
    recipes.py cold FILE                               the same of a package that is new to the site

`pair` prints WAN bytes and the time of the last client against one curl of the file as shipped.
"""
import argparse, io, lzma, random, shutil, tarfile, time, zipfile
from pathlib import Path

import lab
from branch import Site, curl, fetch
from scenarios import balanced, expect, same

ASKED = argparse.Namespace(clients=8, prefer="bytes", files=[])


def words(seed, count):
    """Text that compresses about as source code does."""
    chance = random.Random(seed)
    known = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(3, 11))) for _ in range(4000)]
    return " ".join(chance.choices(known, k=count)).encode()


def members(version, count=300, length=6000):
    """Files of a package; a later version has changed one in ten, a little."""
    for n in range(count):
        content = words(n, length + n * 20)
        if version > 1 and n % 10 == 0:
            at = len(content) // 3
            content = content[:at] + f" changed in {version} ".encode() + content[at + 40:]
        yield f"package/module_{n}.py", content


def wheel(path, version, count=300):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members(version, count):
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, version, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return Path(path)


def tar_xz(path, version):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in members(version, 250, 6000):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), version
            archive.addfile(info, io.BytesIO(content))
    Path(path).write_bytes(lzma.compress(plain.getvalue(), preset=6))
    return Path(path)


def served(site, file):
    """What the file as shipped costs and takes with curl."""
    shutil.copy(file, site.tree / "plain")
    return curl(site.hosts[0], "http://origin/plain")


def upgraded(site, hosts, file):
    """All hosts fetch version 2; returns the router's bytes down and the time of the last."""
    lab.zero()
    _, last = fetch(site, hosts, "2")
    same(site, hosts, file)
    time.sleep(1.3)
    return lab.wan()[1][0], last


def weighed(site, host):
    return [it for it in site.api(host, "recipes?scope=site") or [] if it["package"] == "demo@2"]


def begun(make, clients, *flags, holders=None):
    site = Site(clients)
    old, new = make(site.dir / "old", 1), make(site.dir / "new", 2)
    site.publish(old, "1")
    site.publish(new, "2")
    site.start_all(*flags)
    fetch(site, holders or site.hosts, "1")
    return site, new


def upgrade():
    """Eight machines upgrade at the price of what has changed, and the books say so."""
    site, new = begun(wheel, 8)
    with site:
        _, plain = served(site, new)
        before = site.savings()["totals"]
        down, _ = upgraded(site, site.hosts, new)
        expect("WAN bytes of 8 upgrades against one curl", down < 0.1 * plain[0], f"{down / plain[0]:.4f}")
        books = site.savings()
        totals = balanced(books)
        new = {name: totals[name] - before[name] for name in ("wan_recipes", "rebuilt")}
        expect("the recipe is in the books", 0 < new["wan_recipes"] < new["rebuilt"] / 10, new)
        expect("and apart from what sharing saves", books["saved"]["by_recipe"] == totals["rebuilt"] - totals["wan_recipes"]
               and books["saved"]["by_recipe"] < books["saved"]["of_direct"], books["saved"])
        last = weighed(site, site.hosts[0])
        expect("one node has weighed the ways", len(last) == 1 and last[0]["outcome"] == "rebuilt", last)
        again = lab.run(site.hosts[3], [site.bin, "get", "demo@2", "-o", site.dir / "again", "--explain"],
                        capture_output=True, text=True)
        lines = (again.stdout + again.stderr).splitlines()
        expect("a client can ask why", any(line.startswith("* what has changed since demo@1") for line in lines), lines[-5:])


def neighbour():
    """The old version is on one machine alone, which does not lead: it is fetched over the LAN."""
    site = Site(4)
    with site:
        old, new = wheel(site.dir / "old", 1), wheel(site.dir / "new", 2)
        site.publish(old, "1")
        site.publish(new, "2")
        holder = site.hosts[2]
        for host in site.hosts:
            site.start(host, *(["--weight", "0"] if host == holder else []))
        for host in site.hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        fetch(site, [holder], "1")
        _, plain = served(site, new)
        down, _ = upgraded(site, [host for host in site.hosts if host != holder], new)
        expect("WAN bytes of 3 upgrades, old version elsewhere", down < 0.1 * plain[0], f"{down / plain[0]:.4f}")


def damaged():
    """What the origin has is altered or cut off: the file comes as shipped, whole and right."""
    for what in ("altered", "cut off", "gone"):
        site, new = begun(lambda path, version: wheel(path, version, 120), 3)
        with site:
            _, plain = served(site, new)
            for recipe in (site.tree / "recipes").iterdir():
                content = bytearray(recipe.read_bytes())
                if len(content) < 2000:
                    continue  # an offer
                if what == "altered":
                    content[len(content) // 2] ^= 0x55
                recipe.write_bytes(content if what == "altered" else content[:len(content) // 2])
                if what == "gone":
                    recipe.unlink()
            down, _ = upgraded(site, site.hosts, new)
            expect(f"a recipe that is {what} costs little more than none", down < 1.12 * plain[0], f"{down / plain[0]:.4f}")
            outcome = weighed(site, site.hosts[0])[0]["outcome"]
            expect("and it is said", "failed" in outcome, outcome)
            balanced(site.savings())


def killed():
    """The lead is killed while it rebuilds: another one begins anew."""
    site, new = begun(tar_xz, 4)
    with site:
        _, plain = served(site, new)
        lab.zero()
        clients = {host: site.get(host, "2")[0] for host in site.hosts}
        leads = lambda: [host for host in site.hosts
                         for flight in site.api(host, "flights") or [] if flight["role"] == "lead"]
        site.wait(lambda: leads(), what="a lead")
        time.sleep(1.5)
        lost = leads()[0]
        site.stop(lost)
        others = [host for host in site.hosts if host != lost]
        clients[lost].kill()
        for host in others:
            expect(f"{host} has it", clients[host].wait(120) == 0, "whole")
        same(site, others, new)
        time.sleep(1.3)
        down = lab.wan()[1][0]
        expect("the recipe crossed twice at the most, and not the file", down < 0.3 * plain[0], f"{down / plain[0]:.4f}")


def pair():
    old, new = map(Path, ASKED.files)
    with Site(ASKED.clients) as site:
        began = time.monotonic()
        site.publish(old, "1")
        first = time.monotonic() - began
        site.publish(new, "2")
        second = time.monotonic() - began - first
        site.start_all("--prefer", ASKED.prefer)
        fetch(site, site.hosts, "1")
        alone, plain = served(site, new)
        down, last = upgraded(site, site.hosts, new)
        totals = balanced(site.savings())
        it = (weighed(site, site.hosts[0]) or [None])[0]
        kept = sum(file.stat().st_size for file in (site.tree / "recipes").iterdir()) if (site.tree / "recipes").exists() else 0
        print(f"{new.name}: {new.stat().st_size / 1e6:.1f} MB, prefer {ASKED.prefer}, {ASKED.clients} clients: WAN {down / plain[0]:.4f} "
              f"of one curl ({down / 1e3:.0f} kB), last after {last:.1f} s = {last / alone:.2f} of it; published in {first:.1f} "
              f"and {second:.1f} s, recipes take {kept / 1e6:.1f} MB; rebuilt {totals['rebuilt'] / 1e6:.1f} MB from "
              f"{totals['wan_recipes'] / 1e3:.0f} kB", flush=True)
        for way in it["ways"] if it else []:
            mark = "*" if it["ways"].index(way) == it["chosen"] else " "
            print(f"  {mark} {way['against'] or ('inside' if way['recipe'] else 'as shipped')}: {way['bytes'] / 1e3:.0f} kB, "
                  f"{way['seconds'] or 0:.1f} s {way['out_of_question'] or ''}")
        if it:
            print(f"    WAN rate taken for {it['wan_rate']}, outcome {it['outcome']}")


def cold():
    file = Path(ASKED.files[0])
    with Site(ASKED.clients) as site:
        site.publish(file, "2")
        site.start_all("--prefer", ASKED.prefer)
        alone, plain = served(site, file)
        down, last = upgraded(site, site.hosts, file)
        print(f"{file.name}: cold, WAN {down / plain[0]:.4f} of one curl, last after {last:.1f} s = {last / alone:.2f} of it", flush=True)


ALL = dict(upgrade=upgrade, neighbour=neighbour, damaged=damaged, killed=killed)
MEASURED = dict(pair=pair, cold=cold)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prefer", default="bytes")
    ASKED = parser.parse_args()
    if ASKED.names[0] in MEASURED:
        ASKED.files = ASKED.names[1:]
        MEASURED[ASKED.names[0]]()
    else:
        for name in ALL if ASKED.names == ["all"] else ASKED.names:
            print(f"-- {name}", flush=True)
            ALL[name]()
