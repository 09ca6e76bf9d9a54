"""The JSON objects in what a model writes: strict ones, and those whose slips leave no doubt about what is meant."""

import json
import re
from collections.abc import Iterator

MAX_LOOSE_OBJECTS = 50
"""Places in a text, at most, at which an object with slips is looked for."""
MAX_LOOSE_CHARACTERS = 2000
"""Of such an object."""
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<double>"(?:[^"\\]|\\.)*")|(?P<single>'(?:[^'\\]|\\.)*')|“(?P<curly>[^“”"\\]*)”
    |(?P<number>-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[{}\[\]:,])""",
    re.VERBOSE | re.DOTALL,
)
_QUOTE = re.compile(r"\\.|\"", re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}


def values_of(name: str, text: str) -> list[object]:
    """Return the different values that the objects of a text have under a name, in any case of letters."""
    found = [
        value
        for each in _objects(text)
        if isinstance(each, dict)
        for key, value in each.items()
        if key.strip().lower() == name
    ]
    return list({json.dumps(value): value for value in found}.values())


def _objects(text: str) -> Iterator[object]:
    """Yield the values that begin with `{` in a text, in order, outermost ones only."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_without_contradiction)
    tried = 0
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            parsed, end = decoder.raw_decode(text, start)
            yield parsed
        except (ValueError, RecursionError):
            tried += 1
            repaired = _repaired(text, start) if tried <= MAX_LOOSE_OBJECTS else None
            if repaired is not None:
                try:
                    yield decoder.decode(repaired[0])
                    end = repaired[1]
                except (ValueError, RecursionError):
                    pass
        start = text.find("{", end)


def _without_contradiction(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs) and any(json.dumps(made[key]) != json.dumps(value) for key, value in pairs):
        raise ValueError("one name with two values")
    return made


def _repaired(text: str, start: int) -> tuple[str, int] | None:
    """Return the object that begins at `start` as strict JSON, and where it ends; None if something else is amiss.

    Comments and commas before a closing bracket are left out; other quotation marks, names without any, and the words
    and numbers of Python are written as in JSON.
    """
    pieces: list[str] = []
    depth, at = 0, start
    while token := _TOKEN.match(text, at, start + MAX_LOOSE_CHARACTERS):
        at = token.end()
        if token.lastgroup == "space":
            continue
        piece = _strict(token, text)
        if piece in ("}", "]") and pieces[-1] == ",":
            pieces.pop()
        pieces.append(piece)
        depth += (piece in ("{", "[")) - (piece in ("}", "]"))
        if not depth:
            return " ".join(pieces), at
    return None


def _strict(token: re.Match[str], text: str) -> str:
    """A token as strict JSON has it; an unknown word stays what it is, and no JSON."""
    written = token.group()
    if token.lastgroup == "single":
        return f'"{re.sub(_QUOTE, _double_quoted, written[1:-1])}"'
    if token.lastgroup == "curly":
        return f'"{token["curly"]}"'
    if token.lastgroup == "number":
        return written + "0" if written.endswith(".") else written
    if token.lastgroup == "word":
        is_name = re.match(r"\s*:", text[token.end() : token.end() + 20])
        return f'"{written}"' if is_name else _WORDS.get(written, written)
    return written


def _double_quoted(found: re.Match[str]) -> str:
    """What an escape or a quotation mark between single quotation marks is between double ones."""
    return {"\\'": "'", '"': '\\"'}.get(found[0], found[0])
