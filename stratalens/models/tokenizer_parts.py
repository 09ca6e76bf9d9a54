"""Look at the parts of a fast tokenizer that may make a text longer: a few of them in a row make it endless."""

import base64
import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stratalens.errors import StratalensError, printable
from stratalens.files.regular import read_regular

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""Parts of a tokenizer that change texts, each a step or a list of steps."""
WORD_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")
"""Texts that the vocabulary puts beside each part of a word to look it up."""
MAX_STEPS = 32
MAX_GROWTH = 16
"""How many times as long all steps of a part together may make a text; byte-level steps make it up to twice as long."""
MAX_CONTENT_CHARACTERS = 16
"""Longest text that a step may put in; known ones put in one to three characters."""
MAX_MAPPED_CHARACTERS = 32
"""Longest text that a table of characters may put in the place of one; Unicode's longest has 18."""
MAX_SPECIAL_TOKENS = 1_000
"""Most tokens that a tokenizer adds to a text by itself; known ones add one or two."""


def require_bounded_file(path: Path, error_type: type[StratalensError], max_bytes: int) -> None:
    """Check a `tokenizer.json` before a library loads it, which already makes use of its steps.

    Raises:
        StratalensError: of class `error_type`, if it is no JSON or a text may grow too much.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(read_regular(path, max_bytes).decode())
    except (ValueError, RecursionError):
        raise error_type(f"{path}: not valid JSON; copy or download it again") from None
    if isinstance(content, dict):
        _require_bounded(str(path), content, error_type)


def require_bounded_tokenizer(source: str, tokenizer: Any, error_type: type[StratalensError]) -> None:
    """Check a loaded tokenizer, wherever its parts come from, before it is used. Slow ones have no such parts.

    Raises:
        StratalensError: of class `error_type`, if a text may grow too much.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    steps = {part: getattr(backend, part, None) for part in PARTS}
    _require_bounded(source, {part: _content(step) for part, step in steps.items() if step is not None}, error_type)


def _content(step: Any) -> object:
    """Return what a part would be in a `tokenizer.json`; None for one written in Python, by the library or the user."""
    try:
        return json.loads(step.__getstate__())
    except Exception as error:
        if type(error) is not Exception:  # which the library in Rust raises for such a part
            raise
        return None


def _require_bounded(source: str, content: Mapping[str, Any], error_type: type[StratalensError]) -> None:
    problems = [problem for part in PARTS for problem in _problems(part, content.get(part))]
    model = content.get("model")
    for name in WORD_MARKS:
        if isinstance(model, dict) and len(str(model.get(name) or "")) > MAX_CONTENT_CHARACTERS:
            problems.append(f"its `{name}` has more than {MAX_CONTENT_CHARACTERS} characters")
    if problems:
        raise error_type(f"{source}: its tokenizer makes texts far longer ({problems[0]}); use another model")


def _problems(part: str, content: object) -> Iterator[str]:
    """Yield what is wrong with the steps of one part."""
    steps = list(_steps(content))
    if len(steps) > MAX_STEPS:
        yield f"its {part} has more than {MAX_STEPS} steps"
        return
    if sum(step.get("type") == "Precompiled" for step in steps) > 1:
        yield f"its {part} has more than one table of characters"
    growth = 1
    for step in steps:
        try:
            yield from _step_problems(part, step)
            growth *= _growth(step)
        except (TypeError, ValueError, LookupError, AttributeError):
            yield f"a step of its {part} is not as it should be"
        if growth > MAX_GROWTH:
            yield f"its {part} makes them more than {MAX_GROWTH} times as long"
            return


def _step_problems(part: str, step: Mapping[str, Any]) -> Iterator[str]:
    kind = printable(str(step.get("type"))[:40])
    if any(_full_length(text) > MAX_CONTENT_CHARACTERS for text in _contents(step)):
        yield f"a step {kind} of its {part} puts in more than {MAX_CONTENT_CHARACTERS} characters"
    if kind == "Precompiled" and _longest_mapped(step) > MAX_MAPPED_CHARACTERS:
        yield f"a step {kind} of its {part} puts in more than {MAX_MAPPED_CHARACTERS} characters for one"
    if kind == "TemplateProcessing" and _special_tokens(step) > MAX_SPECIAL_TOKENS:
        yield f"a step {kind} adds more than {MAX_SPECIAL_TOKENS:,} special tokens"


def _steps(content: object) -> Iterator[dict[str, Any]]:
    """Yield the steps of a part, however deep they lie in sequences of steps."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [item for name, item in value.items() if name in ("normalizers", "pretokenizers")]
            waiting += [item for name, item in value.items() if name in ("processors", "decoders")]
            if value.get("type") != "Sequence":
                yield value


def _contents(step: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that a step puts into a text."""
    for name in ("content", "prepend", "replacement", "prefix", "suffix"):
        if isinstance(step.get(name), str):
            yield step[name]


def _full_length(text: str) -> int:
    """Characters of a text after the Unicode steps that may follow: some characters stand for 18 others."""
    return max(len(text), len(unicodedata.normalize("NFKD", text[: MAX_CONTENT_CHARACTERS + 1])))


def _growth(step: Mapping[str, Any]) -> int:
    """How many times as long a step may make a text, rounded up."""
    kind = step.get("type")
    if kind == "Replace":
        pattern, length = step.get("pattern"), _full_length(str(step.get("content")))
        text = pattern.get("String") if isinstance(pattern, dict) else None
        if isinstance(text, str) and text:
            return max(1, -(-length // len(text)))
        return length + 1  # an expression, or the empty text, may be found between all characters
    if kind == "TemplateProcessing":
        pieces = step.get("single")
        return max(1, sum("Sequence" in piece for piece in pieces)) if isinstance(pieces, list) else 1
    return {"ByteLevel": 2, "BertNormalizer": 3}.get(str(kind), 1)


def _longest_mapped(step: Mapping[str, Any]) -> int:
    """Characters of the longest text in a table of sentencepiece: length of a trie, the trie, texts that NUL ends."""
    table = base64.b64decode(str(step.get("precompiled_charsmap") or ""), validate=False)
    texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    return max(len(text.decode(errors="replace")) for text in texts)


def _special_tokens(step: Mapping[str, Any]) -> int:
    lengths = {name: len(token["ids"]) for name, token in (step.get("special_tokens") or {}).items()}
    pieces = [*(step.get("single") or []), *(step.get("pair") or [])]
    return sum(lengths.get(piece["SpecialToken"]["id"], 0) for piece in pieces if "SpecialToken" in piece)
