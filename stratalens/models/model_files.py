"""Look at the files of a local model before libraries open them by their names."""

import json
from pathlib import Path, PurePath

from stratalens.errors import StratalensError
from stratalens.files.regular import read_regular, reason_of, require_regular, size_text
from stratalens.models.gguf_file import files_of_gguf, is_gguf
from stratalens.models.tokenizer_parts import require_bounded_file

MAX_TEXT_BYTES = 32 * 2**20
"""Largest config, template or index of weights. The index of a model of a trillion weights takes 15 MB."""
MAX_VOCABULARY_BYTES = 256 * 2**20
"""Largest file of a tokenizer; those of 250,000 tokens take 35 MB."""
TEXT_SUFFIXES = (".json", ".txt", ".jinja", ".model", ".py")
VOCABULARY_NAMES = ("tokenizer.", "vocab.", "merges.", "spiece.", "sentencepiece.")
TOKENIZERS = "tokenizer.*json"
"""Fast tokenizers; one beside `tokenizer.json` may be for another version of the library."""
WEIGHTS_INDEXES = "*.index.json"


def require_sound_files(location: str, error_type: type[StratalensError]) -> None:
    """Check the files in the directory of a model; a Hub id is left to the Hub's client, which has its own checks.

    A file must be a regular one, and may not be a link out of the directory, save into the Hub's cache of the same
    repository. Files of text are limited in size, an index names weights in the directory alone, and a tokenizer does
    not make texts far longer. Of a GGUF file, it and a tokenizer beside it are looked at; the tokenizer in it is looked
    at when it is loaded.

    Args:
        location: a local directory, a GGUF file or a Hub id.
        error_type: class of the error to raise.

    Raises:
        StratalensError: of class `error_type`; the message names the file.
    """
    directory = Path(location)
    try:
        if is_gguf(location):
            for path in files_of_gguf(location):
                _require_sound(path, error_type)
                if path.match(TOKENIZERS):
                    require_bounded_file(path, error_type, MAX_VOCABULARY_BYTES)
        if not directory.is_dir():
            return
        for path in sorted(directory.iterdir()):
            if not path.name.startswith(".") and not path.is_dir():
                _require_sound(path, error_type)
        for index in sorted(directory.glob(WEIGHTS_INDEXES)):
            _require_own_weights(index, error_type)
        for tokenizer in sorted(directory.glob(TOKENIZERS)):
            require_bounded_file(tokenizer, error_type, MAX_VOCABULARY_BYTES)
    except OSError as error:
        raise error_type(f"{error.filename or directory}: cannot be read: {reason_of(error)}") from None


def require_own_file(path: Path, error_type: type[StratalensError]) -> None:
    """Check that a file is a regular one and no link out of its folder.

    Links from a snapshot in the Hub's cache to the blobs of the same repository are how that cache stores files.

    Raises:
        StratalensError: of class `error_type`, if it is such a link.
        OSError: it is missing, or not a regular file.
    """
    require_regular(path)
    folder, target = path.parent.resolve(), path.resolve()
    snapshot = next((parent for parent in (folder, *folder.parents) if parent.parent.name == "snapshots"), None)
    blobs = snapshot.parent.parent / "blobs" if snapshot is not None else folder
    if target.parent not in (folder, blobs):
        raise error_type(f"{path}: a link out of its folder, to {target}; copy the file here if it is the right one")


def _require_sound(path: Path, error_type: type[StratalensError]) -> None:
    require_own_file(path, error_type)
    is_vocabulary = path.name.startswith(VOCABULARY_NAMES) and path.suffix in TEXT_SUFFIXES
    limit = MAX_VOCABULARY_BYTES if is_vocabulary else MAX_TEXT_BYTES
    if path.suffix in TEXT_SUFFIXES and path.stat().st_size > limit:
        raise error_type(f"{path}: larger than {size_text(limit)}, the limit for such a file of a model")


def _require_own_weights(index: Path, error_type: type[StratalensError]) -> None:
    try:
        content = json.loads(read_regular(index, MAX_TEXT_BYTES).decode())
    except (ValueError, RecursionError):
        raise error_type(f"{index}: not valid JSON; copy or download it again") from None
    files = content.get("weight_map") if isinstance(content, dict) else None
    for name in sorted(set(map(str, files.values()))) if isinstance(files, dict) else ():
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise error_type(f"{index}: its weight_map names `{name[:100]}`, which is outside of the model's folder")
        if (index.parent / name).exists():
            require_own_file(index.parent / name, error_type)
