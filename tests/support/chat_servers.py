"""Servers that speak the OpenAI protocol: a real one, and one that misbehaves on demand."""

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stratalens.models.embedded import dense_copy

START_SECONDS = 120


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """Run `transformers serve` with a model on a free port of the loopback interface; yields its base URL.

    The server knows the model by its path and accepts no other name.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--host", "127.0.0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)}
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(server, url, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(server: subprocess.Popen, url: str, log: Path) -> None:
    latest = time.monotonic() + START_SECONDS
    while time.monotonic() < latest:
        assert server.poll() is None, f"transformers serve ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def transformers_serve(tmp_path_factory) -> Iterator[str]:
    """Base URL of a real server with the embedded model, named `str(dense_copy().directory)`."""
    with served(dense_copy().directory, tmp_path_factory.mktemp("serve") / "log.txt") as url:
        yield url


class Request:
    """A request that a step has to answer."""

    def __init__(
        self,
        handler: BaseHTTPRequestHandler,
        body: dict,
        stopped: threading.Event,
        on_answer: Callable[[], None] = lambda: None,
    ):
        self.handler, self.body, self.stopped, self.on_answer = handler, body, stopped, on_answer

    def answer(self, status: int, body: object, promised: int | None = None, **headers: str) -> None:
        """Send a body; `promised` is a false Content-Length."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.handler.send_response(status)
        lengths = {"Content-Type": "application/json", "Content-Length": str(promised or len(raw))}
        for name, value in (lengths | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            self.handler.send_header(name, value)
        self.on_answer()
        self.handler.end_headers()
        self.handler.wfile.write(raw)


Step = Callable[[Request], None]
"""Answers one request, or fails to."""


def completion(text: str | None, finish_reason: str = "stop") -> dict:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}


def ok(text: str | None, finish_reason: str = "stop", seconds: float = 0.0) -> Step:
    def step(request: Request) -> None:
        request.stopped.wait(seconds)
        request.answer(200, completion(text, finish_reason))

    return step


def body(raw: object, status: int = 200, **headers: str) -> Step:
    return lambda request: request.answer(status, raw, **headers)


def error(status: int, message: str, **headers: str) -> Step:
    return body({"error": {"message": message}}, status, **headers)


def redirect(status: int, location: str) -> Step:
    return body(b"", status, Location=location)


def packed(answer: object, spaces: int = 0) -> Step:
    """Answer with gzip, followed by spaces that take a thousandth of their length."""
    return body(gzip.compress(json.dumps(answer).encode() + b" " * spaces), Content_Encoding="gzip")


def raw(data: bytes) -> Step:
    """Answer with these bytes, which need not be HTTP."""

    def step(request: Request) -> None:
        request.on_answer()
        request.handler.wfile.write(data)
        request.handler.close_connection = True

    return step


def hang(request: Request) -> None:
    request.stopped.wait(30)


def half_an_answer(request: Request) -> None:
    raw = json.dumps(completion("never whole")).encode()
    request.answer(200, raw[: len(raw) // 2], promised=len(raw))


def trickle(request: Request) -> None:
    request.answer(200, b"{", promised=10_000)
    while not request.stopped.wait(0.05):
        request.handler.wfile.write(b" ")


def trickle_headers(request: Request) -> None:
    """Begin an answer whose headers never end, each byte in time."""
    request.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not request.stopped.wait(0.02):
        request.handler.wfile.write(b"x")


def refuses(*fields: str, text: str = "well") -> Step:
    """Refuse requests with one of these fields, or of this `response_format.type`, by name; answer all others."""

    def step(request: Request) -> None:
        structured = request.body.get("response_format", {}).get("type")
        for field in fields:
            if field in request.body or field == structured:
                return request.answer(400, {"error": {"message": f"Unsupported parameter: '{field}'"}})
        request.answer(200, completion(text))

    return step


def answered(finish_reason: object = "stop", **fields: object) -> dict:
    """The body of an answer whose message has these fields."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish_reason}]}


def chunk(finish_reason: str | None = None, **delta: object) -> dict:
    """What an event of a streamed answer holds."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def streamed(*chunks: object, end: str = "data: [DONE]\n\n", between: str = "\n\n") -> Step:
    """Answer with events, whether or not they were asked for."""
    events = "".join(f"data: {json.dumps(one)}{between}" for one in chunks)
    return body((events + end).encode(), Content_Type="text/event-stream; charset=utf-8")


def only_streams(text: str) -> Step:
    """Refuse requests for a whole answer, and stream the answer to others in pieces of three characters."""
    pieces = [chunk(content=text[at : at + 3]) for at in range(0, len(text), 3)]
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}

    def step(request: Request) -> None:
        if request.body.get("stream") is not True:
            return request.answer(400, {"error": {"message": "only stream=true is supported"}})
        streamed(chunk(role="assistant"), *pieces, chunk("stop"), usage)(request)

    return step


def reasons_first(text: str, tokens: int, field: str = "reasoning_content") -> Step:
    """Write so many tokens of reasoning in a field of its own before the answer, within the room that there is."""

    def step(request: Request) -> None:
        room = request.body["max_tokens"]
        thought = {field: "hm " * min(room, tokens)}
        if room <= tokens + len(text) // 4:
            return request.answer(200, answered("length", content=None, **thought))
        request.answer(200, answered(content=text, **thought))

    return step


unlisted = error(404, "no such path")


class MisbehavingServer:
    """A stub that answers by a script, because a real server cannot be made to misbehave on demand.

    Each chat request takes the next step; the last step repeats. A request for the models gets their list, or a step.
    """

    def __init__(self, *steps: Step, models: Sequence[str] | Step = ("stub",)):
        self._steps = list(steps)
        self._models = models
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._in_flight = 0
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        """Of every request, also for the models; names in lower case."""
        self.paths: list[str] = []
        """Of every request, with the query."""
        self.most_in_flight = 0
        self._server = self._listen()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def __enter__(self) -> "MisbehavingServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def _note_headers(self, headers: Mapping[str, str]) -> None:
        with self._lock:
            self.headers.append({name.lower(): value for name, value in headers.items()})

    def _next_step(self, request_body: dict, key: str | None) -> Step:
        with self._lock:
            self.bodies.append(request_body)
            self.keys.append(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            return self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]

    def _answered(self) -> None:
        """Count the request as finished before its answer is sent, as the client may ask again at once."""
        with self._lock:
            self._in_flight -= 1

    def _listen(self) -> ThreadingHTTPServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer._note_headers(self.headers)
                request = Request(self, {}, outer._stopped)
                if callable(outer._models):
                    return outer._models(request)
                request.answer(200, {"object": "list", "data": [{"id": name} for name in outer._models]})

            def do_POST(self) -> None:
                outer.paths.append(self.path)
                outer._note_headers(self.headers)
                received = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                step = outer._next_step(received, self.headers["Authorization"])
                step(Request(self, received, outer._stopped, outer._answered))

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                assert isinstance(sys.exc_info()[1], ConnectionError)  # the client gave up, as it should

        return Server(("127.0.0.1", 0), Handler)
