"""Files that a run stored for later stages, read with distrust: they may be torn, or come from somewhere else."""

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import pandas as pd
from pyarrow import ArrowException

from stratalens.errors import ConfigError

UNREADABLE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ArrowException),
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError),
    *(SyntaxError, TokenError),
)
"""What the libraries raise over bytes that are not what they seem; such a `try` holds nothing but reading.

The last two: numpy reads the header of an array as Python.
"""


def damaged(path: Path, reason: object) -> ConfigError:
    """The error over a file of a result that is not as a run writes it."""
    said = " ".join(str(reason).split())[:160]
    return ConfigError(f"{path}: damaged, missing or of another version ({said}); run the analysis again")


def read_table(path: Path) -> pd.DataFrame:
    """The table of a parquet file.

    Raises:
        ConfigError: there is none.
    """
    try:
        return pd.read_parquet(path)
    except UNREADABLE as error:
        raise damaged(path, error) from None
