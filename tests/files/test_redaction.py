"""A printed address shows where it points but none of its credentials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratalens.files.redaction import redacted, redacted_settings, without_secrets

SHOWN = {
    "https://user:password@host/x": "https://***@host/x",
    "https://user@host:8443/x": "https://***@host:8443/x",
    "https://host/x.csv?X-Amz-Signature=abc&part=2": "https://host/x.csv?X-Amz-Signature=***&part=***",
    "https://host/x.csv?token": "https://host/x.csv?***",
    "https://host/x.csv?a=b=c;d=e#token": "https://host/x.csv?a=***;d=***#***",
    "https://host/x.csv#token": "https://host/x.csv#***",
    "s3://key:secret@bucket/a.txt": "s3://***@bucket/a.txt",
    "https://user:pass/word@host/x": "https://***@host/x",
    "https://user:pass?word@host/x": "https://***@host/x",
    "https://user:pass#word@host/x": "https://***@host/x",
    "https://user:p@ss@host/x": "https://***@host/x",
    "http://[::1]:8000/x?a=b": "http://[::1]:8000/x?a=***",
    "zip://a.txt::https://user:pw@host/b.zip?sig=x": "zip://a.txt::https://***@host/b.zip?sig=***",
    "simplecache::https://host/b?sig=x": "simplecache::https://host/b?sig=***",
    "https://host/dir/mail@home/x.txt": "https://host/dir/mail@home/x.txt",
    "hf:org/name:train:text": "hf:org/name:train:text",
    "/data/what?is=this#x@y/a.txt": "/data/what?is=this#x@y/a.txt",
    "meta-llama/Llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
    "https:/user:password@host/x?sig=abc": "https:/***@host/x?sig=***",
    "//user:password@host/x": "//***@host/x",
    "//server/share/a.txt": "//server/share/a.txt",
    "user:password@host/v1": "***@host/v1",
    "hf:/data/a#b@c:train:text": "hf:/data/a#b@c:train:text",
    "C:/data/what?is=this": "C:/data/what?is=this",
    "/data/hf_AbCdEfGhIjKlMnOpQrStUvWxYz/a.txt": "/data/***/a.txt",
    "/data/9fJ2kQ7xLm4Zp1Rt8Vb3Nc6Hd5Gs0WyA/a.txt": "/data/***/a.txt",
    "/models/0123456789abcdef0123456789abcdef01234567": "/models/0123456789abcdef0123456789abcdef01234567",
    "": "",
}


@pytest.mark.parametrize(("location", "shown"), SHOWN.items(), ids=SHOWN)
def test_credentials_queries_and_fragments_are_masked_and_nothing_else(location, shown):
    assert redacted(location) == shown


@pytest.mark.parametrize("location", SHOWN)
def test_masking_twice_changes_nothing_more(location):
    assert redacted(redacted(location)) == redacted(location)


SECRET = st.text("abcXYZ019:/?#@%+=&;.~_- ", max_size=12).map(lambda text: f"5ec7e7{text}5ec7e7")


@given(SECRET)
def test_no_password_is_shown_whatever_its_characters(secret):
    assert "5ec7e7" not in redacted(f"https://user:{secret}@host/x.jsonl")


@given(SECRET.filter(lambda text: not set(text) & set("=&;#")))
def test_no_value_of_a_query_is_shown(secret):
    assert "5ec7e7" not in redacted(f"https://host/x.jsonl?first=1&sig={secret}&last={secret}#{secret}")


def test_an_address_is_masked_in_every_option():
    values = {"domain_data": ["https://u:p@h/x", "local.txt"], "labeling_endpoint": "http://u:p@h/v1", "top_n": 3}
    shown = {"domain_data": ["https://***@h/x", "local.txt"], "labeling_endpoint": "http://***@h/v1", "top_n": 3}
    assert redacted_settings({**values, "labeling_model": None}) == {**shown, "labeling_model": None}


def test_an_error_text_loses_the_secrets_of_its_address_however_they_are_quoted():
    location = "https://user:pass%2Fword@host/x?sig=a%2Bbc"
    text = 'bucket "user:pass/word" of pass%2Fword, a+bc, a%2Bbc and https://other/?key=1234'
    assert without_secrets(text, location) == 'bucket "***" of ***, ***, *** and https://other/?key=***'
