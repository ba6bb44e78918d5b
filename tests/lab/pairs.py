#!/usr/bin/env python3
"""What upgrades and new packages cost by recipe, against the file as shipped and against another way to do it.

    python3 tests/lab/pairs.py OLD NEW [OLD NEW ...]      .whl .zip .jar .tgz .tar.gz .deb

For each pair of versions: what 'publish' says that the new one costs as an upgrade and where nothing is held, as parts
of the file; the sum of zstd -19 of each file inside that has changed, against its older self (by `zstd --patch-from`,
names compared without their numbers); how long publishing took, with and without the older version, in MB of contents
per second; and how much memory. Needs zstd; no root.
"""
import io, json, lzma, os, re, subprocess, sys, tarfile, tempfile, time, zipfile
from pathlib import Path

from branch import program


def inside(file):
    """The files within, by path."""
    data = Path(file).read_bytes()
    if data[:2] == b"PK":
        archive = zipfile.ZipFile(io.BytesIO(data))
        return {name: archive.read(name) for name in archive.namelist()}
    if data[:8] == b"!<arch>\n":
        found, at = {}, 8
        while at + 60 <= len(data):
            name, size = data[at:at + 16].decode().strip().rstrip("/"), int(data[at + 48:at + 58])
            body = data[at + 60:at + 60 + size]
            found |= {f"{name}/{path}": content for path, content in inside_tar(body, name).items()} if ".tar" in name else {name: body}
            at += 60 + size + size % 2
        return found
    return inside_tar(data, str(file))


def inside_tar(data, name):
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = subprocess.run(["zstd", "-dc"], input=data, check=True, capture_output=True).stdout
    elif data[:6] == b"\xfd7zXZ\0":
        data = lzma.decompress(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {it.name: archive.extractfile(it).read() for it in archive if it.isfile()}


def reference(old, new):
    """Bytes of zstd -19 of each file that has changed, against its older self."""
    plain = lambda name: re.sub(r"\d+", "0", name)
    older = inside(old)
    unnumbered = {plain(name): content for name, content in older.items()}
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "old"), Path(folder, "new")
        for name, content in inside(new).items():
            known = older.get(name, unnumbered.get(plain(name)))
            if known == content:
                continue
            after.write_bytes(content)
            more = []
            if known:
                before.write_bytes(known)
                more = [f"--patch-from={before}"]
            total += len(subprocess.run(["zstd", "-19", "-qc", *more, after], check=True, capture_output=True).stdout)
    return total


def publish(tree, file, version, *more):
    """The receipt, seconds, and the most memory in bytes."""
    began = time.monotonic()
    process = subprocess.Popen([program(), "publish", file, "--name", "demo", "--version", version, "--json",
                                "--origin", tree / "tree", "--keys", tree / "keys", *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, said
    return json.loads(said)["recipes"], time.monotonic() - began, used.ru_maxrss * 1024


def measure(old, new):
    size = os.path.getsize(new)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        folder = Path(folder)
        subprocess.run([program(), "origin", "init", "--root", folder / "tree", "--keys", folder / "keys"], check=True, capture_output=True)
        alone, first, _ = publish(folder, old, "1")
        made, second, memory = publish(folder, new, "2")
    cost = {way["against"]: way["bytes"] for way in made["ways"]}
    rate = lambda recipes, seconds: f"{recipes['contents'] / seconds / 1e6:.1f}" if recipes["contents"] else "-"
    other = reference(old, new)
    part = lambda count: f"{count / size:.4f}" if count is not None else "1"
    print(f"{Path(new).name[:44]:44} {size / 1e6:6.1f} MB  upgrade {part(cost.get('1'))}  zstd -19 by file {part(other)}  "
          f"ratio {cost.get('1', size) / max(other, 1):.2f}  new {part(cost.get(None))}  published in {first:.1f} s ({rate(alone, first)} MB/s) "
          f"and {second:.1f} s ({rate(made, second)} MB/s), {memory / 1e6:.0f} MB; {made['left_count']} parts as shipped", flush=True)
    for left in made["left"][:3]:
        print(f"    as shipped: {left['path']}: {left['why']}")


if __name__ == "__main__":
    files = sys.argv[1:]
    assert files and len(files) % 2 == 0, __doc__
    for at in range(0, len(files), 2):
        measure(*files[at:at + 2])
