"""Control vectors: what steering adds, in a file that other programs read.

In safetensors, one float32 tensor for each place, under the name of its hookpoint, with where it comes from as strings.

In GGUF, as llama.cpp reads them. What its sources say, read in 2026 (`common/common.cpp`, `src/llama-adapter.cpp`,
`src/llama-graph.cpp`, the models' graphs and `tools/cvector-generator`):

- `common_control_vector_load_one` takes tensors `direction.N` of float32 and one dimension, refuses N = 0, and puts
  each at row N - 1 of a buffer, since there is none for layer 0;
- `llama_adapter_cvec::apply` fills the vector of block `il`, counted from 0 and from 1 up to the last, from row
  `il - 1`: so `direction.N` belongs to the block with index N, and not to the Nth;
- each model's graph adds it to the block's output (`build_cvec` just before the callback `l_out`), at every position;
- `general.architecture` is `controlvector`; `controlvector.model_hint` is the architecture of the model and
  `controlvector.layer_count`, an int32, the number of directions in the file, as the generator writes them; the loader
  asks for neither. Other entries are ignored.

The generator itself stores the difference after block `il` as `direction.(il + 1)`; a vector of an SAE belongs to its
own block, so that is not copied here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stratalens.effects.steering import Addition
from stratalens.errors import ConfigError, OutputError
from stratalens.files.atomic import written_whole
from stratalens.hookpoint import Hookpoint

Vectors = Mapping[Hookpoint, Float[Tensor, "_"]]
"""Hookpoint -> what is added to the vectors there, in float32."""
GGUF_ARCHITECTURE = "controlvector"
HEADER_LENGTH = 8
"""Bytes of the number with which a safetensors file begins."""
OWN_KEYS = "stratalens"
"""Entries of the GGUF file that say where the vector comes from begin so."""
HINTS = {
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
"""Type of model in transformers -> llama.cpp's name of its architecture, where that is another one."""


class MeasuredEffect(NamedTuple):
    """The change of the loss on domain text when a feature is removed, in nats a token, with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


def control_vectors(additions: Sequence[Addition]) -> Vectors:
    """What is added at each place; additions to the same one are summed.

    Raises:
        ConfigError: an SAE scales every vector by its own norm, so that what is added differs at every token.
    """
    vectors: dict[Hookpoint, Tensor] = {}
    for own in additions:
        if not own.is_constant:
            raise ConfigError(
                f"the SAE of layer {own.hookpoint} scales every vector to one norm, so that its features add another "
                "vector at every token; only `--prompt` can steer by them"
            )
        before = vectors.get(own.target)
        vectors[own.target] = own.constant() if before is None else before + own.constant()
    return {place: vectors[place].contiguous() for place in sorted(vectors)}


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Check, before the work, that a file may be written.

    Raises:
        OutputError: it is a directory, or exists and may not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name a file with --export")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise OutputError(f"{path}: exists; add --overwrite to replace it, or name another file with --export")


def require_gguf_places(places: Sequence[Hookpoint]) -> None:
    """Check that llama.cpp can add to the vectors at some places.

    Raises:
        ConfigError: one is not the output of a block after the first.
    """
    for place in places:
        if place.site_name != "resid":
            raise ConfigError(
                f"a GGUF control vector is added to the output of blocks only, not at {place}; use .safetensors, or "
                "features of SAEs of block outputs"
            )
        if place.block == 0:
            raise ConfigError(
                "llama.cpp has no control vector for block 0; use .safetensors, or features of later blocks"
            )


def write_safetensors(path: Path, vectors: Vectors, origin: Mapping[str, str]) -> None:
    """Write one tensor for each place, named like its hookpoint; the file appears complete.

    Args:
        path: the file; one that exists is replaced.
        vectors: what is added.
        origin: where it comes from.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    content = save({str(place): vector.float() for place, vector in vectors.items()}, dict(origin))
    with written_whole(path) as unfinished:
        unfinished.write_bytes(_with_sorted_header(content))


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with the entries of its header in order: the library writes them in any.

    The file begins with the length of the header, a JSON object that spaces fill to a multiple of eight bytes.
    """
    end = HEADER_LENGTH + int.from_bytes(content[:HEADER_LENGTH], "little")
    header = json.dumps(json.loads(content[HEADER_LENGTH:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % HEADER_LENGTH)
    return len(header).to_bytes(HEADER_LENGTH, "little") + header + content[end:]


def write_gguf(path: Path, vectors: Vectors, model_type: str, origin: Mapping[str, str]) -> None:
    """Write `direction.N` for the output of each block N, counted from 0; the file appears complete.

    Args:
        path: the file; one that exists is replaced.
        vectors: what is added to the outputs of blocks.
        model_type: of the model, in transformers.
        origin: where it comes from.

    Raises:
        ConfigError: llama.cpp cannot add at one of the places.
        OSError: it cannot be written.
    """
    from gguf import GGUFWriter

    require_gguf_places(list(vectors))
    with written_whole(path) as unfinished:
        writer = GGUFWriter(unfinished, GGUF_ARCHITECTURE)
        try:
            writer.add_string(f"{GGUF_ARCHITECTURE}.model_hint", HINTS.get(model_type, model_type))
            writer.add_int32(f"{GGUF_ARCHITECTURE}.layer_count", len(vectors))
            for name, value in origin.items():
                writer.add_string(f"{OWN_KEYS}.{name}", value)
            for place, vector in vectors.items():
                writer.add_tensor(f"direction.{place.block}", vector.to(torch.float32).numpy().astype(np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
