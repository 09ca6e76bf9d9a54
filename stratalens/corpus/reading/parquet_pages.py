"""The sizes of a parquet file's pages, read from their headers: a page is unpacked as a whole, so it must be bounded.

A header is a struct in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. Its fields are those of `PageHeader`
in https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

UNPACKED_SIZE, PACKED_SIZE = 2, 3
"""Numbers of the fields of `PageHeader` that are read here."""
HEADER_BYTES = 2**10
MAX_HEADER_BYTES = 2**24
"""The limit of Arrow, which does not read a page with a longer header."""
MAX_DEPTH = 8
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
"""Types of the compact protocol."""


class Page(NamedTuple):
    """The size of a page in bytes, by its own account."""

    unpacked_bytes: int
    packed_bytes: int
    end: int
    """Where the next page begins in the file."""


def pages_of(file: int, chunk: Any) -> Iterator[Page]:
    """Yield the size of each page of a column chunk.

    Ends at the first header that cannot be read, as reading the page does.

    Args:
        file: descriptor of the file; its position does not change.
        chunk: pyarrow's metadata of the column chunk.
    """
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    start = min(start for start in starts if start)
    end = start + chunk.total_compressed_size
    while start < end:
        page = _page_at(file, start)
        if page is None or page.end <= start:
            return
        yield page
        start = page.end


def _page_at(file: int, start: int) -> Page | None:
    """Read the header of the page that begins at a byte of the file; None where there is none."""
    size = HEADER_BYTES
    while size <= MAX_HEADER_BYTES:
        content = os.pread(file, size, start)
        header = _Header(content)
        try:
            fields = header.struct()
        except IndexError:
            if len(content) < size:
                return None
            size *= 4
        except ValueError:
            return None
        else:
            if UNPACKED_SIZE not in fields or PACKED_SIZE not in fields:
                return None
            packed = fields[PACKED_SIZE]
            return Page(fields[UNPACKED_SIZE], packed, start + header.at + packed)
    return None


class _Header:
    """Reads a struct of the compact protocol from bytes that may end too early (IndexError)."""

    def __init__(self, content: bytes):
        self.content = content
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Read a struct; return field number -> value of its integers, other values are skipped.

        Raises:
            IndexError: the bytes end before the struct.
            ValueError: it is not such a struct.
        """
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 0xF, head >> 4
            number = number + step if step else self._integer()
            if kind in _INTEGERS:
                fields[number] = self._integer()
            elif kind not in _BOOLEANS:  # the value of a boolean field is its type
                self._skip(kind, depth + 1)
        return fields

    def _skip(self, kind: int, depth: int) -> None:
        if kind == _STRUCT:
            self.struct(depth)
        elif kind in _INTEGERS:
            self._varint()
        elif kind == _BINARY:
            self._forward(self._varint())
        elif kind in (*_BOOLEANS, _BYTE):
            self._forward(1)
        elif kind == _DOUBLE:
            self._forward(8)
        elif kind in _LISTS:
            head = self._byte()
            self._skip_many(self._varint() if head >> 4 == 0xF else head >> 4, (head & 0xF,), depth)
        elif kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            self._skip_many(size, (kinds >> 4, kinds & 0xF), depth)
        else:
            raise ValueError("unknown type")

    def _skip_many(self, size: int, kinds: tuple[int, ...], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        for _ in range(size):
            for kind in kinds:
                self._skip(kind, depth + 1)

    def _byte(self) -> int:
        self._forward(1)
        return self.content[self.at - 1]

    def _forward(self, count: int) -> None:
        self.at += count
        if self.at > len(self.content):
            raise IndexError

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number of too many bytes")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
