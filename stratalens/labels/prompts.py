"""Prompts from template files, each of which a user may replace by one of the same name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY
from stratalens.labels.llm.chat import Message

BUILT_IN = DATA_DIRECTORY / "prompts"
NAMES = ("system", "label", "label_tokens", "detection", "fuzzing", "repair")
MARKS = ("<<", ">>")


SAMPLE = {
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
"""One of each value that a template may ask for."""


class Prompts:
    """The templates of a run.

    Args:
        directory: with the user's own; None takes the built-in ones.

    Raises:
        ConfigError: the directory is missing, holds none of the templates, or one that cannot be parsed.
    """

    def __init__(self, directory: str | None = None):
        own = [] if directory is None else [Path(directory).expanduser()]
        for path in own:
            files = {f"{name}.jinja" for name in NAMES}
            if not path.is_dir() or not any((path / name).is_file() for name in files):
                raise ConfigError(
                    f"{path}: no prompt templates here; expected a directory with any of {', '.join(sorted(files))}"
                )
        loader = ChoiceLoader([FileSystemLoader(path) for path in (*own, BUILT_IN)])
        # Templates travel with results and papers; they see the values of a prompt and nothing else of Python.
        self._environment = ImmutableSandboxedEnvironment(
            loader=loader, undefined=StrictUndefined, autoescape=False, trim_blocks=False
        )
        try:
            self._templates = {name: self._environment.get_template(f"{name}.jinja") for name in NAMES}
        except (TemplateError, OSError, UnicodeDecodeError, RecursionError, SyntaxError) as error:
            raise ConfigError(f"{directory}: a prompt template cannot be parsed ({error})") from None
        for name in NAMES:  # what a template lacks is better known before the text is read
            self._fill(name, SAMPLE)

    def again(self, messages: Sequence[Message], answer: str, values: Mapping[str, object]) -> list[Message]:
        """The chat that asks once more after an answer of no use.

        Raises:
            ConfigError: a user's template asks for a value that there is not.
        """
        repair = self._fill("repair", values)
        return [*messages, Message(role="assistant", content=answer), Message(role="user", content=repair)]

    def messages(self, name: str, values: Mapping[str, object]) -> list[Message]:
        """The chat that asks one question.

        Raises:
            ConfigError: a user's template asks for a value that there is not.
        """
        system, question = self._fill("system", {}), self._fill(name, values)
        return [Message(role="system", content=system), Message(role="user", content=question)]

    def _fill(self, name: str, values: Mapping[str, object]) -> str:
        try:
            filled = self._templates[name].render(values).strip()
            filled.encode()  # half a character can be sent to no model
            return filled
        except (
            *(TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError),
            *(RecursionError, OSError, UnboundLocalError),
        ) as error:
            reason = "it calls itself without end" if isinstance(error, RecursionError) else error
            raise ConfigError(f"the prompt template {name}.jinja cannot be filled in: {reason}") from None


def quoted(text: str) -> str:
    """Text of the corpus as a JSON string: whatever it holds, it cannot end early."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
