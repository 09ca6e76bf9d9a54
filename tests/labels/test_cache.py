"""Answers stored on disk: requested once, never half a file; and concurrent requests, with results in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from chat_servers import MisbehavingServer, error, ok

from stratalens.errors import LabelingError, OutputError
from stratalens.labels.llm.cache import CachedModel, Usage, map_concurrently
from stratalens.labels.llm.chat import NoReply
from stratalens.labels.llm.endpoint import EndpointModel

ASK = [{"role": "user", "content": "what?"}]
SCHEMA = {"type": "object", "properties": {"a": {}, "b": {}}}


def cached(server, directory) -> CachedModel:
    return CachedModel(EndpointModel(server.url, "stub", timeout_seconds=1.0), directory)


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_second_run_asks_nothing_and_a_different_question_is_asked(tmp_path):
    with MisbehavingServer(ok("one", "length"), ok("two")) as server:
        first = cached(server, tmp_path)
        answer = first.reply(ASK, max_tokens=5, schema=SCHEMA)
        assert first.usage() == Usage(requests=1, prompt_tokens=7, completion_tokens=3)
        second = cached(server, tmp_path)
        assert second.reply(ASK, max_tokens=5, schema=SCHEMA) == answer == ("one", 7, 3, True)
        assert second.usage() == Usage(cached=1)
        assert server.requests == 1
        swapped = {"type": "object", "properties": {"b": {}, "a": {}}}
        second.reply(ASK, max_tokens=6, schema=SCHEMA)
        second.reply(ASK, max_tokens=5, schema=swapped)
        second.reply(ASK, max_tokens=5)
        second.reply([{"role": "system", "content": "what?"}], max_tokens=5)
        CachedModel(EndpointModel(server.url, "other"), tmp_path).reply(ASK, max_tokens=5, schema=SCHEMA)
        assert server.requests == 6
        assert (second.name, second.concurrency) == (EndpointModel(server.url, "stub").name, 8)


def test_the_answer_of_a_torn_altered_or_misplaced_file_is_requested_again(tmp_path):
    with MisbehavingServer(ok("one")) as server:
        model = cached(server, tmp_path)
        model.reply(ASK, max_tokens=5)
        (path,) = files(tmp_path)
        whole = path.read_bytes()
        model.reply(ASK, max_tokens=6)
        (other,) = set(files(tmp_path)) - {path}
        for spoilt in (whole[:-4], b"", whole.replace(b"one", b"two"), b"\xff\xfe", other.read_bytes()):
            path.write_bytes(spoilt)
            before = server.requests
            assert model.reply(ASK, max_tokens=5).text == "one"
            assert server.requests == before + 1
            assert path.read_bytes() == whole


def test_a_failure_is_counted_but_not_kept(tmp_path):
    with MisbehavingServer(error(400, "no"), ok("fine")) as server:
        model = cached(server, tmp_path)
        with pytest.raises(NoReply):
            model.reply(ASK, max_tokens=5)
        assert not files(tmp_path)
        assert model.reply(ASK, max_tokens=5).text == "fine"
        assert model.usage() == Usage(requests=2, prompt_tokens=7, completion_tokens=3, failed=1)


@pytest.mark.parametrize("good", [True, False])
def test_threads_that_ask_the_same_share_one_request(tmp_path, good):
    def outcome(model):
        try:
            return model.reply(ASK, max_tokens=5).text
        except NoReply as problem:
            return str(problem)

    slow = ok("fine" if good else "", seconds=0.3)
    with MisbehavingServer(slow) as server, ThreadPoolExecutor(4) as pool:
        model = cached(server, tmp_path)
        answers = set(pool.map(outcome, [model] * 4))
        assert server.requests == 1
    assert answers == {"fine" if good else "empty answer"}
    paid = {"prompt_tokens": 7, "completion_tokens": 3, "cached": 3} if good else {"failed": 1}
    assert model.usage() == Usage(requests=1, **paid)


@pytest.mark.real
def test_a_process_killed_while_writing_leaves_no_half_file(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.endpoint import EndpointModel
os.fsync = lambda _handle: os.kill(os.getpid(), signal.SIGKILL)
ask = [{"role": "user", "content": "what?"}]
CachedModel(EndpointModel(sys.argv[1], "stub"), Path(sys.argv[2])).reply(ask, max_tokens=5)
"""
    with MisbehavingServer(ok("fine")) as server:
        killed = subprocess.run([sys.executable, "-c", code, server.url, str(tmp_path)])
        assert killed.returncode == -signal.SIGKILL
        assert not list(tmp_path.rglob("*.json"))
        model = cached(server, tmp_path)
        assert model.reply(ASK, max_tokens=5).text == "fine"
        assert server.requests == 2
        assert len(list(tmp_path.rglob("*.json"))) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_handle):
        raise KeyboardInterrupt

    with MisbehavingServer(ok("fine")) as server:
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cached(server, tmp_path).reply(ASK, max_tokens=5)
    assert not files(tmp_path)


def test_a_directory_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        MisbehavingServer(ok("fine")) as server,
        pytest.raises(OutputError, match=r"cannot be stored \(.*\); free some space"),
    ):
        cached(server, tmp_path / "file").reply(ASK, max_tokens=5)


def test_results_are_in_order_and_concurrency_is_limited(tmp_path):
    with MisbehavingServer(ok("fine", seconds=0.05)) as server:
        model = cached(server, tmp_path)
        delays = [0.2, 0.0, 0.1, 0.0, 0.0, 0.0]

        def ask(number):
            time.sleep(delays[number % 6])
            model.reply([{"role": "user", "content": str(number)}], max_tokens=5)
            return number

        assert list(map_concurrently(ask, range(24), 3)) == list(range(24))
        assert server.most_in_flight == 3
        assert model.usage() == Usage(24, 24 * 7, 24 * 3)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, LabelingError, GeneratorExit])
def test_what_has_not_started_is_dropped_when_the_consumer_stops(stop):
    started, finished, lock = [], [], threading.Lock()
    taken = iter(range(1000))

    def work(number):
        with lock:
            started.append(number)
        time.sleep(0.02)
        if number == 3 and stop is LabelingError:
            raise LabelingError("wrong key")
        with lock:
            finished.append(number)
        return number

    results = map_concurrently(work, taken, 2)
    assert next(results) == 0
    if stop is LabelingError:
        with pytest.raises(LabelingError):
            list(results)
    elif stop is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
    else:
        results.close()
    if stop is KeyboardInterrupt:  # running calls are not waited for then
        time.sleep(0.05)
    assert len(finished) == len(started) - (stop is LabelingError)
    submitted = next(taken)
    assert len(started) < submitted <= 16
    time.sleep(0.05)
    assert len(finished) == len(started) - (stop is LabelingError)
