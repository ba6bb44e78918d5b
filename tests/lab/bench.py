#!/usr/bin/env python3
"""Measures a site in the lab against one curl of the same file, in the same run, as ratios.

    sudo python3 tests/lab/bench.py FILE [--clients 1,4,8,16] [--gap 0] [--lan 1gbit]
    sudo python3 tests/lab/bench.py --idle 16      memory and CPU of idle agents

Columns: WAN bytes on the router (both directions) as a multiple of curl's; time of the last client
as a multiple of curl's; what the ledger says crossed, against what the router saw.
"""
import argparse, os, shutil, time
from pathlib import Path

import lab
from branch import Site, curl, fetch, payload


def measure(file, clients, gap, lan, wan, delay, start_gap):
    with Site(clients, wan=wan, delay=delay, lan=lan) as site:
        shutil.copy(file, site.tree / "plain")
        site.publish(file, "1")
        alone, (down, up) = curl(site.hosts[0], "http://origin/plain")
        lab.zero()
        site.start_all(settle=True)
        took, last = fetch(site, site.hosts, "1", gap)
        time.sleep(1.5)
        router_down, router_up = lab.wan()[1]
        savings = site.savings()
        totals = savings["totals"]
        wire = totals["wan_wire"]
        line = dict(clients=clients, curl_s=round(alone, 2), last_s=round(max(took.values()), 2),
                    wan_x=round((router_down + router_up) / (down + up), 4),
                    time_x=round((max(took.values()) if gap else last) / alone, 3),
                    ledger_vs_router=round(wire / router_down, 4),
                    delivered=totals["delivered"], wan=totals["wan"] + totals["preloaded_wan"], wire=wire,
                    duplicate=totals["wan_duplicate"], unanswered=len(savings["unanswered"]))
        print(line, flush=True)
        return line


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def idle(clients, seconds=30):
    with Site(clients) as site:
        site.publish(payload(site.dir / "p", 1 << 20), "1")
        site.start_all(settle=False)
        began = time.monotonic()
        for host in site.hosts:
            site.wait(lambda: len(site.api(host, "peers") or []) == clients - 1, what="full mesh")
        mesh = time.monotonic() - began
        time.sleep(8)
        lab.zero()
        pids = [agent.pid for agent in site.agents.values()]
        before = {pid: cpu(pid) for pid in pids}
        time.sleep(seconds)
        share = [(cpu(pid) - before[pid]) / seconds * 100 for pid in pids]
        memory = [rss(pid) for pid in pids]
        lan = [sum(lab.hosts()[host]) / seconds for host in site.hosts]
        print(dict(clients=clients, mesh_s=round(mesh, 2), rss_mb_max=round(max(memory), 1), cpu_percent_max=round(max(share), 2),
                   cpu_percent_mean=round(sum(share) / len(share), 2), lan_bytes_per_s=round(max(lan)),
                   wan_bytes=sum(lab.wan()[1])))


def small(clients):
    with Site(clients) as site:
        site.publish(payload(site.dir / "p", 10_000), "1")
        site.start_all()
        time.sleep(3)
        log = site.dir / "origin.log"
        lab.zero()
        took, last = fetch(site, site.hosts, "1")
        time.sleep(1.2)
        totals = site.savings()["totals"]
        print(dict(clients=clients, object=10_000, last_s=round(last, 3), router=lab.wan()[1],
                   wan_content=totals["wan"] + totals["preloaded_wan"], delivered=totals["delivered"]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", nargs="?")
    p.add_argument("--clients", default="1,4,8,16")
    p.add_argument("--gap", type=float, default=0.0, help="seconds between clients' arrivals")
    p.add_argument("--lan", default="1gbit")
    p.add_argument("--wan", default="50mbit")
    p.add_argument("--delay", type=float, default=20.0)
    p.add_argument("--idle", type=int)
    p.add_argument("--small", type=int)
    a = p.parse_args()
    if a.idle:
        return idle(a.idle)
    if a.small:
        return small(a.small)
    for clients in map(int, a.clients.split(",")):
        measure(a.file, clients, a.gap, a.lan, a.wan, a.delay, 0)


if __name__ == "__main__":
    main()
