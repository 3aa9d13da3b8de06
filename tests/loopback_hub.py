"""A small hub on loopback, with the addresses that huggingface_hub asks: repositories at commits, files, refusals."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse

API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)/(revision|tree)/(.+)")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """The repositories, and every request that was made.

    Attributes:
      repos: {"model owner/name": [{name: bytes}, ...]}, a dict for each commit; the last one is main.
      gated, private: keys of repos that need the token "hf_right".
      breaks: names of files of which the next answer ends in the middle.
      stalls: names of files of which answers stop in the middle, until the name is taken out.
      down: whether every answer is 503.
      asked: (method, path without its query, the header Range or None).
    """

    def __init__(self, repos):
        self.repos = {key: [files] if isinstance(files, dict) else files for key, files in repos.items()}
        self.gated, self.private, self.breaks = set(), set(), set()
        self.stalls, self.down = set(), False
        self.asked = []

    def commit(self, key, index=-1):
        return hashlib.sha1(f"{key} {range(len(self.repos[key]))[index]}".encode()).hexdigest()

    def files_asked(self):
        return [urllib.parse.unquote(FILE.fullmatch(p)[4]) for m, p, _ in self.asked if m == "GET" and "/resolve/" in p]

    def answer(self, method, path, headers):
        """(status, headers, content) of a request."""
        path, token = urllib.parse.unquote(path.partition("?")[0]), headers.get("Authorization")
        self.asked.append((method, path, headers.get("Range")))
        api, file = API.fullmatch(path), FILE.fullmatch(path)
        if self.down:
            return 503, {}, b""
        if not (api or file):
            return 404, {}, b""
        key = f"{api[1]} {api[2]}" if api else f"{'dataset' if file[1] else 'model'} {file[2]}"
        if key not in self.repos or (key in self.private and token != "Bearer hf_right"):
            # A server may repeat what it was sent.
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": f"Repository not found for {token}"}, b""
        commits = {self.commit(key, index): files for index, files in enumerate(self.repos[key])}
        asked = (api[4] if api else file[3]).replace("main", self.commit(key))
        if asked not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if api and api[3] == "revision":
            return self.json({"id": api[2], "sha": asked, "siblings": []})
        if key in self.gated and token != "Bearer hf_right":
            return 403 if token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"no for {token}"}, b""
        if api:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in commits[asked].items()]
            return self.json(listed)
        if file[4] not in commits[asked]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": asked}, b""
        return self.content(commits[asked][file[4]], asked, headers.get("Range"))

    def json(self, value):
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def content(self, content, commit, wanted):
        sent = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))}
        if wanted is None:
            return 200, sent, content
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        return 206, sent | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:]


def _etag(content):
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serving(hub):
    """Serves a hub on a free port of loopback; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, headers, content = hub.answer(self.command, self.path, self.headers)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.write(self.path.rpartition("/")[2], content)

        def write(self, name, content):
            half = len(content) // 2
            self.wfile.write(content[:half])
            if name in hub.breaks:
                hub.breaks.remove(name)
                self.close_connection = True
                return
            while name in hub.stalls:
                time.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[half:])

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
