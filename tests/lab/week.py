#!/usr/bin/env python3
"""A week in a site of eight, told in minutes: what the admin does, and what status, savings, the dashboard and the
router say. The dashboard as a browser shows it, if BRANCHLINE_PLAYWRIGHT names the folder of playwright-core.

    sudo python3 tests/lab/week.py
"""
import datetime, os, shutil, subprocess, time

import lab
from admin import holders, kept, order
from branch import payload
from scenarios import balanced, expect, started

SIZE = 12_000_000


# What a person sees of some parts of the dashboard.
LOOK = """
const {chromium} = require(process.env.BRANCHLINE_PLAYWRIGHT + "/node_modules/playwright-core");
(async () => {
  const browser = await chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox"]});
  const page = await browser.newPage();
  await page.goto("http://127.0.0.1:7420/");
  await page.waitForTimeout(2500);
  for (const part of ["facts", "tiles", "ordered", "faults"]) {
    const said = (await page.locator("#" + part).innerText()).replace(/\\s+/g, " ").trim();
    if (said) console.log("dashboard, " + part + ": " + said);
  }
  await browser.close();
})();
"""


class Week:
    def __init__(self, site):
        self.site = site
        self.hosts = list(site.hosts)
        self.before = (0, 0)
        lab.zero()

    def cli(self, host, *command, fails=False):
        line = [self.site.bin, *map(str, command), "--state-dir", str(self.site.dir / f"state-{host}")]
        run = lab.run(host, line, capture_output=True, text=True)
        said = (run.stdout + run.stderr).strip()
        print(f"  {host}$ branchline {' '.join(map(str, command))}\n" + "\n".join(f"      {it}" for it in said.splitlines()), flush=True)
        assert bool(run.returncode) == fails, said
        return said

    def day(self, name):
        print(f"== {name}", flush=True)

    def tell(self, host=None):
        """What status, savings and the router say now."""
        host = host or self.hosts[-1]
        time.sleep(1.3)
        status = lab.run(host, [self.site.bin, "status"], capture_output=True, text=True).stdout
        wanted = ("origin", "catalog", "background", "wan", "keeping", "trouble", "outage")
        print("\n".join(f"      status: {it[:180]}" for it in status.splitlines() if it.startswith(wanted)), flush=True)
        self.dashboard(host)
        totals = balanced(self.site.savings(host))
        print("      savings: " + ", ".join(f"{name} {totals[name] / 1e6:.1f} MB" for name in
                                           ("delivered", "wan", "peer", "local", "preloaded_wan", "preloaded_peer", "preloaded_media")), flush=True)
        router = lab.wan()[1]
        crossed = [now - then for now, then in zip(router, self.before)]
        self.before = router
        print(f"      router: {crossed[0] / 1e6:.2f} MB in, {crossed[1] / 1e6:.2f} MB out since the last step", flush=True)
        return crossed[0]

    def dashboard(self, host):
        if os.environ.get("BRANCHLINE_PLAYWRIGHT"):
            said = lab.run(host, ["node", "-e", LOOK], capture_output=True, text=True, timeout=60)
            print("\n".join(f"      {it[:300]}" for it in (said.stdout + said.stderr).splitlines()), flush=True)

    def publish(self, name, version, seed):
        file = payload(self.site.dir / f"{name}-{version}", SIZE, seed)
        self.site.cli("publish", file, "--name", name, "--version", version, "--channel", "stable",
                      "--origin", self.site.tree, "--keys", self.site.keys)
        print(f"  hq$ branchline publish {name}-{version} --name {name} --version {version} --channel stable", flush=True)
        return file

    def hq(self, *command):
        said = self.site.cli(*command, "--origin", self.site.tree, "--keys", self.site.keys).strip()
        print(f"  hq$ branchline {' '.join(map(str, command))}\n      {said}", flush=True)


def week():
    site, _ = started(8, size=1_000_000)
    with site:
        for host in site.hosts:
            follow = ["--follow", "tool@stable"] if host in site.hosts[:2] else []
            site.start(host, "--catalog-interval", "2", *follow)
        for host in site.hosts:
            site.wait(lambda: site.ready(host), what=f"{host} ready")
        week, first = Week(site), site.hosts[0]

        week.day("Monday: a schedule, and a package that is to come at night")
        now = datetime.datetime.now(datetime.timezone.utc)
        night = (now + datetime.timedelta(minutes=2 if now.second > 40 else 1)).replace(second=0)
        schedule = site.dir / "schedule.toml"
        schedule.write_text(f"""zone = "UTC"
[[window]]
name = "day"
days = "mon-sun"
hours = "{(now - datetime.timedelta(minutes=1)):%H:%M}-{night:%H:%M}"
foreground = "20mbit"
background = "none"
""")
        week.cli(first, "wan", "schedule", schedule)
        week.publish("office", "1", b"office-1")
        time.sleep(3)
        week.cli(first, "seed", "office@stable", "--copies", "3")
        time.sleep(5)
        expect("nothing of it crosses by day", week.tell() < 200_000, holders(site, week.hosts, "office@1"))
        week.day("Monday night: the window opens")
        site.wait(lambda: len(holders(site, week.hosts, "office@1")) >= 3, 150, "three copies")
        expect("one copy at night", week.tell() < 1.06 * SIZE, holders(site, week.hosts, "office@1"))

        week.day("Tuesday: a pin, and a followed package that comes by itself, twice")
        week.cli(week.hosts[3], "pin", "office@1")
        for version in ("1", "2"):
            week.publish("tool", version, b"tool-" + version.encode())
            site.wait(lambda: len(holders(site, week.hosts[:2], f"tool@{version}")) == 2, 60, f"tool@{version}")
            expect("one copy of it", week.tell() < 1.06 * SIZE, holders(site, week.hosts, f"tool@{version}"))

        week.day("Wednesday: two machines are lost")
        for _ in range(2):
            lost = next(host for host in holders(site, week.hosts, "office@1") if host not in (first, week.hosts[3]))
            lab.crash(lost)
            week.hosts.remove(lost)
            site.wait(lambda: len(holders(site, week.hosts, "office@1")) >= 3, 60, "the copy to be back")
            expect(f"{lost} is lost, and its copy is back without the WAN", week.tell() < 100_000, holders(site, week.hosts, "office@1"))
        time.sleep(5)
        expect("and nobody else has taken one", len(holders(site, week.hosts, "office@1")) <= 4, holders(site, week.hosts, "office@1"))

        week.day("Thursday: the WAN is closed, and something is urgent")
        week.publish("fix", "1", b"fix-1")
        week.cli(first, "wan", "close", "--for", "1h")
        time.sleep(4)
        target = site.dir / "fix"
        gateway = week.hosts[-1]
        run = lab.run(gateway, [site.bin, "get", "fix", "-o", str(target)], capture_output=True, text=True)
        expect("a client that waits is told", run.returncode == 1 and "closed" in run.stderr, run.stderr.strip().splitlines()[-1])
        run = lab.run(gateway, [site.bin, "get", "fix", "--urgent", "-o", str(target)], capture_output=True, text=True)
        expect("an urgent one goes through", run.returncode == 0, run.stderr.strip()[-200:])
        week.tell()
        week.cli(first, "wan", "close")
        week.cli(first, "wan", "clear")

        week.day("Friday: tool 2 was a mistake")
        week.hq("rollback", "stable", "tool")
        site.wait(lambda: any(it["package"] == "tool@1" for it in site.api(first, "status")["keeping"]), 30, "the roll-back")
        expect("it was still there", week.tell() < 100_000, kept(site, first, "tool@1"))

        week.day("Saturday: the line is down, and a disk comes by post")
        week.publish("suite", "1", b"suite-1")
        bundle = site.dir / "suite.bundle"
        said = site.cli("export", "suite@1", "-o", bundle, "--origin", site.tree, "--trust", site.tree / "catalog/root.json")
        print(f"  hq$ branchline export suite@1 -o suite.bundle\n      {said.strip()}", flush=True)
        lab.cut(1)
        week.cli(first, "import", bundle)
        for host in week.hosts:
            got = lab.run(host, [site.bin, "get", "suite@1", "-o", str(site.dir / f"suite-{host}")], capture_output=True, text=True)
            assert got.returncode == 0, got.stderr
        expect("all have it, and nothing crossed", week.tell() < 1000, f"{len(week.hosts)} machines")
        week.cli(first, "orders")


if __name__ == "__main__":
    week()
