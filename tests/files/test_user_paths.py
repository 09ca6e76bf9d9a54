"""A path that begins with `~` is the same everywhere; the home of a user who does not exist is refused in one line."""

import os
import re
from pathlib import Path

import pytest
from finished_result import refused
from refusal import refusal, with_options

import stratalens
from stratalens.errors import ConfigError
from stratalens.files.locations import cache_folder, user_path

NOBODYS = "~no-such-user/x"


def test_a_home_is_put_in_the_place_of_a_tilde_and_nothing_else_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a b") == tmp_path / "a b"
    assert user_path("~") == tmp_path
    for name in ("a/~/b", "./~x", "/~x", "a~", "", "a\0b"):
        assert user_path(name) == Path(name)


@pytest.mark.parametrize("name", [NOBODYS, "~no-such-user", "~\0", "~\udcff/x"])
def test_the_home_of_nobody_is_refused(name):
    with pytest.raises(ConfigError, match=r"no home directory of such a user; write the whole path, or `\./~"):
        user_path(name)


OPTIONS = (
    *("domain_data", "general_data", "base_model", "sae_model", "prompts", "lexicon", "senses", "features", "config"),
    *("output_dir", "labeling_model"),
)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_with_a_path_refuses_it_in_one_line(tiny_arguments, capsys, documented, option):
    more = {"domain_data": "hf:~no-such-user/x:train:text"} if option == "labeling_model" else {}
    line = refusal(with_options(tiny_arguments, {**more, option: NOBODYS}), capsys)
    assert line.startswith("stratalens: ~no-such-user/x: no home directory of such a user")
    if option == "config":
        documented("Commands and options", "the home directory of nobody", line)


@pytest.mark.parametrize("command", ["show", "rank", "label", "validate", "report"])
def test_every_command_on_a_result_refuses_it_in_one_line(capsys, command):
    line = refused(capsys, command, NOBODYS, *(["0", "1"] if command == "show" else []))
    assert line.startswith("stratalens: ~no-such-user/x: no home directory of such a user")


def test_the_cache_may_lie_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STRATALENS_CACHE", "~/cache")
    assert cache_folder("answers") == tmp_path / "cache" / "answers"
    monkeypatch.setenv("STRATALENS_CACHE", NOBODYS)
    with pytest.raises(ConfigError, match="no home directory"):
        cache_folder("answers")


def test_nothing_else_looks_for_home_directories():
    package = Path(stratalens.__file__).parent
    others = [path for path in package.rglob("*.py") if re.search(r"expanduser\(|Path\.home\(", path.read_text())]
    assert others == [package / "files" / "locations.py"]
    assert os.path.expanduser("~no-such-user") == "~no-such-user"
