"""Find the base model: the embedded default, a local directory, or a repository on the Hugging Face Hub."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from stratalens.config.options import RunConfig
from stratalens.errors import ModelError
from stratalens.files.hashing import combined_digest, digest_of
from stratalens.files.regular import reason_of
from stratalens.models.embedded import MODEL_NAME, dense_copy
from stratalens.models.foreign import require_base_model
from stratalens.models.gguf_file import describe_gguf, files_of_gguf, gguf_in, is_gguf, tokenizer_arguments
from stratalens.models.hub import GGUF_SUFFIX, hub_errors, local_or_hub
from stratalens.models.model_config import load_config
from stratalens.models.model_files import require_sound_files
from stratalens.models.panics import panics_silenced
from stratalens.models.tokenizer_parts import require_bounded_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".py")
"""Suffixes of the files in a model directory that its activations depend on."""

MAX_LAYERS_OR_WIDTH = 10**7
"""The number of layers and the width of the residual stream must be below this."""


class ModelSource(NamedTuple):
    """Where the base model is, its name in results, its size and its digest."""

    location: str
    """Local directory, GGUF file or Hub id."""
    name: str
    revision: str | None
    """Branch, tag or commit of the Hub repository; None is its default branch."""
    num_layers: int
    d_model: int
    """Width of the residual stream."""
    digest: str
    """SHA-256 of config, weights and code in a local directory, or the commit of a Hub repository."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""


def find_model(config: RunConfig, say: Callable[[str], None] = lambda _message: None) -> ModelSource:
    """Find the base model and read its configuration, but not its weights.

    Args:
        config: options of the run.
        say: called with a message before a slow first step.

    Raises:
        ModelError: there is no such model, or it cannot be reached or used; the message says what to do.
    """
    if config.base_model is None:
        copy = dense_copy(say)
        location, name, sums = str(copy.directory), MODEL_NAME, copy.sums
    else:
        location, name, sums = _location(config.base_model, say), config.base_model, None
    require_sound_files(location, ModelError)
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    model_config = load_config(location, ModelError, **options)
    with hub_errors(location, ModelError):
        text_config = model_config.get_text_config()
        sizes = {size: getattr(text_config, size, None) for size in ("num_hidden_layers", "hidden_size")}
    if not all(isinstance(size, int) and 0 < size < MAX_LAYERS_OR_WIDTH for size in sizes.values()):
        values = ", ".join(f"{key} {str(size)[:40]}" for key, size in sizes.items())
        raise ModelError(f"{name}: its config.json is not that of a causal language model ({values})")
    return ModelSource(
        location,
        name,
        config.revision,
        num_layers=text_config.num_hidden_layers,
        d_model=text_config.hidden_size,
        digest=_digest(location, config.revision, sums),
        trust_remote_code=config.trust_remote_code,
    )


def _location(name: str, say: Callable[[str], None]) -> str:
    """Local directory, GGUF file or Hub id of a model that the user names."""
    location = local_or_hub(name, ModelError, (GGUF_SUFFIX,))
    try:
        require_base_model(location)
        file = gguf_in(Path(location))
    except OSError as error:
        raise ModelError(f"{error.filename or location}: cannot be read: {reason_of(error)}") from None
    if file is None:
        return location
    say(f"Model: {describe_gguf(file)}")
    return str(file)


@lru_cache(maxsize=4)
def skeleton(source: ModelSource) -> "PreTrainedModel":
    """Build the whole decoder of a model without its weights, to look at its modules and their shapes.

    Raises:
        ModelError: the configuration of the model cannot be read.
    """
    from transformers import AutoModel

    trusted = {"trust_remote_code": source.trust_remote_code}
    config = load_config(source.location, ModelError, revision=source.revision, **trusted)
    with hub_errors(source.location, ModelError), torch.device("meta"):
        return AutoModel.from_config(config, **trusted)


def _digest(location: str, revision: str | None, sums: Mapping[str, str] | None) -> str:
    """Digest of a model; `sums` are the digests of its files where they are known, as large files take long to read."""
    if sums is not None:
        return combined_digest((name, sums[name]) for name in sums if Path(name).suffix in IDENTITY_SUFFIXES)
    if is_gguf(location):
        return digest_of(files_of_gguf(location))
    if Path(location).is_dir():
        files = (path for path in Path(location).iterdir() if path.suffix in IDENTITY_SUFFIXES)
        return digest_of(path for path in files if path.is_file())
    return _commit(location, revision)


def _commit(repository: str, revision: str | None) -> str:
    """Commit of a Hub repository whose config was just read, taken from the path of that file in the cache."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else "unknown"


def load_tokenizer(model: ModelSource):
    """Load the model's own fast tokenizer.

    Raises:
        ModelError: the tokenizer is missing, cannot be loaded, or is a slow one.
    """
    from transformers import AutoTokenizer

    with hub_errors(model.location, ModelError), panics_silenced():
        directory, file = tokenizer_arguments(model.location)
        tokenizer = AutoTokenizer.from_pretrained(
            directory, revision=model.revision, trust_remote_code=model.trust_remote_code, **file
        )
        require_bounded_tokenizer(model.location, tokenizer, ModelError)
        tokenizer("a")  # some damage shows only in use
    if not tokenizer.is_fast:
        raise ModelError(f"{model.name}: it has only a slow tokenizer, without character offsets; a fast one is needed")
    return tokenizer
