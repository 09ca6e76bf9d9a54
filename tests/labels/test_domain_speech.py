"""General text that speaks of the domain is told by the terms of the lexicon."""

import json

import pytest

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, text_file
from stratalens.corpus.text_sample import SampledText
from stratalens.labels.concepts.domain_speech import domain_speech, domain_speech_warnings
from stratalens.labels.concepts.lexicon import load_lexicon


def texts(name: str) -> list[SampledText]:
    lines = text_file(name).read_text(encoding="utf-8").splitlines()
    return [SampledText(at, at, json.loads(line)["text"], 1000) for at, line in enumerate(lines)]


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_built_in_general_text_is_silent_and_a_mixture_is_told(domain):
    lexicon, own, general = load_lexicon(domain), texts(domain), texts("general")
    assert domain_speech_warnings((own, general), lexicon) == []
    mixed = general[:120] + own[::5]
    share = domain_speech((own, mixed), lexicon)
    assert share is not None
    assert share == pytest.approx(0.75 * len(own[::5]) / len(mixed), abs=0.06)
    [warning] = domain_speech_warnings((own, mixed), lexicon)
    assert warning.startswith(f"{share:.0%} of the general texts speak of the domain")


def test_with_few_texts_or_a_foreign_lexicon_nothing_is_said():
    own, general = texts("medical"), texts("general")
    assert domain_speech((own[:19], general), load_lexicon("medical")) is None
    silent = [text._replace(text="la la la") for text in own]
    assert domain_speech((silent, general), load_lexicon("medical")) is None
