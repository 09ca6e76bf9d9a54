"""Read files that an earlier run stored; they may be damaged or written by another program."""

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import pandas as pd
from pyarrow import ArrowException

from stratalens.errors import ConfigError

READ_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ArrowException),
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError),
    *(SyntaxError, TokenError),
)
"""Everything the libraries raise when a file is damaged; a `try` that catches them holds nothing but reading.

The last two come from numpy, which parses the header of an array as Python.
"""


def damaged(path: Path, reason: object) -> ConfigError:
    """Make the error for a file of a result that is not as a run writes it.

    Args:
        path: the file.
        reason: what is wrong with it, or the error that was raised; at most 160 characters of it are shown.
    """
    reason_text = " ".join(str(reason).split())[:160]
    return ConfigError(f"{path}: damaged, missing or of another version ({reason_text}); run the analysis again")


def read_table(path: Path) -> pd.DataFrame:
    """Read the table of a parquet file.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return pd.read_parquet(path)
    except READ_ERRORS as error:
        raise damaged(path, error) from None
