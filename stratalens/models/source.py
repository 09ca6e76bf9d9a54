"""Where model and SAEs come from: the embedded default, a local directory, or the Hugging Face Hub."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stratalens.config.options import RunConfig
from stratalens.errors import ModelError
from stratalens.files.hashing import digest_of
from stratalens.models.embedded import MODEL_NAME, embedded_model_directory
from stratalens.models.hub import hub_errors, local_or_hub

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".py")
"""Files of a model directory that its activations depend on."""

LARGEST_SIZE = 10**7
"""Layers of a model, or width of its residual stream, at most."""


class ModelSource(NamedTuple):
    """Where the base model is and how it is named in results."""

    location: str
    """Local directory or Hub id."""
    name: str
    revision: str | None
    num_layers: int
    d_model: int
    digest: str
    """SHA-256 over config, weights and code of a local directory, or the commit of a Hub repository."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""


def find_model(config: RunConfig, say: Callable[[str], None] = lambda _message: None) -> ModelSource:
    """Resolve the base model and read its configuration, not its weights; `say` hears of slow first steps.

    Raises:
        ModelError: there is no such model, or it cannot be reached; the message says what to do.
    """
    if config.base_model is None:
        location, name = str(embedded_model_directory(say)), MODEL_NAME
    else:
        location, name = local_or_hub(config.base_model, ModelError), config.base_model
    from transformers import AutoConfig

    with hub_errors(location, ModelError):
        loaded = AutoConfig.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        text = loaded.get_text_config()
        sizes = {size: getattr(text, size, None) for size in ("num_hidden_layers", "hidden_size")}
    if not all(isinstance(size, int) and 0 < size < LARGEST_SIZE for size in sizes.values()):
        told = ", ".join(f"{name} {str(size)[:40]}" for name, size in sizes.items())
        raise ModelError(f"{name}: its config.json is not that of a causal language model ({told})")
    if Path(location).is_dir():
        digest = digest_of(p for p in Path(location).iterdir() if p.suffix in IDENTITY_SUFFIXES)
    else:
        digest = _commit(location, config.revision)
    return ModelSource(
        location,
        name,
        config.revision,
        num_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        digest=digest,
        trust_remote_code=config.trust_remote_code,
    )


def _commit(repository: str, revision: str | None) -> str:
    """Commit of a Hub repository whose config was just read, from the place of that file in the cache."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else "unknown"


def load_tokenizer(model: ModelSource):
    """The model's own fast tokenizer.

    Raises:
        ModelError: the model comes without one.
    """
    from transformers import AutoTokenizer

    with hub_errors(model.location, ModelError):
        tokenizer = AutoTokenizer.from_pretrained(
            model.location, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    if not tokenizer.is_fast:
        raise ModelError(f"{model.name}: it has only a slow tokenizer, without character offsets; a fast one is needed")
    return tokenizer
