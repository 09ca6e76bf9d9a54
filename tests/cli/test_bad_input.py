"""A mistake in the input ends in exit code 2 and one line that says what was found and what to do."""

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from refusal import Options, output_of, refusal, with_options

from stratalens.cli.main import main


@pytest.fixture
def refused(capsys, tiny_arguments) -> Callable[..., str]:
    """Runs the tiny model with changed options and returns the error message of one line."""
    return lambda options, *extra: refusal(with_options(tiny_arguments, options) + list(extra), capsys)


def rows(*texts: object) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet(**columns: list) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


LONG = "a text that is quite long enough to count as a document of its own"
MANY = rows(*(f"{LONG} {number * 7919}" for number in range(400)))
ZIPPED = gzip.compress(MANY)

TEXTS = {
    "an empty file": (
        "a.jsonl",
        b"",
        "0 usable documents on the domain side (0 rows read); at least 3 per side are needed",
    ),
    "too few documents": (
        "a.jsonl",
        rows(LONG, "short", ""),
        "1 usable document on the domain side (3 rows read: 1 empty",
    ),
    "jsonl without the text column": (
        "a.jsonl",
        b'{"body": "x"}',
        "a.jsonl:1: no column `text` (found: body); give the",
    ),
    "csv without it": (
        "a.csv",
        b"id,body\n1,x\n",
        "a.csv: no column `text` (found: id, body); give the text column with --text_col",
    ),
    "tsv without it": (
        "a.tsv",
        b"id\tbody\n1\tx\n",
        "a.tsv: no column `text` (found: id, body); give the text column with --text_c",
    ),
    "parquet without it": (
        "a.parquet",
        parquet(body=["x"]),
        "no column `text` (found: body); give the text column with --text_colu",
    ),
    "undecodable txt": ("a.txt", b"good\n\xff\xfe bad\n", "a.txt:2: not UTF-8 text; convert it"),
    "undecodable csv": (
        "a.csv",
        b"text\ngood\n\xff\xfe bad\n",
        "a.csv:3: not UTF-8 text; convert it, name its encoding with --encoding, or skip such rows",
    ),
    "undecodable jsonl": ("a.jsonl", b'{"text": "\xff\xfe"}\n', "a.jsonl:1: not UTF-8 text; convert it"),
    "broken JSON": ("a.jsonl", rows(LONG) + b'{"text": "unfin\n', "a.jsonl:2: not valid JSON (Unterminated string"),
    "JSON nested too deep": ("a.jsonl", b"[" * 200_000, "a.jsonl: not valid JSON (unreadable value)"),
    "a JSON line that is no object": (
        "a.jsonl",
        rows(LONG) + b"[1]\n",
        "a.jsonl:2: a JSON object was expected, found list",
    ),
    "numbers for text in jsonl": ("a.jsonl", rows(LONG, 7), "a.jsonl:2: the text column holds int, not text"),
    "numbers for text in parquet": (
        "a.parquet",
        parquet(text=[1.5]),
        "a.parquet: the text column holds float, not text",
    ),
    "an empty csv": ("a.csv", b"", "a.csv: not a readable CSV file (no columns"),
    "csv with an open quote": (
        "a.csv",
        b'text\n"one"\n"never closed\n' + b"x\n" * 9,
        "a.csv:3: not a readable CSV row (unexpected end of data)",
    ),
    "truncated gz": (
        "a.jsonl.gz",
        ZIPPED[: len(ZIPPED) // 2],
        "a.jsonl.gz: cannot be read: Compressed file ended before",
    ),
    "damaged gz": ("a.jsonl.gz", ZIPPED[:10] + b"\xff" * 8 + ZIPPED[18:], "a.jsonl.gz: cannot be read: "),
    "truncated parquet": ("a.parquet", parquet(text=[LONG])[:-9], "a.parquet: not a readable parquet file"),
    "damaged parquet": ("a.parquet", b"PAR1 of nothing PAR1", "a.parquet: not a readable parquet file"),
    "a file of unknown kind": ("a.docx", b"PK", "a.docx: unknown kind of file; expected .txt, .md, .htm"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_cannot_be_used_is_refused_with_its_path_and_remedy(refused, documented, tmp_path, case):
    name, content, expected = TEXTS[case]
    (tmp_path / name).write_bytes(content)
    line = refused({"domain_data": str(tmp_path / name)})
    assert expected in line
    documented("Texts", case, line)


def test_an_empty_general_side_is_refused_by_its_name(refused, documented, tmp_path):
    (tmp_path / "general.txt").write_bytes(b"")
    line = refused({"general_data": str(tmp_path / "general.txt")})
    assert "0 usable documents on the general side" in line
    documented("Texts", "an empty file of general text", line)


def test_sides_that_share_all_their_texts_are_refused_with_the_number_of_shared_texts(refused, documented, small_texts):
    line = refused({"domain_data": str(small_texts[1])})
    assert "24 on both sides" in line
    documented("Texts", "the same texts on both sides", line)


def test_text_that_is_not_there_is_refused(refused, documented, tmp_path):
    line = refused({"domain_data": str(tmp_path / "no-such.txt")})
    assert "no-such.txt: no such file, directory or glob" in line
    documented("Texts", "no such file", line)
    assert "*.txt: no such file, directory or glob" in refused({"general_data": str(tmp_path / "*.txt")})


def test_a_directory_without_text_is_refused_with_the_kinds_that_are_read(refused, documented, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refused({"domain_data": str(tmp_path / "empty")})
    assert "empty: no .txt, .md, .htm" in line
    documented("Texts", "a directory without text", line)


OPTIONS: dict[str, tuple[Options, str]] = {
    "a layer beyond the model": ({"layers": "9"}, "has layers 0 to 3; layer 9 was asked for"),
    "a layer without SAE": ({"layers": ["0", "1"]}, "no SAE for layer 1; it has layers 0 2"),
    "a repeated layer": ({"layers": ["0", "0"]}, "layers: 0 named more than once"),
    "a layer in two ranges": ({"layers": ["0-2", "2"]}, "layers: 2 named more than once"),
    "a backwards range": ({"layers": "2-0"}, "layers: the range `2-0` runs backwards"),
    "a layer that is no number": (
        {"layers": "two"},
        "layers: `two` is not a layer; write numbers and ranges such as 4 10-12",
    ),
    "all and a layer": ({"layers": ["all", "2"]}, "layers: `all` is not a layer"),
    "no such path-like model": ({"base_model": "/no/such/dir"}, "/no/such/dir: no such directory, and not a Hub id"),
    "no such path-like SAEs": (
        {"sae_model": "/no/such/dir"},
        "/no/such/dir: no such directory, and not a Hub id such as",
    ),
    "a domain that escapes": ({"domain": "..x"}, "domain: `..x` cannot name files; use letters, digits, _ and -"),
    "a domain that is nowhere": ({"domain": "/no/such/domain"}, "/no/such/domain: cannot be read: No such file"),
    "a domain called general": ({"domain": "general"}, "domain: `general` cannot name files; use letters"),
    "an empty domain": ({"domain": ""}, "domain: `` cannot name files"),
    "top_n of 0": ({"top_n": "0"}, "top_n: input should be greater than or equal to 1 (got 0)"),
    "top_features_n of 0": ({"top_features_n": "0"}, "top_features_n: input should be greater than or equal to 1"),
    "max_length of 1": ({"max_length": "1"}, "max_length: input should be greater than or equal to 16 (got 1)"),
    "min_length above max_length": ({"min_length": "300"}, "min_length 300 exceeds max_length 256"),
    "max_documents of 1": ({"max_documents": "1"}, "max_documents: input should be greater than or equal to 3 (got 1)"),
    "a batch below one passage": ({"batch_tokens": "255"}, "batch_tokens 255 is less than max_length 256"),
    "negative specialization": (
        {"min_specialization": "-0.1"},
        "min_specialization: input should be greater than or equal to 0",
    ),
    "specialization nan": (
        {"min_specialization": "nan"},
        "min_specialization: input should be a finite number (got nan)",
    ),
    "specialization inf": (
        {"min_specialization": "inf"},
        "min_specialization: input should be a finite number (got inf)",
    ),
    "a negative seed": ({"seed": "-1"}, "seed: input should be greater than or equal to 0 (got -1)"),
    "a huge seed": ({"seed": str(2**63)}, "seed: input should be less than"),
    "a word for a number": (
        {"top_n": "many"},
        "Error parsing --top_n: invalid literal for int() with base 10: 'many'; see",
    ),
    "a fraction for a number": (
        {"top_n": "2.5"},
        "Error parsing --top_n: invalid literal for int() with base 10: '2.5'",
    ),
    "a flag without value": ({"top_n": []}, "Missing value for argument '--top_n'"),
    "an unknown option": ({"top_m": "5"}, "Unrecognized options: --top_m, 5; see stratalens analyze --help"),
    "an unknown rank_by": (
        {"rank_by": "beauty"},
        "invalid choice 'beauty' for argument '--rank_by'. Expected one of ('special",
    ),
    "an unknown device": ({"device": "tpu"}, "device: `tpu` is unknown; expected auto, cpu, mps, cuda or cuda:N"),
    "a device that is not there": ({"device": "cuda:99"}, "cuda:99"),
    "no such config": ({"config": "/no/such.yaml"}, "/no/such.yaml: cannot be read: No such file or directory"),
    "a directory as config": ({"config": "/"}, "/: cannot be read: Is a directory"),
    "a config without file": ({"config": []}, "--config needs a file"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be_used_is_refused_by_its_name_and_value(refused, documented, case):
    options, expected = OPTIONS[case]
    line = refused(options)
    assert expected in line
    documented("Commands and options", case, line)


def test_an_unknown_domain_without_texts_is_refused_with_the_built_in_ones(refused, documented, capsys, tmp_path):
    code = main(["analyze", "--domain", "cooking", "--output_dir", str(tmp_path / "out")])
    assert code == 2
    line = capsys.readouterr().err
    documented("Commands and options", "an unknown domain without texts", line)
    assert line == (
        "stratalens: unknown domain `cooking`; built in are financial, medical, legal; for any other, give its texts "
        "with --domain_data PATH..., or its folder with --domain PATH\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--top_n", "5", "--top_n", "5"),
        ("--top_n", "5", "--top-n", "6"),
        ("--top_n=5", "--top-n", "6"),
        ("--no-quiet", "--quiet"),
    ],
)
def test_a_flag_given_twice_is_refused_in_either_spelling(refused, documented, words):
    line = refused({}, *words)
    assert "is given more than once; give it once (several values can follow one flag)" in line
    if words[0] == "--top_n":
        documented("Commands and options", "a flag given twice", line)


@pytest.mark.parametrize("words", [["analyse"], ["--top_n", "5"], ["Analyze", "--quiet"]])
def test_an_unknown_command_is_refused_with_where_to_look(capsys, documented, words):
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line == f"stratalens: unknown command `{words[0]}`; see stratalens --help\n"
    if words == ["analyse"]:
        documented("Commands and options", "an unknown command", line)


CONFIGS = {
    "not YAML": ("top_n: [1, 2", "run.yaml: not valid YAML or JSON"),
    "not UTF-8": (b"domain: \xff", "run.yaml: cannot be read: not UTF-8 text"),
    "an unknown key": ("top_m: 5", "unknown option `top_m`"),
    "a value out of range": ("top_n: 0", "top_n: input should be greater than or equal to 1 (got 0)"),
    "a value of another type": ("domain: 5", "domain: input should be a valid string (got 5)"),
    "a truth value for a layer": ("layers: [true]", "layers: "),
    "no options but a list": ("- top_n\n- 5", "run.yaml: expected options such as `top_n: 20`, one per line"),
    "nothing": ("", "run.yaml: expected options such as `top_n: 20`, one per line"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_file_that_cannot_be_used_is_refused(refused, documented, tmp_path, case):
    content, expected = CONFIGS[case]
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused({"config": str(path)})
    assert expected in line
    documented("Configuration files", case, line)


@pytest.mark.parametrize(("given", "missing"), [("base_model", "sae_model"), ("sae_model", "base_model")])
def test_model_and_saes_are_accepted_only_as_a_pair(capsys, documented, tmp_path, tiny_arguments, given, missing):
    at = tiny_arguments.index(f"--{missing}")
    assert main(["analyze", *tiny_arguments[:at], *tiny_arguments[at + 2 :]]) == 2
    line = capsys.readouterr().err
    documented("Commands and options", f"{given} alone", line)
    assert line == (
        f"stratalens: {given} was given without {missing}; give both, or neither to use the embedded pair\n"
    )
    assert not (tmp_path / "out").exists()


def test_bad_documents_among_good_ones_are_only_counted(capsys, tmp_path, tiny_arguments, small_texts):
    shared = "This text was copied into the files of both of the sides by mistake."
    paths = [Path(shutil.copy(path, tmp_path)) for path in small_texts]
    first = json.loads(paths[0].read_text().splitlines()[0])["text"]
    with paths[0].open("ab") as stream:
        stream.write(rows("Short.", "", None, f" {first}\n", shared))
    with paths[1].open("ab") as stream:
        stream.write(rows(shared, "   "))
    options: Options = {"domain_data": str(paths[0]), "general_data": str(paths[1])}
    assert main(["analyze", *with_options(tiny_arguments, options)]) == 0
    assert "1 texts are on both sides and were dropped from both" in capsys.readouterr().err
    record = json.loads((output_of(tiny_arguments) / "run.json").read_text())
    names = ("rows", "empty", "too_short", "duplicates", "on_both_sides", "kept_rows", "documents")
    assert [record["corpus"]["financial"][name] for name in names] == [29, 2, 1, 1, 1, 24, 24]
    assert [record["corpus"]["general"][name] for name in names] == [26, 1, 0, 0, 1, 24, 24]
    assert any("are on both sides" in warning for warning in record["warnings"])
