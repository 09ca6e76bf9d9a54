"""Forms in which servers send the same answer: fields, parts, streams, errors that look like success, less room."""

import json
import logging
from typing import Any

import pytest
from chat_servers import (
    MisbehavingServer,
    Request,
    answered,
    body,
    chunk,
    completion,
    error,
    hang,
    ok,
    only_streams,
    reasons_first,
    streamed,
    unlisted,
)
from hypothesis import given
from hypothesis import strategies as st

from stratalens.config.result_options import LabelConfig
from stratalens.errors import LabelingError
from stratalens.files.redaction import MASK
from stratalens.labels.labelling import open_labeller
from stratalens.labels.llm import bodies, events
from stratalens.labels.llm.address import secrets_in
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.chat import CutOff, NoReply
from stratalens.labels.llm.client import MAX_BODY_BYTES, MAX_STREAM_BYTES
from stratalens.labels.llm.endpoint import EndpointModel
from stratalens.progress import NoProgress

ASK = [{"role": "user", "content": "PROMPT"}]
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
QUERY_KEY = "very-secret-0123456789"
SO_FAR = [("y", "y"), ("es", "yes")]
"""Pieces of a streamed answer, each with all of the answer up to it."""
THOUGHT = {"type": "thinking", "thinking": "We could say draft."}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("STRATALENS_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def reply(*steps, max_tokens: int = 500, **options):
    with MisbehavingServer(*steps) as server:
        return EndpointModel(server.url, "stub", **options).reply(ASK, max_tokens=max_tokens, schema=SCHEMA)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking", "reasoning_details"])
def test_reasoning_in_a_field_of_its_own_is_no_answer(field):
    assert reply(body(answered(content="yes", **{field: "We could say draft."}))).text == "yes"
    with pytest.raises(NoReply, match=r"^reasoning without an answer$") as caught:
        reply(body(answered(content=None, **{field: "yes"})))
    assert not isinstance(caught.value, CutOff)


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "max_tokens", "model_length"])
def test_an_answer_that_did_not_begin_is_cut_off(reason):
    with pytest.raises(CutOff, match=r"^cut off before the answer began$"):
        reply(body(answered(reason, content="", reasoning_content="hm")))
    assert reply(body(answered(reason, content="half a sent"))).cut_off


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([THOUGHT, {"type": "text", "text": "yes"}], "yes"),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "draft"}]}, {"type": "text", "text": "yes"}],
            "yes",
        ),
        ([{"type": "reasoning", "text": "draft"}, {"type": "output_text", "text": "yes"}], "yes"),
        ([{"type": "text", "text": "y"}, {"type": "text", "text": "es"}], "yes"),
        ([{"type": "message", "content": [THOUGHT, {"type": "output_text", "text": "yes"}]}], "yes"),
        ([{"type": "text", "text": {"value": "yes", "annotations": []}}], "yes"),
        ([{"text": "draft", "thought": True}, {"text": "yes"}], "yes"),
        ([{"type": "redacted_thinking", "data": "x"}, "yes"], "yes"),
        ([THOUGHT, {"type": "text", "text": "<think>more</think>yes"}], "yes"),
        ({"type": "text", "text": "yes"}, "yes"),
        ([THOUGHT], None),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "draft"}]}], None),
        ([], None),
    ],
)
def test_content_may_be_typed_parts(content, text):
    if text is not None:
        assert reply(body(answered(content=content))).text == text
    else:
        with pytest.raises(NoReply, match=r"without an answer|empty answer"):
            reply(body(answered(content=content)))


@pytest.mark.parametrize("content", [7, [7], json.loads("[" * 9 + '"yes"' + "]" * 9), [{"type": "text", "text": 7}]])
def test_content_of_other_kinds_is_no_answer(content):
    with pytest.raises(NoReply, match="no chat completion"):
        reply(body(answered(content=content)))


def test_an_answer_in_the_form_of_ollama_is_read():
    own: dict[str, Any] = {"model": "stub", "message": {"role": "assistant", "content": "yes", "thinking": "hm"}}
    assert reply(body(own | {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3})) == (
        *("yes", 7, 3, False),
    )
    assert reply(body(own | {"done": True, "done_reason": "length"})).cut_off
    lines = [own | {"message": {"content": piece}, "done": False} for piece in ("y", "es")] + [{"done": True}]
    raw = "\n".join(json.dumps({"message": {"content": ""}} | line) for line in lines)
    assert reply(body(raw.encode(), Content_Type="application/x-ndjson")).text == "yes"


def test_a_server_that_only_streams_is_asked_for_a_stream_and_remembered():
    with MisbehavingServer(only_streams('{"label": "größe"}')) as server:
        model = EndpointModel(server.url, "stub")
        for _ in range(2):
            assert model.reply(ASK, max_tokens=500, schema=SCHEMA) == ('{"label": "größe"}', 7, 3, False)
    assert [sent.get("stream") for sent in server.bodies] == [None, True, True]
    assert server.bodies[-1]["response_format"]["type"] == "json_schema"
    assert server.bodies[-1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Streaming is required for this model"),
        (422, "stream must be set to true"),
        (400, "This model does not support non-streaming requests: set `stream` to true"),
        (405, "Only streaming requests are supported."),
        (200, "only stream=true is supported"),
    ],
)
def test_servers_ask_for_a_stream_in_many_words(status, message):
    chunks = [chunk(content="y"), chunk(content="es"), chunk("stop")]

    def step(request: Request) -> None:
        (streamed(*chunks) if request.body.get("stream") else error(status, message))(request)

    assert reply(step).text == "yes"


def test_a_server_that_takes_no_stream_options_gets_none():
    def step(request: Request) -> None:
        if "stream_options" in request.body:
            return request.answer(400, {"error": {"message": "unknown field: stream_options"}})
        only_streams("yes")(request)

    assert reply(error(400, "only stream=true is supported"), step).text == "yes"


@pytest.mark.parametrize(
    "step",
    [
        streamed(chunk(content="y"), chunk(content="es", reasoning_content="hm"), chunk("stop")),
        streamed(chunk(content="y"), chunk(content="es"), between="\n", end="data: [DONE]\n"),
        streamed(chunk(content="y"), chunk("stop", content="es"), end=""),
        streamed(chunk(content="yes"), end="data: [DONE]"),
        streamed(chunk(content="yes"), between="\r\n\r\n"),
        streamed({"type": "ping"}, chunk(content="yes")),
        streamed(answered(content="yes"), end=""),
        streamed(chunk(content=[THOUGHT]), chunk(content=[{"type": "text", "text": "yes"}])),
        streamed(chunk(content="<think>hm</th"), chunk(content="ink>yes")),
        streamed(chunk(content="yes"), chunk("stop"), {"choices": None, "usage": {"completion_tokens": 3}}),
        streamed(chunk(content="y"), chunk(content="es"), answered(content="yes")),
        streamed(
            *[{"choices": [{"delta": {"content": now}, "message": {"content": all_}}]} for now, all_ in SO_FAR],
            answered(content="yes"),
        ),
        body(b'\xef\xbb\xbfdata: {"choices": [{"delta": {"content": "yes"}}]}\n\ndata: [DONE]'),
        *(
            body(first + b'data: {"choices": [{"delta": {"content": "yes"}}]}\n\ndata: [DONE]')
            for first in (b"id: 1\n", b"retry: 5\n\n", b": wait\n\n: wait\n\n")
        ),
        body(
            b': hello\nid: 1\nevent: message\ndata: {"choices":\ndata: [{"delta": {"content": "yes"}}]}\n\ndata: [DONE]'
        ),
    ],
)
def test_a_stream_that_nobody_asked_for_is_read(step):
    assert reply(step).text == "yes"


@pytest.mark.parametrize("before", [b"", b"\n\n \n", b": WAIT\n\n: WAIT\r\n\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/html; charset=utf-16", ""])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_whole_answer_is_read_whatever_stands_before_it_and_whatever_its_type(before, kind, indent):
    raw = before + json.dumps(answered(content="yes"), indent=indent).encode()
    assert reply(body(raw, Content_Type=kind)).text == "yes"


def test_lines_of_json_are_read_whatever_their_type():
    lines = [{"message": {"content": "y"}, "done": False}, {"message": {"content": "es"}, "done": True}]
    assert reply(body("\n".join(map(json.dumps, lines)).encode())).text == "yes"


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": 1.5, "completion_tokens": "3"}, {"total": {}}, 7])
def test_numbers_of_tokens_that_cannot_be_read_are_unknown(usage):
    assert reply(body(answered(content="yes") | {"usage": usage})) == ("yes", 0, 0, False)


def test_half_of_a_surrogate_pair_spoils_no_answer():
    half, whole = json.dumps(answered(content="yes")), json.dumps(answered(content="\U0001f600 \\ud83d yes"))
    raw = half.replace('"content"', '"reasoning": "\\ud83d", "content"').encode()
    assert reply(body(raw)).text == "yes"
    assert reply(body(whole.replace("yes", "\\ude00").encode())).text == "\U0001f600 \\ud83d \ufffd"


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "abort", "insufficient_system_resource", "error"])
def test_what_a_server_stops_before_its_end_is_no_answer(reason):
    for step in (body(answered(reason, content="half a")), streamed(chunk(content="half a"), chunk(reason))):
        with pytest.raises(NoReply, match=rf"stopped the answer before its end .{reason.lower()}.") as caught:
            reply(step)
        assert not isinstance(caught.value, CutOff)


def test_the_reason_of_an_end_may_be_an_object():
    assert reply(body(answered({"type": "length", "length": 5}, content="half a"))).cut_off
    assert not reply(body(answered({"type": "stop", "matched": 2}, content="yes"))).cut_off


def test_a_stream_says_that_the_answer_is_cut_off():
    assert reply(streamed(chunk(content="half a"), chunk("length"))).cut_off
    with pytest.raises(CutOff):
        reply(streamed(chunk(reasoning_content="hm"), chunk("length")))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (streamed(chunk(content="half"), end=""), "stream stopped before the answer ended"),
        (streamed(chunk(content="half"), end='error: {"code": 503, "message": "no"}\n\n'), "failed .503, sent with"),
        (streamed(chunk(content="half"), end='event: error\ndata: {"message": "no"}\n\n'), "refuses the request"),
        (streamed(end=""), "no choice"),
        (streamed(chunk(content=7)), "no chat completion"),
        (body(b"data: {nonsense\n\n", Content_Type="text/event-stream"), "no chat completion"),
        (body(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'), "no chat completion"),
        (streamed(chunk(content="y"), {"error": {"message": "went wrong"}}), r"refuses the request \(400, sent with"),
        (body(b" " * (MAX_BODY_BYTES + 1)), "larger than 8 MiB"),
        (body(b" " * (MAX_STREAM_BYTES + 1), Content_Type="text/event-stream"), "larger than 32 MiB"),
    ],
)
def test_a_broken_stream_is_no_reply(step, reason):
    with pytest.raises(NoReply, match=reason):
        reply(step)


def test_the_events_of_a_stream_are_bounded(monkeypatch):
    monkeypatch.setattr(events, "MAX_EVENTS", 10)
    assert reply(streamed(*[chunk(content="x")] * 10)).text == "x" * 10
    with pytest.raises(NoReply, match=r"^answer of more than 10 events$"):
        reply(streamed(*[chunk(content="x")] * 11))


def test_a_stream_that_never_ends_is_given_up():
    def step(request: Request) -> None:
        request.answer(200, b": wait\n\n", promised=10_000_000, Content_Type="text/event-stream")
        while not request.stopped.wait(0.05):
            request.handler.wfile.write(b": wait\n\n")

    with pytest.raises(NoReply, match="within"):
        reply(step, timeout_seconds=0.4)


@pytest.mark.parametrize(
    ("sent", "kind", "says"),
    [
        ({"error": {"message": "no", "code": 401}}, LabelingError, "asks for a key .401."),
        ({"error": {"message": "no", "type": "authentication_error"}}, LabelingError, "asks for a key .401."),
        ({"error": {"message": "no", "code": "insufficient_quota"}}, LabelingError, "no credit left"),
        ({"error": {"message": "no", "code": "model_not_found"}}, LabelingError, "no model stub at"),
        ({"detail": "Not Found"}, LabelingError, "no model stub at"),
        ({"error": "model 'stub' not found"}, LabelingError, "no model stub at"),
        ([{"error": {"code": 401, "message": "no"}}], LabelingError, "asks for a key"),
        ({"error": {"message": "PROMPT"}}, NoReply, "refuses the request .400, sent with status 200."),
        ({"error": "PROMPT"}, NoReply, "refuses the request .400, sent with status 200."),
        ({"object": "error", "message": "PROMPT", "type": "BadRequestError", "code": 400}, NoReply, "refuses"),
        ({"object": "error", "message": "PROMPT", "code": 40303}, NoReply, "refuses the request"),
        ({"detail": [{"loc": ["body", "x"], "msg": "no", "type": "extra_forbidden"}]}, NoReply, "refuses the request"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "PROMPT"}}, NoReply, "failed .503"),
        ({"success": False, "errors": [{"code": 7003, "message": "no"}]}, NoReply, "refuses the request"),
        ({"message": "PROMPT"}, NoReply, "refuses the request"),
        ({"error": {"message": "slow", "type": "rate_limit_exceeded"}, "choices": []}, NoReply, "overloaded .429"),
        ({"choices": [{"error": {"code": 502, "message": "no"}, "finish_reason": "error"}]}, NoReply, "failed .502"),
        ({"error": {"message": "the context length is exceeded"}}, NoReply, "longer than the model's context"),
    ],
)
def test_an_error_that_comes_with_status_200_is_an_error(monkeypatch, sent, kind, says):
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 1)
    with pytest.raises(kind, match=says) as caught:
        reply(body(sent))
    assert "PROMPT" not in str(caught.value)
    with MisbehavingServer(body(sent), models=unlisted) as server, pytest.raises(LabelingError):
        EndpointModel(server.url, "stub").check()


def test_an_error_with_status_200_is_retried_as_one_with_its_own_status_would_be():
    assert reply(body({"error": {"message": "busy", "code": 503}}), ok("yes")).text == "yes"
    assert reply(body({"error": {"message": "unknown field: seed"}}), ok("yes")).text == "yes"


@pytest.mark.parametrize("empty", [None, {}, "", []])
def test_an_answer_may_have_an_empty_field_for_errors(empty):
    assert reply(body(completion("yes") | {"error": empty, "detail": empty})).text == "yes"


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 1000 tokens. However, you requested 4096 in the completion",
        "max_tokens is too large: 4096. This model supports at most 1000 completion tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 4096 > 1000",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 1000]",
        "Range of max_tokens should be [1, 1000]",
    ],
)
def test_a_server_with_less_room_is_asked_with_less(message):
    def step(request: Request) -> None:
        (ok("yes") if request.body["max_tokens"] <= 1000 else error(400, message))(request)

    with MisbehavingServer(step) as server:
        assert EndpointModel(server.url, "stub").reply(ASK, max_tokens=4096).text == "yes"
    assert [sent["max_tokens"] for sent in server.bodies] == [4096, 2048, 1024, 512]
    with MisbehavingServer(error(400, message)) as server, pytest.raises(NoReply, match="longer than the model's"):
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=4096)
    assert [sent["max_tokens"] for sent in server.bodies] == [4096, 2048, 1024, 512, 256, 128]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("?api-version=2024-06-01", "/v1/{}?api-version=2024-06-01"),
        ("/v1?api-version=2024-06-01", "/v1/{}?api-version=2024-06-01"),
        ("/v1/?api-version=2024-06-01&x=a%20b", "/v1/{}?api-version=2024-06-01&x=a%20b"),
        ("/v1/chat/completions?a=1&a=2", "/v1/{}?a=1&a=2"),
        ("/openai/deployments/x?api-version=1", "/openai/deployments/x/{}?api-version=1"),
        (f"/v1?key={QUERY_KEY}", f"/v1/{{}}?key={QUERY_KEY}"),
        ("/v1?", "/v1/{}"),
    ],
)
def test_a_query_in_the_address_goes_with_every_request(given, path):
    with MisbehavingServer(ok("yes")) as server:
        model = EndpointModel(server.url + given)
        model.check()
        assert model.reply(ASK, max_tokens=5).text == "yes"
        assert model.address == server.url
        assert model.name == f"stub at {server.url.removeprefix('http://')}"
    assert server.paths == [path.format("models"), path.format("chat/completions")]


def test_a_key_in_the_query_is_masked_wherever_it_may_be_shown(monkeypatch, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path))
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 0)
    query = f"/v1?api-version=2024-06-01&key={QUERY_KEY}"
    with MisbehavingServer(ok(f"loans {QUERY_KEY} of 2024-06-01"), error(404, QUERY_KEY)) as server:
        model = EndpointModel(server.url + query, "stub")
        assert model.reply(ASK, max_tokens=5).text == f"loans {MASK} of 2024-06-01"
        with pytest.raises(LabelingError, match=r"/v1\?api-version=\*\*\*&key=\*\*\* .404.") as caught:
            model.reply(ASK, max_tokens=5)
        labeller = open_labeller(LabelConfig(labeling_endpoint=server.url + query, labeling_timeout=5.0), NoProgress())
        assert labeller is not None
    with (
        MisbehavingServer(hang, models=error(500, f"cannot {QUERY_KEY}")) as server,
        pytest.raises(LabelingError) as second,
    ):
        EndpointModel(server.url + query).check()
    shown = [str(caught.value), str(second.value), repr(model), model.name, model.address, labeller.cost()]
    shown += [caplog.text, *capfd.readouterr(), *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())]
    assert "/v1/chat/completions?api-version=" in caplog.text
    for text in shown:
        assert QUERY_KEY not in text


@pytest.mark.parametrize(
    ("query", "secrets"),
    [
        ("api-version=2024-06-01-preview", []),
        ("deployment=financial-reports-2024", []),
        ("model=gpt-4o-mini&v=1.2", []),
        ("subscription-key=abc%2Fdef", ["abc/def"]),
        ("code=short&sig=a+b", ["short", "a b"]),
        ("x=0123456789abcdef0123", ["0123456789abcdef0123"]),
        ("sk-bare", ["sk-bare"]),
    ],
)
def test_only_values_that_may_be_keys_are_masked_in_answers(query, secrets):
    assert secrets_in(f"https://host/v1?{query}") == secrets
    assert EndpointModel(f"http://host/v1?{query}", "stub").exposes_key is bool(secrets)


@pytest.mark.parametrize("given", ["https://host/v1?x=a b", "https://host/v1?x=ä", "https://host?\n"])
def test_a_query_that_no_request_can_carry_is_refused(given):
    with pytest.raises(LabelingError, match="not an address"):
        EndpointModel(given.replace("\n", "\x7f"))


def test_another_path_or_query_is_asked_anew(tmp_path):
    with MisbehavingServer(ok("one")) as server:
        for given in ("/v1?deployment=a", "/v1?deployment=b", "/v2?deployment=a", "/v1?deployment=a"):
            model = EndpointModel(server.url + given, "stub")
            CachedModel(model, tmp_path, model.identity).reply(ASK, max_tokens=5)
        assert server.requests == 3


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_the_default_leaves_room_for_long_reasoning(monkeypatch, tmp_path, field):
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path))
    with MisbehavingServer(reasons_first('{"label": "x"}', 3000, field)) as server:
        labeller = open_labeller(LabelConfig(labeling_endpoint=server.url, labeling_timeout=5.0), NoProgress())
        assert labeller is not None
        room = LabelConfig().labeling_max_tokens
        assert labeller.model.reply(ASK, max_tokens=room).text == '{"label": "x"}'


FIELDS = (
    "choices",
    "message",
    "delta",
    "content",
    "text",
    "type",
    "error",
    "errors",
    "detail",
    "code",
    "status",
    "usage",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 600) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@given(
    json_values, st.sampled_from(["application/json", "text/event-stream", "application/x-ndjson", ""]), st.booleans()
)
def test_any_body_is_an_answer_an_error_or_neither(value, content_type, as_event):
    sent = (b"data: " if as_event else b"") + json.dumps(value).encode()
    status = bodies.error_status(sent, content_type)
    assert status is None or 400 <= status <= 599
    try:
        read = bodies.read_completion(sent, content_type)
    except (ValueError, NoReply):
        return
    for choice in read.choices:
        assert isinstance(choice.message.content, str)
    assert not read.choices or read.is_cut_off(5) in (True, False)
