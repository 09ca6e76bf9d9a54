"""A labelling model on a server: answers from a real server, and the ways in which a server can fail."""

import logging
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from chat_servers import (
    MisbehavingServer,
    body,
    error,
    half_an_answer,
    hang,
    ok,
    refuses,
    trickle,
    trickle_headers,
    unlisted,
)

from stratalens.errors import LabelingError
from stratalens.labels.llm.address import KEY_VARIABLE
from stratalens.labels.llm.chat import CutOff, NoReply, remove_reasoning
from stratalens.labels.llm.client import MAX_BODY_BYTES
from stratalens.labels.llm.endpoint import EndpointModel

ASK = [{"role": "user", "content": "PROMPT with seed and temperature"}]
KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("STRATALENS_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def reply_of(*steps, schema=None, **options):
    """The outcome of one call to a scripted server, and the server, which records what it was sent."""
    with MisbehavingServer(*steps) as server:
        model = EndpointModel(server.url, "stub", **options)
        try:
            outcome = model.reply(ASK, max_tokens=50, schema=schema)
        except (NoReply, LabelingError) as problem:
            outcome = problem
    assert "PROMPT" not in str(outcome)
    assert KEY not in str(outcome)
    return outcome, server


def test_a_real_server_answers(transformers_serve, embedded_model):
    model = EndpointModel(transformers_serve, str(embedded_model), timeout_seconds=30.0)
    model.check()
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = model.reply(question, max_tokens=12, schema=SCHEMA)
    assert "Paris" in answer.text
    assert answer.prompt_tokens > answer.completion_tokens > 0
    assert not answer.cut_off
    assert model.reply(question, max_tokens=2).cut_off
    assert model.name == f"{embedded_model} at {transformers_serve.removeprefix('http://')}"


def test_a_real_server_refuses_another_model(transformers_serve):
    with pytest.raises(LabelingError, match=r"other gives no answer .*Server is pinned.*--labeling_model"):
        EndpointModel(transformers_serve, "other", timeout_seconds=30.0).check()


def test_a_request_says_what_it_should_and_the_reply_what_it_took():
    answer, server = reply_of(ok(" yes\n"), schema=SCHEMA, api_key=KEY)
    assert answer == ("yes", 7, 3, False)
    sent = server.bodies[0]
    assert {name: sent[name] for name in ("model", "messages", "max_tokens", "seed", "temperature")} == {
        **{"model": "stub", "messages": ASK, "max_tokens": 50, "seed": 0, "temperature": 0},
    }
    assert sent["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": SCHEMA}
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("first", "requests"),
    [
        (error(429, "slow down", Retry_After="1"), 2),
        (error(500, "oops"), 2),
        (half_an_answer, 2),
    ],
    ids=["429", "500", "half an answer"],
)
def test_temporary_failures_are_retried(first, requests):
    started = time.monotonic()
    answer, server = reply_of(first, ok("fine"))
    assert answer.text == "fine"
    assert server.requests == requests
    assert time.monotonic() - started > 0.3


def test_retry_after_is_honoured():
    started = time.monotonic()
    assert reply_of(error(429, "slow down", Retry_After="1.5"), ok("fine"))[0].text == "fine"
    assert time.monotonic() - started >= 1.5


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (error(500, "oops"), "no answer within|the server failed"),
        (body(b"{not json"), "no chat completion"),
        (body({"object": "chat.completion"}), "no chat completion"),
        (body({"choices": []}), "no choice"),
        (body([1]), "no chat completion"),
        (ok(""), "empty answer"),
        (ok(None), "empty answer"),
        (ok("<think>on and on", "length"), "cut off before the answer began"),
        (error(400, "This model's maximum context length is 10 tokens: PROMPT"), "longer than the model's context"),
        (error(400, f"PROMPT {KEY}"), r"refuses the request \(400\)"),
        (body(b" " * (MAX_BODY_BYTES + 1)), "larger than 8 MiB"),
    ],
)
def test_no_usable_answer_is_no_reply(step, reason):
    problem, _ = reply_of(step, timeout_seconds=0.5, api_key=KEY)
    assert isinstance(problem, NoReply)
    assert re.search(reason, str(problem))


@pytest.mark.parametrize("step", [hang, trickle, trickle_headers])
def test_a_call_ends_in_bounded_time(step):
    started = time.monotonic()
    problem, _ = reply_of(step, timeout_seconds=0.4)
    assert isinstance(problem, NoReply)
    assert re.search("within (0.4|1.2) s", str(problem))
    assert time.monotonic() - started < 4


def test_a_long_answer_comes_back_whole_and_a_cut_one_is_marked():
    words = " ".join(["word"] * 1000)
    assert reply_of(ok(words))[0].text == words
    assert reply_of(ok("half a sent", "length"))[0].cut_off


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "refuses the key .401.; set .*STRATALENS_API_KEY"),
        (error(403, "no"), "refuses the key .403."),
        (error(402, "no money"), "no credit left"),
        (body({"error": {"message": "quota", "code": "insufficient_quota"}}, 429, Retry_After="999"), "no credit left"),
        (error(404, "The model `stub` does not exist"), "no model stub at .*--labeling_model"),
    ],
)
def test_a_model_that_cannot_be_used_is_a_labeling_error(documented, step, says):
    problem, _ = reply_of(step, api_key=KEY)
    case = {"401": "a key that the server refuses", "402": "an account without credit", "404": "no such model there"}
    if status := re.search(r"\((401|402|404)\)", str(problem)):
        documented("Labelling models", case[status[1]], str(problem))
    assert isinstance(problem, LabelingError)
    assert re.search(says, str(problem))
    with MisbehavingServer(step, models=unlisted) as server, pytest.raises(LabelingError, match=says) as caught:
        EndpointModel(server.url, "stub", api_key=KEY).check()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "refuses the key .401."),
        (trickle, "answer not complete within 0.3 s; check that the server is up"),
        (hang, "no answer within 0.3 s; check that the server is up"),
    ],
)
@pytest.mark.parametrize("name", [None, "stub"])
def test_a_failed_list_of_models_is_a_labeling_error(documented, models, says, name):
    with MisbehavingServer(hang, models=models) as server, pytest.raises(LabelingError, match=says) as caught:
        EndpointModel(server.url, name, api_key=KEY, timeout_seconds=0.3).check()
    assert KEY not in str(caught.value)
    if models in (hang, trickle):
        case = "a server that never answers" if models is hang else "a server that never ends its answer"
        documented("Labelling models", case, str(caught.value))


def test_a_model_that_does_not_answer_is_reported_before_the_run():
    with MisbehavingServer(hang, models=unlisted) as server:
        model = EndpointModel(server.url, "stub", timeout_seconds=0.3)
        with pytest.raises(LabelingError, match=r"stub gives no answer \(no answer within .* see the server's log"):
            model.check()
    with (
        MisbehavingServer(error(400, f"{KEY} cannot"), models=unlisted) as server,
        pytest.raises(LabelingError, match=r"refuses the request .400.: .*\*\*\* cannot"),
    ):
        EndpointModel(server.url, "stub", api_key=KEY).check()


def test_a_server_that_requires_a_key_is_reported(documented):
    said = str(reply_of(error(401, "no key"))[0])
    assert "asks for a key (401)" in said
    documented("Labelling models", "a server that asks for a key", said)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_address_without_a_server_is_reported_before_the_run(monkeypatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 1)  # else the retries take ten seconds
    model = EndpointModel(address, "stub", api_key=KEY)
    for first in (model.check, lambda: model.reply(ASK, max_tokens=5)):
        with pytest.raises(LabelingError, match=rf"{address}: no connection \(.*refused.*start the server"):
            first()


def test_a_server_that_stops_answering_fails_only_single_requests():
    with MisbehavingServer(ok("fine")) as server:
        model = EndpointModel(server.url, "stub", timeout_seconds=0.3)
        model.check()
        assert model.reply(ASK, max_tokens=5).text == "fine"
    with pytest.raises(NoReply, match=r"connection lost|no answer"):
        model.reply(ASK, max_tokens=5)


@pytest.mark.parametrize(
    "models", [unlisted, error(500, "no"), body(b"<html>"), ()], ids=["404", "500", "html", "none"]
)
def test_a_model_must_be_named_where_none_is_listed(documented, models):
    with MisbehavingServer(ok("fine"), models=models) as server:
        with pytest.raises(LabelingError, match="name one with --labeling_model") as caught:
            EndpointModel(server.url).check()
        documented("Labelling models", "a server that lists no model, none named", str(caught.value))
        EndpointModel(server.url, "unlisted").check()
        assert server.requests == 1


def test_the_only_model_is_taken_and_among_several_one_must_be_named(documented):
    with MisbehavingServer(ok("fine"), models=["one"]) as server:
        model = EndpointModel(server.url)
        model.check()
        assert model.name == f"one at {server.url.removeprefix('http://')}"
        assert server.requests == 0
    with (
        MisbehavingServer(ok("fine"), models=list("abcdefg")) as server,
        pytest.raises(
            LabelingError, match=r"7 models \(a, b, c, d, e, \.\.\.\); choose one with --labeling_model NAME"
        ) as caught,
    ):
        EndpointModel(server.url).check()
    documented("Labelling models", "a server of several models, none named", str(caught.value))


@pytest.mark.parametrize(
    ("refused", "requests", "structured"),
    [(["json_schema"], 2, "json_object"), (["json_schema", "json_object"], 3, None)],
)
def test_the_structured_format_a_server_takes_is_remembered(refused, requests, structured):
    with MisbehavingServer(refuses(*refused)) as server:
        model = EndpointModel(server.url, "stub")
        for _ in range(2):
            assert model.reply(ASK, max_tokens=5, schema=SCHEMA).text == "well"
    assert server.requests == requests + 1
    assert server.bodies[-1].get("response_format", {}).get("type") == structured
    assert server.bodies[-1]["seed"] == server.bodies[-1]["temperature"] == 0


@pytest.mark.parametrize(
    "asked",
    [
        "Use 'max_completion_tokens' instead of max_tokens",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "Unrecognized request argument supplied: max_tokens",
    ],
)
def test_parameters_that_a_server_names_are_left_out_and_renamed(asked):
    with MisbehavingServer(error(400, asked), refuses("seed", "temperature")) as server:
        model = EndpointModel(server.url, "stub")
        for _ in range(2):
            assert model.reply(ASK, max_tokens=5).text == "well"
    assert server.requests == 5
    assert set(server.bodies[-1]) == {"model", "messages", "max_completion_tokens"}


def test_a_refusal_that_repeats_the_prompt_costs_only_what_it_names():
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "input": {"messages": ASK}}]
    with MisbehavingServer(body({"detail": detail}, 422), ok("fine")) as server:
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
    assert set(server.bodies[0]) - set(server.bodies[1]) == {"seed"}
    named_by_the_prompt = error(422, f"cannot take {ASK[0]['content']}")
    with MisbehavingServer(named_by_the_prompt) as server, pytest.raises(NoReply):
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
    assert server.requests == 1


def test_the_refusal_of_one_prompt_changes_nothing_for_the_next():
    refusals = [error(400, f"cannot take {ASK[0]['content']}")] * 3
    with MisbehavingServer(*refusals, ok("fine")) as server:
        model = EndpointModel(server.url, "stub")
        with pytest.raises(NoReply, match="refuses the request"):
            model.reply(ASK, max_tokens=5, schema=SCHEMA)
        model.reply(ASK, max_tokens=5, schema=SCHEMA)
    assert server.bodies[-1] == server.bodies[0]


REACHED = error(400, "Could not finish the message because max_tokens or model output limit was reached.")


def test_an_error_that_says_that_the_room_was_reached_is_a_cut_off_answer():
    with MisbehavingServer(REACHED) as server, pytest.raises(CutOff):
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=500, schema=SCHEMA)
    assert server.requests == 1
    with MisbehavingServer(REACHED, models=error(404, "no list")) as server:
        EndpointModel(server.url, "stub").check()
    assert server.requests == 1


@pytest.mark.parametrize("key", [None, "azure-key-0123456789"])
def test_a_deployment_at_azure_gets_the_key_in_the_header_that_it_reads(monkeypatch, key):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with MisbehavingServer(ok("fine"), models=error(404, "no list")) as server:
        for path in ("/openai/deployments/x/chat/completions?api-version=2024-06-01", "/v1"):
            EndpointModel(server.url + path, "stub", api_key=key).reply(ASK, max_tokens=5)
    assert [sent.get("api-key") for sent in server.headers] == [key, None]
    assert server.headers[0]["authorization"] == f"Bearer {key or 'none'}"


def test_many_threads_share_a_model():
    with MisbehavingServer(ok("fine", seconds=0.1)) as server, ThreadPoolExecutor(8) as pool:
        model = EndpointModel(server.url, "stub")
        answers = list(pool.map(lambda _: model.reply(ASK, max_tokens=5).text, range(16)))
    assert answers == ["fine"] * 16
    assert 1 < server.most_in_flight <= 8


@pytest.mark.parametrize(
    ("given", "sent_to"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/v1//", "https://host/v1"),
        ("https://host/api/v1/chat/completions", "https://host/api/v1"),
    ],
)
def test_an_address_is_completed(given, sent_to):
    model = EndpointModel(given, "m")
    assert repr(model) == f"EndpointModel('{sent_to}', model='m')"
    assert model.address == sent_to.split("/v1")[0].removesuffix("/api")


@pytest.mark.parametrize(
    "given",
    ["https://user:secret@host/v1", "ftp://user:secret@host", "user:secret@host", "https://host/v1#secret"],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(given):
    with pytest.raises(LabelingError, match="STRATALENS_API_KEY") as caught:
        EndpointModel(given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["localhost:8000", "ftp://host", "http://", "http://host:port", "", "http://[::1", "http://ho\x7fst"]
)
def test_a_malformed_address_is_refused(given):
    with pytest.raises(LabelingError, match="not an address; write one such as http"):
        EndpointModel(given)


def test_the_key_comes_from_the_environment_and_shows_nowhere(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("STRATALENS_API_KEY", f"{KEY}\n")
    with MisbehavingServer(ok("fine")) as server:
        model = EndpointModel(server.url, "stub")
        model.reply(ASK, max_tokens=5)
        monkeypatch.delenv("STRATALENS_API_KEY")
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
    assert server.keys == [f"Bearer {KEY}", "Bearer none"]
    assert caplog.text
    for shown in (caplog.text, repr(model), str(model), model.name, model.address):
        assert KEY not in shown


def test_a_malformed_key_is_refused_without_repeating_it(documented):
    with pytest.raises(LabelingError, match="holds a character that no key has") as caught:
        EndpointModel("http://localhost", api_key=f"{KEY} ü")
    assert KEY not in str(caught.value)
    documented("Labelling models", "a key that cannot be sent", str(caught.value))


@pytest.mark.parametrize("package", ["openai", "httpx2"])
def test_a_missing_package_is_reported_with_the_command_to_install_it(monkeypatch, documented, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabelingError, match=r'pip install "stratalens\[openai\]"') as caught:
        EndpointModel("http://localhost")
    documented("Labelling models", "the package openai is missing", str(caught.value))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>hm\n</think>\n\nyes", "yes"),
        ("hm, opened in the prompt\n</think>\nyes", "yes"),
        ("<think>never ends", ""),
        ('{"label": "text between <think> and </think>"}', '{"label": "text between <think> and </think>"}'),
        ("<think>a</think>the tag <think>", "the tag <think>"),
    ],
)
def test_reasoning_is_removed(text, answer):
    assert remove_reasoning(text) == answer
