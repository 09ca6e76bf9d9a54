"""Mistakes that `label` and `show` refuse, and labelling models that fail, on the tiny model."""

import errno
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_servers import (
    MisbehavingServer,
    Request,
    Step,
    answered,
    body,
    completion,
    error,
    ok,
    reasons_first,
    unlisted,
)
from finished_result import (
    all_text,
    contents,
    feature_file,
    features,
    label,
    labels,
    refused,
    sentences,
)

from stratalens.cli.main import main
from stratalens.labels.llm.address import KEY_VARIABLE
from stratalens.labels.llm.keys import OPENAI_KEY_VARIABLE

pytestmark = pytest.mark.usefixtures("own_environment")

KEY = "sk-very-secret-0123456789"


def answers(text: str, rating: int = 5):
    """Answers every request for a label with the same text and gives every passage the same rating."""

    def step(request: Request) -> None:
        question = request.body["messages"][-1]["content"]
        wanted = re.search(r"exactly (\d+) whole numbers", question)
        ratings = {"ratings": [rating] * int(wanted[1])} if wanted else {"label": text}
        request.answer(200, completion(json.dumps(ratings)))

    return step


@pytest.mark.parametrize(
    ("words", "message", "row"),
    [
        (["label"], "the result directory comes first", "Commands and options: label without its directory"),
        (["label", "--no_examples"], "the result directory comes first", ""),
        (
            ["label", "NONE"],
            "no finished result here (no run.json); name the --output_dir of a run",
            "Finished results: a directory without a result",
        ),
        (["show", "NONE", "0", "1"], "no finished result here", ""),
        (
            ["show", "OUT"],
            "expected a layer and a feature, such as `stratalens show",
            "Commands and options: show without a feature",
        ),
        (["show", "OUT", "0", "x"], "expected a layer and a feature", ""),
        (
            ["show", "OUT", "1", "0"],
            "has layers 0 2; layer 1 was asked for",
            "Finished results: a layer that was not analysed",
        ),
        (
            ["show", "OUT", "0", "64"],
            "layer 0 has features 0 to 63; 64 was asked for",
            "Finished results: a feature that there is not",
        ),
        (
            ["label", "OUT", "--features", "NONE"],
            "cannot be read",
            "Feature lists, lexicons and prompts: a list that cannot be read",
        ),
        (
            ["label", "OUT", "--features", "1 0"],
            "--features names layer 1; the analysed layers are 0 2",
            "Feature lists, lexicons and prompts: a list that names another layer",
        ),
        (
            ["label", "OUT", "--features", "0 64"],
            "--features names feature 64 of layer 0, which has features 0 to 63",
            "Feature lists, lexicons and prompts: a list that names no such feature",
        ),
        (
            ["label", "OUT", "--features", "0 x"],
            "line 1: expected a layer and a latent",
            "Feature lists, lexicons and prompts: a list with a line that is no pair",
        ),
        (
            ["label", "OUT", "--lexicon", "NONE"],
            "cannot be read",
            "Feature lists, lexicons and prompts: a lexicon that cannot be read",
        ),
        (
            ["label", "OUT", "--prompts", "NONE"],
            "no prompt templates here",
            "Feature lists, lexicons and prompts: no such directory of prompts",
        ),
        (
            ["label", "OUT", "--labeling_endpoint", "not an address"],
            "not an address; write one such as",
            "Labelling models: an address that is none",
        ),
        (
            ["label", "OUT", "--labeling_concurrency", "0"],
            "labeling_concurrency",
            "Commands and options: no request at once",
        ),
        (["label", "OUT", "--top_n", "3"], "--help", "Commands and options: an option of another command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_changes_nothing(result, documented, tmp_path, capsys, words, message, row):
    before = contents(result)
    named = {"OUT": str(result), "NONE": str(tmp_path / "none")}
    words = [named.get(word, word) for word in words]
    if re.fullmatch(r"\d \w+", words[-1]):
        words[-1] = str(write_list(tmp_path, words[-1]))
    line = refused(capsys, *words)
    assert message in line
    assert contents(result) == before
    if row:
        documented(*row.split(": "), line)


def write_list(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_text(text)
    return path


def test_a_damaged_result_is_refused(result, documented, capsys):
    for name in ("features.parquet", "layer_2/all_features.parquet", "run.json"):
        whole = (result / name).read_bytes()
        (result / name).write_bytes(whole[:40])
        line = refused(capsys, "label", str(result))
        assert str(result) in line
        assert refused(capsys, "show", str(result), "0", "1") == line
        documented("Finished results", f"a damaged {name}", line)
        (result / name).write_bytes(whole)
    assert label(result) == 0


@pytest.mark.parametrize("words", [["1 0"], ["0 64"]])
def test_a_list_that_does_not_fit_is_refused_by_analyze(arguments, tmp_path, capsys, words):
    options = [*arguments[:-1], str(tmp_path / "out"), "--features", str(write_list(tmp_path, words[0]))]
    line = refused(capsys, "analyze", "--quiet", *options)
    assert f"layer {words[0].split()[0]}" in line
    assert not (tmp_path / "out").exists()


def test_a_server_that_answers_garbage_leaves_the_labels_of_the_evidence_with_a_note(result):
    before = {layer: labels(result, layer) for layer in (0, 2)}
    with MisbehavingServer(ok('{"garbage": ["a", "b"]}')) as server:
        assert label(result, "--labeling_endpoint", server.url) == 0
        assert server.requests > 0
    assert {layer: labels(result, layer) for layer in (0, 2)} == before
    rows = features(result)
    assert (rows["label_source"] == "evidence").all()
    assert rows["label_note"].str.contains("labelled by evidence: .*no label in the answer").all()


def test_labels_of_a_server_are_used_scored_and_requested_once(result, capsys):
    with MisbehavingServer(answers("loans and banks")) as server:
        assert label(result, "--labeling_endpoint", server.url) == 0
        requests = server.requests
        assert requests >= len(features(result))
        rows = features(result)
        assert (rows["label"] == "Loans and banks").all()
        assert rows["label_source"].str.contains("stub").all()
        scored = rows[rows["detection_auroc"].notna()]
        assert (scored["detection_auroc"] == 0.5).all(), "equal ratings cannot tell passages apart"
        tables = {name: raw for name, raw in contents(result).items() if name != "run.json"}
        assert label(result, "--labeling_endpoint", server.url) == 0
        assert server.requests == requests, "the second run sends nothing"
        again = {name: raw for name, raw in contents(result).items() if name != "run.json"}
        assert again == tables


def test_labels_of_a_server_without_examples_are_made_without_a_sentence(result, sources):
    with MisbehavingServer(answers("loans and banks")) as server:
        assert label(result, "--labeling_endpoint", server.url, "--no_examples") == 0
        sent = json.dumps(server.bodies)
    assert "Tokens with most of its activation" in sent
    assert [run for run in sentences(sources) if run in sent] == []


def test_requests_are_sent_for_listed_features_only(result, tmp_path):
    listed = next(iter(labels(result, 2)))
    before = labels(result, 2)
    with MisbehavingServer(answers("loans and banks")) as server:
        options = ("--labeling_endpoint", server.url, "--features", feature_file(tmp_path, (2, listed)))
        assert label(result, *options) == 0
    assert labels(result, 2) == before | {listed: "Loans and banks"}
    assert "Loans and banks" not in labels(result, 0).values()


@pytest.mark.parametrize("command", ["analyze", "label"])
def test_nobody_listening_is_refused_before_anything_is_read(
    arguments, result, documented, tmp_path, capsys, monkeypatch, command
):
    def read(*_arguments: object, **_options: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr("stratalens.commands.analyze.find_inputs", read)
    monkeypatch.setattr("stratalens.commands.label.load_evidence", read)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    before = contents(result)
    own = [*arguments[:-1], str(tmp_path / "new")] if command == "analyze" else [str(result)]
    line = refused(capsys, command, *own, "--quiet", "--labeling_endpoint", url)
    assert url.removeprefix("http://") in line
    documented("Labelling models", "nobody listens at the address", line)
    assert contents(result) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("variable", "sent"), [(KEY_VARIABLE, f"Bearer {KEY}"), (OPENAI_KEY_VARIABLE, "Bearer none")])
def test_a_key_is_sent_to_the_server_and_appears_in_no_file_and_no_output(
    result, tmp_path, capsys, monkeypatch, variable, sent
):
    monkeypatch.setenv(variable, KEY)
    with MisbehavingServer(answers("loans and banks")) as server:
        assert main(["label", str(result), "--labeling_endpoint", server.url]) == 0
        assert {headers["authorization"] for headers in server.headers} == {sent}
    with MisbehavingServer(error(400, f"no such thing for {KEY}")) as server:
        assert main(["label", str(result), "--labeling_endpoint", server.url]) == 2
        assert server.requests > 0
    with MisbehavingServer(ok("x"), models=error(401, f"wrong key {KEY}")) as server:
        assert main(["label", str(result), "--labeling_endpoint", server.url]) == 2
    printed = capsys.readouterr()
    assert "label" in printed.out + printed.err
    assert "unencrypted" not in printed.err
    for text in (printed.out, printed.err, all_text(result), all_text(tmp_path / "cache")):
        assert KEY not in text
        assert KEY[3:] not in text


def test_a_key_that_a_server_puts_into_labels_reaches_no_file_and_its_way_is_told_once(
    result, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with MisbehavingServer(answers(f"loans {KEY} {KEY.upper()} {KEY[:12]} here")) as server:
        address = server.url.replace("127.0.0.1", "0.0.0.0")
        assert label(result, "--labeling_endpoint", address) == 0
    printed = capsys.readouterr()
    assert (features(result)["label"] == "Loans *** *** *** here").all()
    assert KEY[3:11] not in (printed.out + printed.err + all_text(result) + all_text(tmp_path / "cache")).lower()
    told = f"the API key goes to {address} unencrypted; use https, or a tunnel to this machine"
    assert " ".join(printed.err.split()).count(told) == 1


def test_an_analysis_labelled_by_a_server_reports_its_requests(arguments, tmp_path, capsys):
    options = [*arguments[:-1], str(tmp_path / "out")]
    with MisbehavingServer(answers("loans and banks")) as server:
        assert main(["analyze", *options, "--labeling_endpoint", server.url]) == 0
        printed = capsys.readouterr()
        assert f"sentences of the corpus will be sent to {server.url}" in " ".join(printed.err.split())
        assert f"{server.requests:,} requests (0 failed)" in " ".join(printed.out.split())
    assert set(labels(tmp_path / "out", 0).values()) == {"Loans and banks"}


SILENT = {
    "a server that refuses every request": (error(400, "no"), "the server refuses the request (400); see the server's"),
    "a server that sends errors with status 200": (body({"error": {"message": "no"}}), "(400, sent with status 200); "),
    "a model that reasons without end": (
        reasons_first("{}", 10**6),
        "the answer is cut off at 256 tokens; raise --labeling_max_tokens",
    ),
    "a server that sends reasoning alone": (
        body(answered(content=None, reasoning_content='{"label": "draft"}')),
        "reasoning without an answer; see the server's log",
    ),
    "a server that fails at every request": (error(503, "no"), "the server failed (503); see the server's log"),
    "a server that refuses the key at every request": (error(401, "no"), "asks for a key (401); set the environment"),
}


@pytest.mark.parametrize("case", SILENT)
def test_label_is_refused_and_changes_nothing_where_no_request_is_answered(
    result, documented, monkeypatch, capsys, case
):
    monkeypatch.setattr("stratalens.labels.llm.client.MAX_RETRIES", 0)
    step, says = SILENT[case]
    before = contents(result)
    with MisbehavingServer(step) as server:
        own = ["--quiet", "--labeling_endpoint", server.url, "--labeling_max_tokens", "64"]
        capsys.readouterr()
        assert main(["label", str(result), *own]) == 2
        assert server.requests > 0
    printed = capsys.readouterr()
    line = printed.err.splitlines()[-1]
    assert line.startswith("stratalens: the labelling model answered no request (stub at 127.0.0.1:")
    assert says in line
    assert printed.out == ""
    assert contents(result) == before
    documented("Labelling models", case, line)


def test_analyze_labels_from_the_evidence_and_says_so_where_no_request_is_answered(
    arguments, finished, tmp_path, capsys
):
    out = tmp_path / "out"
    with MisbehavingServer(error(400, "no")) as server:
        assert main(["analyze", *arguments[:-1], str(out), "--labeling_endpoint", server.url]) == 0
    reason = "the labelling model answered no request (stub at 127.0.0.1:"
    assert f"labelling model: left out (LabelingError: {reason}" in " ".join(capsys.readouterr().err.split())
    recorded = json.loads((out / "run.json").read_text())["missing_parts"]["labelling model"]
    assert reason in recorded
    assert "the server refuses the request (400)" in recorded
    assert reason in (out / "report.html").read_text()
    for layer in (0, 2):
        assert labels(out, layer) == labels(finished, layer)
    assert label(out) == 0
    assert "answered no request" not in (out / "run.json").read_text(), "the labels are others now"


def test_answers_that_cannot_be_kept_end_label_but_no_analysis(
    arguments, finished, result, tmp_path, monkeypatch, capsys
):
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stratalens.labels.llm.cache.write_checksummed", full)
    before, out = contents(result), tmp_path / "new"
    with MisbehavingServer(answers("loans and banks")) as server:
        assert label(result, "--labeling_endpoint", server.url) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert main(["analyze", *arguments[:-1], str(out), "--labeling_endpoint", server.url]) == 0
    says = "answers of the labelling model cannot be stored (No space left on device); free some space"
    assert says in line
    assert contents(result) == before
    assert says in json.loads((out / "run.json").read_text())["missing_parts"]["labelling model"]
    assert labels(out, 0) == labels(finished, 0)


def test_where_some_requests_fail_the_others_are_used(result):
    with MisbehavingServer(*[error(422, "no")] * 3, answers("loans and banks")) as server:
        options = ("--labeling_endpoint", server.url, "--labeling_concurrency", "1")
        assert label(result, *options) == 0
    rows = features(result)
    assert set(rows["label_source"].str.split(" at ").str[0]) == {"stub", "evidence"}
    assert rows["label_note"].str.contains("labelled by evidence: stub at .*refuses the request").sum() == 1


def wrapped(wrap: Callable[[str], dict], rating: object) -> Step:
    """Answer as `answers` does, in another form."""

    def step(request: Request) -> None:
        wanted = re.search(r"exactly (\d+) whole numbers", request.body["messages"][-1]["content"])
        content = {"ratings": [rating] * int(wanted[1])} if wanted else {"label": "loans and banks"}
        request.answer(200, wrap(json.dumps(content)))

    return step


@pytest.mark.parametrize(
    ("wrap", "rating"),
    [
        (lambda text: answered(content=[{"type": "thinking", "thinking": "x"}, {"type": "text", "text": text}]), 7.0),
        (
            lambda text: answered(content=f"<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>{text}"),
            "7",
        ),
        (lambda text: answered(content=f"```json\n{text}\n```", reasoning="x"), "7/10"),
        (lambda text: answered(content=f"[THINK]x[/THINK]{text}"), " 7 "),
    ],
)
def test_labels_and_ratings_in_other_forms_are_used(result, wrap, rating):
    with MisbehavingServer(wrapped(wrap, rating)) as server:
        assert label(result, "--labeling_endpoint", server.url) == 0
    rows = features(result)
    assert (rows["label"] == "Loans and banks").all()
    assert rows["label_note"].dropna().str.startswith("fires on too few").all()
    assert rows["label_judge"].dropna().str.startswith("stub").all()


def test_a_key_in_the_query_of_the_address_is_in_no_file_and_no_output(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    with MisbehavingServer(answers(f"loans {KEY}"), models=unlisted) as server:
        own = ["--labeling_endpoint", f"{server.url}/v1?key={KEY}", "--labeling_model", "stub"]
        assert main(["analyze", *arguments[:-1], str(out), *own]) == 0
        assert all(path.endswith(f"?key={KEY}") for path in server.paths)
        assert main(["label", str(out), *own]) == 0
    printed = capsys.readouterr()
    assert json.loads((out / "run.json").read_text())["settings"]["labeling_endpoint"] == f"{server.url}/v1?key=***"
    for text in (printed.out, printed.err, all_text(out), all_text(tmp_path / "cache")):
        assert KEY[3:] not in text
