#!/usr/bin/env python3
"""Measures hot content on an unshaped LAN against nginx and curl, as ratios within one run.

    sudo python3 tests/lab/hot.py --agents [--size 512MiB] [--runs 3]
    sudo python3 tests/lab/hot.py --fanout 8
    sudo python3 tests/lab/hot.py --gateway          (all three may go together)

--agents: one host holds a file that does not compress, one fetches it, to the same disk.
    nginx        nginx (sendfile) to `curl -o FILE`: the reference, 1.0. Not synced; `fsync_s` is what that takes
    swarm        agent to agent: a client asks the fetcher's gateway and reads nothing; until the fetcher
                 says that it holds all, which is after its fsync
    get          the same by `curl -o FILE` from the fetcher's gateway, until curl ends
    libtorrent   libtorrent to libtorrent, told of the seeder, TCP only (its uTP is slower here)
    aria2        aria2 from the same seeder, which a tracker names; the whole process, with its waits of 1 s
--fanout N: one holder to N fetchers at once: all bytes by the time of the last.
--gateway: a held file, and a held object of 10 KB (wrk), from the agent and from nginx over loopback.

All kinds take turns; a fetcher is new each time, the holder stays; sync before each. Figures are medians.
`x`: speed as a multiple of nginx's. `wire`: GB/s while the middle 98 % of the bytes left the holder, and
its `wire_x`: no start, no end, no fsync. `copies` left the holder for each that was fetched. `cpu`: seconds
per GB of each process; what the kernel does in softirq threads is in none.
"""
import argparse, contextlib, filecmp, http.client, json, os, re, shutil, signal, socket, statistics, subprocess
import sys, threading, time
from pathlib import Path

import lab
from bench import cpu
from branch import Site, payload

PORT, GATEWAY, SEED = 8080, 7420, 6881
PYTHON = "/usr/bin/python3"         # that of python3-libtorrent
HERE = Path(__file__).resolve()
TABLE = []


# ---- measuring ----------------------------------------------------------------------
def cpus(processes):
    """{name: CPU seconds so far} of {name: pids}, with their children (nginx's workers)."""
    family = lambda pid: [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return {name: sum(cpu(one) for pid in pids for one in family(pid)) for name, pids in processes.items()}


def timed(size, processes, act, sender=None):
    """Runs act, which may give {name: CPU seconds} of its own children, and its own time as {"s": ...}."""
    os.sync(), time.sleep(0.3)
    left, done = [], threading.Event()
    sent = lambda: lab.nic(sender, "eth0")[1] if sender else 0

    def watch():
        while not done.is_set():
            done.wait(0.01)
            left.append((time.monotonic(), sent()))

    watcher = threading.Thread(target=watch, daemon=True)
    base, before, start = sent(), cpus(processes), time.monotonic()
    watcher.start()
    more = act() or {}
    took = dict(s=more.pop("s", time.monotonic() - start))
    used = {name: after - before[name] for name, after in cpus(processes).items()} | more
    done.set()
    watcher.join()
    (t1, sent1), (t2, sent2) = (next((it for it in left if it[1] - base >= part * size), (0, 0)) for part in (0.01, 0.99))
    if t2 > t1:
        took["wire"] = (sent2 - sent1) / (t2 - t1) / 1e9
    if sender:
        took["copies"] = (sent() - base) / size
    return took | {"cpu_" + name: seconds / size * 1e9 for name, seconds in used.items()} | dict(rate=size / took["s"] / 1e9)


def report(title, runs, unit="GB/s"):
    """Medians of each kind, and as multiples of nginx's."""
    middle = {kind: {key: statistics.median(it[key] for it in its if key in it) for key in its[0]} for kind, its in runs.items()}
    base = middle["nginx"]
    for kind, it in middle.items():
        per = {key[4:]: round(value, 2) for key, value in it.items() if key.startswith("cpu_")}
        more = {key: round(value, 3) for key, value in it.items() if not key.startswith("cpu_") and key != "rate"}
        x = dict(x=round(it["rate"] / base["rate"], 3))
        if "wire" in it and "wire" in base:
            x["wire_x"] = round(it["wire"] / base["wire"], 3)
        print(dict(measured=title, kind=kind, speed=round(it["rate"], 3), unit=unit, **x, **more, cpu=per,
                   each=[round(one["rate"], 3) for one in runs[kind]]), flush=True)
        TABLE.append(f"| {title} | {kind} | {it['rate']:,.3f} {unit} | {x['x']:.3f} | {x.get('wire_x', '')} | "
                     + ", ".join(f"{name} {value:.2f}" for name, value in per.items()) + " |")


# ---- processes ----------------------------------------------------------------------
def finish(process):
    """Waits; its CPU seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{process.args}: {process.returncode}"
    return usage.ru_utime + usage.ru_stime


def curls(*jobs):
    """All (host, url, out) at once."""
    running = [lab.popen(host, ["curl", "-sf", "--noproxy", "*", "-o", out, url]) for host, url, out in jobs]
    return dict(curl=sum(map(finish, running)))


def nginx(site, host):
    """Serves the site's `www`, as a plain file server would be set up; its process."""
    home, www = site.dir / "nginx", site.dir / "www"
    home.mkdir(), www.mkdir()
    temporary = "".join(f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "conf").write_text(f"""user root; worker_processes auto; daemon off; pid {home}/pid;
        events {{ worker_connections 256; }}
        http {{ access_log off; sendfile on; tcp_nopush on; {temporary} server {{ listen {PORT}; root {www}; }} }}""")
    server = lab.popen(host, ["nginx", "-e", home / "errors", "-p", home, "-c", home / "conf"], stderr=subprocess.DEVNULL)
    site.servers.append(server)
    site.wait((home / "pid").exists, what="nginx")        # written once it listens
    return server


@contextlib.contextmanager
def asker(hosts, name="demo"):
    """Connected to every gateway; what it gives asks for the package, and waits until all hold it."""
    clients, polls = [], []
    for host in hosts:
        with lab.inside(host):
            clients.append(socket.socket())
            clients[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            clients[-1].connect(("127.0.0.1", GATEWAY))
            polls.append(http.client.HTTPConnection("127.0.0.1", GATEWAY))
            polls[-1].connect()

    def holds(poll):
        time.sleep(0.02)
        poll.request("GET", "/api/v1/packages")
        return any(it["name"] == name and it["held"] == "complete" for it in json.load(poll.getresponse()))

    def act():
        for client in clients:
            client.sendall(f"GET /packages/{name}/1 HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
        end, left = time.monotonic() + 300, polls
        while left := [poll for poll in left if not holds(poll)]:
            assert time.monotonic() < end, f"{len(left)} do not hold it within 300 s"

    try:
        yield act
    finally:
        for it in [*clients, *polls]:
            it.close()


def hold(site, host, *names):
    """An agent that holds the packages, from the origin; the list of its process id."""
    site.start(host)
    site.wait(lambda: site.ready(host), what="the holder")
    for name in names:
        with asker([host], name) as act:
            act()
    return [site.agents[host].pid]


@contextlib.contextmanager
def fresh(site, hosts):
    """New agents that hold nothing and know all others; their process ids. Nothing of theirs stays."""
    lab.zero()
    for host in hosts:
        site.start(host)
    try:
        for host in hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
            site.wait(lambda: len(site.api(host, "peers") or []) == len(site.agents) - 1, what="full mesh")
        yield [site.agents[host].pid for host in hosts]
        assert lab.wan()[1][0] < 1e7, "content came over the WAN"
    finally:
        for host in hosts:
            site.agents[host].send_signal(signal.SIGTERM)
        for host in hosts:
            site.agents.pop(host).wait()
            shutil.rmtree(site.dir / f"state-{host}", ignore_errors=True)


def same(file, *outs):
    """Checks what was fetched, and removes it."""
    for out in outs:
        assert filecmp.cmp(out, file, shallow=False), f"{out} is another file"
        out.unlink()


# ---- BitTorrent: _seed and _leech are processes of their own --------------------------
def session():
    import libtorrent
    off = ("dht", "lsd", "upnp", "natpmp", "incoming_utp", "outgoing_utp")
    made = libtorrent.session({"listen_interfaces": f"0.0.0.0:{SEED}", **{f"enable_{it}": False for it in off}})
    return libtorrent, made, libtorrent.add_torrent_params()


def seed(file, torrent):
    lt, it, params = session()
    files = lt.file_storage()
    lt.add_files(files, file)
    made = lt.create_torrent(files, flags=lt.create_torrent.v1_only)     # aria2 knows no other
    lt.set_piece_hashes(made, os.path.dirname(file))
    Path(torrent).write_bytes(lt.bencode(made.generate()))
    params.ti, params.save_path, params.flags = lt.torrent_info(torrent), os.path.dirname(file), lt.torrent_flags.seed_mode
    it.add_torrent(params)
    print("ready", flush=True)
    signal.pause()


def leech(torrent, folder, address):
    lt, it, params = session()
    params.ti, params.save_path = lt.torrent_info(torrent), folder
    before, start = time.process_time(), time.monotonic()
    handle = it.add_torrent(params)
    handle.connect_peer((address, SEED))
    while not handle.status().is_seeding:
        time.sleep(0.02)
    print(json.dumps(dict(s=time.monotonic() - start, libtorrent=time.process_time() - before)), flush=True)
    os._exit(0)


def torrents(site, holder, fetcher, file, folder):
    """The seeder's process, and {kind: how to fetch}; what is not installed is named."""
    if subprocess.run([PYTHON, "-c", "import libtorrent"], capture_output=True).returncode:
        print("skipped: libtorrent, aria2: no python3-libtorrent", flush=True)
        return None, {}
    torrent, address = site.dir / "torrent", lab.addr(holder)
    process = lab.popen(holder, [PYTHON, HERE, "_seed", file, torrent], stdout=subprocess.PIPE)
    site.servers.append(process)
    assert process.stdout.readline() == b"ready\n", "no seeder"
    peer = socket.inet_aton(address) + SEED.to_bytes(2, "big")
    (file.parent / "announce").write_bytes(b"d8:intervali1800e5:peers6:" + peer + b"e")     # a tracker, to aria2
    aria2 = ["aria2c", "-q", "--no-conf", f"--dir={folder}", "--seed-time=0", "--file-allocation=falloc", "--enable-dht=false",
             "--enable-peer-exchange=false", f"--bt-tracker=http://{address}:{PORT}/announce", torrent]
    kinds = dict(libtorrent=lambda: json.loads(lab.run(fetcher, [PYTHON, HERE, "_leech", torrent, folder, address]).stdout))
    if shutil.which("aria2c"):
        return process, kinds | dict(aria2=lambda: dict(aria2=finish(lab.popen(fetcher, aria2))))
    print("skipped: aria2: not installed", flush=True)
    return process, kinds


# ---- the three measurements -----------------------------------------------------------
def agents(size, runs):
    with Site(2, wan="none", delay=0, lan="none") as site:
        (holder, fetcher), result = site.hosts, {}
        server, file = nginx(site, holder), payload(site.dir / "www/payload", size)
        site.publish(file, "1")
        held, out, folder = hold(site, holder, "demo"), site.dir / "out", site.dir / "torrents"
        seeder, kinds = torrents(site, holder, fetcher, file, folder)
        plain, gate = f"http://{lab.addr(holder)}:{PORT}/payload", f"http://127.0.0.1:{GATEWAY}/packages/demo/1"
        measure = lambda kind, act, **of: result.setdefault(kind, []).append(timed(size, of, act, holder))
        for _ in range(runs):
            measure("nginx", lambda: curls((fetcher, plain, out)), nginx=[server.pid])
            start = time.monotonic()
            with open(out, "rb") as it:
                os.fsync(it.fileno())
            result["nginx"][-1]["fsync_s"] = time.monotonic() - start
            same(file, out)
            with fresh(site, [fetcher]) as pids, asker([fetcher]) as act:
                measure("swarm", act, holder=held, fetcher=pids)
            with fresh(site, [fetcher]) as pids:
                measure("get", lambda: curls((fetcher, gate, out)), holder=held, fetcher=pids)
                same(file, out)
            for kind, act in kinds.items():
                folder.mkdir()
                measure(kind, act, seeder=[seeder.pid])
                same(file, folder / "payload")
                shutil.rmtree(folder)
        report("one to one", result)


def fanout(count, size, runs):
    with Site(count + 1, wan="none", delay=0, lan="none") as site:
        holder, fetchers, result = site.hosts[0], site.hosts[1:], dict(nginx=[], swarm=[])
        server, file, total = nginx(site, holder), payload(site.dir / "www/payload", size), size * count
        site.publish(file, "1")
        held = hold(site, holder, "demo")
        jobs = [(host, f"http://{lab.addr(holder)}:{PORT}/payload", site.dir / f"out-{host}") for host in fetchers]
        for _ in range(runs):
            result["nginx"].append(timed(total, dict(nginx=[server.pid]), lambda: curls(*jobs), holder))
            same(file, *(out for _, _, out in jobs))
            with fresh(site, fetchers) as pids, asker(fetchers) as act:
                result["swarm"].append(timed(total, dict(holder=held, fetchers=pids), act, holder))
        report(f"one to {count}", result)


def gateway(size, runs):
    with Site(1, wan="none", delay=0, lan="none") as site:
        host, results, out = site.hosts[0], {}, site.dir / "out"
        server, file = nginx(site, host), payload(site.dir / "www/demo", size)
        site.publish(file, "1")
        site.publish(payload(site.dir / "www/small", 10_000, b"small"), "1", "small")
        pid, = hold(site, host, "demo", "small")
        kinds = dict(nginx=(server.pid, f"http://127.0.0.1:{PORT}/%s"), gateway=(pid, f"http://127.0.0.1:{GATEWAY}/packages/%s/1"))
        note = lambda what, kind, it: results.setdefault(what, {}).setdefault(kind, []).append(it)
        for _ in range(runs):
            for kind, (pid, url) in kinds.items():
                for what, to in (("to nothing", "/dev/null"), ("to a file", out)):
                    note(what, kind, timed(size, dict(server=[pid]), lambda: curls((host, url % "demo", to))))
                same(file, out)
            for kind, (pid, url) in kinds.items() if shutil.which("wrk") else ():
                before = cpus({0: [pid]})[0]
                said = lab.run(host, ["wrk", "-t1", "-c8", "-d5s", url % "small"], check=True).stdout
                used = cpus({0: [pid]})[0] - before
                assert "Non-2xx" not in said and "Socket errors" not in said, said
                note("10 KB", kind, dict(rate=float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])))
                note("10 KB, by core of the server", kind, dict(rate=int(re.search(r"(\d+) requests in", said)[1]) / used))
        if "10 KB" not in results:
            print("skipped: 10 KB: no wrk", flush=True)
        for what, result in results.items():
            report(f"loopback, {what}", result, "requests/s" if "KB" in what else "GB/s")


def main():
    if child := dict(_seed=seed, _leech=leech).get("".join(sys.argv[1:2])):
        return child(*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--agents", action="store_true")
    p.add_argument("--fanout", type=int, metavar="N")
    p.add_argument("--gateway", action="store_true")
    p.add_argument("--size", default="512MiB", help="in KiB, MiB or GiB")
    p.add_argument("--runs", type=int, default=3)
    a = p.parse_args()
    if not (a.agents or a.fanout or a.gateway):
        p.error("one of --agents, --fanout N, --gateway")
    number, unit = re.fullmatch(r"(\d+)([KMG])i?B", a.size).groups()
    a.size = int(number) << {"K": 10, "M": 20, "G": 30}[unit]
    a.agents and agents(a.size, a.runs)
    a.fanout and fanout(a.fanout, a.size, a.runs)
    a.gateway and gateway(a.size, a.runs)
    print("\n| measured | kind | speed | x | wire_x | CPU s per GB |\n|---|---|---|---|---|---|", *TABLE, sep="\n")


if __name__ == "__main__":
    main()
