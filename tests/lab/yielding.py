#!/usr/bin/env python3
"""Background flights beside other traffic on one WAN: how much they leave to it, and use without it.

    sudo python3 tests/lab/yielding.py NAME...|all [--seconds 30] [--wan 20mbit] [--delay 20] [--queue 100] [--off]

The foreground is a plain curl on a host without an agent, from the same origin; its solo rate is measured in
the same run. With --off the agents do not give way, for comparison. Times are printed, shares are asserted.
"""
import argparse, contextlib, threading, time

import lab
from branch import Site, curl, payload
from scenarios import expect, same

ASKED = argparse.Namespace(seconds=30, wan="20mbit", delay=20.0, queue=100, off=False, cc="cubic", trace=False, least=0.9)
LIMIT = 300         # seconds for any client: what ends a scenario that hangs, not a bound
EVERY = 0.25


class Link:
    """A site with background flights and a foreground; hosts[-1] has no agent."""

    def __init__(self, agents=1, big=4.0, flags=()):
        self.site = Site(agents + 1, wan=ASKED.wan, delay=ASKED.delay, queue=ASKED.queue, cc=ASKED.cc)
        self.rate = lab.bits(ASKED.wan) / 8
        self.agents, self.other = self.site.hosts[:-1], self.site.hosts[-1]
        self.plain = payload(self.site.tree / "plain", int(self.rate * ASKED.seconds * 0.95), b"plain")
        self.files = {}
        for n, host in enumerate(self.agents):
            name = f"demo{n}"
            self.files[name] = payload(self.site.dir / name, int(self.rate * ASKED.seconds * big / agents), name.encode())
            self.site.publish(self.files[name], "1", name)
        self.flags = ["--background-yield=false", *flags] if ASKED.off else list(flags)
        self.samples, self.over, self.running = [], threading.Event(), []

    def __enter__(self):
        for host in self.agents:
            self.site.start(host, *self.flags)
        for host in self.agents:
            self.site.wait(lambda: self.site.ready(host), what=f"{host} ready")
        time.sleep(1)
        self.began = time.monotonic()
        threading.Thread(target=self.watch, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for process in self.running:
            with contextlib.suppress(OSError):
                process.kill()
        self.site.__exit__()

    def watch(self):
        with contextlib.suppress(OSError, SystemExit):
            while not self.over.wait(EVERY):
                seen = lab.raw()
                self.samples.append((time.monotonic(), seen["wan1"][0], {h: seen[h][0] for h in self.site.hosts}))
                if ASKED.trace and len(self.samples) > 2:
                    self.trace(*self.samples[-3:-1])

    def trace(self, before, now):
        """One line: each host's share of the link, and what each agent thinks of it."""
        share = lambda host: (now[2][host] - before[2][host]) / (now[0] - before[0]) / self.rate
        line = f"{now[0] - self.began:7.2f} " + " ".join(f"{share(host):5.2f}" for host in self.site.hosts)
        for host in self.agents:
            it = (self.site.api(host, "status") or {}).get("yielding")
            if it:
                line += (f" | {it['state']:9} rate {(it['rate'] or 0) / self.rate:5.2f} best {it['best'] / self.rate:4.2f}"
                         f" wait {it['queueing_ms'] or 0:5.1f} base {it['base_ms'] or 0:5.1f}")
        print(line, flush=True)

    def at(self, when, of):
        """Bytes by then, between two samples."""
        before = [s for s in self.samples if s[0] <= when][-1]
        after = [s for s in self.samples if s[0] > when]
        after = after[0] if after else before
        part = (when - before[0]) / (after[0] - before[0]) if after is not before else 0
        return of(before) + (of(after) - of(before)) * part

    def share(self, start, end, hosts=None):
        """Of the link's rate, what those hosts took (all: the router's counter)."""
        of = (lambda s: s[1]) if hosts is None else (lambda s: sum(s[2][h] for h in hosts))
        return (self.at(end, of) - self.at(start, of)) / (end - start) / self.rate

    def behind(self, start, end):
        """Of the link's rate, what the agents took over the WAN: what the other host did not."""
        return self.share(start, end) - self.share(start, end, [self.other])

    def crossed(self):
        """What each agent has read from the WAN, by its own ledger."""
        return {host: self.site.savings(host, "node")["totals"]["wan_wire"] for host in self.agents}

    def until(self, reached, start):
        """Seconds from start until the agents' share in one second is so; None: never."""
        for when, *_ in self.samples:
            if when >= start + 1 and reached(self.behind(when - 1, when)):
                return when - 1 - start
        return None

    def background(self, host, name):
        log = open(self.site.dir / f"get-{host}.log", "ab")
        target = self.site.dir / f"got-{host}-{name}"
        run = [self.site.bin, "get", "--background", f"{name}@1", "-o", target]
        self.running.append(lab.popen(host, run, stdout=log, stderr=log))
        return self.running[-1]

    def solo(self):
        start = time.monotonic()
        if lab.run(self.other, ["curl", "-sf", "-o", "/dev/null", "http://origin/plain"]).returncode:
            raise RuntimeError("curl failed")
        return time.monotonic() - start

    def says(self, host):
        it = self.site.api(host, "status")["yielding"]
        totals = self.site.savings(host, "node")["totals"]
        it["probe_share"] = round(it["probe_bytes"] / max(1, totals["wan_wire"]), 5)
        return it

    def takeovers(self):
        rows = self.site.api(self.agents[0], "savings?scope=site&by=reason")["rows"]
        return {row["reason"]: row["totals"]["wan_wire"] for row in rows
                if row["reason"] in ("takeover", "no_peer", "partition")}


def alone():
    """One background flight with the link to itself, twice if need be: a machine that stands still for a while
    delays packets as another's traffic would, and is given way to as well."""
    tries = []
    while len(tries) < 2 and not (tries and max(tries)[0] >= ASKED.least):
        tries.append(alone_once())
    ratio, used = max(tries)
    expect("alone the background uses the link", ratio >= ASKED.least,
           f"{ratio:.3f} of curl's rate, {used:.3f} of the link from start to end (of {len(tries)})")


def alone_once():
    """Its rate by curl's, and what it used of the link."""
    with Link(big=1.6) as link:
        solo = link.solo()
        process, start = link.background(link.agents[0], "demo0"), time.monotonic()
        assert process.wait(LIMIT) == 0, "the background failed"
        took = time.monotonic() - start
        time.sleep(1)
        name, file = next(iter(link.files.items()))
        same(link.site, [link.agents[0]], file, name)
        used = link.share(start, start + took)
        ratio = (file.stat().st_size / took) / (link.plain.stat().st_size / solo)
        print(f"     {ratio:.3f} of curl's rate: {link.says(link.agents[0])}")
        return ratio, used


def beside(agents=1, busy_first=False):
    with Link(agents) as link:
        solo = link.solo()
        time.sleep(1)
        if not busy_first:
            for host, name in zip(link.agents, link.files):
                link.background(host, name)
            time.sleep(10)
            before = link.behind(time.monotonic() - 4, time.monotonic())
            print(f"     before: the background has {before:.3f} of the link")
        else:
            threading.Timer(3, lambda: link.background(link.agents[0], "demo0")).start()
        start, crossed = time.monotonic(), link.crossed()
        took = link.solo()
        end = time.monotonic()
        kept = solo / took
        theirs = [round((link.crossed()[host] - crossed[host]) / took / link.rate, 4) for host in link.agents]
        time.sleep(12)
        gave = link.until(lambda share: share < 0.1, start)
        back = link.until(lambda share: share > 0.8, end)
        print(f"     curl alone {solo:.1f} s, beside it {took:.1f} s; background {theirs} of the link meanwhile;"
              f" below 10 % after {gave if gave is None else round(gave, 1)} s;"
              f" above 80 % again after {back if back is None else round(back, 1)} s", flush=True)
        for host in link.agents:
            print(f"     {host}: {link.says(host)}", flush=True)
        moved = [process.poll() for process in link.running]
        assert all(code in (None, 0) for code in moved), f"a background get failed: {moved}"
        if ASKED.off:
            print(f"     the foreground kept {kept:.3f} (they do not give way)")
            return
        expect("the foreground keeps its rate", kept >= 0.9, f"{kept:.3f} of its solo rate")
        expect("the background does not starve", all(share > 0.003 for share in theirs), theirs)
        expect("nobody took over because it gave way", not link.takeovers(), link.takeovers() or "yes")


def one():
    """One background flight has the link; a foreground download comes, and leaves again."""
    beside()


def two():
    """Two nodes lead one background flight each."""
    beside(2)


def late():
    """The background flight begins while a download fills the link."""
    beside(busy_first=True)


def limited():
    """The same under a WAN limit of half the link."""
    with Link(flags=["--wan-limit", f"{int(lab.bits(ASKED.wan) / 2)}bit"]) as link:
        solo = link.solo()
        link.background(link.agents[0], "demo0")
        time.sleep(8)
        now = time.monotonic()
        before = link.behind(now - 5, now)
        start = time.monotonic()
        took = link.solo()
        end = time.monotonic()
        theirs = link.behind(start, end)
        print(f"     {link.says(link.agents[0])}")
        expect("the limit holds, and can be used", 0.44 <= before <= 0.51, f"{before:.3f} of the link")
        expect("the foreground keeps its rate", solo / took >= 0.9 or ASKED.off, f"{solo / took:.3f}, background {theirs:.3f}")


def followers():
    """Three nodes want one package in the background, on a link that is busy for long."""
    with Link(3, big=1.5) as link:
        for host in link.agents:
            link.background(host, "demo0")
        time.sleep(4)
        lead = lambda: [h for h in link.agents for f in link.site.api(h, "flights") or [] if f["role"] == "lead"]
        first, seen, start = lead(), set(), time.monotonic()
        took = link.solo()
        seen.update(lead())
        took += link.solo()
        seen.update(lead())
        theirs = link.behind(start, start + took)
        print(f"     lead {first}, later {sorted(seen)}; background {theirs:.3f} of the link in {took:.0f} s")
        assert all(process.wait(LIMIT) == 0 for process in link.running), "a background get failed"
        same(link.site, link.agents, link.files["demo0"], "demo0")
        time.sleep(1.5)
        expect("the lead stays", seen <= set(first), f"{first} {seen}")
        expect("nobody took over because it gave way", not link.takeovers(), link.takeovers() or "yes")
        totals = link.site.savings(link.agents[0])["totals"]
        content = totals["wan"] + totals["preloaded_wan"]
        expect("one copy crossed", content == link.files["demo0"].stat().st_size and not totals["wan_duplicate"],
               f"{content}, twice {totals['wan_duplicate']}")


ALL = {play.__name__: play for play in (alone, one, two, late, limited, followers)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="+", choices=[*ALL, "all"], metavar="NAME", help="all, or of " + ", ".join(ALL))
    p.add_argument("--seconds", type=float, default=30, help="of the foreground's download, alone")
    p.add_argument("--wan", default="20mbit")
    p.add_argument("--delay", type=float, default=20.0, help="ms, one way")
    p.add_argument("--queue", type=int, default=100, help="ms")
    p.add_argument("--cc", default="cubic", help="the congestion control of all hosts")
    p.add_argument("--trace", action="store_true", help="a line four times a second")
    p.add_argument("--least", type=float, default=0.9, help="what a background flight alone uses, of curl's rate")
    p.add_argument("--off", action="store_true", help="the agents do not give way")
    p.parse_args(namespace=ASKED)
    for name in ALL if ASKED.names == ["all"] else ASKED.names:
        print(f"-- {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
