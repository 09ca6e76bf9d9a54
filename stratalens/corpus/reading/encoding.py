"""Which encoding the bytes of a text are in: UTF-8 unless the bytes speak against it."""

import codecs
import re
from collections import Counter
from collections.abc import Sequence

from stratalens.config.text_words import known_encoding
from stratalens.corpus.language import LETTERS_OF, language_of
from stratalens.errors import CorpusError

SAMPLE_BYTES = 2**18
"""Bytes by which charset-normalizer judges."""
MIN_TELLING_BYTES = 8
"""Fewer bytes beyond ASCII do not tell one 8-bit encoding from another: it is Windows' Western one or none."""
MAX_CONTROL_SHARE = 0.02
MAX_CONTROLS = 4
"""A text with more control characters than this share of it and this number is not plausible."""
MIN_ZERO_SHARE_OF_UTF_32 = 0.9
"""Share of the zero bytes in the places of a four-byte character where all are zero."""
MIN_ZERO_SHARE_OF_UTF_16 = 0.2
"""The same of the higher byte of two, in text of few letters beyond Latin ones; of the lower one far fewer are zero."""
MIN_HIGH_SHARE = 0.8
"""Share of higher bytes that would be control characters in UTF-16 of most alphabets: 4 in all Cyrillic letters."""
_ZERO = b"\0"
_CONTROLS = bytes({*range(0x20)} - set(b"\t\n\x0b\x0c\r"))
WESTERN = "cp1252"
_RARE = ("mac_greek",)
"""Encodings that next to no file has, and that are mistaken for others."""
LATIN_ENCODINGS = (WESTERN, "cp1250", "cp1254", "iso8859_2", "mac_roman", "cp850")
USUAL_MARKS = "\xa0\xad€£§°±©®«»¿¡–—‘’‚“”„•…‹›·´½™"
ENGLISH_BORROWS = "àâäåæçèéêëíîïñóôöøùúûüœ"
MIN_OWN_SHARE = 0.85
"""Share of the characters beyond ASCII that must be letters of the language, or usual marks."""
UNDECODABLE = "\udcff"
"""Stands in decoded text for a byte that is not of the encoding. No encoding gives it."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf_8_sig",
    codecs.BOM_UTF32_LE: "utf_32",
    codecs.BOM_UTF32_BE: "utf_32",
    codecs.BOM_UTF16_LE: "utf_16",
    codecs.BOM_UTF16_BE: "utf_16",
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters but tab, line ends, and the one that begins a code of a terminal."""
_ESCAPES = re.compile(rb"\x1b\$[@B()]|\x1b\([IJ]")
"""How the encodings of ISO 2022, of ASCII bytes alone, change their set of characters."""
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,300}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.I
)


def start_encoding(sample: bytes) -> str | None:
    """Encoding of a text by its first bytes: its byte order mark, or zero bytes in the places of UTF-16 or UTF-32."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return encoding
    even = sample[: len(sample) - len(sample) % 4]
    zeros = [_share(even[place::4], _ZERO) for place in range(4)]
    for encoding, places in {"utf_32_le": (2, 3), "utf_32_be": (0, 1)}.items():
        if min(zeros[place] for place in places) > MIN_ZERO_SHARE_OF_UTF_32:
            return encoding
    for encoding, (high, low) in {"utf_16_le": (1, 0), "utf_16_be": (0, 1)}.items():
        both = zeros[high], zeros[high + 2]
        if min(both) > MIN_ZERO_SHARE_OF_UTF_16 and max(zeros[low], zeros[low + 2]) < min(both) / 4:
            return encoding
        if _share(even[high::2], _CONTROLS) > MIN_HIGH_SHARE and _share(even[low::2], _CONTROLS) < 0.5:
            return encoding
    return None


def _share(sample: bytes, few: bytes) -> float:
    """Share of a sample's bytes that are among a few."""
    return (len(sample) - len(sample.translate(None, few))) / max(1, len(sample))


def declared_encoding(sample: bytes) -> str | None:
    """Encoding that the beginning of an HTML or XML text declares, if the sample is of it."""
    found = _DECLARED.search(sample[:4096])
    encoding = known_encoding(found[1].decode("ascii")) if found else None
    if encoding in ("latin_1", "iso8859_1", "ascii"):  # as browsers take it
        encoding = WESTERN
    return encoding if encoding and is_of(sample, encoding) and not encoding.startswith(("utf_16", "utf_32")) else None


def is_of(sample: bytes, encoding: str) -> bool:
    """Whether bytes are of an encoding; the last character may be cut."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except (UnicodeError, ValueError):
        return False
    return True


def encoding_of(path: object, sample: bytes) -> str:
    """Encoding of a text by bytes from its first one beyond ASCII on.

    Args:
        path: the file, for the error message.
        sample: bytes of the text; a character may be cut at their end.

    Raises:
        CorpusError: they are of no known encoding.
    """
    plausible = _has_few_controls(sample) and _ESCAPES.search(sample) is None
    if plausible and is_of(sample, "utf_8"):
        return "utf_8"
    if plausible and _mostly_utf_8(sample):
        return "utf_8"  # with damaged bytes, which are refused where they are
    return _recognised(sample) or _not_text(path)


def _has_few_controls(sample: bytes) -> bool:
    return len(_CONTROL.findall(sample)) <= max(MAX_CONTROLS, MAX_CONTROL_SHARE * len(sample))


def _mostly_utf_8(sample: bytes) -> bool:
    """Whether more characters beyond ASCII than bytes that do not belong are found where it is read as UTF-8."""
    text = sample.decode("utf-8", "surrogateescape")
    beyond = [character for character in text if character > "\x7f"]
    damaged = sum("\udc80" <= character <= "\udcff" for character in beyond)
    return len(beyond) - damaged > damaged


def _recognised(sample: bytes) -> str | None:
    import charset_normalizer

    telling = re.search(rb"[\x80-\xff\x00-\x08\x0e-\x1f]", sample)
    start = max(0, telling.start() - SAMPLE_BYTES // 4) if telling else 0
    sample = sample[start - start % 4 :][:SAMPLE_BYTES]
    matches = charset_normalizer.from_bytes(sample, cp_exclusion=list(_RARE))
    best = matches.best()
    beyond_ascii = sum(byte > 0x7F for byte in sample)
    if beyond_ascii and _has_few_controls(sample):
        found = [encoding for match in matches for encoding in match.could_be_from_charset]
        latin = _latin_encoding(sample, [*LATIN_ENCODINGS, *found])
        if latin is None and beyond_ascii < MIN_TELLING_BYTES:
            is_western = _share_of(sample, WESTERN, ENGLISH_BORROWS) > MIN_OWN_SHARE
            return WESTERN if is_western else "utf_8"  # with damaged bytes
        if latin:
            return latin
    if best is None or (best.encoding == "utf_8" and not is_of(sample, "utf_8")):
        return None
    return best.encoding


def _latin_encoding(sample: bytes, candidates: Sequence[str]) -> str | None:
    """The first encoding in which the text has the most letters of its language, and next to no others.

    The language is told by frequent words, most of which are ASCII. charset-normalizer often takes a Western encoding
    for a Central European one, which differs in a few letters.
    """
    language = language_of(sample.decode("latin-1"))
    letters = LETTERS_OF.get(language)
    if letters is None:
        return (
            WESTERN if language == "English" and _share_of(sample, WESTERN, ENGLISH_BORROWS) > MIN_OWN_SHARE else None
        )
    shares = {encoding: _share_of(sample, encoding, letters) for encoding in candidates if is_of(sample, encoding)}
    best = max(shares, key=lambda encoding: shares[encoding], default=None)
    return best if best and shares[best] > MIN_OWN_SHARE else None


def _share_of(sample: bytes, encoding: str, letters: str) -> float:
    """Of the characters beyond ASCII, the share of these letters and of usual marks."""
    beyond = Counter(character for character in sample.decode(encoding, "ignore") if character > "\x7f")
    own = sum(count for character, count in beyond.items() if character.lower() in letters or character in USUAL_MARKS)
    return own / max(1, beyond.total())


def _not_text(path: object) -> str:
    raise CorpusError(
        f"{path}: neither UTF-8 nor another encoding of text that can be recognised; name it with --encoding, or leave "
        "the file out if it is no text"
    )
