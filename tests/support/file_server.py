"""A web server of a few files that can behave and fail like real ones."""

import base64
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

USER, PASSWORD = "analyst", "open/se?ame"
QUOTED_PASSWORD = "open%2Fse%3Fame"


class FileServer(NamedTuple):
    """A running server."""

    port: int
    requests: list[str]
    """Method and path of each request, in order."""

    def url(self, path: str, *, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; `file_server` makes a class of its own with what it serves."""

    files: Mapping[str, bytes]
    ranges: bool
    cut_after: int | None
    requests: list[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].lstrip("/")
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if path.startswith("silent/"):
            time.sleep(3)
        elif path.startswith("private/") and self.headers.get("Authorization") != wanted:
            self.send_error(401)
        elif path.startswith("forbidden/"):
            self.send_error(403)
        elif path not in self.files and any(name.startswith(path.rstrip("/") + "/") for name in self.files):
            path = path.rstrip("/") + "/"
            below = sorted({name.removeprefix(path).partition("/") for name in self.files if name.startswith(path)})
            links = "".join(f'<a href="{name}{slash}">{name}</a>\n' for name, slash, _ in below)
            self._send(200, links.encode(), with_body)
        elif path not in self.files:
            self.send_error(404)
        else:
            self._send_file(self.files[path], with_body)

    def _send_file(self, content: bytes, with_body: bool) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.ranges else None
        if requested is None:
            return self._send(200, content, with_body)
        part = content[int(requested[1]) : int(requested[2]) + 1]
        end = int(requested[1]) + len(part) - 1
        return self._send(206, part, with_body, f"bytes {requested[1]}-{end}/{len(content)}")

    def _send(self, status: int, body: bytes, with_body: bool, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if with_body:
            self.wfile.write(body[: self.cut_after])
        if with_body and self.cut_after is not None and len(body) > self.cut_after:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()


@contextmanager
def file_server(
    files: Mapping[str, bytes], *, ranges: bool = True, cut_after: int | None = None
) -> Iterator[FileServer]:
    """Serve files by their paths.

    `private/...` requires user and password, `forbidden/...` is refused, `silent/...` is not answered in time, and the
    path of a directory lists what is below it.

    Args:
        files: path -> content.
        ranges: whether requests for parts of a file are answered with that part.
        cut_after: bytes of an answer after which the connection breaks.
    """
    requests: list[str] = []

    given = {"files": files, "ranges": ranges, "cut_after": cut_after, "requests": requests}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), given))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield FileServer(server.server_port, requests)
    finally:
        server.shutdown()
        server.server_close()
