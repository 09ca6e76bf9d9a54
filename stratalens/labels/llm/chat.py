"""The interface between labelling and the language models: `ChatModel`, of a server, a local model, or a cache."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict, runtime_checkable


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Reply(NamedTuple):
    """A model's answer, and the tokens it used."""

    text: str
    """Without surrounding white space and without the model's reasoning; never empty."""
    prompt_tokens: int
    """0 if the server does not report it."""
    completion_tokens: int
    """Including the reasoning; 0 if the server does not report it."""
    cut_off: bool = False
    """Whether the answer reached `max_tokens` or the end of the context, so that its end is missing."""


class NoReply(Exception):  # noqa: N818 - an outcome that a run counts, not a mistake
    """A request got no usable answer, after all retries. The text is a short reason without API key and prompt."""


@runtime_checkable
class ChatModel(Protocol):
    """A language model that answers requests, from several threads at the same time."""

    @property
    def name(self) -> str:
        """Name of the model in results; models that answer differently have different names."""
        ...

    @property
    def concurrency(self) -> int:
        """Number of requests to send at the same time."""
        ...

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Send one request, with temperature 0 and seed 0 if the model takes them.

        Args:
            messages: the chat so far, the last turn by the user.
            max_tokens: where the answer is cut off.
            schema: JSON schema for the answer. It may not be followed; the caller checks the answer.

        Raises:
            NoReply: this request got no usable answer; another one may get one.
            LabelingError: the model cannot be used at all.
        """
        ...


REASONING_BLOCK = re.compile(r"\A(?:\s*<think>.*?</think>|.*?</think>[ \t]*\n)", re.DOTALL)
"""A reasoning block at the start of an answer.

Some chat templates open it in the prompt; then the answer holds only its end, on a line of its own. The answer itself
may mention such tags, so only the first block is removed.
"""


def remove_reasoning(text: str) -> str:
    """Return the answer without its reasoning; empty if the text ends inside the reasoning."""
    answer = REASONING_BLOCK.sub("", text, count=1).strip()
    return "" if answer.startswith("<think>") and "</think>" not in answer else answer


def usable_text(text: str | None, cut_off: bool) -> str:
    """Return the answer without its reasoning.

    Raises:
        NoReply: nothing is left.
    """
    if answer := remove_reasoning(text or ""):
        return answer
    raise NoReply("cut off before the answer began" if cut_off else "empty answer")
