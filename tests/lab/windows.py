#!/usr/bin/env python3
"""How exactly a WAN window's rate is kept, on the router's counters: every 10 s of a flight.

    windows.py steady hour schedule lead upstream      each with one flight; --flights 4 for four at once
    windows.py all --flights 1 4                       all of them, with both
    windows.py steady --rate 1                         with 1 mbit instead of 20

A schedule allows 20 mbit of a WAN of 100. `hour`: a window of two fifths of it opens at the next full
minute; `schedule`: an admin gives another one; `lead`: the node that pulls is killed; `upstream`: files of a
foreign web server instead of packages. Printed are the most and the least that crossed in any 10 s, as parts
of what was allowed in them. With --bounds MIN MAX it fails where they are left.
"""
import argparse, bisect, shutil, sys, threading, time
from datetime import datetime, timedelta, timezone

import lab
from branch import Site, payload

SPAN = 10.0
LEAD_IN, LEAD_OUT = 1.5, 0.5                    # a flight's start and end are no steady state
ASKED = argparse.Namespace()


def fast():
    """What the schedule allows, in bytes per second."""
    return ASKED.rate * 1e6 / 8


def slow():
    return fast() * 2 / 5


def text(rate):
    return f"{rate * 8 / 1e3:.0f}kbit"


def schedule(site, text):
    file = site.dir / "schedule.toml"
    file.write_text(text)
    host = next(host for host in site.hosts if site.agents[host].poll() is None)
    site.cli("wan", "schedule", file, "--state-dir", site.dir / f"state-{host}")


def outside(rate):
    return f'zone = "Europe/Lisbon"\n[outside]\nforeground = "{text(rate)}"\n'


def leads(site):
    """The hosts that pull."""
    found = []
    for host in site.hosts:
        if site.agents[host].poll() is None:
            flights = site.api(host, "flights") or []
            found += [host] if any(flight["role"] == "lead" for flight in flights) else []
    return found


def hour(site, limits):
    """Waits for a change of the hour that the schedule says; the flight is under way by then."""
    at = hour.at
    time.sleep(max(0, at.timestamp() - time.time()))
    change = time.monotonic() - (time.time() - at.timestamp())
    limits.change(change, change, slow())
    time.sleep(16)


def prepare_hour(site):
    now = datetime.now(timezone.utc)
    at = (now + timedelta(seconds=75)).replace(second=0, microsecond=0)
    hour.at = at
    schedule(site, f'zone = "UTC"\n[outside]\nforeground = "{text(fast())}"\n[[window]]\nname = "slow"\n'
                   f'hours = "{at:%H:%M}-{at + timedelta(minutes=30):%H:%M}"\nforeground = "{text(slow())}"\n')
    time.sleep(max(0, at.timestamp() - time.time() - 15))


def another(site, limits):
    time.sleep(14)
    for rate in (slow(), fast()):
        begun = time.monotonic()
        schedule(site, outside(rate))
        limits.change(begun, time.monotonic(), rate)
        print(f"     the order took {time.monotonic() - begun:.2f} s", flush=True)
        time.sleep(15 if rate == slow() else 0)
    time.sleep(12)


def lead(site, limits):
    time.sleep(13)
    lost = leads(site)[0]
    site.stop(lost)
    print(f"     {lost} was killed", flush=True)
    time.sleep(16)


def steady(site, limits):
    time.sleep(26)


PLAYS = {"steady": (None, steady), "hour": (prepare_hour, hour), "schedule": (None, another), "lead": (None, lead),
         "upstream": (None, steady)}


class Limits:
    """What is allowed when: at most and at least, since an order takes effect while it is being given."""

    def __init__(self, at, rate):
        self.most, self.least, self.rate = [(at, rate)], [(at, rate)], rate

    def change(self, begun, done, rate):
        rises = rate > self.rate
        self.most.append((begun if rises else done, rate))
        self.least.append((done if rises else begun, rate))
        self.rate = rate


def allowed(limits, start, end):
    """What may cross between two instants, in bytes."""
    total = 0.0
    for (at, rate), after in zip(limits, [*limits[1:], (end, 0)]):
        total += rate * max(0.0, min(end, after[0]) - max(start, at))
    return total


def worst(samples, limits, start, end):
    """The most and the least of what was allowed that crossed in any SPAN; with the seconds since start."""
    times = [at for at, _ in samples]
    parts = []
    for index in range(bisect.bisect_left(times, start), len(samples)):
        until = bisect.bisect_left(times, times[index] + SPAN)
        if until >= len(samples) or times[until] > end:
            break
        crossed = samples[until][1] - samples[index][1]
        part = lambda limit: (crossed / allowed(limit, times[index], times[until]), times[index] - start)
        parts.append((part(limits.most), part(limits.least)))
    return max(part for part, _ in parts), min(part for _, part in parts)


def fetch(site, host, name, upstream):
    if upstream:
        url = f"http://127.0.0.1:7420/http/vendor/{name}"
        lab.popen(host, ["curl", "-sf", "-o", site.dir / f"got-{host}-{name}", url])
    else:
        site.get(host, "1", name)


def play(name, flights):
    before, during = PLAYS[name]
    upstream = name == "upstream"
    with Site(5, wan="100mbit") as site:
        sizes = {1: [int(fast() * 48)], 4: [int(fast() * 13)] * 4}[flights]
        files = [payload(site.dir / f"p{n}", size, b"%d" % n) for n, size in enumerate(sizes)]
        for n, file in enumerate(files):
            if upstream:
                shutil.copy(file, site.tree / f"p{n}")
            else:
                site.publish(file, "1", f"p{n}")
        site.start_all(*(["--upstream", "vendor http http://origin/"] if upstream else []))
        site.wait(lambda: all(len(site.api(host, "peers") or []) == 4 for host in site.hosts), what="the mesh")
        schedule(site, outside(fast()))
        site.wait(lambda: all((site.api(host, "status") or {})["wan"]["foreground"] == fast() for host in site.hosts),
                  what="the schedule")
        if before:
            before(site)
        samples, over = [], threading.Event()

        def watch():
            while not over.wait(0.1):
                asked, bytes = time.monotonic(), lab.nic("core", "wan1")[1]
                samples.append(((asked + time.monotonic()) / 2, bytes))

        watching = threading.Thread(target=watch)
        began = time.monotonic()
        limits = Limits(began - 60, fast())
        watching.start()
        for n, _ in enumerate(files):
            for host in site.hosts[n:n + 2]:
                fetch(site, host, f"p{n}", upstream)
        during(site, limits)
        ended = time.monotonic()
        over.set(), watching.join()
        (most, when_most), (least, when_least) = worst(samples, limits, began + LEAD_IN, ended - LEAD_OUT)
        first = [at for at in samples if at[0] <= began + 3]
        print(f"     {name}, {flights} flight(s): most {most:.4f} (from {when_most:.1f} s), least {least:.4f} "
              f"(from {when_least:.1f} s); first 3 s {(first[-1][1] - samples[0][1]) / allowed(limits.most, began, first[-1][0]):.3f}",
              flush=True)
        if ASKED.trace:
            for (a, b), (c, d) in zip(samples[::10], samples[10::10]):
                print(f"       {a - began:6.1f} s  {(d - b) * 8e-6 / (c - a):6.2f} Mbit/s", flush=True)
        if ASKED.bounds:
            low, high = ASKED.bounds
            assert most <= high, f"{name}: more than {high} of what was allowed: {most:.4f}"
            assert least >= low, f"{name}: less than {low} of what was allowed: {least:.4f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="+", choices=[*PLAYS, "all"], metavar="NAME")
    p.add_argument("--rate", type=float, default=20, metavar="MBIT", help="what the schedule allows")
    p.add_argument("--flights", type=int, nargs="+", choices=[1, 4], default=[1])
    p.add_argument("--bounds", type=float, nargs=2, metavar=("MIN", "MAX"))
    p.add_argument("--trace", action="store_true", help="the rate of every second, too")
    p.parse_args(namespace=ASKED)
    failed = []
    for name in PLAYS if ASKED.names == ["all"] else ASKED.names:
        for flights in ASKED.flights:
            print(f"-- {name}, {flights} flight(s)", flush=True)
            try:
                play(name, flights)
            except AssertionError as error:
                failed.append(str(error))
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
