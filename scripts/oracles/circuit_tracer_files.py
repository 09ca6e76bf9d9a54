"""Write small per-layer transcoders with the library `circuit-tracer`, trained and random, and its latents of them.

    python scripts/oracles/circuit_tracer_files.py FOR_TRAINING FOR_TESTS FOLDER

It runs in an environment of its own (`make oracles`), where stratalens is not. Files are written by the library's
`to_safetensors`, and read again by its `load_transcoder_set`; `config.yaml` has the keys that its loader reads.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK  # pyright: ignore[reportMissingImports]
from circuit_tracer.transcoder.single_layer_transcoder import (  # pyright: ignore[reportMissingImports]
    SingleLayerTranscoder,
    TranscoderSet,
    load_transcoder_set,
)
from saved_latents import FILE, activations, save_expected
from torch.nn.functional import relu

LIBRARY = "circuit-tracer"
MODEL = "smollm2-135m-instruct"
BLOCK, LATENTS = 16, 8
RANDOM_COMPONENTS, RANDOM_LATENTS, RANDOM_K, RANDOM_LAYERS = 24, 40, 6, 2
STEPS, BATCH, SPARSITY = 600, 256, 0.05
HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}


def write_config(folder: Path, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_name": MODEL, "model_kind": "transcoder_set", **HOOKS, **more}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


def made(
    width: int, latents: int, activation: Callable, skip: bool = False, dtype: torch.dtype = torch.float32
) -> SingleLayerTranscoder:
    device = torch.device("cpu")
    return SingleLayerTranscoder(width, latents, activation, BLOCK, skip_connection=skip, device=device, dtype=dtype)


def trained(x: torch.Tensor, y: torch.Tensor) -> SingleLayerTranscoder:
    """A ReLU transcoder of the MLP with an L1 penalty, in bfloat16 as published ones are."""
    torch.manual_seed(0)
    coder = made(x.shape[1], LATENTS, relu)
    with torch.no_grad():
        coder.W_enc.normal_(std=x.shape[1] ** -0.5)
        coder.W_dec.normal_(std=x.shape[1] ** -0.5)
        coder.b_dec.copy_(y.mean(dim=0))
    optimizer = torch.optim.Adam(coder.parameters(), lr=2e-3)
    for _ in range(STEPS):
        some = torch.randint(len(x), (BATCH,))
        latents = coder.encode(x[some])
        error = (coder.decode(latents) - y[some]).pow(2).sum(dim=1) / y.var(dim=0).sum()
        loss = error.mean() + SPARSITY * (latents * coder.W_dec.norm(dim=1)).sum(dim=1).mean() / y.norm(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return coder.to(torch.bfloat16)


def randomised(coder: SingleLayerTranscoder) -> SingleLayerTranscoder:
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(torch.randn_like(parameter))
        if isinstance(coder.activation_function, JumpReLU):
            coder.activation_function.threshold.uniform_(0.0, 4.0)
    return coder


def write_random(folder: Path) -> None:
    """Sets of a ReLU, and of a JumpReLU with a skip connection; and a TopK, whose activation no file says."""
    torch.manual_seed(0)
    size = (RANDOM_COMPONENTS, RANDOM_LATENTS)
    for name, skip in (("relu", False), ("jumprelu_skip", True), ("topk", False)):
        coders = {}
        for layer in range(RANDOM_LAYERS):
            activation = JumpReLU(torch.zeros(RANDOM_LATENTS)) if skip else relu
            coders[layer] = randomised(made(*size, activation, skip))
        write_config(folder / name, **({"activation": "topk", "k": RANDOM_K} if name == "topk" else {}))
        TranscoderSet(coders, HOOKS["feature_input_hook"], HOOKS["feature_output_hook"]).to_safetensors(
            str(folder / name)
        )


def expect(path: Path, x: torch.Tensor) -> None:
    """Encode with what the library's loader makes of a file; its own TopK is put in, as the loader has none."""
    (coder,) = load_transcoder_set(
        {0: str(path)},
        "",
        HOOKS["feature_input_hook"],
        HOOKS["feature_output_hook"],
        device=torch.device("cpu"),
        lazy_encoder=False,
        lazy_decoder=False,
    )
    if path.parent.name == "topk":
        coder.activation_function = TopK(RANDOM_K)
    save_expected(path.parent, LIBRARY, coder.encode, coder.decode, x, f"{path.stem}_{FILE}")


def main(for_training: Path, for_tests: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    write_config(folder / "trained")
    coder = trained(activations(for_training, "mlp_norm"), activations(for_training, "mlp"))
    coder.to_safetensors(str(folder / "trained" / f"layer_{BLOCK}.safetensors"))
    write_random(folder / "random")
    for path in sorted(folder.rglob("layer_*.safetensors")):
        components = RANDOM_COMPONENTS if "random" in path.parts else None
        expect(path, activations(for_tests, "mlp_norm", components))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
