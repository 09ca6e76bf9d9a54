"""Prompts from template files, each of which the user may replace by a file of the same name."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import DictLoader, StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY, user_path
from stratalens.files.plain_yaml import read_text
from stratalens.labels.llm.chat import Message
from stratalens.labels.template_rules import refused_parts

BUILT_IN_DIRECTORY = DATA_DIRECTORY / "prompts"
TEMPLATE_NAMES = ("system", "label", "label_tokens", "detection", "fuzzing", "repair")
MAX_TEMPLATE_BYTES = 64 * 2**10
MAX_PROMPT_CHARACTERS = 4_000_000
"""About a million tokens, more than any model reads."""
MARKS = ("<<", ">>")
"""Around the tokens on which a feature fires."""

SAMPLE_VALUES = {
    "examples": [{"peak": 10.0, "text": '"text"'}],
    "contrast": ['"text"'],
    "passages": ['"text"'],
    "label": '"label"',
    "top_tokens": '"token"',
    "promoted": '"token"',
    "words": '"word"',
    "most_words": 8,
    "problem": "why",
    "example": "{}",
}
"""A sample of every value that a template may use, to check templates before the run."""


class Prompts:
    """The prompt templates of a run.

    Args:
        directory: of the user's templates; the others are built in. None for the built-in ones alone.

    Raises:
        ConfigError: the directory is missing or holds no template, or a template cannot be parsed or filled in.
    """

    def __init__(self, directory: str | None = None):
        own = None if directory is None else user_path(directory)
        sources = {f"{name}.jinja": _read_template(own, f"{name}.jinja") for name in TEMPLATE_NAMES}
        # A template may use the values of its prompt but reach nothing else of Python.
        environment = ImmutableSandboxedEnvironment(
            loader=DictLoader(sources), undefined=StrictUndefined, autoescape=False, trim_blocks=False
        )
        try:
            for file, source in sources.items():
                _require_allowed(file, environment.parse(source))
            self._templates = {name: environment.get_template(f"{name}.jinja") for name in TEMPLATE_NAMES}
        except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
            raise ConfigError(f"{directory}: a prompt template cannot be parsed ({error})") from None
        for name in TEMPLATE_NAMES:  # so that a faulty template is reported before the corpus is read
            self._fill(name, SAMPLE_VALUES)

    def again(self, messages: Sequence[Message], answer: str, values: Mapping[str, object]) -> list[Message]:
        """Return the chat that asks again after an unusable answer.

        Args:
            messages: the first question.
            answer: the unusable answer.
            values: for the template `repair`.

        Raises:
            ConfigError: the template cannot be filled in, for example because it uses a value that does not exist.
        """
        repair = self._fill("repair", values)
        return [*messages, Message(role="assistant", content=answer), Message(role="user", content=repair)]

    def messages(self, name: str, values: Mapping[str, object]) -> list[Message]:
        """Return the chat that asks one question.

        Args:
            name: of the template, without its suffix.
            values: for the template.

        Raises:
            ConfigError: the template cannot be filled in, for example because it uses a value that does not exist.
        """
        system, question = self._fill("system", {}), self._fill(name, values)
        return [Message(role="system", content=system), Message(role="user", content=question)]

    def _fill(self, name: str, values: Mapping[str, object]) -> str:
        try:
            filled = "".join(_bounded(self._templates[name].generate(values))).strip()
            filled.encode()  # raises for a lone surrogate, which cannot be sent
            return filled
        except (
            *(TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError),
            *(RecursionError, OSError, UnboundLocalError),
        ) as error:
            raise ConfigError(f"the prompt template {name}.jinja cannot be filled in: {error}") from None


def _read_template(directory: Path | None, file: str) -> str:
    """Read a template of the user, or the built-in one where the user has none of that name."""
    if directory is None:
        return read_text(BUILT_IN_DIRECTORY / file)
    names = sorted(f"{name}.jinja" for name in TEMPLATE_NAMES)
    if not any(os.path.lexists(directory / name) for name in names):
        raise ConfigError(f"{directory}: no prompt templates here; expected a directory with any of {', '.join(names)}")
    path = directory / file
    if not os.path.lexists(path):
        return _read_template(None, file)
    if path.resolve().parent != directory.resolve():
        raise ConfigError(f"{path}: a link out of its folder; copy the template here if it is the right one")
    return read_text(path, MAX_TEMPLATE_BYTES)


def _require_allowed(file: str, template: nodes.Template) -> None:
    for part in refused_parts(template):
        raise ConfigError(f"the prompt template {file} uses {part}; docs/labels.md lists what it may use")


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    characters = 0
    for piece in pieces:
        characters += len(piece)
        if characters > MAX_PROMPT_CHARACTERS:
            raise ValueError(f"the prompt becomes longer than {MAX_PROMPT_CHARACTERS:,} characters")
        yield piece


def quoted(text: str) -> str:
    """Return text on one line as a JSON string, so that no character in it can end the string early."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
