#!/usr/bin/env python3
"""A Python package index of a folder of wheels, for tests: PEP 503 pages and PEP 691 JSON by Accept, with
hashes and PEP 658 files. Each request is a line on standard output: METHOD PATH STATUS.

    index.py wheel DIR NAME VERSION SIZE [REQUIREMENT...]      makes a wheel with SIZE bytes of noise in it
    index.py serve DIR PORT [FILES_URL]                        files are named there, if it is given
    index.py serve DIR PORT html [FILES_URL]                   knows no JSON, as old servers do
"""
import base64, hashlib, html, json, re, sys, zipfile
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def wheel(folder, name, version, size, *requires):
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {it}\n" for it in requires)
    files = {
        f"{module}/__init__.py": f"version = {version!r}\n".encode(),
        f"{module}/noise.bin": hashlib.shake_256(f"{name} {version}".encode()).digest(size),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD"
    lines = [f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},"
             f"{len(content)}" for path, content in files.items()]
    files[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    made = Path(folder) / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return made


def described(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(it for it in archive.namelist() if it.endswith(".dist-info/METADATA")))


class Index(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder, files, knows_json, known = Path(), "../../files", True, {}

    def wheels(self, project):
        normal = lambda name: re.sub("[-_.]+", "-", name).lower()
        for path in sorted(self.folder.glob("*.whl")):
            if normal(path.name.split("-")[0]) == project:
                # As an index does: what it says of a file stays, whatever becomes of the file.
                if path.name not in self.known:
                    self.known[path.name] = sha256(path.read_bytes()), sha256(described(path))
                yield path, *self.known[path.name]

    def page(self, project, as_json):
        found = list(self.wheels(project))
        if as_json:
            files = [{"filename": it.name, "url": f"{self.files}/{it.name}", "hashes": {"sha256": digest},
                      "core-metadata": {"sha256": meta}, "requires-python": ">=3.6", "yanked": False}
                     for it, digest, meta in found]
            return json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": files,
                               "versions": sorted({it.name.split("-")[1] for it, *_ in found})})
        links = [f'<a href="{self.files}/{it.name}#sha256={digest}" data-core-metadata="sha256={meta}" '
                 f'data-requires-python="{html.escape(">=3.6")}">{it.name}</a><br>' for it, digest, meta in found]
        return "<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n"

    def answer(self):
        parts = [unquote(part) for part in self.path.split("?")[0].split("/")[1:]]
        if parts[0] == "simple" and len(parts) == 3 and any(self.wheels(parts[1])):
            as_json = self.knows_json and JSON in self.headers.get("Accept", "")
            return 200, (JSON if as_json else HTML), self.page(parts[1], as_json).encode()
        if parts[0] == "files" and len(parts) == 2 and "/" not in parts[1]:
            path = self.folder / parts[1]
            if path.exists():
                return 200, "application/octet-stream", path.read_bytes()
            whole = self.folder / parts[1].removesuffix(".metadata")
            if whole.exists():
                return 200, "text/plain", described(whole)
        return 404, "text/plain", b"no such thing\n"

    def do_GET(self):
        known = self.login is None or self.headers.get("Authorization") == self.login
        status, kind, content = self.answer() if known else (401, "text/plain", b"who are you?\n")
        etag = f'"{sha256(content)[:16]}"'
        if status == 200 and self.headers.get("If-None-Match") == etag:
            status, content = 304, b""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("ETag", etag)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Date", formatdate(usegmt=True))
        self.end_headers()
        self.wfile.write(content)
        print(self.command, self.path, status, flush=True)

    def log_message(self, *_):
        pass


def serve(folder, port, *more):
    Index.folder = Path(folder)
    Index.knows_json = "html" not in more
    logins = [it.removeprefix("login=") for it in more if it.startswith("login=")]
    Index.login = "Basic " + base64.b64encode(logins[0].encode()).decode() if logins else None
    Index.files = next((it for it in more if it != "html" and not it.startswith("login=")), "../../files")
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 64
    ThreadingHTTPServer(("0.0.0.0", int(port)), Index).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "wheel":
        print(wheel(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:]))
    else:
        serve(*sys.argv[2:])
