"""A language model as labeller and judge: the questions about one feature, and their answers as labels or ratings."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from stratalens.config.result_options import LabelConfig
from stratalens.errors import LabelingError
from stratalens.files.hashing import hash64
from stratalens.files.redaction import redacted
from stratalens.labels.answers import (
    LABEL_SCHEMA,
    MAX_LABEL_WORDS,
    MAX_RATING,
    RATINGS_SCHEMA,
    UnusableAnswer,
    parse_label,
    parse_ratings,
)
from stratalens.labels.llm.chat import ChatModel, CutOff, Message, NoReply, Unavailable
from stratalens.labels.prompts import MARKS, Prompts, quoted

MAX_EXAMPLES = 8
"""Passages in the prompt for a label in which the feature fires."""
MAX_CONTRASTS = 4
"""Similar passages in that prompt in which it does not fire."""
PASSAGES_PER_REQUEST = 5
"""Passages that are rated in one request."""
FIRING_THRESHOLD = 4.5
"""A passage with a higher rating is predicted to fire."""
ROOM_FACTORS = (1, 2, 4)
"""A truncated answer is asked for again with so many times `--labeling_max_tokens`, and no more."""
GIVE_UP_AFTER = 8
"""Where so many questions in a row, or twice as many as are asked at the same time, found the server unavailable before
any was answered, no more are asked."""
MAX_REPEATED_CHARACTERS = 2000
"""Characters of an unusable answer that are sent back to the model when it is asked again."""
ANSWER_EXAMPLES = {
    "label": '{"label": "at most 8 words"}',
    "label_tokens": '{"label": "at most 8 words"}',
    "detection": '{"ratings": [0, 10, ...]}',
    "fuzzing": '{"ratings": [0, 10, ...]}',
}
MIN_MARKED_SHARE = 0.5
"""Tokens with at least this share of the passage's strongest activation are marked."""
MAX_PASSAGE_TOKENS = 160
"""Tokens of a passage that are sent, around the one with the strongest activation."""
MIN_RATED_SHARE = 0.5
"""Share of the passages that must be rated for a score."""

DEFAULT_MAX_TOKENS: int = LabelConfig.model_fields["labeling_max_tokens"].default

Answer = TypeVar("Answer")


class TokenText(NamedTuple):
    """The tokens of a passage as text, with the feature's activation on each."""

    tokens: list[str]
    activations: Float[np.ndarray, "token"]

    def window(self) -> "TokenText":
        """Return the part that is sent: at most `MAX_PASSAGE_TOKENS` tokens around the strongest one."""
        if len(self.tokens) <= MAX_PASSAGE_TOKENS:
            return self
        peak = int(np.argmax(self.activations))
        first = min(max(0, peak - 3 * MAX_PASSAGE_TOKENS // 4), len(self.tokens) - MAX_PASSAGE_TOKENS)
        return TokenText(
            self.tokens[first : first + MAX_PASSAGE_TOKENS], self.activations[first : first + MAX_PASSAGE_TOKENS]
        )

    def fires(self) -> np.ndarray:
        """Return whether the feature fires strongly on each token."""
        peak = float(self.activations.max(initial=0))
        return (self.activations >= MIN_MARKED_SHARE * peak) & (self.activations > 0)

    def marked(self, chosen: np.ndarray) -> str:
        """Return the text as a JSON string, with each run of the chosen tokens between `<<` and `>>`."""
        pieces: list[str] = []
        for at, token in enumerate(self.tokens):
            opens = chosen[at] and not (at and chosen[at - 1])
            closes = chosen[at] and not (at + 1 < len(chosen) and chosen[at + 1])
            space = token[: len(token) - len(token.lstrip())]
            pieces.append(f"{space}{MARKS[0] if opens else ''}{token.lstrip()}{MARKS[1] if closes else ''}")
        return quoted("".join(pieces))

    def plain(self) -> str:
        """Return the text as a JSON string."""
        return quoted("".join(self.tokens))


class LabelEvidence(NamedTuple):
    """What a labelling model is asked to label: the evidence of one feature, from the discovery half."""

    examples: list[TokenText]
    """Passages in which the feature fires, those of kind `top` first."""
    contrast: list[TokenText]
    """Similar passages in which it does not fire."""
    top_tokens: list[str]
    """Tokens with most of its activation."""
    words: list[str]
    """Phrases that it prefers; sent only if no passage is."""
    promoted: list[str]
    """Tokens whose logits it raises most."""
    highest: float
    """The feature's strongest activation on discovery text."""


class LanguageJudge:
    """Asks a language model for labels and ratings. Every failure is an `UnusableAnswer` with its reason.

    Args:
        model: to ask.
        prompts: the questions.
        max_tokens: room for an answer with its reasoning; see `ROOM_FACTORS`.
    """

    def __init__(self, model: ChatModel, prompts: Prompts, max_tokens: int = DEFAULT_MAX_TOKENS):
        self._model = model
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._answered = False
        self._first_failure: str | None = None
        self._unavailable = 0

    @property
    def name(self) -> str:
        """Name of the model in results."""
        return redacted(self._model.name)

    @property
    def concurrency(self) -> int:
        """Number of features to work on at the same time."""
        return self._model.concurrency

    @property
    def silence(self) -> str | None:
        """Why no question got an answer, with a remedy: the first failure. None if one did, or if nothing was asked."""
        with self._lock:
            return None if self._answered else self._first_failure

    def label(self, evidence: LabelEvidence, *, show_text: bool) -> str:
        """Ask for a label of at most eight words.

        Args:
            evidence: of the feature, from the discovery half.
            show_text: False to send no passage.

        Raises:
            UnusableAnswer: the model gave no answer, or none that is a label.
        """
        values: dict[str, object] = {
            "top_tokens": ", ".join(quoted(token) for token in evidence.top_tokens),
            "promoted": ", ".join(quoted(token) for token in evidence.promoted),
            "most_words": MAX_LABEL_WORDS,
        }
        if not show_text:
            values["words"] = ", ".join(quoted(word) for word in evidence.words)
            return self._ask("label_tokens", values, LABEL_SCHEMA, parse_label)
        windows = [text.window() for text in evidence.examples[:MAX_EXAMPLES]]
        scale = MAX_RATING / max(evidence.highest, 1e-12)
        values["examples"] = [
            {"peak": round(float(text.activations.max(initial=0)) * scale, 1), "text": text.marked(text.fires())}
            for text in windows
        ]
        values["contrast"] = [text.window().plain() for text in evidence.contrast[:MAX_CONTRASTS]]
        return self._ask("label", values, LABEL_SCHEMA, parse_label)

    def detect(self, label: str, passages: Sequence[TokenText]) -> Float[np.ndarray, "passage"]:
        """Ask how likely the feature is to fire in each passage, judged by its label alone.

        Returns:
            Ratings from 0 to 10; NaN where the answer was unusable.

        Raises:
            UnusableAnswer: too few passages were rated.
        """
        return self._rate("detection", label, [text.window().plain() for text in passages])

    def fuzz(self, label: str, passages: Sequence[TokenText], right: np.ndarray) -> Float[np.ndarray, "passage"]:
        """Ask how likely the marked tokens of each passage are those on which the feature fires.

        Args:
            label: of the feature.
            passages: the passages to mark.
            right: whether to mark the tokens on which the feature fires strongly; else as many others are marked.

        Returns:
            Ratings from 0 to 10; NaN where the answer was unusable.

        Raises:
            UnusableAnswer: too few passages were rated.
        """
        texts = []
        for text, is_right in zip([passage.window() for passage in passages], right, strict=True):
            fires = text.fires()
            texts.append(text.marked(fires if is_right else _other_tokens(text, fires)))
        return self._rate("fuzzing", label, texts)

    def _rate(self, prompt: str, label: str, texts: list[str]) -> np.ndarray:
        ratings = np.full(len(texts), np.nan)
        reason = "no passages"
        for first in range(0, len(texts), PASSAGES_PER_REQUEST):
            batch = texts[first : first + PASSAGES_PER_REQUEST]
            values = {"label": quoted(label), "passages": batch}
            try:
                parsed = self._ask(prompt, values, RATINGS_SCHEMA, _ratings_parser(len(batch)))
                ratings[first : first + len(batch)] = parsed
            except UnusableAnswer as problem:
                reason = str(problem)
        if np.isfinite(ratings).sum() < max(1, MIN_RATED_SHARE * len(texts)):
            raise UnusableAnswer(reason)
        return ratings

    def _ask(
        self,
        prompt: str,
        values: Mapping[str, object],
        schema: Mapping[str, object],
        parse: Callable[[str], Answer],
    ) -> Answer:
        """Ask, and once more if the answer is unusable."""
        messages = self._prompts.messages(prompt, values)
        answer = self._whole_answer(messages, schema, parse)
        try:
            return parse(answer)
        except UnusableAnswer as problem:
            hint = {"problem": str(problem), "example": ANSWER_EXAMPLES[prompt]}
        repeated = self._prompts.again(messages, answer[:MAX_REPEATED_CHARACTERS], hint)
        return parse(self._whole_answer(repeated, schema, parse))

    def _whole_answer(
        self, messages: Sequence[Message], schema: Mapping[str, object], parse: Callable[[str], object]
    ) -> str:
        """Ask with more and more room until the answer is whole, or what there is of it will do.

        Raises:
            UnusableAnswer: the model gave no whole answer.
        """
        if self._has_given_up():
            raise UnusableAnswer(f"no more was asked: {self.silence}")
        room, cut = 0, None
        try:
            for factor in ROOM_FACTORS:
                room = factor * self._max_tokens
                with suppress(CutOff):
                    reply = self._model.reply(messages, max_tokens=room, schema=schema)
                    if not reply.cut_off or _is_usable(reply.text, parse):
                        self._note(None)
                        return reply.text
                    if reply.text == cut:  # more room changes nothing where the model's context is full
                        break
                    cut = reply.text
            raise CutOff(f"the answer is cut off at {room:,} tokens")
        except (NoReply, LabelingError) as problem:
            reason = " ".join(str(problem).split())
            unavailable = isinstance(problem, (Unavailable, LabelingError))
            self._note(f"{reason}; {problem.remedy}" if isinstance(problem, NoReply) else reason, unavailable)
            shown = f"{reason}; {problem.remedy}" if isinstance(problem, CutOff) else reason
            raise UnusableAnswer(shown) from None

    def _has_given_up(self) -> bool:
        with self._lock:
            return not self._answered and self._unavailable >= max(GIVE_UP_AFTER, 2 * self.concurrency)

    def _note(self, failure: str | None, unavailable: bool = False) -> None:
        with self._lock:
            self._unavailable = self._unavailable + 1 if unavailable else 0
            self._answered |= failure is None
            self._first_failure = self._first_failure or failure


def _is_usable(cut_answer: str, parse: Callable[[str], object]) -> bool:
    """Whether an answer without its end holds all that it should; only the end of a JSON object shows that."""
    try:
        parse(cut_answer)
    except UnusableAnswer:
        return False
    return "{" in cut_answer


def _ratings_parser(count: int) -> Callable[[str], list[int]]:
    return lambda answer: parse_ratings(answer, count)


def _other_tokens(text: TokenText, fires: np.ndarray) -> np.ndarray:
    """Choose as many other tokens: by hash from those without activation, then those with the weakest."""
    silent = [at for at in range(len(text.tokens)) if text.activations[at] <= 0 and text.tokens[at].strip()]
    weak = [at for at in np.argsort(text.activations, kind="stable") if not fires[at] and at not in silent]
    candidates = sorted(silent, key=lambda at: hash64("fuzz", at, text.tokens[at])) + [int(at) for at in weak]
    chosen = np.zeros(len(text.tokens), dtype=bool)
    chosen[candidates[: int(fires.sum())]] = True
    return chosen
