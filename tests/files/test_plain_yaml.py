"""JSON is read as JSON: quickly, whatever its size; YAML is limited, as it is slow."""

import json
import time

import pytest
from special_files import SPECIAL, made_special

from stratalens.errors import ConfigError
from stratalens.files import plain_yaml
from stratalens.files.plain_yaml import read_text, read_yaml


@pytest.mark.serial
def test_a_record_of_many_files_is_read_in_a_moment(tmp_path):
    files = [f"/data/news/{number}.jsonl" for number in range(500_000)]
    record = {"settings": {"top_n": 5}, "corpus": {"files": files}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert (tmp_path / "run.json").stat().st_size > 10_000_000
    began = time.perf_counter()
    assert read_yaml(tmp_path / "run.json") == record
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ('\ufeff {"a": 1}', {"a": 1}),
        ("[" * 32 + "]" * 32, None),
        ("{a: 1, b: [x, y]}", {"a": 1, "b": ["x", "y"]}),
        ("[x, 1]", ["x", 1]),
        ("a: 1\nb:\n- x\n", {"a": 1, "b": ["x"]}),
    ],
)
def test_json_and_yaml_are_told_apart_by_what_they_are(tmp_path, text, value):
    (tmp_path / "a").write_text(text, encoding="utf-8")
    assert value is None or read_yaml(tmp_path / "a") == value
    read_yaml(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "`b` is given twice"),
        ("[" * 33 + "]" * 33, "lists and tables are nested more than 32 deep"),
        ("[" * 500 + "]" * 500, "lists and tables are nested more than 32 deep"),
        ("[" * 100_000 + "]" * 100_000, "lists and tables are nested more than 32 deep"),
        ('{"a":' * 33 + "1" + "}" * 33, "lists and tables are nested more than 32 deep"),
        ('{"a": 1', r"not valid YAML or JSON \("),
    ],
)
def test_json_is_as_plain_as_yaml_must_be(tmp_path, text, message):
    (tmp_path / "a").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "a")


@pytest.mark.parametrize("word", ["10:30", "1:0", "-1:59:59", "1_0:0:0.5", "190:20:30.15", "1" + ":0" * 900_000])
def test_numbers_in_base_60_are_refused_at_once(tmp_path, word):
    began = time.perf_counter()
    for text in (f"a: {word}", f"[{word}]", f"{word}: b"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"line 1: `.{1,60}` is a number in base 60 to YAML; put it in quotation"):
            read_yaml(tmp_path / "a.yaml")
    assert time.perf_counter() - began < 5


def test_a_time_or_an_address_with_colons_stays_a_text(tmp_path):
    (tmp_path / "a.yaml").write_text("a: '10:30'\nb: 10:30 h\nc: http://host:80/a\nd: 10:75\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "10:30", "b": "10:30 h", "c": "http://host:80/a", "d": "10:75"}


@pytest.mark.parametrize("text", ["<<: {a: 1}", "a: 1\n<<: {a: 2}", "settings: {top_n: 7, <<: [{a: 1}]}", "- <<"])
def test_a_table_that_takes_over_another_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="`<<` takes over another table; write its values themselves"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(text.replace("<<", "'<<'"))
    assert "<<" in str(read_yaml(tmp_path / "a.yaml"))


@pytest.mark.parametrize("start", ["", "{"], ids=["YAML", "almost JSON"])
def test_yaml_beyond_its_limit_is_refused(tmp_path, monkeypatch, documented, start):
    monkeypatch.setattr(plain_yaml, "MAX_YAML_BYTES", 2**10)
    (tmp_path / "run.yaml").write_text(start + "a: 1 # " + "x" * 2**10)
    with pytest.raises(ConfigError, match="not valid JSON, and larger than 1 KiB, the limit for YAML") as error:
        read_yaml(tmp_path / "run.yaml")
    documented("Configuration files", "a long file of YAML", str(error.value).replace("1 KiB", "2 MiB"))


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    with pytest.raises(ConfigError, match=f"cannot be read: {SPECIAL[kind]}"):
        read_text(made_special(kind, tmp_path / "a"))
