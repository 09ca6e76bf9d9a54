"""Seeded 64-bit hashes: the only source of randomness in splits and samples, equal on any machine, in any order."""

import hashlib


def hash64(*parts: str | int | bytes) -> int:
    """Hash the parts, in order, to an unsigned 64-bit integer (BLAKE2b, parts length-prefixed)."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")
