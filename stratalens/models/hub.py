"""Decide whether a name is a local directory or a Hugging Face Hub id, and turn Hub errors into one-line messages."""

import pickle
import re
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stratalens.errors import CheckpointError, ModelError, StratalensError
from stratalens.files.locations import user_path
from stratalens.files.redaction import redacted
from stratalens.models.memory import out_of_memory
from stratalens.models.panics import is_panic

HUB_LIBRARIES = ("httpx", "httpx2", "huggingface_hub", "safetensors", "safetensors_rust")
"""Libraries whose errors mean that a repository or one of its files cannot be downloaded or read."""
FILE_ERRORS = (OSError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)
"""Errors by which other libraries report a file that is missing, damaged, or says what they do not know."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
OTHER_SHAPES = "ignore_mismatched_sizes"
"""An option named in transformers' RuntimeError about weights of other shapes than the configuration says."""
CODE_OF_MODELS = ("transformers_modules", "torch.nn.modules.module")
"""Code that comes with models, and what calls the parts of a model as it runs: errors in these are not about files."""
GGUF_SUFFIX = ".gguf"
"""Of a model in one file, as llama.cpp writes it."""
MAX_REASON_CHARACTERS = 200
"""At most this much of a name or of another library's error message is quoted."""


def local_or_hub(name: str, error_type: type[StratalensError], file_suffixes: tuple[str, ...] = ()) -> str:
    """Return the path of the local directory of that name, else the name itself if it has the form of a Hub id.

    Args:
        name: a path, in which `~` is expanded, or a Hub id.
        error_type: class of the error to raise.
        file_suffixes: a file whose name ends in one of these is taken as well as a directory.

    Raises:
        StratalensError: of class `error_type`, if the name is neither, or the path cannot be read.
        ConfigError: the path begins with the home directory of a user who is not known.
    """
    try:
        path = user_path(name)
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:
        reason = error.strerror or error
        raise error_type(f"{redacted(name)[:MAX_REASON_CHARACTERS]}: cannot be read: {reason}") from None
    if is_directory or (exists and path.suffix in file_suffixes):
        return str(path)
    if exists:
        raise error_type(f"{redacted(name)}: a directory was expected, this is a file")
    if not HUB_ID.fullmatch(name):
        raise error_type(f"{redacted(name)}: no such directory, and not a Hub id such as organisation/name")
    return name


def is_on_this_machine(name: str, revision: str | None, error_type: type[StratalensError]) -> bool:
    """Whether a name is a local directory, or the cache of the Hub holds files of this revision of the repository.

    Args:
        name: a path or a Hub id.
        revision: branch, tag or commit of the repository; None is its default branch.
        error_type: class of the error to raise.

    Raises:
        StratalensError: of class `error_type`; see `local_or_hub`.
    """
    location = local_or_hub(name, error_type, (GGUF_SUFFIX,) if error_type is ModelError else ())
    if Path(location).exists():
        return True
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(location, revision=revision, local_files_only=True, allow_patterns=[])
    except (OSError, ValueError):  # ValueError: not a valid Hub id
        return False
    return True


@contextmanager
def hub_errors(source: str, error_type: type[StratalensError]) -> Iterator[None]:
    """Turn errors of loading a model or SAE, from the Hub or from disk, into one line with its remedy.

    Errors of the Hub and of files are described; any other error of a library keeps its own words. Errors of this
    package are left alone.

    Args:
        source: local directory or Hub id that is loaded.
        error_type: class of the error to raise.

    Raises:
        StratalensError: of class `error_type`, in place of another library's error.
    """
    try:
        yield
    except BaseException as error:
        if is_panic(error):
            reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
            raise error_type(f"{source}: damaged; a library that reads it failed ({reason})") from None
        if not isinstance(error, Exception) or isinstance(error, StratalensError):
            raise
        if not (_is_about_files(error) or is_raised_by_library(error)):
            raise
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
            chain.append(cause)
        raise error_type(_describe_errors(source, chain, error_type)) from None


def is_raised_by_library(error: BaseException) -> bool:
    """Whether it was raised outside this package; libraries may raise any type of error for an invalid config."""
    modules = _modules(error)
    return bool(modules) and modules[-1].split(".")[0] != "stratalens"


def in_own_words(error: BaseException) -> str:
    """Type and message of another library's error, in one line of limited length."""
    message = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _is_about_files(error: BaseException) -> bool:
    if any(module.startswith(CODE_OF_MODELS) for module in _modules(error)):
        return False
    if isinstance(error, RuntimeError):
        return OTHER_SHAPES in str(error)
    library = type(error).__module__.split(".")[0]
    return isinstance(error, FILE_ERRORS) or library in HUB_LIBRARIES


def _modules(error: BaseException) -> list[str]:
    """Names of the modules that an error passed, the one that raised it last."""
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]


def _describe_errors(source: str, chain: list[BaseException], error_type: type[StratalensError]) -> str:
    """What went wrong and what to do, from an error and its causes."""
    if any(out_of_memory(error) for error in chain):
        return (
            f"{source}: does not fit into memory; try shallower --layers, --dtype bfloat16, --load_in 8bit or another "
            "--device"
        )
    if any("trust_remote_code" in str(error) for error in chain):
        if error_type is not ModelError:
            return f"{source}: it needs Python code that comes with it, which is never run here; name another model"
        return (
            f"{source}: it needs Python code that comes with it, which is not run unless you allow it; "
            "read that code, then give --trust_remote_code"
        )
    if any(isinstance(error, UnicodeEncodeError) and "Bearer " in error.object for error in chain):
        return "the Hub token contains an invalid character; log in again with `hf auth login`, or set HF_TOKEN"
    if isinstance(chain[0], ImportError):
        return (
            f"{source}: cannot be used ({in_own_words(chain[0])}); install that package or, if the weights are "
            "quantised, name the model that they were made from"
        )
    if not _is_about_files(chain[0]):
        words = in_own_words(chain[0])
        return f"{source}: cannot be used ({words}); try another version of transformers, or another model"
    if Path(source).exists():
        reason = " ".join(str(chain[0]).split())[:MAX_REASON_CHARACTERS] or type(chain[0]).__name__
        return f"{source}: no usable Hugging Face model here ({reason})"
    return _describe_hub_errors(source, chain, "sae_revision" if error_type is CheckpointError else "revision")


def _describe_hub_errors(source: str, chain: list[BaseException], revision: str) -> str:
    from huggingface_hub import errors as hub

    def has(*error_types: type[BaseException]) -> bool:
        return any(isinstance(error, error_types) for error in chain)

    if has(hub.GatedRepoError):
        return f"{source} is gated: accept its terms on its Hub page, then log in with `hf auth login` or set HF_TOKEN"
    if has(hub.RevisionNotFoundError):
        return f"{source} has no such revision; see the branches and tags on its Hub page, or leave out --{revision}"
    if has(hub.RepositoryNotFoundError):
        return (
            f"{source}: no such local directory, and no such public Hub repository; "
            "check the name, or log in with `hf auth login` if it is private"
        )
    if has(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError, TimeoutError) or _is_offline(chain):
        return (
            f"{source}: not a local directory, not in the Hub cache, and the Hub cannot be reached; "
            "check the network, or give a local directory"
        )
    return f"{source}: cannot be loaded ({' '.join(str(chain[0]).split())[:MAX_REASON_CHARACTERS]})"


def _is_offline(chain: list[BaseException]) -> bool:
    return any("connect" in str(error).lower() or "offline" in str(error).lower() for error in chain)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off progress bars and warnings of transformers: it would report the weights that are left out on purpose."""
    from transformers.utils import logging as messages

    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()
