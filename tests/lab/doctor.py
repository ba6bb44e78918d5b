#!/usr/bin/env python3
"""What 'branchline doctor' says on real hosts of what is broken there: one cause each.

    sudo python3 tests/lab/doctor.py doctor
"""
import json, subprocess, sys

import lab
from scenarios import expect, started


def doctor(site, host):
    """The tests that do not pass, by name, with their causes."""
    run = lab.run(host, [site.bin, "doctor", "--json", "--state-dir", site.dir / f"state-{host}"],
                  capture_output=True, text=True)
    checks = json.loads(run.stdout)["checks"]
    assert (run.returncode == 0) == all(it["state"] != "failed" for it in checks), run.stdout
    return {it["test"]: it["cause"] if it["state"] == "failed" else it["seen"]
            for it in checks if it["state"] != "passed"}


def one_cause(site, host, what, test, words, skipped=()):
    """Exactly this test fails, for this reason."""
    site.wait(lambda: (doctor(site, host).get(test) or "").find(words) >= 0, 40, f"{what}: {test}")
    found = doctor(site, host)
    expect(f"{what}: {test}", [name for name in found if name not in skipped] == [test] and all("see" in found[name] for name in skipped), found)


def rule(host, *what, add=True):
    lab.run(host, ["iptables", "-w", "-A" if add else "-D", *what], check=True)


def break_and_mend(site, host, what, test, words, *iptables):
    rule(host, *iptables)
    one_cause(site, host, what, test, words)
    rule(host, *iptables, add=False)
    site.wait(lambda: doctor(site, host) == {}, 40, f"{host} is well after {what}")


def doctor_on_real_hosts():
    site, _ = started(3, size=1_000_000)
    with site:
        one, two, three = site.hosts
        site.start_all()
        site.wait(lambda: all(doctor(site, host) == {} for host in site.hosts), 30, "three machines that are well")
        expect("three machines that found each other by multicast", True, "every test passes on each")
        break_and_mend(site, one, "a firewall before the swarm port", "ports", "firewall on this machine",
                       "INPUT", "-p", "tcp", "--dport", "7421", "-j", "DROP")
        break_and_mend(site, one, "a firewall that eats multicast", "discovery", "UDP port 5353",
                       "INPUT", "-p", "udp", "--dport", "5353", "-j", "DROP")
        lab.cut(1)
        one_cause(site, two, "a WAN that is cut", "origin", "gets lost")
        lab.heal(1)
        state = site.dir / f"state-{three}"
        site.agents[three].terminate()
        site.agents[three].wait()
        found = doctor(site, three)
        expect("an agent that does not run: agent", list(found) == ["agent"], found)
        state.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", state], check=True)
        try:
            site.start(three)
            site.wait(lambda: site.ready(three), what=f"{three} ready")
            with open(state / "filler", "wb") as filler:
                try:
                    while True:
                        filler.write(bytes(1 << 20))
                except OSError:
                    pass
            one_cause(site, three, "a disk that is full", "disk", "full", skipped=["origin"])
        finally:
            site.agents[three].kill()
            site.agents[three].wait()
            subprocess.run(["umount", state], check=True)


if __name__ == "__main__":
    assert sys.argv[1:] == ["doctor"], __doc__
    doctor_on_real_hosts()
