"""Strict reading of a language model's answers: what was asked for, or a reason why not."""

import json
import re
from collections.abc import Iterator

MOST_WORDS = 8
MOST_CHARACTERS = 80
HIGHEST_RATING = 10
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


class UnusableAnswer(Exception):  # noqa: N818 - an outcome that is recorded, not a mistake
    """The answer is not what was asked for; the text says how."""


def parse_label(answer: str) -> str:
    """The label in an answer: of its only JSON object, or the whole answer where that is one short line.

    Raises:
        Unusable: there is no such label, it is too long, or it is no label.
    """
    objects = [found for found in _objects(answer) if isinstance(found, dict) and "label" in found]
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
    label = _unquoted(" ".join(label.split()))
    if not any(ch.isalnum() for ch in label):
        raise UnusableAnswer("the label is empty")
    if len(label.split()) > MOST_WORDS or len(label) > MOST_CHARACTERS:
        raise UnusableAnswer(f"the label is longer than {MOST_WORDS} words")
    if REFUSAL.search(label) or not label.isprintable():
        raise UnusableAnswer("the answer is no label")
    return label[0].upper() + label[1:]


def _unquoted(text: str) -> str:
    """Without quotation marks or asterisks around all of it, and without a full stop at its end."""
    text = text.strip("*` ").rstrip(".").strip()
    for first, last in ('""', "''", "“”"):
        if len(text) >= 2 and text.startswith(first) and text.endswith(last) and text.count(first) <= 2:
            return text[1:-1].rstrip(".").strip()
    return text


def parse_ratings(answer: str, count: int) -> list[int]:
    """The ratings in an answer, exactly `count` whole numbers from 0 to 10 in its only JSON object.

    Raises:
        Unusable: there are none, too few, too many, or others.
    """
    objects = [found for found in _objects(answer) if isinstance(found, dict) and "ratings" in found]
    if len(objects) != 1:
        raise UnusableAnswer("no ratings in the answer" if not objects else "several ratings in the answer")
    ratings = objects[0]["ratings"]
    if not isinstance(ratings, list) or len(ratings) != count:
        raise UnusableAnswer(f"not {count} ratings in the answer")
    if not all(type(rating) is int and 0 <= rating <= HIGHEST_RATING for rating in ratings):
        raise UnusableAnswer(f"ratings other than whole numbers from 0 to {HIGHEST_RATING}")
    return ratings


def _objects(answer: str) -> Iterator[object]:
    """The JSON objects that stand in a text one after the other, outermost ones only."""
    decoder = json.JSONDecoder()
    at = answer.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield found
        at = answer.find("{", end)
