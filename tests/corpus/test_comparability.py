"""Warnings about sides that differ in more than their subject: each fires on a planted case and not by chance."""

import random

import pytest

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, text_file
from stratalens.corpus.comparability import comparability_warnings
from stratalens.corpus.language import language_of
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.corpus.text_sample import MAX_SAMPLED_TEXTS, SampledText, TextSample
from stratalens.files.hashing import hash64

NAMES = ("domain", "general")
GERMAN = "Die Bank hat die Zinsen erhöht und der Kredit ist nun für die Kunden teurer als im Jahr zuvor, sagt sie."
FOOTER = "This notice is for information only and does not constitute an offer to buy or sell any security."
PLANTED = {
    "HTML or XML tags": lambda text: f"<p class='x'>{text}</p><br/>",
    "character references": lambda text: text.replace(" of ", " of&nbsp;").replace(" and ", " &amp; ") + "&#8217;",
    "LaTeX commands": lambda text: f"\\section{{One}} {text} \\cite{{x}}",
    "links or marks of Markdown": lambda text: f"# Title\n{text} [more](https://example.com)",
    "times as long": lambda text: " ".join([text] * 4),
    "in German": lambda text: f"{GERMAN} {hash64(text)}",
    "in Chinese": lambda text: f"银行宣布上调利率，贷款将变得更加昂贵。{hash64(text)}",
    "a language in Cyrillic letters": lambda text: f"Банк объявил о повышении ставки {hash64(text)}",
    "boilerplate": lambda text: f"{text}\n{FOOTER}",
}


def texts_of(name: str) -> list[str]:
    return [row.text for file in find_files([text_file(name)]) for row in read_rows(file)]


def sampled(texts: list[str]) -> tuple[SampledText, ...]:
    sample = TextSample()
    for text in texts:
        sample.add(hash64(text), hash64(text), text)
    return tuple(text for _, text in sample._largest_first)


def warned(domain: list[str], general: list[str], *, quote: bool = True) -> list[str]:
    return comparability_warnings((sampled(domain), sampled(general)), NAMES, quote=quote)


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("documents", [25, 75])
def test_what_stands_in_half_of_one_side_is_told(planted, documents):
    financial, general = texts_of("financial")[:documents], texts_of("general")[:documents]
    changed = [
        PLANTED[planted](text) if number % 2 or planted == "times as long" else text
        for number, text in enumerate(financial)
    ]
    warnings = warned(changed, general)
    assert any(planted in warning for warning in warnings), warnings
    assert any(planted in warning for warning in warned(general, changed))


@pytest.mark.parametrize("planted", PLANTED)
def test_what_stands_in_both_sides_is_not(planted):
    financial, general = ([PLANTED[planted](text) for text in texts_of(name)] for name in ("financial", "general"))
    assert warned(financial, general) == []


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_the_built_in_texts_are_comparable(domain):
    assert warned(texts_of(domain), texts_of("general")) == []


def test_random_halves_of_general_text_are_comparable():
    texts = texts_of("general")
    for seed in range(40):
        random.Random(seed).shuffle(texts)
        half = len(texts) // 2
        assert warned(texts[:half], texts[half:]) == []


def test_the_share_and_the_remedy_are_told():
    financial, general = texts_of("financial")[:40], texts_of("general")[:40]
    [warning] = warned([PLANTED["character references"](text) for text in financial], general)
    assert warning == (
        "character references such as `&amp;` stand in 100% of the domain texts and 0% of the general ones: features "
        "of markup will seem to be features of the domain; --unescape_html reads them as a browser would"
    )


def test_no_phrase_of_the_text_is_quoted_where_that_is_not_wanted():
    financial, general = texts_of("financial")[:40], texts_of("general")[:40]
    changed = [PLANTED["boilerplate"](text) for text in financial]
    assert "any security" in warned(changed, general)[0]
    assert "any security" not in warned(changed, general, quote=False)[0]


def test_a_few_texts_prove_nothing():
    assert warned([f"<p>{text}</p>" for text in texts_of("financial")[:3]], texts_of("general")[:3]) == []


def test_a_sample_does_not_depend_on_the_order_and_is_bounded():
    texts = [f"{number} {'word ' * 2000}" for number in range(MAX_SAMPLED_TEXTS + 300)]
    shuffled = random.Random(1).sample(texts, len(texts))
    assert set(sampled(texts)) == set(sampled([*shuffled, *texts[:50]]))
    assert len(sampled(texts)) == MAX_SAMPLED_TEXTS
    assert max(len(text.text) for text in sampled(texts)) < 3100


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The bank has raised the rate of interest and it is now the highest in years", "English"),
        (GERMAN, "German"),
        ("Le taux de la banque est plus élevé dans les pays du nord que dans le sud", "French"),
        ("El banco de la ciudad es uno de los más antiguos del país y no se cerrará", "Spanish"),
        ("De bank heeft de rente verhoogd en het is niet duidelijk wat er met de leningen wordt gedaan", "Dutch"),
        ("銀行は金利の引き上げを発表した", "Japanese"),
        ("12 345 67.8", ""),
        ("Revenue Revenue Cost Cost", ""),
    ],
)
def test_languages_are_told_by_their_frequent_words_or_their_script(text, language):
    assert language_of(text) == language
