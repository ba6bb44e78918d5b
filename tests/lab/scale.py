#!/usr/bin/env python3
"""Measures how a site grows: many agents over several subnets, without multicast, by one seed address.

    sudo python3 tests/lab/scale.py [--agents 16,64,128,250] [--subnets 5] [--hosts 10] [--svg FILE]

The agents share the hosts of the lab (network namespaces), each with ports and a state directory of
its own, --no-mdns, and the first agent as its only --peer. The site settles, then:

    seeds     of the last two agents, which are seeds, so many that are hubs (a site of more than 48 has hubs)
    conns     connections of an agent: median, and the most (a hub's)
    settle_s  until all have at least what a node of such a site keeps (16, or all others)
    idle_B/s  LAN bytes sent and received by an agent with nothing to do, TCP/IP headers in: mean
    cpu_s/min CPU seconds an agent takes a minute with nothing to do: mean, and the most
    rss_MB    resident memory: median, and the most
    first_s   one package asked for by all in the same instant: from asking to the first byte, median and most
    last_s    until the last has all of it
    wan_x     bytes on the router, both directions, as a multiple of one curl's
    lan_x     bytes between agents as a multiple of what had to be handed over, (N - 1) copies
    after     median and most connections right after that; and the most memory
    cpu_all   CPU seconds of all agents for the package

BRANCHLINE names the program. Two cores carry 250 agents in idleness; the times of the package are
those of two cores that play 250 machines, and say more about growth than about a machine.
"""
import argparse, http.client, json, os, shutil, statistics, threading, time
from pathlib import Path

import lab
from bench import cpu, rss
from branch import Site, curl, payload

SWARM, GATEWAY = 17000, 18000
FIELDS = ["agents", "settle_s", "seeds", "conns", "idle_B/s", "cpu_s/min", "rss_MB", "first_s", "last_s", "wan_x", "lan_x",
          "after", "cpu_all"]


class Crowd(Site):
    """Many agents on few hosts. An agent is a number; agent 0 is the seed."""

    seeds = ()

    def __init__(self, hosts, **net):
        super().__init__(hosts, **net)

    def host(self, n):
        return self.hosts[n % len(self.hosts)]

    def launch(self, n):
        seed = f"/ip4/{lab.addr(self.host(0))}/tcp/{SWARM}"
        host, log = self.host(n), open(self.dir / f"agent-{n}.log", "ab")
        flags = ["--listen", f"{lab.addr(host)}:{SWARM + n}", "--gateway", f"127.0.0.1:{GATEWAY + n}", "--no-mdns"]
        flags += ["--role", "seed"] if n in self.seeds else []
        self.agents[n] = lab.popen(host, [
            self.bin, "agent", "--site", "lab", "--site-key", self.key, "--origin", "http://origin",
            "--trust", self.tree / "catalog/root.json", "--state-dir", self.dir / f"state-{n}",
            "--disk-reserve", "0", *flags, *(["--peer", seed] if n else [])],
            stdout=log, stderr=log, env={**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "info")})

    def line(self, n, timeout=20):
        line = http.client.HTTPConnection("127.0.0.1", GATEWAY + n, timeout=timeout)
        with lab.inside(self.host(n)):
            line.connect()
        return line

    def ask(self, n, path):
        try:
            line = self.line(n)
            line.request("GET", f"/api/v1/{path}")
            answer = json.loads(line.getresponse().read())
            line.close()
            return answer
        except (OSError, http.client.HTTPException):
            return None

    def members(self):
        return [(self.ask(n, "status") or {}).get("members", 0) for n in self.agents]

    def hubs(self):
        """Agents that others take for hubs."""
        known = [peer for n in (1, 2) for peer in self.ask(n, "peers") or []]
        hubs = {peer["node"] for peer in known if peer["hub"]}
        return [n for n in self.agents if (self.ask(n, "status") or {}).get("node") in hubs]

    def pids(self):
        return [agent.pid for agent in self.agents.values()]

    def lan(self):
        """Bytes that agents have sent and received, over the LAN and on their own hosts."""
        total = 0
        for host in self.hosts:
            total += sum(lab.nic(host, "eth0")) + sum(lab.nic(host, "lo"))
        return total


def fetch_all(site, path, size):
    """All ask in one instant. Seconds to the first byte, and to the last, of each."""
    start, first, last, failed = threading.Barrier(len(site.agents)), {}, {}, []

    def client(n):
        try:
            line = site.line(n, timeout=300)
            start.wait()
            began = time.monotonic()
            line.request("GET", path)
            answer = line.getresponse()
            got = len(answer.read(1))
            first[n] = time.monotonic() - began
            while piece := answer.read(1 << 20):
                got += len(piece)
            last[n] = time.monotonic() - began
            if got != size:
                failed.append(f"agent {n}: {got} bytes, status {answer.status}")
        except Exception as error:
            failed.append(f"agent {n}: {error!r}")

    threads = [threading.Thread(target=client, args=(n,)) for n in site.agents]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if failed:
        print(f"  {len(failed)} failed: {failed[:3]}", flush=True)
    return list(first.values()), list(last.values())


def two(values, digits=0):
    cut = lambda value: f"{value:.{digits}f}"
    return f"{cut(statistics.median(values))} / {cut(max(values))}"


def measure(count, a):
    with Crowd(min(a.hosts, count), subnets=a.subnets, wan=a.wan, lan=None) as site:
        file = payload(site.dir / "payload", a.size)
        shutil.copy(file, site.tree / "plain")
        site.publish(file, "1")
        _, plain = curl(site.hosts[0], "http://origin/plain")
        began = time.monotonic()
        site.seeds = (count - 2, count - 1)
        for n in range(count):
            site.launch(n)
        wanted = min(count - 1, 16)
        site.wait(lambda: min(site.members()) >= wanted, limit=180, what=f"{wanted} connections each")
        settled = time.monotonic() - began
        time.sleep(a.settle)
        seeds = len(set(site.seeds) & set(site.hubs())) if count > 48 else ""
        row = dict(agents=count, settle_s=f"{settled:.1f}", seeds=seeds, conns=two(site.members()))
        busy, before, clock = [cpu(pid) for pid in site.pids()], site.lan(), time.monotonic()
        time.sleep(a.idle)
        took = time.monotonic() - clock
        used = [(cpu(pid) - was) * 60 / took for pid, was in zip(site.pids(), busy)]
        row["idle_B/s"] = f"{(site.lan() - before) / took / count:.0f}"
        row["cpu_s/min"] = f"{statistics.mean(used):.2f} / {max(used):.2f}"
        row["rss_MB"] = two([rss(pid) for pid in site.pids()], 1)
        lab.zero()
        busy, before = sum(cpu(pid) for pid in site.pids()), site.lan()
        first, last = fetch_all(site, "/packages/demo/1", a.size)
        time.sleep(2)
        router = lab.wan()[1]
        row["first_s"], row["last_s"] = two(first, 2), f"{max(last):.1f}"
        row["wan_x"] = f"{sum(router) / sum(plain):.3f}"
        # Each client's own copy crossed the loopback interface, too.
        between = (site.lan() - before) / 2 - count * a.size - router[0] / 2
        row["lan_x"] = f"{between / max(1, (count - 1) * a.size):.2f}"
        row["after"] = f"{two(site.members())}; {max(rss(pid) for pid in site.pids()):.1f} MB"
        row["cpu_all"] = f"{sum(cpu(pid) for pid in site.pids()) - busy:.1f}"
        if a.keep_logs:
            shutil.copytree(site.dir, a.keep_logs, ignore=lambda _, names: [n for n in names if not n.endswith(".log")],
                            dirs_exist_ok=True)
        return row


def number(text):
    return float(str(text).split("/")[-1].split(";")[0])


def draw(rows, path):
    """Growth curves, one small diagram a figure, all from nought: flat is good."""
    kinds = [("conns", "connections of one agent, at most"), ("idle_B/s", "idle LAN bytes/s of one agent"),
             ("cpu_s/min", "idle CPU s/min of one agent, at most"), ("rss_MB", "memory of one agent, MB, at most"),
             ("first_s", "s to the first byte, at most"), ("wan_x", "WAN bytes, x one curl")]
    wide, high, out = 300, 190, []
    for index, (field, title) in enumerate(kinds):
        left, top = 20 + index % 3 * (wide + 20), 20 + index // 3 * (high + 30)
        points = [(row["agents"], number(row[field])) for row in rows]
        most_x, most_y = max(x for x, _ in points), max(max(y for _, y in points), 1e-9) * 1.15
        at = lambda x, y: (left + 45 + x / most_x * (wide - 60), top + high - 25 - y / most_y * (high - 60))
        out.append(f'<text x="{left}" y="{top + 14}" font-weight="bold">{title}</text>')
        out.append(f'<path d="M{left + 45} {top + 30}V{top + high - 25}H{left + wide}" fill="none" stroke="#888"/>')
        line = " ".join("%.1f,%.1f" % at(x, y) for x, y in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="#1565c0" stroke-width="2"/>')
        for x, y in points:
            px, py = at(x, y)
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="#1565c0"/>')
            out.append(f'<text x="{px:.1f}" y="{py - 7:.1f}" text-anchor="middle">{y:g}</text>')
            out.append(f'<text x="{px:.1f}" y="{top + high - 9}" text-anchor="middle" fill="#666">{x}</text>')
    rows_high = 30 + (len(kinds) + 2) // 3 * (high + 30)
    Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * (wide + 20) + 20}" height="{rows_high}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(out) + "</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--agents", default="16,64,128,250")
    p.add_argument("--subnets", type=int, default=5)
    p.add_argument("--hosts", type=int, default=10)
    p.add_argument("--size", type=int, default=10_000_000)
    p.add_argument("--wan", default="50mbit")
    p.add_argument("--settle", type=float, default=75, help="seconds before it is measured (unused connections close after 60)")
    p.add_argument("--idle", type=float, default=30, help="seconds")
    p.add_argument("--svg", help="draws growth curves to this file")
    p.add_argument("--bin", help="the program, instead of BRANCHLINE")
    p.add_argument("--keep-logs", help="a folder for the agents' logs")
    a = p.parse_args()
    if a.bin:
        os.environ["BRANCHLINE"] = a.bin
    rows = []
    for count in map(int, a.agents.split(",")):
        rows.append(measure(count, a))
        print(json.dumps(rows[-1]), flush=True)
    print("| " + " | ".join(FIELDS) + " |\n|" + "---|" * len(FIELDS))
    for row in rows:
        print("| " + " | ".join(str(row.get(field, "")) for field in FIELDS) + " |")
    if a.svg:
        draw(rows, a.svg)


if __name__ == "__main__":
    main()
