#!/usr/bin/env python3
"""How fast bundles are written and read, against `cp` and a hash of the same bytes.

    BRANCHLINE=target/release/branchline python3 tests/lab/media.py [--size 1000000000] [--rounds 5] [--dir DIR]

Content does not compress, as packages do not, and the page cache is warm. So is the memory that new files get: a
virtual machine's host takes back what has been free for a while, and whoever is next to use it pays for that (on one
machine a `cp` of 1 GB took 0.29 s or 0.59 s), so each command is preceded by a file that is written and removed. Each figure is a median of
rounds in which everything takes its turn; the ratio is speed against speed, more than 1 is faster than `cp` and
the hash one after the other. Twice each: as long as it takes until the bytes are in the page cache, as `cp` leaves
them, and with the flush to the disk on both sides (`sync FILE` after `cp`), which the program's own way includes.

The hash is `b3sum` (cargo install b3sum), which uses all cores; without it, `sha256sum`, which is slower and
so makes the comparison too easy: the output says which.
"""
import argparse, json, os, pathlib, shutil, socket, statistics, subprocess, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=1_000_000_000)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--dir", help="on the disk that is to be measured")
options = parser.parse_args()
PROGRAM = str(pathlib.Path(os.environ.get("BRANCHLINE", "target/release/branchline")).resolve())
HASH = "b3sum" if shutil.which("b3sum") else "sha256sum"


def run(*command, out=subprocess.PIPE):
    """Seconds, and what it printed."""
    began = time.monotonic()
    done = subprocess.run([str(word) for word in command], check=True, stdout=out, stderr=subprocess.PIPE, text=True)
    return time.monotonic() - began, done.stdout


def to_file(path, *command):
    with open(path, "wb") as file:
        return run(*command, out=file)[0]


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


with tempfile.TemporaryDirectory(dir=options.dir, prefix="branchline-media-") as name:
    home = pathlib.Path(name)
    tree, keys, state, payload = home / "tree", home / "keys", home / "state", home / "payload"
    with open(payload, "wb") as file:
        for at in range(0, options.size, 1 << 24):
            file.write(os.urandom(min(1 << 24, options.size - at)))
    run(PROGRAM, "origin", "init", "--root", tree, "--keys", keys)
    run(PROGRAM, "publish", payload, "--name", "big", "--version", "1", "--origin", tree, "--keys", keys)
    run(PROGRAM, "site", "keygen", home / "site.key")
    root = tree / "catalog/root.json"
    bundle, copy = home / "bundle", home / "copy"
    export = [PROGRAM, "export", "big@1", "--origin", tree, "--trust", root]
    at_agent = ["--state-dir", state]
    run(*export, "-o", bundle)
    log = open(home / "agent.log", "wb")
    agent = subprocess.Popen([PROGRAM, "agent", "--site", "media", "--site-key", home / "site.key", "--no-mdns", "--origin",
                              "http://127.0.0.1:9", "--trust", root, "--state-dir", state, "--listen", port(), "--gateway",
                              port(), "--disk-reserve", "0", "--cache-size", str(4 * options.size)], stdout=log, stderr=log)
    try:
        while not (state / "admin.sock").exists():
            time.sleep(0.05)
        took = {}

        def touch_memory():
            run("cp", payload, home / "touched")
            (home / "touched").unlink()

        def note(what, seconds):
            took.setdefault(what, []).append(seconds)

        for turn in range(options.rounds + 1):
            if turn == 1:
                took.clear()  # the first turn warms everything up
            for path in (payload, bundle):
                run("cat", path, out=subprocess.DEVNULL)
            copy.unlink(missing_ok=True)
            touch_memory()
            copied, hashed = run("cp", payload, copy)[0], run(HASH, payload)[0]
            flushed = run("sync", copy)[0]
            note("cp + hash", copied + hashed)
            note("cp + hash, flushed", copied + hashed + flushed)
            copy.unlink()
            touch_memory()
            imported, said = run(PROGRAM, "import", bundle, "--json", *at_agent)
            said = json.loads(said)
            assert said["new_bytes"] == options.size, said
            note("import", imported - said["flush_seconds"])
            note("import, flushed", imported)
            for name, command in (("export from the origin", export), ("export from the agent", [PROGRAM, "export", "big@1", *at_agent])):
                touch_memory()
                note(name, to_file(copy, *command, "-o", "-"))
                copy.unlink()
                touch_memory()
                note(name + ", flushed", run(*command, "-o", copy)[0])
                copy.unlink()
            run(PROGRAM, "evict", "big@1", *at_agent)
        print(f"{options.size / 1e6:.0f} MB, {options.rounds} rounds, {os.cpu_count()} cores, hash: {HASH}, load {os.getloadavg()[0]:.1f}")
        for what, seconds in took.items():
            base = statistics.median(took["cp + hash, flushed" if what.endswith("flushed") else "cp + hash"])
            middle = statistics.median(seconds)
            print(f"{what:34} {middle:6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {options.size / middle / 1e6:5.0f} MB/s, ratio {base / middle:.2f}")
    finally:
        agent.terminate()
        agent.wait()
