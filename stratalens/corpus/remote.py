"""Find and open files behind an address (URL) through fsspec; an address of a local file becomes its path."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from stratalens.corpus.addresses import is_url, require_complete, require_known_protocols
from stratalens.errors import CorpusError
from stratalens.files.redaction import redacted, without_secrets

CONNECT_TIMEOUT_SECONDS = 30
READ_TIMEOUT_SECONDS = 60
"""How long a server may pause in the middle of an answer."""
MAX_REASON_CHARACTERS = 200
"""At most this much of another library's error message is quoted."""
_WEB_SCHEMES = ("http", "https")
_ACCESS_REFUSED_STATUSES = (401, 403, 407)
_NOT_FOUND_STATUSES = (404, 410)


@dataclass(frozen=True)
class Url:
    """A file on an fsspec file system. `str` and `repr` leave out credentials, so that it may be printed."""

    filesystem: Any
    path: str
    """The file system's own name for the file, credentials included."""

    def __str__(self) -> str:
        return redacted(self.filesystem.unstrip_protocol(self.path))

    def __repr__(self) -> str:
        return f"Url({self})"

    @property
    def name_path(self) -> PurePosixPath:
        """The path without host and query; its suffixes give the file type."""
        return PurePosixPath(urlsplit(self.path).path if _is_web(self.filesystem) else self.path)

    @property
    def suffix(self) -> str:
        """Last suffix of the file name, as `Path.suffix`."""
        return self.name_path.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes of the file name, as `Path.suffixes`."""
        return self.name_path.suffixes

    def open(self, mode: str, buffering: int) -> io.BufferedReader:
        """Open for reading, as `Path.open`. Only a web server without range requests gives a stream without `seek`.

        Args:
            mode: as of `open`; must be binary.
            buffering: bytes of the buffer.

        Raises:
            CorpusError: the file cannot be opened; a read that fails later raises the same.
        """
        with as_corpus_errors(str(self), self.path):
            seekable = not _is_web(self.filesystem) or _serves_ranges(self.filesystem, self.path)
            options = {} if seekable else {"block_size": 0}
            stream = self.filesystem.open(self.path, mode, **options)
        return io.BufferedReader(_Stream(stream, self, seekable), buffering)


class FoundFiles(NamedTuple):
    """The files that a path, an address, a directory or a glob names."""

    files: Sequence[Path | Url]
    """In a stable order; empty if nothing matches."""
    in_directory: bool
    """True if a directory was named and these are the files below it, at any depth."""
    left_out: Mapping[str, Sequence[Path]] = MappingProxyType({})
    """Why something in the directory is not read -> what it is."""


def find_url(address: str) -> FoundFiles:
    """Find the file, the files of a directory or the matches of a glob behind an address.

    Raises:
        CorpusError: the address cannot be reached, has a protocol that is not read, or its credentials were masked when
            a run was recorded.
    """
    require_complete(address)
    require_known_protocols(address)
    with as_corpus_errors(redacted(address), address):
        filesystem, path = _file_system(address)
        if _is_file(filesystem, path):
            return FoundFiles([_path_or_url(filesystem, path)], in_directory=False)
        if path.endswith("/") or filesystem.isdir(path):
            names = [name for name in filesystem.find(path) if not _hidden(name.removeprefix(path))]
            return FoundFiles(_sorted(filesystem, names), in_directory=True)
        matches = [name for name, entry in filesystem.glob(path, detail=True).items() if entry["type"] == "file"]
        return FoundFiles(
            _sorted(filesystem, [name for name in matches if _hidden(name) <= _hidden(path)]), in_directory=False
        )


def file_at(location: str) -> Path | Url:
    """Turn the path or address of a single file into a `Path` or a `Url`, without checking that it exists.

    Raises:
        CorpusError: the address is malformed, or the package that reads it is missing.
    """
    if not is_url(location):
        return Path(location)
    with as_corpus_errors(redacted(location), location):
        return _path_or_url(*_file_system(location))


@contextmanager
def as_corpus_errors(printed_location: str, location: str) -> Iterator[None]:
    """Turn any error of a file system or a service into a one-line CorpusError with its remedy.

    Only calls to other libraries belong inside: their errors have no common base class, and some raise a TypeError for
    a malformed address, so every exception is caught.

    Args:
        printed_location: path or address without credentials, with which the message begins.
        location: the same with credentials, which are masked in the rest of the message.

    Raises:
        CorpusError: in place of the other library's error.
    """
    try:
        yield
    except (CorpusError, MemoryError):
        raise
    except Exception as error:
        raise CorpusError(f"{printed_location}: {_describe_error(error, location)}") from None


class _Stream(io.RawIOBase):
    """A stream of a file system that raises CorpusError in place of the file system's own errors."""

    def __init__(self, stream: Any, url: Url, seekable: bool):
        self._stream, self._url, self._seekable = stream, url, seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        with as_corpus_errors(str(self._url), self._url.path):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with as_corpus_errors(str(self._url), self._url.path):
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _file_system(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path on it."""
    from fsspec.core import url_to_fs

    parts = urlsplit(address)  # rejects a malformed address with a clearer message than the packages do
    if parts.scheme in ("s3", "s3a") and "@" in parts.netloc:
        raise CorpusError(
            f"{redacted(address)}: credentials are not accepted in an s3 address; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return url_to_fs(address, **{scheme: _web_options() for scheme in _WEB_SCHEMES if f"{scheme}://" in address})


def _web_options() -> dict[str, object]:
    """No time limit on a whole answer, which may be a huge file; no compression in transit; the system's proxies."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=READ_TIMEOUT_SECONDS)
    return {
        "client_kwargs": {"timeout": timeout, "trust_env": True},
        "headers": {"Accept-Encoding": "identity"},
    }


def _is_web(filesystem: Any) -> bool:
    return bool(set(_WEB_SCHEMES) & set(_protocols(filesystem)))


def _is_file(filesystem: Any, path: str) -> bool:
    """Whether a file of exactly that name exists. An address that ends in `/` is a directory and is not requested."""
    if path.endswith("/"):
        return False
    try:
        return filesystem.info(path)["type"] == "file"
    except FileNotFoundError as error:
        if _is_web(filesystem) and not any(character in path for character in "*["):
            raise
        if not isinstance(error.__cause__, OSError):
            return False
        raise


def _serves_ranges(filesystem: Any, path: str) -> bool:
    """Whether a web server answers range requests for this file; fsspec would notice only while reading it."""
    from fsspec.asyn import sync

    async def request_one_byte() -> bool:
        session = await filesystem.set_session()
        headers = filesystem.kwargs["headers"] | {"Range": "bytes=0-0"}
        async with session.get(filesystem.encode_url(path), headers=headers) as answer:
            answer.raise_for_status()
            return answer.status == 206

    return bool(sync(filesystem.loop, request_one_byte))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _sorted(filesystem: Any, names: list[str]) -> list[Path | Url]:
    return [_path_or_url(filesystem, name) for name in sorted(names, key=PurePosixPath)]


def _path_or_url(filesystem: Any, path: str) -> Path | Url:
    return Path(path) if "file" in _protocols(filesystem) else Url(filesystem, path)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)


def _describe_error(error: Exception, location: str) -> str:
    """What went wrong and what to do, from an error and its causes."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    status = next((link.status for link in chain if isinstance(getattr(link, "status", None), int)), None)  # pyright: ignore[reportAttributeAccessIssue]
    missing = next((link.name for link in reversed(chain) if isinstance(link, ImportError)), None)
    if missing:
        package = missing.split(".")[0]
        return f"reading this needs the package `{package}`: pip install {package}"
    if status in _ACCESS_REFUSED_STATUSES or any(
        isinstance(link, PermissionError) or "Credential" in type(link).__name__ for link in chain
    ):
        return (
            f"access was refused ({_short_reason(chain[-1], location)}); give credentials the way the tools of this "
            "service expect them, in environment variables or configuration files"
        )
    if status in _NOT_FOUND_STATUSES or (status is None and _is_not_found(chain)):
        return "no such file, directory or glob"
    return f"cannot be read ({_short_reason(chain[-1], location)}); check its name and the network, then run again"


def _is_not_found(chain: list[BaseException]) -> bool:
    """Whether no error but a plain FileNotFoundError was raised; with another cause it may be a broken connection."""
    plain = FileNotFoundError
    return type(chain[0]) is plain and all(type(link) is plain or not isinstance(link, OSError) for link in chain)


def _short_reason(error: BaseException, location: str) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    text = f"{status} {message}" if status is not None else str(error) or type(error).__name__
    return without_secrets(" ".join(text.split()), location)[:MAX_REASON_CHARACTERS]
