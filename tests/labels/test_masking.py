"""The API key is masked in every text that comes back, in whatever form; other texts stay as they are."""

import base64
import json
from urllib.parse import quote

import pytest

from stratalens.labels.llm.masking import MAX_SHOWN_CHARACTERS, MIN_KEY_PIECE, KeyMask

KEY = "sk-Very/Secret+01:23~456789"
"""With characters that JSON, addresses and base64 write in other ways."""


def masked(text: str) -> str:
    return KeyMask(KEY).mask(text)


@pytest.mark.parametrize("form", [KEY, KEY.upper(), KEY.lower(), KEY.swapcase()])
def test_the_key_is_masked_in_any_case_and_the_rest_stays(form):
    assert masked(f"Incorrect key {form}, see\nthe page, {form}") == "Incorrect key ***, see\nthe page, ***"
    assert masked(form) == "***"


@pytest.mark.parametrize("length", range(MIN_KEY_PIECE, len(KEY)))
def test_beginnings_and_ends_and_what_lies_between_are_masked(length):
    assert masked(f"key {KEY[:length]}...") == "key ***..."
    assert masked(f"key ...{KEY[-length:]} is") == "key ...*** is"
    assert masked(f"<{KEY[3 : 3 + length]}>").count(KEY[3 : 3 + length]) == 0


def test_shorter_pieces_stay():
    piece = KEY[: MIN_KEY_PIECE - 1]
    assert masked(f"key {piece}...") == f"key {piece}..."


@pytest.mark.parametrize(
    "form",
    [
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        "".join(f"%{ord(ch):02x}" for ch in KEY),
        KEY.replace("/", "\\/"),
        "".join(f"\\u{ord(ch):04x}" for ch in KEY),
        "".join(f"\\u{ord(ch):04X}" if at % 2 else ch for at, ch in enumerate(KEY)),
    ],
)
def test_the_key_is_masked_as_addresses_and_json_write_it(form):
    assert masked(f'{{"key": "{form}", "path": "a\\/b%20c\\u0041"}}') == '{"key": "***", "path": "a\\/b%20c\\u0041"}'


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("after", ["", "!", "!!"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_key_is_masked_in_base64_wherever_it_lies(before, after, encode):
    encoded = encode(f"{before}{KEY}{after}".encode()).decode()
    shown = masked(f"Basic {encoded}").removeprefix("Basic ")
    assert shown.count("***") == 1
    assert len(shown) < len("***") + 4 * (len(before) + len(after)) / 3 + 8


@pytest.mark.parametrize(
    "text", ["", "a", "Banks and loans", '{"ratings": [1, 2, 3]}', "İstanbul ﬁnance ſk-very", "%4g\\u00"]
)
def test_other_texts_stay_as_they_are(text):
    assert masked(text) == text
    assert masked(f"{text}{KEY}{text}") == f"{text}***{text}"


@pytest.mark.parametrize("key", [None, "", "none", "ollama", "a" * (MIN_KEY_PIECE - 1)])
def test_no_key_and_one_too_short_to_protect_anything_mask_nothing(key):
    text = f"none ollama {'a' * 20} loans"
    assert KeyMask(key).mask(text) == text


def test_a_long_key_and_a_long_text_take_little_time():
    mask = KeyMask("".join(f"{number:x}" for number in range(700)))
    assert mask.mask("a" * 20_000) == "a" * 20_000


def test_a_shown_text_is_one_line_short_and_printable():
    shown = KeyMask(KEY).one_line(f"first\nsecond\t{KEY}\x1b[2J\u202e " + "x" * 10_000)
    assert shown.startswith("first second ***\ufffd[2J\ufffd xxx")
    assert len(shown) == MAX_SHOWN_CHARACTERS
    assert KEY[:MIN_KEY_PIECE] not in KeyMask(KEY).one_line("x" * (MAX_SHOWN_CHARACTERS - 10) + KEY)


def test_the_mask_does_not_show_the_key():
    assert "Secret" not in repr(KeyMask(KEY)) + str(KeyMask(KEY))
    assert json.dumps(masked(json.dumps(KEY))) == '"\\"***\\""'
