"""Warnings about texts of the two sides that differ in more than their subject.

Each compares a share of the sampled texts of one side with that of the other: it warns if the difference is large and
hardly due to chance (Fisher's exact test; of the lengths, Mann and Whitney's).
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from stratalens.corpus.language import language_of
from stratalens.corpus.text_sample import SampledText

MAX_P = 1e-3
MIN_DIFFERENCE = 0.1
"""Difference of two shares from which it is told."""
MIN_LENGTH_RATIO = 3.0
BOILERPLATE_WORDS = 8
"""Words in a row that are boilerplate where many texts of a side share them."""
MAX_PHRASES = 50
"""At most so many of the most frequent phrases are compared."""
MAX_PHRASE_CHARACTERS = 80

ENTITIES = "character references such as `&amp;`"
_MARKUP = {
    "HTML or XML tags": re.compile(r"</?[A-Za-z][A-Za-z0-9:]{0,20}(?:\s[^<>]{0,300})?/?>"),
    ENTITIES: re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"),
    "LaTeX commands": re.compile(r"\\(?:begin|end|frac|cite|ref|section|textbf|emph|mathbf)\b"),
    "links or marks of Markdown or a wiki": re.compile(r"\]\(https?://|\[\[[^\[\]\n]{1,200}\]\]|^#{1,6} |\*\*\w", re.M),
}
_WORD_OR_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+")


def comparability_warnings(
    sides: tuple[Sequence[SampledText], Sequence[SampledText]], names: tuple[str, str], *, quote: bool
) -> list[str]:
    """Warnings about markup, length, language and boilerplate on one side.

    Args:
        sides: sampled texts of each side.
        names: of the sides.
        quote: whether a warning may quote a phrase of the text.
    """
    return [
        *_markup_warnings(sides, names),
        *_length_warnings(sides, names),
        *_language_warnings(sides, names),
        *_boilerplate_warnings(sides, names, quote),
    ]


def _markup_warnings(sides: tuple, names: tuple[str, str]) -> list[str]:
    remedy = {ENTITIES: "--unescape_html reads them as a browser would"}
    found = []
    for what, pattern in _MARKUP.items():
        hits = [[pattern.search(text.text) is not None for text in side] for side in sides]
        for told in _differing(hits, names):
            found.append(
                f"{what} stand in {told}: features of markup will seem to be features of the domain"
                f"; {remedy.get(what, 'take them out')}"
            )
    return found


def _length_warnings(sides: tuple, names: tuple[str, str]) -> list[str]:
    lengths = [np.array([text.characters for text in side]) for side in sides]
    if min(map(len, lengths)) == 0:
        return []
    medians = [float(np.median(own)) for own in lengths]
    longer = int(medians[1] > medians[0])
    ratio = medians[longer] / max(1.0, medians[1 - longer])
    p = scipy.stats.mannwhitneyu(lengths[0], lengths[1]).pvalue if ratio >= MIN_LENGTH_RATIO else 1.0
    if p >= MAX_P:
        return []
    return [
        f"the {names[longer]} texts are {ratio:.0f} times as long as the {names[1 - longer]} ones (medians "
        f"{medians[longer]:,.0f} and {medians[1 - longer]:,.0f} characters): maxima grow with length; cut both alike"
    ]


def _language_warnings(sides: tuple, names: tuple[str, str]) -> list[str]:
    languages = [[language_of(text.text) for text in side] for side in sides]
    counts = Counter(language for side in languages for language in side if language)
    for language, _ in reversed(counts.most_common()):  # of two languages the rarer one says more
        hits = [[own == language for own in side if own] for side in languages]
        for told in _differing(hits, names):
            return [f"{told} are in {language}: features of a language will seem to be features of the domain"]
    return []


def _boilerplate_warnings(sides: tuple, names: tuple[str, str], quote: bool) -> list[str]:
    phrases = [[_phrases(text.text) for text in side] for side in sides]
    counts = Counter(phrase for side in phrases for own in side for phrase in own)
    frequent = sorted((phrase for phrase, count in counts.items() if count > 2), key=lambda own: (-counts[own], own))
    for phrase in frequent[:MAX_PHRASES]:
        hits = [[phrase in own for own in side] for side in phrases]
        for told in _differing(hits, names):
            shown = f" (`{phrase[:MAX_PHRASE_CHARACTERS]}`)" if quote else ""
            return [f"the same words in a row{shown} stand in {told}: boilerplate will seem to be of the domain"]
    return []


def _phrases(text: str) -> frozenset[str]:
    words = ["0" if word[0].isdigit() else word.lower() for word in _WORD_OR_NUMBER.findall(text)]
    runs = (words[start : start + BOILERPLATE_WORDS] for start in range(len(words) - BOILERPLATE_WORDS + 1))
    return frozenset(" ".join(run) for run in runs)


def _differing(hits: Sequence[Sequence[bool]], names: tuple[str, str]) -> list[str]:
    """The two shares in words, if one is much larger; else nothing."""
    counts, totals = [sum(side) for side in hits], [len(side) for side in hits]
    if min(totals) == 0:
        return []
    shares = [count / total for count, total in zip(counts, totals, strict=True)]
    larger = int(shares[1] > shares[0])
    if shares[larger] - shares[1 - larger] < MIN_DIFFERENCE:
        return []
    table = [[count, total - count] for count, total in zip(counts, totals, strict=True)]
    if _fisher_p(table) >= MAX_P:
        return []
    most, least = (f"{shares[side]:.0%} of the {names[side]}" for side in (larger, 1 - larger))
    return [f"{most} texts and {least} ones"]


def _fisher_p(table: Sequence[Sequence[int]]) -> float:
    result: Any = scipy.stats.fisher_exact(table)
    return float(result.pvalue)
