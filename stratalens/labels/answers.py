"""Strict parsing of a language model's answers: a label or ratings, or the reason why the answer is unusable."""

import json
import re
from collections.abc import Iterator

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
REFUSAL = re.compile(r"\b(i('m| am)? (sorry|cannot|can't|unable|an ai)|as an ai|error)\b", re.IGNORECASE)

WRITTEN_RATING = re.compile(rf"\s*([0-9]{{1,3}})(?:\.0+)?\s*(?:(?:/|out of)\s*{MAX_RATING}(?:\.0+)?)?\s*")
"""A rating as a text: a whole number, perhaps with the highest one behind it."""


class UnusableAnswer(Exception):  # noqa: N818 - an outcome that is recorded, not a mistake
    """The answer is not in the requested form; the text says why. It is repeated to the model and in `label_note`."""


def parse_label(answer: str) -> str:
    """Return the label in an answer: from its only JSON object, or the whole answer if that is one short line.

    Raises:
        UnusableAnswer: the answer holds no label or several, or the label is empty, too long, or a refusal.
    """
    objects = [parsed for parsed in _json_objects(answer) if isinstance(parsed, dict) and "label" in parsed]
    if len(objects) > 1:
        raise UnusableAnswer("several labels in the answer")
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if objects:
        label = objects[0]["label"]
        if not isinstance(label, str):
            raise UnusableAnswer("the label is no text")
    elif len(lines) == 1 and "{" not in answer:
        label = re.sub(r"^(the )?label( is)?\s*:\s*", "", lines[0], flags=re.IGNORECASE)
    else:
        raise UnusableAnswer("no label in the answer")
    label = _strip_quotation(" ".join(label.split()))
    if not any(ch.isalnum() for ch in label):
        raise UnusableAnswer("the label is empty")
    if len(label.split()) > MAX_LABEL_WORDS or len(label) > MAX_LABEL_CHARACTERS:
        raise UnusableAnswer(f"the label is longer than {MAX_LABEL_WORDS} words")
    if REFUSAL.search(label) or not label.isprintable():
        raise UnusableAnswer("the answer is no label")
    return label[0].upper() + label[1:]


def _strip_quotation(text: str) -> str:
    """Strip quotation marks, asterisks and backticks around the whole text, and a full stop at its end."""
    text = text.strip("*` ").rstrip(".").strip()
    for first, last in ('""', "''", "“”"):
        if len(text) >= 2 and text.startswith(first) and text.endswith(last) and text.count(first) <= 2:
            return text[1:-1].rstrip(".").strip()
    return text


def parse_ratings(answer: str, count: int) -> list[int]:
    """Return the ratings in an answer: exactly `count` whole numbers from 0 to 10, in its only JSON object.

    Whole numbers may be written as 7, 7.0, "7" or "7/10"; others are not rounded.

    Raises:
        UnusableAnswer: there are no ratings, too few, too many, or other values.
    """
    objects = [parsed for parsed in _json_objects(answer) if isinstance(parsed, dict) and "ratings" in parsed]
    if len(objects) != 1:
        raise UnusableAnswer("no ratings in the answer" if not objects else "several ratings in the answer")
    ratings = objects[0]["ratings"]
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


def _json_objects(answer: str) -> Iterator[object]:
    """Yield the JSON values that begin with `{` in a text, in order, outermost ones only."""
    decoder = json.JSONDecoder()
    start = answer.find("{")
    while start >= 0:
        try:
            parsed, end = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield parsed
        start = answer.find("{", end)
