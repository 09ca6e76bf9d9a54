"""Panics of libraries written in Rust, such as tokenizers: errors that are no `Exception` and write a report."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STANDARD_ERROR = 2
"""File descriptor of standard error, to which a library in Rust writes directly."""


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a library in Rust."""
    return type(error).__module__ == "pyo3_runtime" and type(error).__name__ == "PanicException"


@contextmanager
def panics_silenced() -> Iterator[None]:
    """Hide the report of a panic inside the block; whatever else is written to standard error is shown after it."""
    try:
        shown = os.dup(STANDARD_ERROR)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as written:
        _flush()
        os.dup2(written.fileno(), STANDARD_ERROR)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = is_panic(error)
            raise
        finally:
            _flush()
            os.dup2(shown, STANDARD_ERROR)
            if not panicked:
                written.seek(0)
                with suppress(OSError):
                    os.write(shown, written.read())
            os.close(shown)


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):  # None or closed where the program has no terminal
        sys.stderr.flush()
