"""Help texts: options in groups, one plain placeholder each, each default once."""

import re
import subprocess
import sys
import time

import pytest

from stratalens.cli.arguments import GROUPS
from stratalens.cli.main import EXAMPLES, main
from stratalens.config.check_options import CheckConfig
from stratalens.config.effect_options import EffectConfig
from stratalens.config.options import RunConfig
from stratalens.config.result_options import LabelConfig, RankConfig, ReportConfig
from stratalens.config.steer_options import SteerConfig
from stratalens.config.token_test_options import TokenTestConfig
from stratalens.config.validate_options import ValidateConfig

ORDER_OF_USE = [
    "analyze",
    "show",
    "rank",
    "label",
    "validate",
    "token_test",
    "effect",
    "steer",
    "report",
    "check",
    "domains",
]
COMMANDS = {
    "analyze": RunConfig,
    "rank": RankConfig,
    "label": LabelConfig,
    "validate": ValidateConfig,
    "token_test": TokenTestConfig,
    "effect": EffectConfig,
    "steer": SteerConfig,
    "report": ReportConfig,
    "check": CheckConfig,
}


def printed(capsys, *words: str) -> str:
    """Run a command that must succeed and return what it prints."""
    try:
        code = main(list(words))
    except SystemExit as stop:
        code = stop.code
    assert not code
    return capsys.readouterr().out


def test_every_option_of_every_command_is_in_exactly_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    options = {name for kind in COMMANDS.values() for name in kind.model_fields}
    assert set(grouped) == options | {"config"}
    assert list(GROUPS) == ["Model", "Text", "Ranking", "Tests", "Labels", "Effects", "Steering", "Output", "Machine"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_groups_in_order_an_example_and_plain_placeholders(capsys, command):
    text = printed(capsys, command, "--help")
    titles = re.findall(r"[─-] (\w+) options [─-]", text)
    assert titles == [title for title in GROUPS if title in titles]
    assert f"\nExample: {EXAMPLES[command]}\n" in text
    assert not re.search(r"None|\b(STR|INT|FLOAT|BOOL)\b|--no-|--no_no|\{True|\(repeatable|\(required", text)
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in COMMANDS[command].model_fields:
        assert re.search(rf"^[│ ] *--{name}\b", text, re.MULTILINE)


def test_each_default_is_stated_once(capsys):
    described = re.split(r"^[│ ] *--(?=[a-z_]+ )", printed(capsys, "analyze", "--help"), flags=re.MULTILINE)[1:]
    assert {text.split()[0] for text in described} == {*RunConfig.model_fields, "config"}
    assert sum("default" in text.lower() for text in described) > 20
    assert all(text.lower().count("default") <= 1 for text in described)


def test_the_list_of_commands_is_in_the_order_of_use_and_ends_with_the_first_command_to_run(capsys):
    lines = printed(capsys, "--help").rstrip().splitlines()
    listed = [line.split()[0] for line in lines if re.match(r"  [a-z_]+  ", line)]
    assert listed == ORDER_OF_USE
    assert lines[-1].strip() == "stratalens analyze --output_dir results"
    assert list(EXAMPLES) == sorted(EXAMPLES, key=ORDER_OF_USE.index)


def test_help_of_show_has_an_example(capsys):
    assert f"Example: {EXAMPLES['show']}" in printed(capsys, "show", "--help")


@pytest.mark.serial
@pytest.mark.parametrize("words", [["--help"], ["analyze", "--help"]])
def test_help_takes_less_than_half_a_second(words):
    """The fastest of five, because other work on the machine can only slow a call down."""
    command = [sys.executable, "-m", "stratalens", *words]
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5
