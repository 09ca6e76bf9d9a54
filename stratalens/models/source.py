"""Where model and SAEs come from: the embedded default, a local directory, or the Hugging Face Hub."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stratalens.config import BRIEF_LAYERS, RunConfig, parse_layers
from stratalens.errors import (
    CheckpointError,
    ConfigError,
    ModelError,
    StratalensError,
)
from stratalens.models.embedded import MODEL_NAME, SAE_DIRECTORY, embedded_model_directory
from stratalens.models.memory import out_of_memory
from stratalens.saes.formats import sparsify
from stratalens.saes.sae import SaeFile

HUB_LIBRARIES = ("httpx", "httpx2", "huggingface_hub", "safetensors", "safetensors_rust")
"""Libraries whose errors mean that a repository or a file of it cannot be had."""

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


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as stream:
            total.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def find_saes(config: RunConfig, model: ModelSource) -> dict[int, SaeFile]:
    """Find the SAE of every layer asked for, in rising order of layers.

    Raises:
        ConfigError: a layer is asked for that the SAE folder lacks.
        CheckpointError: a checkpoint is missing, corrupt, or of another width than the model.
        ModelError: a layer lies beyond the model.
    """
    root = SAE_DIRECTORY if config.sae_model is None else _sae_root(config)
    found = sparsify.hookpoints(root)
    by_layer = _by_layer(found)
    wanted = parse_layers(config.layers)
    if wanted is None and config.sae_model is None:
        wanted = BRIEF_LAYERS
    layers = sorted(by_layer) if wanted in (None, "all") else wanted
    assert not isinstance(layers, str)
    if not layers:
        raise CheckpointError(f"{root}: none of its hookpoints lies in a numbered layer (found: {', '.join(found)})")
    saes = {}
    for layer in layers:
        if layer >= model.num_layers:
            raise ModelError(f"{model.name} has layers 0 to {model.num_layers - 1}; layer {layer} was asked for")
        if layer not in by_layer:
            raise ConfigError(f"{root}: no SAE for layer {layer}; it has layers {' '.join(map(str, sorted(by_layer)))}")
        hookpoint = _one_hookpoint(layer, by_layer[layer])
        saes[layer] = sparsify.find_sae(found[hookpoint], hookpoint)
        if saes[layer].d_model != model.d_model:
            raise CheckpointError(
                f"{found[hookpoint]}: the SAE reads vectors of width {saes[layer].d_model}, "
                f"but {model.name} has width {model.d_model}; it was made for another model"
            )
    return saes


def _by_layer(hookpoints: Iterable[str]) -> dict[int, list[str]]:
    by_layer: dict[int, list[str]] = {}
    for hookpoint in hookpoints:
        if match := re.fullmatch(r"[A-Za-z_]+\.(\d+)(\..+)?", hookpoint):
            by_layer.setdefault(int(match[1]), []).append(hookpoint)
    return by_layer


def _one_hookpoint(layer: int, candidates: list[str]) -> str:
    """The block's own output where there is an SAE for it, else the only other hookpoint of the layer."""
    blocks = [hookpoint for hookpoint in candidates if hookpoint.count(".") == 1]
    chosen = blocks or candidates
    if len(chosen) > 1:
        raise ConfigError(
            f"layer {layer} has several SAEs ({', '.join(chosen)}); point --sae_model at a folder with one"
        )
    return chosen[0]


def _sae_root(config: RunConfig) -> Path:
    assert config.sae_model is not None
    source = local_or_hub(config.sae_model, CheckpointError)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    with hub_errors(source, CheckpointError):
        patterns = [f"**/{name}" for name in (sparsify.CONFIG_FILE, sparsify.WEIGHTS_FILE)]
        wanted = parse_layers(config.layers)
        if isinstance(wanted, tuple):
            patterns = [f"*.{layer}{rest}/*" for layer in wanted for rest in ("", ".*")]
        return Path(snapshot_download(source, allow_patterns=patterns))


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
