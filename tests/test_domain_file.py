"""A domain is a folder or a YAML file: what it may say, what follows from it, and what is refused."""

import json
from pathlib import Path

import pytest
from error_book import Documented

from stratalens.config.config_file import read_config_file
from stratalens.config.domain_file import names_domain_file, read_domain
from stratalens.config.validation import make_config
from stratalens.corpus import Corpus
from stratalens.errors import ConfigError


def made(folder: Path, description: str | None = None, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files or ("texts.jsonl", "lexicon.yaml"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": name}) + "\n")
    if description is not None:
        (folder / "domain.yaml").write_text(description)
    return folder


@pytest.mark.parametrize(
    ("value", "is_path"),
    [("climate", False), ("climate/", True), ("./climate", True), (".", True), ("climate.yaml", True), ("a b", False)],
)
def test_a_domain_is_a_path_if_it_looks_like_one(value, is_path):
    assert names_domain_file(value) == is_path


def test_a_folder_needs_no_description(tmp_path):
    folder = made(tmp_path / "climate", None, "texts/a.txt", "texts/b.txt", "general.csv", "lexicon.yaml")
    config = make_config(domain=f"{folder}/")
    assert config.domain == "climate"
    assert config.domain_data == (str(folder / "texts"),)
    assert config.general_data == (str(folder / "general.csv"),)
    assert config.lexicon == (str(folder / "lexicon.yaml"),)


def test_a_description_says_more_and_its_paths_are_relative_to_it(tmp_path, monkeypatch):
    text = """
name: weather
description: Weather and climate
texts: [news, "letters/*.jsonl"]
general: other
text_column: [title, body]
id_column: doc
kind_column: kind
source_column: paper
lexicon: [words/one.yaml, words/two.yaml]
"""
    folder = made(tmp_path / "climate", text)
    monkeypatch.chdir(tmp_path)
    for path in (folder, folder / "domain.yaml", "./climate"):
        config = make_config(domain=path)
        assert config.domain == "weather"
        assert config.domain_data == (str(folder / "news"), str(folder / "letters/*.jsonl"))
        assert config.general_data == (str(folder / "other"),)
        assert config.lexicon == (str(folder / "words/one.yaml"), str(folder / "words/two.yaml"))
        columns = (config.text_column, config.id_column, config.kind_column, config.source_column)
        assert columns == (("title", "body"), "doc", "kind", "paper")
    assert read_domain(folder)[0].description == "Weather and climate"


def test_a_yaml_file_of_another_name_gives_its_name_and_takes_nothing_beside_it(tmp_path):
    folder = made(tmp_path / "data", None, "texts.jsonl", "general.jsonl", "own.txt")
    (folder / "ocean.yaml").write_text("texts: own.txt")
    config = make_config(domain=str(folder / "ocean.yaml"))
    assert (config.domain, config.domain_data, config.general_data) == ("ocean", (str(folder / "own.txt"),), ())


def test_pairs_take_the_place_of_texts(tmp_path):
    folder = made(tmp_path / "climate", "pair: [[news, a.jsonl, b.jsonl], [letter, c.jsonl, d.jsonl]]", "texts.jsonl")
    config = make_config(domain=str(folder))
    assert config.pair == (
        ("news", str(folder / "a.jsonl"), str(folder / "b.jsonl")),
        ("letter", str(folder / "c.jsonl"), str(folder / "d.jsonl")),
    )
    assert config.domain_data == ()


def test_what_the_user_gives_wins(tmp_path):
    folder = made(tmp_path / "climate", "general: general.jsonl\ntext_column: body")
    config = make_config(domain=str(folder), general_data="other.csv", text_column="text2", lexicon="mine.yaml")
    assert config.domain_data == (str(folder / "texts.jsonl"),)
    assert (config.general_data, config.text_column, config.lexicon) == (("other.csv",), ("text2",), ("mine.yaml",))
    paired = make_config(domain=str(folder), pair=[["news", "a", "b"]])
    assert (paired.pair, paired.domain_data, paired.general_data) == ((("news", "a", "b"),), (), ())


def test_without_general_texts_it_is_contrasted_with_the_built_in_ones(tmp_path):
    config = make_config(domain=str(made(tmp_path / "climate", None, "texts.jsonl")))
    files = Corpus.of_run(config).files
    assert [str(file.path) for file in files[0]] == [str(tmp_path / "climate/texts.jsonl")]
    assert "general" in str(files[1][0].path)


@pytest.mark.parametrize(
    ("case", "description", "expected"),
    [
        ("a domain without texts", "name: x", "the domain has no texts"),
        ("a domain with an unknown entry", "text: a.txt", "`text`: extra inputs are not permitted; known are name"),
        ("a domain that is a list", "- a", "a domain is described by entries such as `name: climate`"),
        ("a domain that leaves its folder", "texts: ../other.txt", "is outside the folder of the domain"),
        ("a domain with an absolute path", "texts: /etc/passwd", "is outside the folder of the domain"),
        ("a domain with an address", "texts: s3://bucket/a", "name texts that are elsewhere with --domain_data"),
        ("a domain with a pair of two", "pair: [[news, a]]", "each pair is three words"),
        ("a domain whose name cannot name files", "name: a b\ntexts: a.txt", "`a b` cannot name files"),
        ("a domain called as the other side", "name: general\ntexts: a.txt", "`general` cannot name files"),
    ],
)
def test_a_domain_that_cannot_be_used_is_refused(tmp_path, documented: Documented, case, description, expected):
    folder = made(tmp_path / "climate", description, "notes.txt")
    with pytest.raises(ConfigError) as error:
        make_config(domain=str(folder))
    assert expected in str(error.value)
    documented("Configuration files", case, f"stratalens: {error.value}")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    folder = made(tmp_path / "climate", "texts: link.txt", "notes.txt")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ConfigError, match="outside the folder"):
        make_config(domain=str(folder))


def test_a_record_cannot_name_a_folder(tmp_path, documented: Documented):
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"settings": {"domain": f"{tmp_path}/climate"}}))
    with pytest.raises(ConfigError) as error:
        read_config_file(record)
    documented("Configuration files", "a record that names the folder of a domain", f"stratalens: {error.value}")


def test_the_record_of_a_run_repeats_it_without_the_folder(tmp_path):
    folder = made(tmp_path / "climate", "kind_column: kind")
    config = make_config(domain=str(folder))
    assert make_config(**config.model_dump()) == config
