"""Local directories and the Hugging Face Hub: which one a name means, and what can go wrong on the way."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stratalens.errors import ModelError, StratalensError
from stratalens.models.memory import out_of_memory

HUB_LIBRARIES = ("httpx", "httpx2", "huggingface_hub", "safetensors", "safetensors_rust")
"""Libraries whose errors mean that a repository or a file of it cannot be had."""


def local_or_hub(given: str, error: type[StratalensError]) -> str:
    """The local directory of that name, else the name itself where it may be a Hub id.

    Raises:
        StratalensError: of the kind given, when it is neither.
    """
    try:
        path = Path(given).expanduser()
        is_directory, is_there = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as problem:  # RuntimeError: ~ of a user that there is not
        raise error(f"{given[:200]}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    if is_directory:
        return str(path)
    if is_there:
        raise error(f"{given}: a directory was expected, this is a file")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", given):
        raise error(f"{given}: no such directory, and not a Hub id such as organisation/name")
    return given


@contextmanager
def hub_errors(source: str, error: type[StratalensError]) -> Iterator[None]:
    """Turn what can go wrong between here and the Hub into one line with its remedy."""
    try:
        yield
    except Exception as problem:
        library = type(problem).__module__.split(".")[0]
        if isinstance(problem, StratalensError) or not (
            isinstance(problem, OSError | ValueError) or library in HUB_LIBRARIES or _is_of_a_library(problem)
        ):
            raise
        chain: list[BaseException] = [problem]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
            chain.append(cause)
        raise error(_remedy(source, chain, error)) from None


def _is_of_a_library(problem: BaseException) -> bool:
    """Whether it was raised outside of this package: over a config of nonsense the libraries raise just anything."""
    raised = problem.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    return raised is not None and raised.tb_frame.f_globals.get("__name__", "").split(".")[0] != "stratalens"


def _remedy(source: str, chain: list[BaseException], kind: type[StratalensError]) -> str:
    from huggingface_hub import errors as hub

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(problem, kinds) for problem in chain)

    if any(out_of_memory(problem) for problem in chain):
        return (
            f"{source}: does not fit into memory; try shallower --layers, --dtype bfloat16, --load_in 8bit or another "
            "--device"
        )
    if any("trust_remote_code" in str(problem) for problem in chain):
        if kind is not ModelError:
            return f"{source}: it needs Python code that comes with it, which is never run here; name another model"
        return (
            f"{source}: it needs Python code that comes with it, which is not run unless you ask for it by name; "
            "read that code, then give --trust_remote_code"
        )
    if any(isinstance(problem, UnicodeEncodeError) and "Bearer " in problem.object for problem in chain):
        return "the Hub token holds a character that no token has; log in again with `hf auth login`, or set HF_TOKEN"
    if Path(source).is_dir():
        reason = " ".join(str(chain[0]).split())[:200] or type(chain[0]).__name__
        return f"{source}: no usable Hugging Face model here ({reason})"
    if has(hub.GatedRepoError):
        return f"{source} is gated: accept its terms on its Hub page, then log in with `hf auth login` or set HF_TOKEN"
    if has(hub.RevisionNotFoundError):
        return f"{source} has no such revision; see the branches and tags on its Hub page, or leave out --revision"
    if has(hub.RepositoryNotFoundError):
        return (
            f"{source}: no such local directory, and no such public Hub repository; "
            "check the name, or log in with `hf auth login` if it is private"
        )
    if has(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError, TimeoutError) or _offline(chain):
        return (
            f"{source}: not a local directory, not in the Hub cache, and the Hub cannot be reached; "
            "check the network, or give a local directory"
        )
    return f"{source}: cannot be loaded ({' '.join(str(chain[0]).split())[:200]})"


def _offline(chain: list[BaseException]) -> bool:
    return any("connect" in str(problem).lower() or "offline" in str(problem).lower() for problem in chain)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and the load report: weights of the layers that were cut off are missing on purpose."""
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
