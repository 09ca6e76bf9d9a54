"""Words by which options name an encoding or a delimiter."""

import codecs
import encodings.aliases

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
"""Words for delimiters that are hard to type."""
_NO_ENCODINGS_OF_TEXT = ("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec")


def known_encoding(name: str) -> str | None:
    """Python's name of an encoding of text, as it names its modules; None if there is no such encoding."""
    try:
        plain = encodings.normalize_encoding(codecs.lookup(name).name).lower()
    except (LookupError, ValueError):
        return None
    module = encodings.aliases.aliases.get(plain, plain)
    names = set(encodings.aliases.aliases.values()).difference(_NO_ENCODINGS_OF_TEXT)
    return module if module in names or module == "utf_8_sig" else None


def delimiter_named(name: str) -> str | None:
    """The delimiter that a user's word means; None if it means none."""
    delimiter = DELIMITERS.get(name.lower(), name)
    return delimiter if len(delimiter) == 1 and delimiter not in '\r\n"\\\0' else None
