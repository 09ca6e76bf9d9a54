"""A prompt template can do what prompts need and nothing that takes long, fills the memory or reaches elsewhere."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from refusal import refusal, with_options
from special_files import made_special

from stratalens.errors import ConfigError
from stratalens.labels import prompts
from stratalens.labels.prompts import BUILT_IN_DIRECTORY, Prompts

VALUES = {"label": '"Bonds"', "passages": ["one", "two", "three"]}
SOUND = {
    "{{ label }} {{ passages[0] }} {{ passages | length }}": '"Bonds" one 3',
    "{% for text in passages %}{{ loop.index }}{{ text | upper }} {% endfor %}": "1ONE 2TWO 3THREE",
    "{% for text in passages[1:] if text != 'two' %}{{ loop.first }} {{ text }}{% endfor %}": "True three",
    "{{ passages | join(' / ') }}": "one / two / three",
    "{{ passages[:2] | join('\\n') }}": "one\ntwo",
    "{% if label is defined and passages | length > 2 %}many{% elif label %}few{% endif %}": "many",
    "{{ 'a' ~ passages | first | trim ~ (1 + 2 - 1) }}": "aone2",
    "{{ label if passages else 'nothing' }}{# a remark #}": '"Bonds"',
    "{{ 2.345 | round(2) }} {{ 2.5 | round }} {{ nothing | default('none', true) }} {{ 'x.' | trim('.') }}": (
        "2.35 2.0 none x"
    ),
    "{% raw %}{{ x }}{% endraw %}": "{{ x }}",
}


@pytest.mark.parametrize("template", SOUND)
def test_a_template_of_what_prompts_need_is_filled_in(tmp_path, template):
    (tmp_path / "detection.jinja").write_text(template)
    assert Prompts(str(tmp_path)).messages("detection", VALUES)[1]["content"] == SOUND[template]


ENDLESS = {
    "a text that is repeated": ("{{ 'x' * 10 ** 10 }}", "`*` in line 1"),
    "a number without end": ("{{ 10 ** 10 ** 8 }}", "`**` in line 1"),
    "loops over numbers": ("{% for a in range(99999) %}{% endfor %}", "a loop over something else than examples"),
    "a loop in a loop": (
        "{% for a in passages %}\n{% for b in passages %}{% endfor %}{% endfor %}",
        "a loop in a loop in line 2",
    ),
    "a loop over a text": ("{% for a in 'abc' %}{% endfor %}", "a loop over something else than examples"),
    "a list under another name": (
        "{% for passages in contrast %}{{ passages | join('x') }}{% endfor %}",
        "the name `passages` for a value of its own",
    ),
    "texts of a library": ("{{ lipsum(n=10 ** 7) }}", "a call in line 1"),
    "a width in a format": ("{{ '%9999999999d' | format(1) }}", "the filter `format` in line 1"),
    "a method": ("{{ label.ljust(10 ** 9) }}", "a call in line 1"),
    "a text that doubles": ("{% set x = 'x' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", "set in line 1"),
    "a text between the characters of another": ("{{ label | join(label) | join(label) }}", "`join` of something else"),
    "a passage between passages": ("{{ passages | join(passages[0]) }}", "`join` of something else than"),
    "another template": ("{% include 'detection.jinja' %}", "another template in line 1"),
    "a list of its own": ("{{ [1, 2] }}", "a list of its own in line 1"),
    "a power of ten": ("{{ 1 | round(99999999) }}", "`round` to something else than 0 to 10 digits in line 1"),
    "a power of ten by name": ("{{ 1 | round(precision=10 ** 9) }}", "`round` to something else than"),
    "a power of ten from a value": ("{{ 1 | round(most_words) }}", "`round` to something else than"),
    "digits below zero": ("{{ 1 | round(-9999999) }}", "`round` to something else than"),
    "a method of rounding": ("{{ 1 | round(3, 'floor') }}", "more arguments of `round` than 1"),
    "arguments from a list": ("{{ 1 | round(*passages) }}", "more arguments of `round` than 1"),
    "separators from a list": ("{{ passages | join(*passages) }}", "more arguments of `join` than 2"),
    "arguments from a table": ("{{ 1 | int(**examples[0]) }}", "more arguments of `int` than 1"),
    "a macro": ("{% macro a() %}{{ a() }}{% endmacro %}", "a macro in line 1"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_template_that_may_not_end_is_refused(tmp_path, documented, case):
    template, message = ENDLESS[case]
    (tmp_path / "detection.jinja").write_text(template)
    with pytest.raises(ConfigError) as error:
        Prompts(str(tmp_path))
    assert f"the prompt template detection.jinja uses {message}" in str(error.value)
    if case in ("a text that is repeated", "loops over numbers"):
        documented("Feature lists, lexicons and prompts", f"a template with {case}", str(error.value))


def test_a_prompt_without_end_is_refused(tmp_path, monkeypatch, documented):
    monkeypatch.setattr(prompts, "MAX_PROMPT_CHARACTERS", 10_000)
    (tmp_path / "detection.jinja").write_text("{% for a in passages %}{{ a }}{% endfor %}")
    assert Prompts(str(tmp_path)).messages("detection", {"passages": ["x" * 999] * 10})
    with pytest.raises(ConfigError, match="becomes longer than 10,000 characters") as error:
        Prompts(str(tmp_path)).messages("detection", {"passages": ["x" * 999] * 11})
    line = str(error.value).replace("10,000", "4,000,000")
    documented("Feature lists, lexicons and prompts", "a prompt without end", line)


@pytest.fixture
def refused(capsys, tiny_arguments, tmp_path) -> Callable[[], str]:
    options = {"labeling_endpoint": "http://127.0.0.1:9", "labeling_model": "any", "prompts": str(tmp_path / "own")}
    (tmp_path / "own").mkdir()
    return lambda: refusal(with_options(tiny_arguments, options), capsys)


def test_a_template_that_is_a_link_out_of_its_folder_is_refused(refused, documented, tmp_path):
    (tmp_path / "secret").write_text("{{ label }}")
    (tmp_path / "own" / "label.jinja").symlink_to(tmp_path / "secret")
    line = refused()
    assert "own/label.jinja: a link out of its folder; copy the template here if it is the right one" in line
    documented("Feature lists, lexicons and prompts", "a template that is a link to elsewhere", line)


def test_a_link_inside_the_folder_is_followed(tmp_path):
    (tmp_path / "one").write_text("mine")
    (tmp_path / "detection.jinja").symlink_to("one")
    assert Prompts(str(tmp_path)).messages("detection", VALUES)[1]["content"] == "mine"


@pytest.mark.parametrize("kind", ["a named pipe", "a device without end"])
def test_a_template_that_is_no_regular_file_is_refused(refused, documented, tmp_path, kind):
    made_special(kind, tmp_path / "own" / "label.jinja")
    line = refused()
    if kind == "a named pipe":
        assert "own/label.jinja: cannot be read: a regular file was expected, this is a named pipe" in line
        documented("Feature lists, lexicons and prompts", "a template that is a named pipe", line)


def test_a_template_without_end_is_refused(refused, documented, tmp_path):
    (tmp_path / "own" / "label.jinja").write_text("x" * (prompts.MAX_TEMPLATE_BYTES + 1))
    line = refused()
    assert "own/label.jinja: cannot be read: larger than 64 KiB, the limit for such a file" in line
    documented("Feature lists, lexicons and prompts", "a template without end", line)


def test_the_built_in_templates_keep_the_rules(tmp_path):
    shutil.copytree(BUILT_IN_DIRECTORY, tmp_path / "own")
    own, built_in = Prompts(str(tmp_path / "own")), Prompts()
    assert own.messages("detection", VALUES) == built_in.messages("detection", VALUES)
    assert Path(tmp_path / "own" / "system.jinja").is_file()
