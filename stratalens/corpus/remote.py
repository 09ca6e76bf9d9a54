"""Files behind an address, found and opened where they lie through fsspec; of a file on this machine, its path."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from stratalens.errors import CorpusError
from stratalens.files.redaction import MASK, redacted, without_secrets

CONNECT_SECONDS = 30
SILENCE_SECONDS = 60
"""How long a server may say nothing in the middle of an answer."""
REASON_CHARACTERS = 200
_WEB = ("http", "https")
_REFUSED = (401, 403, 407)
_MISSING = (404, 410)


@dataclass(frozen=True)
class Url:
    """A file on a file system that fsspec knows; what it is printed as holds no credentials."""

    filesystem: Any
    path: str
    """As the file system names it, with whatever credentials it carries."""

    def __str__(self) -> str:
        return redacted(self.filesystem.unstrip_protocol(self.path))

    def __repr__(self) -> str:
        return f"Url({self})"

    @property
    def name_path(self) -> PurePosixPath:
        """The path without host and query, whose endings tell the kind of file."""
        return PurePosixPath(urlsplit(self.path).path if _is_web(self.filesystem) else self.path)

    @property
    def suffix(self) -> str:
        """Last ending of the name, as a local path has it."""
        return self.name_path.suffix

    @property
    def suffixes(self) -> list[str]:
        """All endings of the name, as a local path has them."""
        return self.name_path.suffixes

    def open(self, mode: str, buffering: int) -> io.BufferedReader:
        """Open for reading, as a local path does; only a web server without ranges gives a stream without `seek`.

        Raises:
            CorpusError: it cannot be read; the stream raises the same in the middle.
        """
        with as_corpus_errors(str(self), self.path):
            in_ranges = not _is_web(self.filesystem) or _serves_ranges(self.filesystem, self.path)
            options = {} if in_ranges else {"block_size": 0}
            stream = self.filesystem.open(self.path, mode, **options)
        return io.BufferedReader(_Stream(stream, self, in_ranges), buffering)


class FoundFiles(NamedTuple):
    """What an address or a path stands for."""

    files: Sequence[Path | Url]
    """In a stable order; empty where there is nothing."""
    inside: bool
    """Whether a directory was named and these are the files in it, to any depth."""


def is_url(given: str | Path) -> bool:
    """Whether this is an address and not a local path."""
    return "://" in str(given)


def find_url(given: str) -> FoundFiles:
    """Find the file, the files of a directory or the matches of a glob behind an address.

    Raises:
        CorpusError: nothing there, or it cannot be reached.
    """
    shown = redacted(given)
    if MASK in given:
        raise CorpusError(f"{shown}: its credentials were left out where this was recorded; give the whole address")
    with as_corpus_errors(shown, given):
        filesystem, path = _file_system(given)
        if _is_file(filesystem, path):
            return FoundFiles([_place(filesystem, path)], inside=False)
        if path.endswith("/") or filesystem.isdir(path):
            names = [name for name in filesystem.find(path) if not _hidden(name.removeprefix(path))]
            return FoundFiles(_sorted(filesystem, names), inside=True)
        matches = [name for name, entry in filesystem.glob(path, detail=True).items() if entry["type"] == "file"]
        return FoundFiles(
            _sorted(filesystem, [name for name in matches if _hidden(name) <= _hidden(path)]), inside=False
        )


def file_at(location: str) -> Path | Url:
    """The file of a path or an address that is known to be one.

    Raises:
        CorpusError: it cannot be reached.
    """
    if not is_url(location):
        return Path(location)
    with as_corpus_errors(redacted(location), location):
        return _place(*_file_system(location))


@contextmanager
def as_corpus_errors(shown: str, location: str) -> Iterator[None]:
    """Turn whatever a file system or a service answers into one line with its remedy.

    Hold nothing but calls of foreign code inside: every package brings errors of its own, without a common base, and
    some stumble over a malformed address with a TypeError.

    Raises:
        CorpusError: in place of the error.
    """
    try:
        yield
    except (CorpusError, MemoryError):
        raise
    except Exception as error:
        raise CorpusError(f"{shown}: {_problem(error, location)}") from None


class _Stream(io.RawIOBase):
    """A stream of a file system, whose errors are ours."""

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


def _file_system(given: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    address = urlsplit(given)  # refuses what is no address more clearly than the packages do
    if address.scheme in ("s3", "s3a") and "@" in address.netloc:
        raise CorpusError(
            f"{redacted(given)}: an s3 address takes no credentials; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return url_to_fs(given, **{scheme: _web_options() for scheme in _WEB if f"{scheme}://" in given})


def _web_options() -> dict[str, object]:
    """No bound on a whole answer, which is as long as its file; nothing zipped on the way; proxies of the system."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    return {
        "client_kwargs": {"timeout": timeout, "trust_env": True},
        "headers": {"Accept-Encoding": "identity"},
    }


def _is_web(filesystem: Any) -> bool:
    return bool(set(_WEB) & set(_protocols(filesystem)))


def _is_file(filesystem: Any, path: str) -> bool:
    """Whether there is a file of exactly that name; a web server is asked only for what cannot be a list of files."""
    if path.endswith("/"):
        return False
    try:
        return filesystem.info(path)["type"] == "file"
    except FileNotFoundError as error:
        if _is_web(filesystem) and not any(sign in path for sign in "*["):
            raise
        if not isinstance(error.__cause__, OSError):
            return False
        raise


def _serves_ranges(filesystem: Any, path: str) -> bool:
    """Whether a web server gives parts of this file: fsspec would find out only in the middle of it."""
    from fsspec.asyn import sync

    async def ask() -> bool:
        session = await filesystem.set_session()
        headers = filesystem.kwargs["headers"] | {"Range": "bytes=0-0"}
        async with session.get(filesystem.encode_url(path), headers=headers) as answer:
            answer.raise_for_status()
            return answer.status == 206

    return bool(sync(filesystem.loop, ask))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _sorted(filesystem: Any, names: list[str]) -> list[Path | Url]:
    return [_place(filesystem, name) for name in sorted(names, key=PurePosixPath)]


def _place(filesystem: Any, path: str) -> Path | Url:
    return Path(path) if "file" in _protocols(filesystem) else Url(filesystem, path)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)


def _problem(error: Exception, location: str) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    status = next((one.status for one in chain if isinstance(getattr(one, "status", None), int)), None)  # pyright: ignore[reportAttributeAccessIssue]
    missing = next((one.name for one in reversed(chain) if isinstance(one, ImportError)), None)
    if missing:
        package = missing.split(".")[0]
        return f"reading this needs the package `{package}`: pip install {package}"
    if status in _REFUSED or any(
        isinstance(one, PermissionError) or "Credential" in type(one).__name__ for one in chain
    ):
        return (
            f"access was refused ({_reason(chain[-1], location)}); give credentials as the tools of this service "
            "take them, in environment variables or their own files"
        )
    if status in _MISSING or (status is None and _is_missing(chain)):
        return "no such file, directory or glob"
    return f"cannot be read ({_reason(chain[-1], location)}); check its name and the network, then run again"


def _is_missing(chain: list[BaseException]) -> bool:
    """Whether nothing but a plain `FileNotFoundError` is told; a web server's may come of a broken connection."""
    plain = FileNotFoundError
    return type(chain[0]) is plain and all(type(one) is plain or not isinstance(one, OSError) for one in chain)


def _reason(error: BaseException, location: str) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    text = f"{status} {message}" if status is not None else str(error) or type(error).__name__
    return without_secrets(" ".join(text.split()), location)[:REASON_CHARACTERS]
