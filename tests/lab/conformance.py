#!/usr/bin/env python3
"""The OCI distribution specification's own pull tests: against a registry, and against the gateway before it.

    BRANCHLINE=target/release/branchline python3 tests/lab/conformance.py SUITE

SUITE is the program that `go build` (1.24 or later) makes of the folder conformance/ of the specification's repository,
opencontainers/distribution-spec. The registry is Debian's docker-registry, on this machine; the suite itself fills it.
What fails at the gateway has to fail at the registry, too.
"""
import collections, json, os, pathlib, re, socket, subprocess, sys, tempfile, time, urllib.request

PROGRAM = str(pathlib.Path(os.environ.get("BRANCHLINE", "target/release/branchline")).resolve())
NOTHING_IS_DELETED = {f"OCI_API_{what}_DELETE": "false" for what in ("BLOBS", "MANIFESTS", "TAGS")}


def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def suite(home, registry, repository, **more):
    """How often each test passed and failed, and what it said."""
    env = {**os.environ, **NOTHING_IS_DELETED, **more, "OCI_REGISTRY": registry, "OCI_TLS": "disabled", "OCI_REPO1": f"{repository}one",
           "OCI_REPO2": f"{repository}two", "OCI_RESULTS_DIR": str(home / "results"), "OCI_LOG": "error", "OCI_VERSION": "1.1"}
    said = subprocess.run([sys.argv[1]], env=env, cwd=home, capture_output=True, text=True).stdout
    ends = collections.Counter(re.findall(r"^ +(OCI Conformance Test/\S.*): (Pass|FAIL)$", said, re.MULTILINE))
    return ends, said


def totals(said):
    """As the suite counts."""
    passed, failed = (re.search(rf"^ +{end}\.+: +(\d+)$", said, re.MULTILINE)[1] for end in ("Pass", "FAIL"))
    return f"{passed} pass and {failed} fail"


def listed(folder, kind):
    """Digests that the registry's disk has, of manifests or of layers and configs."""
    links = sorted(folder.glob(f"docker/registry/v2/repositories/conf/one/{kind}/*/*/link"))
    return " ".join(f"{link.parent.parent.name}:{link.parent.name}" for link in links if link.stat().st_size)


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).read()
    except OSError:
        return None


with tempfile.TemporaryDirectory(prefix="branchline-conformance-") as name:
    home = pathlib.Path(name)
    at, gateway = address(), address()
    (home / "registry.yml").write_text(json.dumps({"version": "0.1", "log": {"level": "error"}, "http": {"addr": at},
                                                   "storage": {"filesystem": {"rootdirectory": str(home / "registry")}}}))
    run = lambda *command: subprocess.run([PROGRAM, *map(str, command)], check=True, capture_output=True)
    run("origin", "init", "--root", home / "tree", "--keys", home / "keys")
    run("site", "keygen", home / "site.key")
    log = open(home / "log", "wb")
    running = [subprocess.Popen(["docker-registry", "serve", home / "registry.yml"], stdout=log, stderr=log),
               subprocess.Popen([PROGRAM, "agent", "--site", "conformance", "--site-key", home / "site.key", "--no-mdns", "--origin", home / "tree",
                                 "--trust", home / "tree/catalog/root.json", "--state-dir", home / "state", "--listen", address(),
                                 "--gateway", gateway, "--upstream", f"corp oci http://{at}"], stdout=log, stderr=log)]
    try:
        for url in (f"http://{at}/v2/", f"http://{gateway}/v2/"):
            while not answers(url):
                time.sleep(0.1)
        suite(home, at, "conf/")
        # The suite also fills it with a blob that it then means to be away.
        blobs = " ".join(it for it in listed(home / "registry", "_layers").split() if answers(f"http://{at}/v2/conf/one/blobs/{it}") is not None)
        pull = {"OCI_API_PUSH": "false", "OCI_RO_DATA_TAGS": " ".join(json.loads(answers(f"http://{at}/v2/conf/one/tags/list"))["tags"]),
                "OCI_RO_DATA_MANIFESTS": listed(home / "registry", "_manifests/revisions"), "OCI_RO_DATA_BLOBS": blobs}
        direct, said_directly = suite(home, at, "conf/", **pull)
        for turn in ("the first time", "again, from the site"):
            through, said = suite(home, gateway, "corp/conf/", **pull)
            print(f"{turn}: through the gateway {totals(said)}; directly {totals(said_directly)}")
            worse = [test for (test, end), times in through.items() if end == "FAIL" and times > direct[(test, end)]]
            print("\n".join(re.findall(r"^ +OCI Conformance Test/.*: FAIL\n +- .*$", said, re.MULTILINE)))
            assert through and not worse, worse
    finally:
        for process in running:
            process.terminate()
            process.wait()
