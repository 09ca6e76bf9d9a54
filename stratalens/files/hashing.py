"""Seeded 64-bit hashes: the only source of randomness in splits and samples, the same on every machine."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE_CHARACTERS = 1_000_000
"""Longer texts are encoded in pieces of this size, so that hashing a huge document makes no copy of it."""


def hash64(*parts: str | int | bytes) -> int:
    """Hash the parts, in order, to an unsigned 64-bit integer (BLAKE2b, parts length-prefixed)."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str) and len(part) > PIECE_CHARACTERS:
            digest.update(sum(map(len, _encoded_pieces(part))).to_bytes(8, "little"))
            for piece in _encoded_pieces(part):
                digest.update(piece)
            continue
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def first_by_hash(documents: Iterable[int], count: int, seed: int) -> list[int]:
    """The `count` documents with the smallest seeded hashes: a sample that does not depend on their order."""
    return heapq.nsmallest(count, map(int, documents), key=lambda document: hash64(seed, "sample", document))


def _encoded_pieces(text: str) -> Iterator[bytes]:
    """Yield the UTF-8 bytes of a text in pieces; joined, they are the bytes of the whole text."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS].encode("utf-8", "surrogatepass")


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of the content of a file, as hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 over the names and contents of files, in the order of their paths, as hexadecimal digits."""
    return combined_digest((path.name, sha256_of(path)) for path in sorted(paths))


def combined_digest(digests: Iterable[tuple[str, str]]) -> str:
    """Compute the SHA-256 over names and their digests, as hexadecimal digits."""
    combined = hashlib.sha256()
    for name, digest in digests:
        combined.update(f"{name}:{digest}\n".encode())
    return combined.hexdigest()
