"""A labelling server is not trusted: what it is told, what of its answers is taken, and what its errors may show."""

import json
import re
import time
from contextlib import suppress

import httpx2
import pytest
from chat_servers import (
    MisbehavingServer,
    body,
    completion,
    error,
    hang,
    ok,
    packed,
    raw,
    redirect,
    unlisted,
)

from stratalens.config.result_options import LabelConfig
from stratalens.errors import LabelingError
from stratalens.labels.labelling import open_labeller
from stratalens.labels.llm import client
from stratalens.labels.llm.address import base_url, is_openai
from stratalens.labels.llm.chat import NoReply
from stratalens.labels.llm.client import MAX_BODY_BYTES, SENT_HEADERS
from stratalens.labels.llm.endpoint import MAX_ANSWER_CHARACTERS, MAX_NAME_CHARACTERS, EndpointModel
from stratalens.labels.llm.keys import find_key
from stratalens.progress import NoProgress

ASK = [{"role": "user", "content": "PROMPT"}]
KEY = "sk-very-secret-0123456789"
OTHER_KEY = "sk-other-fedcba9876543210"
REDIRECTS = [301, 302, 303, 307, 308]
KIND = "Labelling models"


@pytest.fixture(autouse=True)
def only_our_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("STRATALENS_API_KEY", KEY)


def refusal(server: MisbehavingServer, model: str | None = "stub") -> str:
    """The one error of the check and of a request."""
    endpoint = EndpointModel(server.url, model)
    said = set()
    for first in (endpoint.check, lambda: endpoint.reply(ASK, max_tokens=5)):
        with pytest.raises(LabelingError) as caught:
            first()
        said.add(str(caught.value))
    (line,) = said
    assert len(line.splitlines()) == 1
    assert KEY[3:] not in line
    return line


def reply(*steps, **options):
    with MisbehavingServer(*steps) as server:
        return EndpointModel(server.url, "stub", **options).reply(ASK, max_tokens=5)


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_is_not_followed_and_the_new_address_is_named_without_secrets(documented, status):
    with MisbehavingServer(ok("fine")) as other:
        moved = redirect(status, f"{other.url.replace('//', '//user:word@')}/v1/chat?token=abc&{KEY}#{KEY}")
        with MisbehavingServer(moved, models=unlisted) as server:
            line = refusal(server)
        assert other.headers == []
    assert line == (
        f"{server.url} redirects to {other.url.replace('//', '//***@')}/v1/chat?token=***&***#*** ({status}), "
        "which is not followed; if you trust that address, give it with --labeling_endpoint"
    )
    if status == 307:
        documented(KIND, "a server that redirects", line)


def test_a_list_of_models_that_redirects_is_refused_too():
    with (
        MisbehavingServer(ok("fine")) as other,
        MisbehavingServer(ok("fine"), models=redirect(302, other.url)) as server,
    ):
        with pytest.raises(LabelingError, match=rf"redirects to {other.url} \(302\)"):
            EndpointModel(server.url).check()
        assert other.headers == []


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/elsewhere", "redirects to http://127.0.0.1:[0-9]+/elsewhere "),
        ("//other.example/", "redirects to http://other.example/ "),
        ("http://[::1", "redirects to http://"),
        (f"https://h/{KEY.upper()}/x", r"redirects to https://h/\*\*\*/x "),
        ("file:///etc/passwd", "redirects to file:///etc/passwd "),
        ("https://h/" + "x" * 9000, "redirects to https://h/x{100,200} "),
        ("https://h/\x1b[2J", "redirects to https://h/\ufffd"),
    ],
)
def test_any_new_address_is_one_readable_line(location, shown):
    with MisbehavingServer(redirect(307, location), models=unlisted) as server:
        assert re.search(shown, refusal(server))


def test_a_redirect_to_nowhere_is_a_failed_request():
    with pytest.raises(NoReply, match=r"refuses the request \(302\)"):
        reply(body(b"", 302))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, GZip", f"x-{KEY}"])
@pytest.mark.parametrize("status", [200, 400])
def test_a_packed_answer_is_refused_before_it_is_read(documented, encoding, status):
    with MisbehavingServer(body(b"anything", status, Content_Encoding=encoding), models=unlisted) as server:
        line = refusal(server)
    assert "packs its answer (Content-Encoding: " in line
    if encoding == "gzip":
        documented(KIND, "a server that packs its answers", line)


def test_a_small_answer_that_unpacks_into_a_large_one_is_refused():
    bomb = packed(completion("fine"), spaces=4 * MAX_BODY_BYTES)
    with MisbehavingServer(bomb, models=bomb) as server:
        assert "packs its answer" in refusal(server, None)
        assert {headers["accept-encoding"] for headers in server.headers} == {"identity"}


def test_an_answer_that_says_that_it_is_not_packed_is_taken():
    assert reply(body(completion("fine"), Content_Encoding="identity")).text == "fine"


@pytest.fixture
def openai_variables(monkeypatch) -> dict[str, str]:
    """Everything that the client reads from the environment by itself."""
    values = {"OPENAI_API_KEY": OTHER_KEY, "OPENAI_ADMIN_KEY": "sk-admin-1", "OPENAI_ORG_ID": "org-of-mine"}
    values |= {"OPENAI_PROJECT_ID": "project-of-mine", "OPENAI_WEBHOOK_SECRET": "whsec-1"}
    values |= {"OPENAI_BASE_URL": "http://127.0.0.1:9", "OPENAI_CUSTOM_HEADERS": "X-Token: t\nAuthorization: Bearer c"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.mark.parametrize("own", [KEY, None])
def test_another_server_gets_our_key_and_nothing_that_is_meant_for_openai(monkeypatch, openai_variables, own):
    if own is None:
        monkeypatch.delenv("STRATALENS_API_KEY")
    with MisbehavingServer(ok("fine"), models=["stub"]) as server:
        model = EndpointModel(server.url)
        model.check()
        model.reply(ASK, max_tokens=5)
    assert len(server.headers) == 2
    for headers in server.headers:
        assert headers["authorization"] == f"Bearer {own or 'none'}"
        assert set(headers) <= SENT_HEADERS | {"accept-encoding"}
        assert not [value for value in openai_variables.values() if value in str(headers)]


def test_openai_gets_its_own_key_organisation_and_project(monkeypatch, openai_variables):
    monkeypatch.delenv("STRATALENS_API_KEY")
    with MisbehavingServer(ok("fine")) as server:
        monkeypatch.setattr("stratalens.labels.llm.address.OPENAI_ADDRESS", re.compile(f"{server.url}/v1"))
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
        monkeypatch.setenv("STRATALENS_API_KEY", KEY)
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
    assert server.keys == [f"Bearer {OTHER_KEY}", f"Bearer {KEY}"]
    for headers in server.headers:
        assert (headers["openai-organization"], headers["openai-project"]) == ("org-of-mine", "project-of-mine")
        assert "x-token" not in headers


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com",
        "https://api.openai.com/v1/",
        "https://API.OpenAI.com:443/v1",
        "https://eu.api.openai.com/v1/chat/completions",
    ],
)
def test_the_addresses_of_openai(monkeypatch, address):
    assert is_openai(base_url(address))
    monkeypatch.delenv("STRATALENS_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", OTHER_KEY)
    assert find_key(base_url(address), None) == OTHER_KEY


@pytest.mark.parametrize(
    "address",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com.example/v1",
        "https://api.openai.com\\.example/v1",
        "https://api.openai.com%2eexample/v1",
        "https://api.openai.com:443.example/v1",
        "https://api-openai.com",
        "https://xapi.openai.com",
        "https://a.b.api.openai.com",
        "https://openai.com",
        "https://example/https://api.openai.com/v1",
        "https://example\n.api.openai.com/v1",
        "https://\uff41pi.openai.com",
        "http://localhost:8000/api.openai.com",
    ],
)
def test_addresses_that_only_look_like_those_of_openai(monkeypatch, address):
    monkeypatch.delenv("STRATALENS_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", OTHER_KEY)
    with suppress(LabelingError):
        assert find_key(base_url(address), None) is None


def test_a_server_that_asks_for_a_key_is_told_why_that_of_openai_was_not_sent(monkeypatch, documented):
    monkeypatch.delenv("STRATALENS_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", OTHER_KEY)
    with MisbehavingServer(error(401, "no key")) as server, pytest.raises(LabelingError) as caught:
        EndpointModel(server.url, "stub").reply(ASK, max_tokens=5)
    assert str(caught.value) == (
        f"{server.url} asks for a key (401); set the environment variable STRATALENS_API_KEY "
        "(OPENAI_API_KEY is sent only to https://api.openai.com)"
    )
    documented(KIND, "a server that asks for a key, with that of OpenAI set", str(caught.value))


def test_a_variable_that_no_header_can_carry_is_refused_without_repeating_it(monkeypatch, documented):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Token: gehéim")
    with pytest.raises(LabelingError, match="holds a character that no header has") as caught:
        EndpointModel("http://localhost")
    documented(KIND, "custom headers that cannot be sent", str(caught.value))
    assert "geh" not in str(caught.value)


def test_what_stays_on_this_machine_does_not_pass_a_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with MisbehavingServer(ok("the proxy")) as proxy, MisbehavingServer(ok("fine")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert EndpointModel(server.url, "stub").reply(ASK, max_tokens=5).text == "fine"
        assert proxy.headers == []
        assert EndpointModel("http://model.example", "stub").reply(ASK, max_tokens=5).text == "the proxy"


def test_a_proxy_that_is_none_is_refused_without_its_password(monkeypatch, documented):
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:word@proxy")
    with pytest.raises(LabelingError, match="the proxy or the certificates") as caught:
        EndpointModel("https://model.example", "stub")
    documented(KIND, "a proxy that is none", str(caught.value))
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("http://model.example/v1", True),
        ("http://10.0.0.1:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://localhost.example", True),
        ("http://127.0.0.1.example", True),
        ("https://model.example/v1", False),
        ("http://localhost:8000", False),
        ("http://127.3.2.1:8000", False),
        ("http://[::1]:8000", False),
    ],
)
def test_others_can_read_a_key_on_its_way_to_another_machine_without_encryption(monkeypatch, address, exposed):
    assert EndpointModel(address, "stub").exposes_key is exposed
    monkeypatch.delenv("STRATALENS_API_KEY")
    assert EndpointModel(address, "stub").exposes_key is False


class Told(NoProgress):
    """Keeps what is disclosed, with the number of requests that had been sent by then."""

    def __init__(self, server: MisbehavingServer):
        self.server = server
        self.lines: list[tuple[int, str]] = []

    def disclose(self, message: str) -> None:
        self.lines.append((len(self.server.headers), message))


def test_a_key_that_others_can_read_is_told_before_it_is_sent(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path))
    with MisbehavingServer(ok("fine")) as server:
        told = Told(server)
        address = server.url.replace("127.0.0.1", "0.0.0.0")
        open_labeller(LabelConfig(labeling_endpoint=address, labeling_timeout=5.0), told)
        assert len(server.headers) == 1
    ((sent_before, line),) = [(sent, line) for sent, line in told.lines if "key" in line]
    assert sent_before == 0
    assert "unencrypted; use https, or a tunnel to this machine" in line


FORMS = {
    "the key": KEY,
    "in capitals": KEY.upper(),
    "its beginning": KEY[:8],
    "its end": KEY[-8:],
    "in base64": "c2stdmVyeS1zZWNyZXQtMDEyMzQ1Njc4OQ",
    "escaped": KEY.replace("-", "%2D"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_key_is_masked_in_answers_errors_names_and_broken_protocols(monkeypatch, form):
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 0)
    assert reply(ok(f"loans {form} banks")).text == "loans *** banks"
    shown = []
    for step in (error(400, f"cannot {form} now"), raw(f"{form} HTTP/1.1 nonsense\r\n\r\n".encode())):
        with MisbehavingServer(step, models=raw(f"HTTP/1.1 404 {form}\r\n\r\n".encode())) as server:
            shown.append(problem_of(EndpointModel(server.url, "stub")))
    for names in ([form], [form, "other"]):
        with MisbehavingServer(hang, models=names) as server:
            shown.append(problem_of(EndpointModel(server.url)))
    assert "cannot *** now" in shown[0]
    assert "(***, other)" in shown[-1]
    for line in shown:
        assert form.lower() not in line.lower()


def problem_of(model: EndpointModel) -> str:
    with pytest.raises(LabelingError) as caught:
        model.check()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_answer_that_escapes_the_key_once_more_is_masked_before_it_is_parsed():
    escaped = "".join(f"\\u{ord(ch):04x}" for ch in KEY)
    assert json.loads(reply(ok(f'{{"label": "{escaped}"}}')).text) == {"label": "***"}


@pytest.mark.parametrize(
    "name", ["x" * (MAX_NAME_CHARACTERS + 1), "x\ny", "x\x1b[2J", "x\u202ey", " x", "", f"m-{KEY}"]
)
def test_a_name_of_a_model_that_cannot_be_shown_is_refused(documented, name):
    with MisbehavingServer(ok("fine"), models=[name]) as server:
        line = problem_of(EndpointModel(server.url))
        assert server.requests == 0
        assert EndpointModel(server.url, name).model == name, "a name that the user gives is taken"
    assert "expected at most 120 printable characters" in line
    assert len(line) < 400
    if "\u202e" in name:
        documented(KIND, "a server that names its model unreadably", line)


def test_a_name_of_120_characters_is_taken():
    name = "organisation/model v1.5 ü" + "x" * 95
    with MisbehavingServer(ok("fine"), models=[name]) as server:
        model = EndpointModel(server.url)
        model.check()
        assert model.name == f"{name} at {server.url.removeprefix('http://')}"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (body(b"[" * 1_000_000), "no chat completion"),
        (body(b"[" * 1_000_000, 400), "refuses the request .400."),
        (ok("x" * (MAX_ANSWER_CHARACTERS + 1)), "answer longer than 20,000 characters"),
        (body(completion("x" * MAX_BODY_BYTES)), "answer larger than 8 MiB"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), "connection|no answer"),
    ],
)
def test_an_answer_made_to_break_its_reader_is_no_reply(monkeypatch, step, reason):
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 0)
    with MisbehavingServer(ok("fine"), step) as server:
        model = EndpointModel(server.url, "stub")
        model.reply(ASK, max_tokens=5)
        with pytest.raises(NoReply, match=reason):
            model.reply(ASK, max_tokens=5)


CODECS = ["idna", "punycode", "rot13", "zlib_codec", "bz2_codec", "hex", "undefined", "utf-16", '"a\x01b"']


@pytest.mark.parametrize("charset", CODECS)
@pytest.mark.parametrize("status", [200, 400])
def test_the_charset_of_an_answer_picks_no_codec(charset, status):
    sent = {"Content_Type": f"application/json; charset={charset}"}
    with MisbehavingServer(body(completion("größe"), status, **sent)) as server:
        model = EndpointModel(server.url, "stub")
        if status == 200:
            assert model.reply(ASK, max_tokens=5).text == "größe"
        else:
            with pytest.raises(NoReply, match=r"^the server refuses the request \(400\)$"):
                model.reply(ASK, max_tokens=5)


def test_a_long_answer_in_a_slow_codec_takes_no_time():
    long = body(b"a" * 400_000 + b"-" + b"a" * 400_000, 400, Content_Type="text/plain; charset=punycode")
    started = time.monotonic()
    with pytest.raises(NoReply, match="refuses the request"):
        reply(long)
    assert time.monotonic() - started < 5


PAUSES = [
    "Fri, 31 Dec 2026 23:59:59 +" + "9" * 400,
    "Fri, 31 Dec 99999999999 23:59:59 GMT",
    "9" * 4000,
    "1e999",
    "nan",
    "-1",
    "\u0661",
]


@pytest.mark.parametrize("name", ["Retry_After", "Retry_After_Ms"])
@pytest.mark.parametrize("pause", PAUSES)
def test_a_pause_that_is_no_plain_number_is_not_computed_with(monkeypatch, name, pause):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    sent = {name: pause.encode().decode("latin-1")}
    assert reply(error(429, "slow down", **sent), ok("fine")).text == "fine"


@pytest.mark.parametrize(
    ("header", "left"),
    [
        ("1.5", True),
        ("Fri, 31 Dec 1999 23:59:59 GMT", True),
        ("Fri, 31 Dec 1999 23:59:59 +0100", False),
        ("12345678901", False),
    ],
)
def test_a_plain_pause_reaches_the_client(header, left):
    response = httpx2.Response(429, headers={"Retry-After": header})
    client._limit_pause(response)
    assert ("retry-after" in response.headers) is left


def test_whatever_an_answer_makes_a_library_raise_is_no_reply(monkeypatch):
    monkeypatch.setattr("openai._base_client.SyncAPIClient._should_retry", lambda *_: int("x"))
    with MisbehavingServer(error(429, "slow down"), models=error(500, "oops")) as server:
        model = EndpointModel(server.url, "stub")
        with pytest.raises(NoReply, match=r"^the client failed \(ValueError\)$"):
            model.reply(ASK, max_tokens=5)
        for asked in (model, EndpointModel(server.url)):
            with pytest.raises(LabelingError, match=r"the client failed \(ValueError\)"):
                asked.check()


@pytest.mark.parametrize(
    "address", ["http://a..b/", "http://127.0.0.1:1/\ud800", f"http://{'a' * 64}.example", f"http://{'a' * 9000}/"]
)
def test_an_address_that_no_socket_takes_is_refused(address):
    with pytest.raises(LabelingError, match="not an address; write one such as") as caught:
        EndpointModel(address)
    assert len(str(caught.value).encode()) < 400


def test_the_longest_answer_is_taken():
    assert len(reply(ok("x" * MAX_ANSWER_CHARACTERS)).text) == MAX_ANSWER_CHARACTERS


@pytest.mark.parametrize("tokens", [-1, 2**31, 10**4000])
def test_a_number_of_tokens_that_no_request_uses_counts_as_none(tokens):
    answer = json.dumps(completion("fine")).replace('"prompt_tokens": 7', f'"prompt_tokens": {tokens}').encode()
    assert reply(body(answer))[:3] == ("fine", 0, 3)
