"""Prompts from template files, each of which the user may replace by a file of the same name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY
from stratalens.labels.llm.chat import Message

BUILT_IN_DIRECTORY = DATA_DIRECTORY / "prompts"
TEMPLATE_NAMES = ("system", "label", "label_tokens", "detection", "fuzzing", "repair")
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
        user_directories = [] if directory is None else [Path(directory).expanduser()]
        for path in user_directories:
            files = {f"{name}.jinja" for name in TEMPLATE_NAMES}
            if not path.is_dir() or not any((path / name).is_file() for name in files):
                raise ConfigError(
                    f"{path}: no prompt templates here; expected a directory with any of {', '.join(sorted(files))}"
                )
        loader = ChoiceLoader([FileSystemLoader(path) for path in (*user_directories, BUILT_IN_DIRECTORY)])
        # Users share templates, so a template may use the values of its prompt but reach nothing else of Python.
        self._environment = ImmutableSandboxedEnvironment(
            loader=loader, undefined=StrictUndefined, autoescape=False, trim_blocks=False
        )
        try:
            self._templates = {name: self._environment.get_template(f"{name}.jinja") for name in TEMPLATE_NAMES}
        except (TemplateError, OSError, UnicodeDecodeError, RecursionError, SyntaxError) as error:
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
            filled = self._templates[name].render(values).strip()
            filled.encode()  # raises for a lone surrogate, which cannot be sent
            return filled
        except (
            *(TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError),
            *(RecursionError, OSError, UnboundLocalError),
        ) as error:
            reason = "it calls itself without end" if isinstance(error, RecursionError) else error
            raise ConfigError(f"the prompt template {name}.jinja cannot be filled in: {reason}") from None


def quoted(text: str) -> str:
    """Return text on one line as a JSON string, so that no character in it can end the string early."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
