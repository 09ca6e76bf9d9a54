"""No message repeats a password or a key, whichever option, file or argument it was given with."""

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import output_of, with_options

import stratalens
from stratalens.cli.main import main
from stratalens.cli.terminal import Terminal
from stratalens.config.options import RunConfig
from stratalens.config.result_options import LabelConfig, RankConfig
from stratalens.config.validation import validated
from stratalens.errors import ConfigError
from stratalens.files.redaction import as_printed
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.llm.chat import Message, Reply
from stratalens.labels.prompts import Prompts

SECRET = "hunter2andmore"
SHAPES = {
    "an address": f"https://user:{SECRET}@host/x",
    "an address of a path": f"https:/user:{SECRET}@host/x",
    "an address without a scheme": f"//user:{SECRET}@host/x",
    "a user without a scheme": f"user:{SECRET}@host/x",
    "a password of words": f"https://user:one {SECRET}'\"` two@host/x",
    "a password of signs": f"https://user:#?/@{SECRET}@host/x",
    "a signed address": f"https://host/x?sig={SECRET}",
    "a long password": f"https://user:{SECRET * 30}@host/x",
}
KEYS = {
    "a token of Hugging Face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "a key of a labelling service": "sk-proj-0123456789abcdefABCDEF",
    "a token of GitHub": "ghp_0123456789abcdefABCDEF0123456789abcd",
    "a key of a cloud": "AKIAIOSFODNN7EXAMPLE",
    "a random word": "9fJ2kQ7xLm4Zp1Rt8Vb3Nc6Hd5Gs0WyA",
}
OPTIONS = sorted({*RunConfig.model_fields, *LabelConfig.model_fields, *RankConfig.model_fields, "config", "top_m"})
RESULT_COMMANDS = ["show", "rank", "label", "validate", "report"]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """All that a command prints that must be refused."""
    capsys.readouterr()
    assert main(list(words)) == 2
    output = capsys.readouterr()
    *notes, error = output.err.splitlines()
    assert error.startswith("stratalens: ")
    assert all(note.startswith("Note: ") for note in notes)
    return output.out + output.err


def options_for(shape: str) -> list[str]:
    """Some of the options: each is tested with one or two of the shapes."""
    return OPTIONS[list(SHAPES).index(shape) % 6 :: 6]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_option_repeats_a_password(capsys, tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    for option in options_for(shape):
        partner = {"base_model": "sae_model", "sae_model": "base_model"}.get(option)
        more = ["--domain", "x"] if option != "domain" else []
        more += [f"--{partner}", "/none"] if partner else []
        line = said(capsys, "analyze", f"--{option}", SHAPES[shape], *more)
        assert SECRET not in line, (option, line)
    for words in ([f"--top_n={SHAPES[shape]}"], ["--rank_by", SHAPES[shape]], ["--top_m", SHAPES[shape]]):
        for command in ("analyze", "rank"):
            assert SECRET not in said(capsys, command, *(["x"] if command == "rank" else []), *words)


@pytest.mark.parametrize("key", KEYS)
def test_no_message_repeats_a_key(capsys, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    for option in ("base_model", "device", "domain", "domain_data", "config", "top_n", "rank_by"):
        more = ["--sae_model", "x"] if option == "base_model" else []
        assert KEYS[key] not in said(capsys, "analyze", f"--{option}", f"/data/{KEYS[key]}/x.txt", *more)
    for command in RESULT_COMMANDS:
        assert KEYS[key] not in said(capsys, command, f"/data/{KEYS[key]}", *(["1", "2"] if command == "show" else []))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_error_of_the_python_functions_repeats_a_password(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    address = SHAPES[shape]
    calls: list[Callable[[], object]] = [
        lambda: stratalens.analyze(base_model=address, sae_model="/none"),
        lambda: stratalens.analyze(base_model="/none", sae_model=address),
        lambda: stratalens.analyze(domain_data=[address], general_data=[address], domain="x"),
        lambda: stratalens.analyze(labeling_endpoint=address, labeling_timeout=1),
        lambda: stratalens.analyze(features=address),
        lambda: stratalens.analyze(top_m=address),
        lambda: stratalens.rank(address),
        lambda: stratalens.label(address, lexicon=address),
    ]
    for call in calls:
        with pytest.raises(stratalens.StratalensError) as caught:
            call()
        assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_argument_of_a_command_repeats_a_password(capsys, shape):
    assert SECRET not in said(capsys, SHAPES[shape])
    for command in RESULT_COMMANDS:
        assert SECRET not in said(capsys, command, SHAPES[shape])
        assert SECRET not in said(capsys, command, "x", SHAPES[shape])
        assert SECRET not in said(capsys, command, "x", SHAPES[shape], SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_of_a_file_is_repeated_with_its_password(capsys, tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    for option in options_for(shape):
        (tmp_path / "run.yaml").write_text(json.dumps({"domain": "x", option: SHAPES[shape]}))
        line = said(capsys, "analyze", "--config", "run.yaml")
        assert SECRET not in line, (option, line)
    (tmp_path / "run.yaml").write_text(json.dumps({SHAPES[shape]: 1}))
    assert SECRET not in said(capsys, "analyze", "--config", "run.yaml")


def test_the_help_does_not_show_the_passwords_of_a_file(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps({"base_model": SHAPES["an address"], "sae_model": "x"}))
    with pytest.raises(SystemExit):
        main(["analyze", "--config", str(tmp_path / "run.yaml"), "--help"])
    shown = capsys.readouterr().out
    assert "***@host" in shown
    assert SECRET not in shown


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_of_python_do_not_repeat_a_value(shape):
    value = SHAPES[shape]
    for options in ({"device": value}, {"domain": value}, {"top_n": value}, {value: 1}, {"rank_by": value}):
        with pytest.raises(ConfigError) as error:
            validated(RunConfig, options)
        assert SECRET not in as_printed(str(error.value))
        if "top_n" in options or "rank_by" in options:
            assert SECRET not in str(error.value)
            assert value not in str(error.value)


def test_messages_of_a_run_are_masked(capsys):
    terminal = Terminal()
    terminal.say(f"Results: {SHAPES['an address of a path']}")
    terminal.warn(f"{SHAPES['an address']}: one link was not followed")
    output = capsys.readouterr()
    assert "Results: https:/***@host/x" in output.out
    assert "https://***@host/x: one link" in output.err


def test_a_run_records_no_secret_of_its_options(capsys, tmp_path, monkeypatch, tiny_arguments):
    monkeypatch.chdir(tmp_path)
    key = KEYS["a token of Hugging Face"]
    (tmp_path / key).mkdir()
    options = dict(zip(tiny_arguments[::2], tiny_arguments[1::2], strict=False))
    for name in ("domain", "general"):
        (tmp_path / key / f"{name}.jsonl").write_bytes(Path(options[f"--{name}_data"]).read_bytes())
    texts = {f"{name}_data": f"{key}/{name}.jsonl" for name in ("domain", "general")}
    assert main(["analyze", *with_options(tiny_arguments, texts)]) == 0
    printed = capsys.readouterr()
    written = [path.read_bytes() for path in output_of(tiny_arguments).rglob("*") if path.is_file()]
    assert len(written) > 10
    for text in (printed.out.encode(), printed.err.encode(), *written):
        assert key.encode() not in text


def test_the_name_of_a_labelling_model_is_masked_in_results():
    model = NamedModel(SHAPES["an address"])
    assert LanguageJudge(model, Prompts()).name == "https://***@host/x"


class NamedModel:
    """A labelling model that has nothing but its name."""

    concurrency = 1

    def __init__(self, name: str):
        self.name = name

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        raise AssertionError("only its name is asked for")


PLAIN = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-./ ", min_size=1, max_size=80)


@given(PLAIN)
def test_ordinary_words_and_paths_stay_as_they_are(text):
    assert as_printed(text, [text]) == text or "//" in text


@pytest.mark.parametrize(
    "text",
    [
        "models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f249a16976918f6564b8830bc894c89659",
        "/data/FinancialNewsArticlesCollection2023Part1.jsonl",
        "EleutherAI/sae-llama-3.1-8b-32x-TopK32-Layer16-ResidualStream-v2",
        "/private/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/pytest-of-me/out",
        "sha256:9c9c4d368649afa6c5e4a3fd4638195271399ce891911e28727253ff42f5fa30",
        "http://localhost:8000/v1: no model stub at http://localhost:8000/v1 (404)",
        "hf:wikimedia/wikipedia:20231101.en:train:text",
        "git@github.com:org/repository",
        "C:/texts/what?is#this.txt",
        "line 3: expected a layer and a latent, such as `16 163`",
    ],
)
def test_names_hashes_and_addresses_without_secrets_stay_readable(text):
    assert as_printed(text, [text]) == text
