"""A language model as labeller and as judge: what it is asked of one feature, and what its answers are worth."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from stratalens.errors import LabelingError
from stratalens.files.hashing import hash64
from stratalens.labels.answers import (
    HIGHEST_RATING,
    LABEL_SCHEMA,
    MOST_WORDS,
    RATINGS_SCHEMA,
    UnusableAnswer,
    parse_label,
    parse_ratings,
)
from stratalens.labels.llm.chat import ChatModel, NoReply
from stratalens.labels.prompts import MARKS, Prompts, quoted

EXAMPLES = 8
CONTRASTS = 4
PASSAGES_AT_ONCE = 5
THRESHOLD = 4.5
"""A passage rated above is said to fire."""
LABEL_TOKENS = 120
RATINGS_TOKENS = 120
LONGEST_REPEATED = 2000
"""Characters of a useless answer that are shown to its author again."""
EXAMPLES_OF_ANSWERS = {
    "label": '{"label": "at most 8 words"}',
    "label_tokens": '{"label": "at most 8 words"}',
    "detection": '{"ratings": [0, 10, ...]}',
    "fuzzing": '{"ratings": [0, 10, ...]}',
}
MARK_SHARE = 0.5
"""Tokens with this share of the passage's strongest activation are marked."""
PASSAGE_TOKENS = 160
"""Tokens of a passage that are sent, around its strongest one."""
LEAST_RATED = 0.5
"""With a smaller share of passages rated there is no score."""

Answer = TypeVar("Answer")


class TokenText(NamedTuple):
    """A passage in pieces, with what the feature does on each."""

    tokens: list[str]
    activations: Float[np.ndarray, "token"]

    def window(self) -> "TokenText":
        """The part around the strongest token that is sent."""
        if len(self.tokens) <= PASSAGE_TOKENS:
            return self
        peak = int(np.argmax(self.activations))
        first = min(max(0, peak - 3 * PASSAGE_TOKENS // 4), len(self.tokens) - PASSAGE_TOKENS)
        return TokenText(self.tokens[first : first + PASSAGE_TOKENS], self.activations[first : first + PASSAGE_TOKENS])

    def fires(self) -> np.ndarray:
        """Whether each token is one on which the feature fires strongly."""
        peak = float(self.activations.max(initial=0))
        return (self.activations >= MARK_SHARE * peak) & (self.activations > 0)

    def marked(self, which: np.ndarray) -> str:
        """The text with runs of tokens between marks, as a JSON string."""
        pieces: list[str] = []
        for at, token in enumerate(self.tokens):
            opens = which[at] and not (at and which[at - 1])
            closes = which[at] and not (at + 1 < len(which) and which[at + 1])
            space = token[: len(token) - len(token.lstrip())]
            pieces.append(f"{space}{MARKS[0] if opens else ''}{token.lstrip()}{MARKS[1] if closes else ''}")
        return quoted("".join(pieces))

    def plain(self) -> str:
        """The text as a JSON string."""
        return quoted("".join(self.tokens))


class LabelEvidence(NamedTuple):
    """What a labelling model is told of one feature."""

    examples: list[TokenText]
    contrast: list[TokenText]
    top_tokens: list[str]
    words: list[str]
    promoted: list[str]
    highest: float
    """The feature's strongest activation on discovery text."""


class LanguageJudge:
    """Asks a language model about features. Every failure is an `UnusableAnswer` with its reason."""

    def __init__(self, model: ChatModel, prompts: Prompts):
        self._model = model
        self._prompts = prompts

    @property
    def name(self) -> str:
        """The model, as named in results."""
        return self._model.name

    @property
    def concurrency(self) -> int:
        """Features that it is worth working on at once."""
        return self._model.concurrency

    def label(self, evidence: LabelEvidence, *, show_text: bool) -> str:
        """A label of at most eight words.

        Args:
            evidence: what is known of the feature, from the discovery half.
            show_text: False to send no passage.

        Raises:
            Unusable: no answer, or none that is a label.
        """
        values: dict[str, object] = {
            "top_tokens": ", ".join(quoted(token) for token in evidence.top_tokens),
            "promoted": ", ".join(quoted(token) for token in evidence.promoted),
            "most_words": MOST_WORDS,
        }
        if not show_text:
            values["words"] = ", ".join(quoted(word) for word in evidence.words)
            return self._ask("label_tokens", values, LABEL_TOKENS, LABEL_SCHEMA, parse_label)
        shown = [text.window() for text in evidence.examples[:EXAMPLES]]
        scale = HIGHEST_RATING / max(evidence.highest, 1e-12)
        values["examples"] = [
            {"peak": round(float(text.activations.max(initial=0)) * scale, 1), "text": text.marked(text.fires())}
            for text in shown
        ]
        values["contrast"] = [text.window().plain() for text in evidence.contrast[:CONTRASTS]]
        return self._ask("label", values, LABEL_TOKENS, LABEL_SCHEMA, parse_label)

    def detect(self, label: str, passages: Sequence[TokenText]) -> Float[np.ndarray, "passage"]:
        """How likely the feature is to fire in each passage, by its label alone; NaN where the answer was unusable.

        Raises:
            Unusable: too few passages were rated.
        """
        return self._rate("detection", label, [text.window().plain() for text in passages])

    def fuzz(self, label: str, passages: Sequence[TokenText], right: np.ndarray) -> Float[np.ndarray, "passage"]:
        """How likely the marked tokens are the right ones; marks are right where `right`, else random.

        Raises:
            Unusable: too few passages were rated.
        """
        texts = []
        for text, is_right in zip([passage.window() for passage in passages], right, strict=True):
            fires = text.fires()
            texts.append(text.marked(fires if is_right else _others(text, fires)))
        return self._rate("fuzzing", label, texts)

    def _rate(self, prompt: str, label: str, texts: list[str]) -> np.ndarray:
        ratings = np.full(len(texts), np.nan)
        reason = "no passages"
        for first in range(0, len(texts), PASSAGES_AT_ONCE):
            some = texts[first : first + PASSAGES_AT_ONCE]
            values = {"label": quoted(label), "passages": some}
            try:
                parsed = self._ask(prompt, values, RATINGS_TOKENS, RATINGS_SCHEMA, _ratings_parser(len(some)))
                ratings[first : first + len(some)] = parsed
            except UnusableAnswer as problem:
                reason = str(problem)
        if np.isfinite(ratings).sum() < max(1, LEAST_RATED * len(texts)):
            raise UnusableAnswer(reason)
        return ratings

    def _ask(
        self,
        prompt: str,
        values: Mapping[str, object],
        max_tokens: int,
        schema: Mapping[str, object],
        parse: Callable[[str], Answer],
    ) -> Answer:
        """Ask, and once more where the answer cannot be used."""
        messages = self._prompts.messages(prompt, values)
        try:
            answer = self._model.reply(messages, max_tokens=max_tokens, schema=schema).text
            try:
                return parse(answer)
            except UnusableAnswer as problem:
                hint = {"problem": str(problem), "example": EXAMPLES_OF_ANSWERS[prompt]}
                again = self._prompts.again(messages, answer[:LONGEST_REPEATED], hint)
                return parse(self._model.reply(again, max_tokens=max_tokens, schema=schema).text)
        except (NoReply, LabelingError) as problem:
            raise UnusableAnswer(" ".join(str(problem).split())) from None


def _ratings_parser(count: int) -> Callable[[str], list[int]]:
    return lambda answer: parse_ratings(answer, count)


def _others(text: TokenText, fires: np.ndarray) -> np.ndarray:
    """As many tokens on which the feature does not fire, chosen by hash."""
    silent = [at for at in range(len(text.tokens)) if text.activations[at] <= 0 and text.tokens[at].strip()]
    weak = [at for at in np.argsort(text.activations, kind="stable") if not fires[at] and at not in silent]
    ordered = sorted(silent, key=lambda at: hash64("fuzz", at, text.tokens[at])) + [int(at) for at in weak]
    chosen = np.zeros(len(text.tokens), dtype=bool)
    chosen[ordered[: int(fires.sum())]] = True
    return chosen
