"""The seam between labelling and the language model that does it: an endpoint, a local model, a cache around either."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict, runtime_checkable


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Reply(NamedTuple):
    """What a model answered, and what that took."""

    text: str
    """Without surrounding white space and without the model's thoughts; never empty."""
    prompt_tokens: int
    """0 where the server does not say."""
    completion_tokens: int
    """Thoughts included; 0 where the server does not say."""
    cut_off: bool = False
    """The answer ran into `max_tokens` or the end of the context, so that its end is missing."""


class NoReply(Exception):  # noqa: N818 - an outcome that a run counts, not a mistake
    """One request got no usable answer, retries included. The text is a short reason, without key and prompt."""


@runtime_checkable
class ChatModel(Protocol):
    """A language model that can be asked, from several threads at once."""

    @property
    def name(self) -> str:
        """As named in results; two models that answer differently have different names."""
        ...

    @property
    def concurrency(self) -> int:
        """How many requests it is worth having under way at once."""
        ...

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Ask once, with temperature 0 and seed 0 where there are such things.

        Args:
            messages: the chat so far, the last turn by the user.
            max_tokens: where the answer is cut off.
            schema: JSON schema the answer should follow. A wish: the caller checks what came back.

        Raises:
            NoReply: this request got no usable answer; another one may.
            LabelingError: no request will.
        """
        ...


THOUGHTS = re.compile(r"\A(?:\s*<think>.*?</think>|.*?</think>[ \t]*\n)", re.DOTALL)
"""A leading block of thoughts. Some chat templates open it in the prompt; then only its end, on its own line, is seen.

An answer may itself speak of such tags, so nothing behind the first block is touched.
"""


def without_thoughts(text: str) -> str:
    """The answer proper; empty where the text stops inside the thoughts."""
    answer = THOUGHTS.sub("", text, count=1).strip()
    return "" if answer.startswith("<think>") and "</think>" not in answer else answer


def usable_text(text: str | None, cut_off: bool) -> str:
    """The answer proper.

    Raises:
        NoReply: there is none.
    """
    if answer := without_thoughts(text or ""):
        return answer
    raise NoReply("cut off before the answer began" if cut_off else "empty answer")
