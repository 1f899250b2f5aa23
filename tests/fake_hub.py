"""A stand-in for the Hugging Face hub: the part of its API by which repositories are written and read."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub
from huggingface_hub import constants

# May write, and may only read.
OWNER, READER = "hf_owner", "hf_reader"


@dataclass
class Repository:
    """What the hub holds of a repository.

    Attributes:
        private: whether it is seen with a token only.
        branches: commits by name.
        commits: files by commit, oldest first.
        messages: titles by commit.
        gated: whether access must be granted.
    """

    private: bool = False
    branches: dict = field(default_factory=dict)
    commits: dict = field(default_factory=dict)
    messages: dict = field(default_factory=dict)
    gated: bool = False

    def commit(self, branch, files, message):
        before = self.commits.get(self.branches.get(branch), {})
        oid = hashlib.sha1(f"{message} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.messages[oid] = {**before, **files}, message
        self.branches[branch] = oid
        return oid

    def resolve(self, revision):
        return self.branches.get(revision, revision if revision in self.commits else None)


class FakeHub:
    """What the hub holds, and how it fails.

    Attributes:
        repositories: by id.
        large: contents of large files by their SHA-256.
        failures: for regular expressions of "METHOD /path" the status that the hub answers.
        requests: "METHOD /path", with the token and the body of each that had one.
    """

    def __init__(self):
        self.repositories, self.large, self.failures, self.requests = {}, {}, {}, []
        self.address = ""

    def add(self, repo_id, files=None, private=False):
        repository = self.repositories[repo_id] = Repository(private)
        repository.commit("main", {".gitattributes": b"", **(files or {})}, "initial commit")
        return repository


class _Refusal(Exception):
    def __init__(self, status, code="", message="refused"):
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body together: the kernel delays the second of two small packets
    hub: FakeHub

    def log_message(self, *_):
        pass

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self):
        body, path = self._body(), urlsplit(self.path).path
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path != "/api/agent-harnesses":
            self.hub.requests.append((f"{self.command} {path}", self.token, body))
        try:
            for pattern, status in self.hub.failures.items():
                if re.search(pattern, f"{self.command} {path}"):
                    raise _Refusal(status, message="it is broken")
            for pattern, answer in _ROUTES.items():
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    # Within a quoted name a slash does not end it.
                    return answer(self, body, *map(unquote, match.groups()))
            raise _Refusal(404)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)} if refusal.code else {}
            self._send(refusal.status, dict(error=str(refusal)), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _send(self, status, body=None, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _writable(self, repo_id):
        if self.token not in (OWNER, READER):
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        if self.token == READER:
            raise _Refusal(403, message="You don't have the rights")
        return self.hub.repositories.get(repo_id)

    def _readable(self, repo_id, revision="main"):
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self.token):
            raise _Refusal(401 if not self.token else 404, "RepoNotFound", "Repository not found")
        if repository.gated:
            raise _Refusal(403, "GatedRepo", "Access is restricted")
        if (commit := repository.resolve(revision)) is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def create(self, body):
        asked_for = json.loads(body)
        repo_id = f"{asked_for['organization']}/{asked_for['name']}"
        there = self._writable(repo_id)
        private = asked_for.get("visibility") == "private" or bool(asked_for.get("private"))
        if there is None:
            self.hub.add(repo_id, private=private)
        url = f"{self.hub.address}/{repo_id}"
        self._send(409 if there else 200, dict(url=url, error="You already created this model repo"))

    def info(self, body, repo_id, revision="main"):
        repository, commit = self._readable(repo_id, revision or "main")
        siblings = [dict(rfilename=name) for name in repository.commits[commit]]
        self._send(200, dict(id=repo_id, sha=commit, private=repository.private, siblings=siblings))

    def tree(self, body, repo_id, revision):
        repository, commit = self._readable(repo_id, revision)
        files = repository.commits[commit].items()
        rows = [
            dict(type="file", path=name, size=len(data), oid=hashlib.sha1(data).hexdigest()) for name, data in files
        ]
        self._send(200, rows)

    def branch(self, body, repo_id, name):
        repository = self._writable(repo_id)
        if name in repository.branches:
            raise _Refusal(409, message="Reference already exists")
        repository.branches[name] = repository.branches["main"]
        self._send(201, {})

    def validate(self, body):
        if "license: nonsense" in json.loads(body)["content"]:
            self._send(400, dict(errors=[dict(message='"license" must be one of a list')], warnings=[]))
            return
        self._send(200, dict(errors=[], warnings=[]))

    def preupload(self, body, repo_id, revision):
        if self._writable(repo_id).resolve(revision) is None:
            raise _Refusal(404, "RevisionNotFound")
        files = [
            dict(
                path=x["path"], uploadMode="lfs" if x["path"].endswith("safetensors") else "regular", shouldIgnore=False
            )
            for x in json.loads(body)["files"]
        ]
        self._send(200, dict(files=files))

    def batch(self, body, repo_id):
        self._writable(repo_id)
        objects = [
            dict(oid=x["oid"], size=x["size"], actions=dict(upload=dict(href=f"{self.hub.address}/large/{x['oid']}")))
            for x in json.loads(body)["objects"]
        ]
        self._send(200, dict(transfer="basic", objects=objects))

    def upload(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._send(200, {})

    def commit(self, body, repo_id, revision):
        repository, files, message = self._writable(repo_id), {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = repository.commit(revision, files, message)
        self._send(200, dict(commitUrl=f"{self.hub.address}/{repo_id}/commit/{oid}", commitOid=oid))

    def resolve(self, body, repo_id, revision, name):
        repository, commit = self._readable(repo_id, revision)
        if (data := repository.commits[commit].get(name)) is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        self._send(200, data, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})


_ID = r"([^/]+/[^/]+)"
_ROUTES = {
    "POST /api/repos/create": _Handler.create,
    "POST /api/validate-yaml": _Handler.validate,
    f"GET /api/models/{_ID}": _Handler.info,
    f"GET /api/models/{_ID}/revision/(.+)": _Handler.info,
    f"GET /api/models/{_ID}/tree/([^/]+)/?": _Handler.tree,
    f"POST /api/models/{_ID}/branch/(.+)": _Handler.branch,
    f"POST /api/models/{_ID}/preupload/(.+)": _Handler.preupload,
    f"POST /api/models/{_ID}/commit/(.+)": _Handler.commit,
    rf"POST /{_ID}\.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /large/(.+)": _Handler.upload,
    f"(?:GET|HEAD) /{_ID}/resolve/([^/]+)/(.+)": _Handler.resolve,
}


@contextmanager
def running(monkeypatch, cache):
    """A hub of this process, which the hub's client is pointed at, with an empty cache."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), dict(hub=hub)))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    point_at(monkeypatch, hub.address, cache)
    try:
        yield hub
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        server.server_close()
        thread.join()


def point_at(monkeypatch, address, cache):
    """Point the hub's client at an address, with a cache of its own and without the machine's token."""
    settings = dict(
        ENDPOINT=address,
        HUGGINGFACE_CO_URL_TEMPLATE=address + "/{repo_id}/resolve/{revision}/{filename}",
        HF_HUB_CACHE=str(cache),
        HF_TOKEN_PATH=str(cache / "token"),
        HF_HUB_OFFLINE=False,
        HF_HUB_DISABLE_XET=True,
        HF_HUB_DISABLE_IMPLICIT_TOKEN=False,
        AGENT_HARNESSES_PATH=str(cache / "harnesses.json"),
    )
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value, raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
