"""Models in one GGUF file, as llama.cpp writes them: found, looked at before a library reads them, and described.

Layout: magic, version, number of tensors, number of entries; the entries (name, type, value); the tensors (name, shape,
type, offset). See https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import re
import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from stratalens.errors import ModelError
from stratalens.files.regular import open_regular, reason_of
from stratalens.models.hub import GGUF_SUFFIX

MAGIC = b"GGUF"
VERSIONS = (2, 3)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""Of other files of weights; a directory that has some is no GGUF model."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
"""A tokenizer beside the file is used in place of the one in it."""
MAX_ENTRIES = 65_536
"""Of entries and of tensors; a model of a trillion parameters has some thousands."""
MAX_DIMENSIONS = 8
MAX_NAMED_FILES = 5
PART = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.gguf")
"""Name of one of several files that hold a model together."""
PROJECTOR = "mmproj"
"""The name of a file for images beside a model begins so."""
NUMBER_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type of a number -> its bytes."""
STRING, ARRAY = 8, 9
PLAIN = ("F64", "F32", "F16", "BF16")
"""Types of weights that are not quantised."""


def gguf_in(path: Path) -> Path | None:
    """The GGUF file that a path names, or that a directory without other weights holds; None if there is none.

    Raises:
        ModelError: the directory holds several, or one in parts.
    """
    if path.suffix == GGUF_SUFFIX and path.is_file():
        if PART.fullmatch(path.name):
            raise _of_parts(path)
        return path
    if not path.is_dir() or any(own.suffix in WEIGHT_SUFFIXES for own in path.iterdir()):
        return None
    files = sorted(own for own in path.iterdir() if own.suffix == GGUF_SUFFIX and not own.name.startswith(PROJECTOR))
    if files and PART.fullmatch(files[0].name):
        raise _of_parts(path)
    if len(files) > 1:
        names = ", ".join(own.name for own in files[:MAX_NAMED_FILES])
        more = f" and {len(files) - MAX_NAMED_FILES} others" if len(files) > MAX_NAMED_FILES else ""
        raise ModelError(f"{path}: it holds several GGUF files ({names}{more}); give one of them with --base_model")
    return files[0] if files else None


def _of_parts(path: Path) -> ModelError:
    return ModelError(
        f"{path}: a GGUF file in parts, which are not read; join them with `llama-gguf-split --merge FIRST_PART "
        "NEW.gguf`, and give NEW.gguf"
    )


def is_gguf(location: str) -> bool:
    """Whether the location of a model is a GGUF file."""
    return location.endswith(GGUF_SUFFIX) and Path(location).is_file()


def gguf_arguments(location: str) -> tuple[str, dict[str, str]]:
    """What transformers is given in place of the location of a model: its directory, and the file if it is GGUF."""
    if not is_gguf(location):
        return location, {}
    path = Path(location)
    return str(path.parent), {"gguf_file": path.name}


def files_of_gguf(location: str) -> list[Path]:
    """The file of a GGUF model, and those of a tokenizer beside it that is used in place of its own."""
    path = Path(location)
    own = [] if tokenizer_arguments(location)[1] else sorted(path.parent.glob("*.json"))
    return [path, *(file for file in own if file.is_file())]


def tokenizer_arguments(location: str) -> tuple[str, dict[str, str]]:
    """The same for the tokenizer, which may be in files beside a GGUF file."""
    directory, file = gguf_arguments(location)
    return directory, {} if file and all((Path(directory) / name).is_file() for name in TOKENIZER_FILES) else file


def describe_gguf(path: Path) -> str:
    """Say how its weights are stored, after a check that a library can read the file to its end.

    Raises:
        ModelError: it is damaged or no GGUF file.
    """
    from gguf import GGMLQuantizationType

    try:
        with open_regular(path) as stream:
            types = _Header(stream, path.stat().st_size).tensor_types()
        kind = GGMLQuantizationType(types.most_common(1)[0][0]).name
    except (OSError, ValueError, struct.error, IndexError, UnicodeError) as error:
        raise ModelError(f"{path}: not a readable GGUF file ({reason_of(error)}); copy or download it again") from None
    bits = "".join(letter for letter in kind.split("_")[0] if letter.isdigit())
    packed = ", dequantised; they are not those that the model was published with" if kind not in PLAIN else ""
    return f"{path.name}: weights of {bits} bits ({kind}){packed}"


class _Header:
    """Reads the entries and the list of tensors, and checks that they lie within the file."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream = stream
        self.size = size

    def tensor_types(self) -> Counter[int]:
        """Type of tensors -> number of weights that have it."""
        magic, version = self._read(4), self._number("<I")
        if magic != MAGIC or version not in VERSIONS:
            raise ValueError(f"it begins with {magic!r}, version {version}")
        tensors, entries = self._count("<Q", MAX_ENTRIES), self._count("<Q", MAX_ENTRIES)
        for _ in range(entries):
            self._skip_text()
            self._skip_value(self._number("<I"))
        types: Counter[int] = Counter()
        for _ in range(tensors):
            self._skip_text()
            weights = 1
            for _ in range(self._count("<I", MAX_DIMENSIONS)):
                weights *= self._number("<Q")
            types[self._number("<I")] += weights
            if self._number("<Q") > self.size:
                raise ValueError("a tensor begins after its end")
        return types

    def _skip_value(self, kind: int) -> None:
        if kind == STRING:
            self._skip_text()
        elif kind == ARRAY:
            kind, length = self._number("<I"), self._count("<Q", self.size)
            if kind == STRING:
                for _ in range(length):
                    self._skip_text()
            else:
                self._skip(length * self._size_of(kind))
        else:
            self._skip(self._size_of(kind))

    def _size_of(self, kind: int) -> int:
        if kind not in NUMBER_SIZES:
            raise ValueError(f"type {kind} of an entry is unknown")
        return NUMBER_SIZES[kind]

    def _skip_text(self) -> None:
        self._skip(self._number("<Q"))

    def _skip(self, length: int) -> None:
        if length > self.size - self.stream.tell():
            raise ValueError("an entry ends after the file")
        self.stream.seek(length, 1)

    def _count(self, form: str, most: int) -> int:
        number = self._number(form)
        if number > most:
            raise ValueError(f"it has {number} entries, tensors or dimensions")
        return number

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._read(struct.calcsize(form)))
        return number

    def _read(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) < length:
            raise ValueError("it is cut short")
        return data
