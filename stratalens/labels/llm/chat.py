"""The interface between labelling and the language models: `ChatModel`, of a server, a local model, or a cache."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict, runtime_checkable

from stratalens.labels.llm.reasoning import ends_in_reasoning, remove_reasoning

MORE_ROOM = "raise --labeling_max_tokens"
MORE_TIME = "raise --labeling_timeout"
SHORTER_PROMPT = "serve the model with a longer context, or name another one with --labeling_model"


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
    """A request got no usable answer, after all retries. The text is a short reason without API key and prompt.

    Args:
        reason: the text.
        remedy: what the user can do where this happens to all requests.
    """

    def __init__(self, reason: str, remedy: str = "see the server's log, or name another model with --labeling_model"):
        super().__init__(reason)
        self.remedy = remedy


class CutOff(NoReply):
    """The answer did not begin within `max_tokens`; with more it may."""

    def __init__(self, reason: str):
        super().__init__(reason, MORE_ROOM)


class Unavailable(NoReply):
    """The server does not answer, or fails, whatever it is asked."""


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
            CutOff: the answer did not begin within `max_tokens`.
            NoReply: this request got no usable answer; another one may get one.
            LabelingError: the model cannot be used at all.
        """
        ...


def usable_text(text: str, cut_off: bool, *, reasoned: bool = False) -> str:
    """Return the answer without its reasoning.

    Args:
        text: all that the model wrote, save reasoning that came apart from it.
        cut_off: whether its end is missing.
        reasoned: whether reasoning came apart from it.

    Raises:
        CutOff: the model did not get as far as the answer.
        NoReply: nothing is left.
    """
    if answer := remove_reasoning(text, cut_off):
        return answer
    if cut_off or ends_in_reasoning(text, cut_off):
        raise CutOff("cut off before the answer began")
    raise NoReply("reasoning without an answer" if reasoned else "empty answer")
