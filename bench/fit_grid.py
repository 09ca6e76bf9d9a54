"""The grid of faults by which the fit check is measured: SAEs in the files of every format, right and wrong ones.

A format takes part by one line of `WRITERS`, a fault of the weights by one line of `WEIGHT_FAULTS`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stratalens.config.validation import make_config
from stratalens.errors import StratalensError
from stratalens.harvest.open_model import load_probe
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.source import ModelSource
from stratalens.saes import find_saes
from stratalens.saes.fit_check import FitCheck, check_fit
from stratalens.saes.sae import SaeFile

BATCH_TOKENS = 4096
NOTHING = "it explains nothing here"
"""What is said where no place fits: all that can be known of weights in another order."""
CUT_BYTES = 1000
"""Cut off a file that is truncated."""


@dataclass(frozen=True)
class Weights:
    """A TopK SAE, in sparsify's convention: latents are the k largest of encoder (x - b_dec) + bias."""

    encoder: Tensor
    """`[latent, width]`."""
    bias: Tensor
    decoder: Tensor
    """`[latent, width]`."""
    b_dec: Tensor
    k: int
    threshold: float
    """Above which as many latents fire as k, of a JumpReLU with these weights."""
    rms: float
    """Root of the mean square of the vectors that it was trained on."""

    @classmethod
    def read(cls, folder: Path, x: Tensor) -> "Weights":
        """Read a checkpoint of sparsify.

        Args:
            folder: of the checkpoint.
            x: some of the vectors that it was trained for, `[token, width]`.
        """
        arrays = {name: array.float() for name, array in load_file(folder / "sae.safetensors").items()}
        names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
        encoder, bias, decoder, b_dec = (arrays[name] for name in names)
        k = json.loads((folder / "cfg.json").read_text())["k"]
        pre = (x.float() - b_dec) @ encoder.T + bias
        threshold = float(pre.flatten().topk(k * len(x)).values[-1])
        return cls(encoder, bias, decoder, b_dec, k, max(threshold, 1e-4), float(x.float().pow(2).mean().sqrt()))

    @property
    def folded_bias(self) -> Tensor:
        """The bias of an encoder that subtracts nothing."""
        return self.bias - self.encoder @ self.b_dec if self.encoder.shape == self.decoder.shape else self.bias


class Written(NamedTuple):
    """A checkpoint on disk, and the options by which it is read."""

    root: Path
    options: Mapping[str, object]


Write = Callable[[Weights, int, Path], Written]
"""Writes weights as an SAE of the output of a block."""


def _saved(path: Path, arrays: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array.contiguous() for name, array in arrays.items()}, path)


def _sparsify(w: Weights, block: int, root: Path) -> Written:
    folder = root / f"layers.{block}"
    arrays = {"encoder.weight": w.encoder, "encoder.bias": w.bias, "W_dec": w.decoder, "b_dec": w.b_dec}
    _saved(folder / "sae.safetensors", arrays)
    config = {"activation": "topk", "num_latents": len(w.bias), "k": w.k, "d_in": len(w.b_dec)}
    (folder / "cfg.json").write_text(json.dumps(config))
    return Written(root, {})


def _saelens(architecture: str) -> Write:
    def write(w: Weights, block: int, root: Path) -> Written:
        arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.bias, "b_dec": w.b_dec}
        settings: dict[str, object] = {"k": w.k, "rescale_acts_by_decoder_norm": False}
        if architecture == "jumprelu":
            settings = {}
            arrays["threshold"] = torch.full_like(w.bias, w.threshold)
        _saved(root / f"block_{block}" / "sae_weights.safetensors", arrays)
        sizes = {"d_in": len(w.b_dec), "d_sae": len(w.bias), "architecture": architecture, "dtype": "float32"}
        steps = {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
        metadata = {"hook_name": f"blocks.{block}.hook_resid_post", "model_name": "any"}
        config = sizes | steps | settings | {"metadata": metadata}
        (root / f"block_{block}" / "cfg.json").write_text(json.dumps(config))
        return Written(root, {})

    return write


def _gemma_scope(w: Weights, block: int, root: Path) -> Written:
    repository = root / "gemma-scope-pt-res"
    folder = repository / f"layer_{block}" / "width_2k" / f"average_l0_{w.k}"
    folder.mkdir(parents=True)
    arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    arrays["threshold"] = torch.full_like(w.bias, w.threshold)
    np.savez(folder / "params.npz", **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]
    return Written(repository, {})


def _arrays(w: Weights, block: int, root: Path) -> Written:
    arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    _saved(root / f"layer_{block}" / "arrays.safetensors", arrays)
    return Written(root, {"sae_activation": f"topk:{w.k}"})


WRITERS: dict[str, Write] = {
    "sparsify": _sparsify,
    "SAELens topk": _saelens("topk"),
    "SAELens jumprelu": _saelens("jumprelu"),
    "Gemma Scope": _gemma_scope,
    "named arrays": _arrays,
}
"""Format -> how an SAE is written in it."""


def _order(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))


def _random_norms(size: int) -> Tensor:
    return (2 * torch.rand(size, 1, generator=torch.Generator().manual_seed(0)) - 1).mul(1.5).exp()


class WeightFault(NamedTuple):
    """What may be wrong with weights."""

    make: Callable[[Weights], Weights]
    reason: str
    """Expression for what the refusal must say."""


WEIGHT_FAULTS: dict[str, WeightFault] = {
    "transposed": WeightFault(lambda w: replace(w, encoder=w.encoder.T), r"shape|width"),
    "b_dec not subtracted": WeightFault(lambda w: replace(w, bias=w.bias + w.encoder @ w.b_dec), r"b_dec|nothing here"),
    "b_dec not added": WeightFault(
        lambda w: replace(w, b_dec=torch.zeros_like(w.b_dec), bias=w.folded_bias), r"b_dec|nothing here"
    ),
    "input scale forgotten": WeightFault(
        lambda w: replace(w, encoder=w.encoder * w.rms, decoder=w.decoder / w.rms, b_dec=w.b_dec / w.rms),
        r"scale|declares",
    ),
    "decoder norms forgotten": WeightFault(
        lambda w: replace(w, decoder=w.decoder * _random_norms(len(w.decoder))), r"scale|norm"
    ),
    "latents shuffled": WeightFault(lambda w: replace(w, decoder=w.decoder[_order(len(w.decoder))]), NOTHING),
    "dimensions shuffled": WeightFault(
        lambda w: replace(
            w,
            encoder=w.encoder[:, _order(len(w.b_dec))],
            decoder=w.decoder[:, _order(len(w.b_dec))],
            b_dec=w.b_dec[_order(len(w.b_dec))],
        ),
        NOTHING,
    ),
}
"""Fault -> how weights get it, in the file of any format, and the right reason."""


NO_FAULTS = frozenset([("named arrays", "transposed")])
"""(Format, fault) that is none, since the format takes the arrays either way."""


@dataclass(frozen=True)
class Case:
    """One SAE that is used somewhere."""

    fault: str
    """`right` where there is none."""
    format: str
    file: SaeFile
    reason: str
    """Expression for the right reason of a refusal; empty for a right SAE."""


@dataclass(frozen=True)
class Verdict:
    """What came out of a case."""

    fault: str
    format: str
    place: str
    problem: str
    """Empty where it was taken."""
    is_right_reason: bool
    fit: FitCheck | None = None


def read(written: Written, model: ModelSource) -> dict[Hookpoint, SaeFile]:
    """Find SAEs as a user's command does."""
    options = {"base_model": model.location, "sae_model": str(written.root), **written.options}
    return find_saes(make_config(**options), model)


def moved(case: Case, place: Hookpoint, reason: str) -> Case:
    """The same SAE used at another place."""
    return replace(case, file=replace(case.file, hookpoint=place, target=place), reason=reason)


def refused_when_read(name: str, kind: str, written: Written, model: ModelSource, reason: str) -> Verdict | Case:
    """A case of a fault in a file; the verdict at once if the file cannot be read."""
    try:
        ((place, file),) = read(written, model).items()
        file.load()
    except StratalensError as error:
        return Verdict(name, kind, "", str(error), re.search(reason, str(error)) is not None)
    assert place == file.hookpoint
    return Case(name, kind, file, reason)


def cut(written: Written) -> None:
    """Truncate every file of weights."""
    for path in written.root.rglob("*"):
        if path.suffix in (".safetensors", ".npz"):
            path.write_bytes(path.read_bytes()[:-CUT_BYTES])


def judged(model: nn.Module, cases: Sequence[Case], batches: Sequence[TokenBatch]) -> Iterator[Verdict]:
    """Yield the verdict on each case, of `stratalens check`: at most one SAE of a hookpoint in a pass."""
    device, waiting = next(model.parameters()).device, list(cases)
    while waiting:
        own: dict[Hookpoint, Case] = {}
        for case in waiting:
            own.setdefault(case.file.hookpoint, case)
        waiting = [case for case in waiting if case not in own.values()]
        probes = [load_probe(case.file, device) for case in own.values()]
        declared = {place: case.file.l0 for place, case in own.items()}
        for place, check in check_fit(model, probes, batches, BATCH_TOKENS, declared, thorough=True).items():
            case = own[place]
            is_right = bool(check.problem) and re.search(case.reason, check.problem) is not None
            yield Verdict(case.fault, case.format, str(place), check.problem, is_right, check)
