"""Strict parsing of a language model's answers: a label or ratings, or the reason why the answer is unusable."""

import re

from stratalens.labels.loose_json import values_of

MAX_LABEL_WORDS = 8
MAX_LABEL_CHARACTERS = 80
MAX_RATING = 10
LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
RATINGS_SCHEMA = {
    "type": "object",
    "properties": {"ratings": {"type": "array", "items": {"type": "integer"}}},
    "required": ["ratings"],
    "additionalProperties": False,
}
REFUSAL = re.compile(
    r"\b(i('m| am)? (sorry|cannot|can't|unable|an ai)|as an ai)\b|\A(sorry|error)(\W*\Z|\s*[,:.!])", re.IGNORECASE
)
NO_LABEL = frozenset({"null", "none", "nil", "n/a", "undefined", f"at most {MAX_LABEL_WORDS} words"})
"""What stands in the place of a label where there is none; the last is what the question shows for an example."""
NO_LABEL_LINE = frozenset({"json", "sure", "ok", "okay", "yes", "no", "true", "false"})
"""Lines that are no label where they are the whole answer."""
_BEFORE_LABEL = re.compile(
    r"\A(?:(?:#+|[-*>•])\s+)?[\"'*_`]*(?:(?:the|my|final|best|short)\s+){0,3}(?:label|answer)[\"'*_`]*"
    r"(?:\s+(?:is|would be)(?:\s*:|\b)|\s*[:=])[*_]*\s*|\A(?:#+|[-*>•])\s+",
    re.IGNORECASE,
)
"""What a model writes before a label on the same line."""
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
"""Characters without a width that change no word."""
_JOINERS = re.compile("[\u200c\u200d]")
"""Characters without a width that belong to the spelling of some scripts."""
QUOTATION_MARKS = ('""', "''", "“”", "‘’", "«»", "「」")

WRITTEN_RATING = re.compile(rf"\s*([0-9]{{1,3}})(?:[.,]0*)?\s*(?:(?:/|out of)\s*{MAX_RATING}(?:\.0+)?)?\s*")
"""A rating as a text: a whole number, perhaps with the highest one behind it."""


class UnusableAnswer(Exception):  # noqa: N818 - an outcome that is recorded, not a mistake
    """The answer is not in the requested form; the text says why. It is repeated to the model and in `label_note`."""


def parse_label(answer: str) -> str:
    """Return the label in an answer: from its only JSON object, or the whole answer if that is one short line.

    Raises:
        UnusableAnswer: the answer holds no label or several, or the label is empty, too long, or a refusal.
    """
    labels = values_of("label", answer)
    if len(labels) > 1:
        raise UnusableAnswer("several labels in the answer")
    label = labels[0] if labels else _label_line(answer)
    if not isinstance(label, str):
        raise UnusableAnswer("the label is no text")
    label = _strip_quotation(" ".join(_INVISIBLE.sub("", label).split()))
    if not any(ch.isalnum() for ch in label):
        raise UnusableAnswer("the label is empty")
    if len(label.split()) > MAX_LABEL_WORDS or len(label) > MAX_LABEL_CHARACTERS:
        raise UnusableAnswer(f"the label is longer than {MAX_LABEL_WORDS} words")
    if REFUSAL.search(label.replace("’", "'")) or "\ufffd" in label or not _JOINERS.sub("", label).isprintable():
        raise UnusableAnswer("the answer is no label")
    if label.lower() in NO_LABEL:
        raise UnusableAnswer("the answer is no label")
    return label[0].upper() + label[1:]


def _label_line(answer: str) -> str:
    """Return the label that is the whole answer, without what a model writes before it.

    Raises:
        UnusableAnswer: the answer is not one line, or is not of words.
    """
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if len(lines) != 1 or "{" in answer or lines[0].startswith("["):
        raise UnusableAnswer("no label in the answer")
    label = _BEFORE_LABEL.sub("", lines[0])
    words = label.strip("*`\"' .,!").lower()
    if words in NO_LABEL_LINE or (words and not any(ch.isalpha() for ch in words)):
        raise UnusableAnswer("the answer is no label")
    return label


def _strip_quotation(text: str) -> str:
    """Strip quotation marks, asterisks and backticks around the whole text, and a full stop at its end."""
    text = text.strip("*` ").rstrip(".").strip()
    for first, last in QUOTATION_MARKS:
        if len(text) >= 2 and text.startswith(first) and text.endswith(last) and text.count(first) <= 2:
            return text[1:-1].rstrip(".").strip()
    return text


def parse_ratings(answer: str, count: int) -> list[int]:
    """Return the ratings in an answer: exactly `count` whole numbers from 0 to 10, in its only JSON object.

    Whole numbers may be written as 7, 7.0, "7", "7,0" or "7/10"; others are not rounded.

    Raises:
        UnusableAnswer: there are no ratings, too few, too many, or other values.
    """
    found = values_of("ratings", answer)
    if len(found) != 1:
        raise UnusableAnswer("no ratings in the answer" if not found else "several ratings in the answer")
    ratings = found[0]
    if not isinstance(ratings, list) or len(ratings) != count:
        raise UnusableAnswer(f"not {count} ratings in the answer")
    whole = [number for number in map(_whole_number, ratings) if number is not None and 0 <= number <= MAX_RATING]
    if len(whole) < count:
        raise UnusableAnswer(f"ratings other than whole numbers from 0 to {MAX_RATING}")
    return whole


def _whole_number(rating: object) -> int | None:
    """Return the number that a rating is; None if it is none, or not a whole one."""
    if type(rating) is int:
        return rating
    if type(rating) is float:
        return int(rating) if rating.is_integer() else None
    written = WRITTEN_RATING.fullmatch(rating) if isinstance(rating, str) else None
    return int(written[1]) if written else None
