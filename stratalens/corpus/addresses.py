"""What an address (URL) of text may be: a list of protocols, more of them for the user than for a file."""

from pathlib import Path

from stratalens.errors import CorpusError
from stratalens.files.redaction import MASK, redacted

PLAIN_PROTOCOLS = (
    *("file", "http", "https", "ftp", "sftp", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "hf"),
    "memory",
)
"""Protocols of addresses, whoever names them."""
NESTING_PROTOCOLS = ("zip", "tar", "libarchive", "reference", "simplecache")
"""Protocols that read through another address, as in `zip://a.txt::https://host/b.zip`; `reference` reads whatever
addresses a file lists. Only the user may name them, on the command line or in Python. `filecache` and `blockcache` are
not among them: they write the addresses, with their credentials, to the disk."""
LOCAL_PROTOCOLS = ("file", "memory")
"""Protocols that need no network."""


def is_url(path: str | Path) -> bool:
    """Whether this is an address rather than a local path."""
    return "://" in str(path)


def is_plain(address: str) -> bool:
    """Whether an address has one protocol, which reads no other address: a file may name only such addresses."""
    return "::" not in address and _protocol(address) in PLAIN_PROTOCOLS


def is_local(address: str) -> bool:
    """Whether a plain address is read without a network."""
    return _protocol(address) in LOCAL_PROTOCOLS


def require_complete(address: str) -> None:
    """Check that no part of an address was masked.

    Raises:
        CorpusError: its credentials were masked when a run was recorded.
    """
    if MASK in address:
        raise CorpusError(
            f"{redacted(address)}: its credentials were removed when it was recorded; give the complete address"
        )


def require_known_protocols(address: str) -> None:
    """Check the protocols of an address; in a nested one, a part may be a protocol without `://`, or a local path.

    Raises:
        CorpusError: one of them is not read.
    """
    for part in address.split("::"):
        names_protocol = is_url(part) or part.isalnum()
        if names_protocol and _protocol(part) not in (*PLAIN_PROTOCOLS, *NESTING_PROTOCOLS):
            raise CorpusError(
                f"{redacted(address)}: `{redacted(_protocol(part))}` is not a protocol that is read; "
                f"expected one of {', '.join(PLAIN_PROTOCOLS)}"
            )


def _protocol(address: str) -> str:
    return address.split("://")[0]
