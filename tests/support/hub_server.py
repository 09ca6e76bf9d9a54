"""A server on this machine that speaks as much of the Hub's API as it takes to list and fetch the files of models."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]
"""Name of a repository -> branch, tag or commit -> path of a file -> content."""
INFO = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/models/([^/]+/[^/]+?)/tree/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class HubServer(NamedTuple):
    """A running server."""

    address: str
    requests: list[str]
    """Method and path of each request, in order."""

    @property
    def fetched(self) -> list[str]:
        """Paths of the files that were sent, in order of their names."""
        sent = [FILE.fullmatch(request.removeprefix("GET ")) for request in self.requests]
        return sorted({match[3] for match in sent if match})


def commit_of(repository: str, revision: str) -> str:
    return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; `hub_server` makes a class of its own with what it serves."""

    repositories: Repositories
    requests: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.requests.append(f"{self.command} {path}")
        for expression, answer in ((TREE, self._tree), (INFO, self._info), (FILE, self._file)):
            if match := expression.fullmatch(path):
                return answer(with_body, *match.groups())
        self._send(404, b"", with_body)

    def _files(self, repository: str, revision: str | None) -> tuple[str, Mapping[str, bytes]] | None:
        """Commit and files of a revision; None after a refusal."""
        revisions = self.repositories.get(repository)
        if revisions is None:
            return self._send(401, b"", False, {"X-Error-Code": "RepoNotFound"})
        for name, files in revisions.items():
            commit = commit_of(repository, name)
            if (revision or "main") in (name, commit):
                return commit, files
        return self._send(404, b"", False, {"X-Error-Code": "RevisionNotFound"})

    def _info(self, with_body: bool, repository: str, revision: str | None) -> None:
        if found := self._files(repository, revision):
            siblings = [{"rfilename": path, "size": len(content)} for path, content in found[1].items()]
            about = {"_id": "0", "id": repository, "sha": found[0], "private": False, "siblings": siblings}
            self._send(200, json.dumps(about).encode(), with_body)

    def _tree(self, with_body: bool, repository: str, revision: str) -> None:
        if found := self._files(repository, revision):
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in found[1].items()
            ]
            self._send(200, json.dumps(entries).encode(), with_body)

    def _file(self, with_body: bool, repository: str, revision: str, path: str) -> None:
        if found := self._files(repository, revision):
            if (content := found[1].get(path)) is None:
                return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, with_body, {"ETag": f'"{etag}"', "X-Repo-Commit": found[0]})

    def _send(self, status: int, body: bytes, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_server(repositories: Repositories) -> Iterator[HubServer]:
    """Serve repositories; their default branch is `main`."""
    requests: list[str] = []

    given = {"repositories": repositories, "requests": requests}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), given))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield HubServer(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def as_the_hub(repositories: Repositories, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve repositories, and let the Hub's client of this process take the server for the Hub."""
    import huggingface_hub.constants as constants

    with hub_server(repositories) as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server
