"""Write small dictionaries of every class with the library `dictionary-learning`, trained and random, and its latents.

    python scripts/oracles/dictionary_learning_files.py FOR_TRAINING FOR_TESTS FOLDER

It runs in an environment of its own (`make oracles`), where stratalens is not. The trained ones are written by
`trainSAE` of the library, on activations of block 16; random ones by `torch.save` of the library's `state_dict`, as
`trainSAE` does.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from dictionary_learning.dictionary import (  # pyright: ignore[reportMissingImports]
    AutoEncoder,
    AutoEncoderNew,
    Dictionary,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import (  # pyright: ignore[reportMissingImports]
    BatchTopKSAE,
    BatchTopKTrainer,
)
from dictionary_learning.trainers.gdm import GatedSAETrainer  # pyright: ignore[reportMissingImports]
from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # pyright: ignore[reportMissingImports]
from dictionary_learning.trainers.matryoshka_batch_top_k import (  # pyright: ignore[reportMissingImports]
    MatryoshkaBatchTopKSAE,
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.standard import (  # pyright: ignore[reportMissingImports]
    StandardTrainer,
    StandardTrainerAprilUpdate,
)
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer  # pyright: ignore[reportMissingImports]
from dictionary_learning.training import trainSAE  # pyright: ignore[reportMissingImports]
from dictionary_learning.utils import load_dictionary  # pyright: ignore[reportMissingImports]
from saved_latents import activations, save_expected

LIBRARY = "dictionary-learning"
BLOCK = 16
LATENTS, K = 8, 3
RANDOM_COMPONENTS, RANDOM_LATENTS, RANDOM_K = 24, 40, 6
STEPS, BATCH = 400, 256
COMMON = {"lr": 2e-3, "warmup_steps": 20, "seed": 0, "layer": BLOCK, "lm_name": "smollm2-135m-instruct", "steps": STEPS}
SPARSE = {"sparsity_warmup_steps": 50}
TRAINERS: dict[str, tuple[type, dict]] = {
    "AutoEncoder": (StandardTrainer, {**SPARSE, "l1_penalty": 0.02}),
    "AutoEncoderAprilUpdate": (StandardTrainerAprilUpdate, {**SPARSE, "l1_penalty": 0.02}),
    "GatedAutoEncoder": (GatedSAETrainer, {**SPARSE, "l1_penalty": 0.02}),
    "JumpReluAutoEncoder": (JumpReluTrainer, {**SPARSE, "target_l0": float(K)}),
    "AutoEncoderTopK": (TopKTrainer, {"k": K, "threshold_start_step": 50}),
    "BatchTopKSAE": (BatchTopKTrainer, {"k": K, "threshold_start_step": 50}),
    "MatryoshkaBatchTopKSAE": (
        MatryoshkaBatchTopKTrainer,
        {"k": K, "threshold_start_step": 50, "group_fractions": [0.25, 0.25, 0.5]},
    ),
}
"""Name -> trainer and its settings; activations are scaled by `norm_factor` in training, as users do."""
WITHOUT_SCALE: dict[str, tuple[type, dict]] = {
    "AutoEncoderNew": (StandardTrainerAprilUpdate, {**SPARSE, "l1_penalty": 2.0, "dict_class": AutoEncoderNew}),
}
"""This class cannot scale its biases. The trainer writes `dict_class: AutoEncoder` of it all the same."""


def batches(x: torch.Tensor) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield x[torch.randint(len(x), (BATCH,), generator=generator)].clone()


def write_trained(folder: Path, x: torch.Tensor) -> None:
    for trainers, scaled in ((TRAINERS, True), (WITHOUT_SCALE, False)):
        for name, (trainer, settings) in trainers.items():
            configuration = {**COMMON, **settings, "trainer": trainer, "activation_dim": x.shape[1]}
            configuration |= {"dict_size": LATENTS, "device": "cpu", "submodule_name": f"resid_post_layer_{BLOCK}"}
            run = folder / name / f"resid_post_layer_{BLOCK}"
            trainSAE(batches(x), [configuration], STEPS, save_dir=str(run), normalize_activations=scaled, device="cpu")


def random_dictionary(name: str) -> Dictionary:
    size = (RANDOM_COMPONENTS, RANDOM_LATENTS)
    made = {
        "AutoEncoder": lambda: AutoEncoder(*size),
        "AutoEncoderNew": lambda: AutoEncoderNew(*size),
        "GatedAutoEncoder": lambda: GatedAutoEncoder(*size),
        "JumpReluAutoEncoder": lambda: JumpReluAutoEncoder(*size),
        "AutoEncoderTopK": lambda: AutoEncoderTopK(*size, RANDOM_K),
        "BatchTopKSAE": lambda: BatchTopKSAE(*size, RANDOM_K),
        "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(*size, RANDOM_K, [10, 10, 20]),
    }[name]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for positive in ("threshold", "r_mag"):
            if hasattr(made, positive):
                number = getattr(made, positive)
                number.copy_(torch.rand_like(number))
    return made


def write_random(folder: Path, scale: float) -> None:
    """One of each class, and the same with biases that were not yet multiplied by `norm_factor`: a training backup."""
    torch.manual_seed(0)
    names = {*TRAINERS, *WITHOUT_SCALE} - {"AutoEncoderAprilUpdate"}
    for name in sorted(names):
        made = random_dictionary(name)
        trainer = {"dict_class": name, "activation_dim": RANDOM_COMPONENTS, "dict_size": RANDOM_LATENTS, "layer": BLOCK}
        trainer |= {"lm_name": "smollm2-135m-instruct", "submodule_name": f"resid_post_layer_{BLOCK}"}
        trainer |= {"k": RANDOM_K} if hasattr(made, "k") else {}
        for kind in ("plain", "backup"):
            if kind == "backup" and not hasattr(made, "scale_biases"):
                continue
            place = folder / name / kind
            place.mkdir(parents=True)
            (place / "config.json").write_text(json.dumps({"trainer": trainer}, indent=4))
            state = {key: value.clone() for key, value in made.state_dict().items()}
            backup = {"step": 7, "ae": state, "optimizer": {}, "config": trainer, "norm_factor": scale}
            torch.save(state if kind == "plain" else backup, place / "ae.pt")


def expect(folder: Path, x: torch.Tensor, scale: float) -> None:
    """Encode with what the library loads; what it cannot load itself is loaded as it loads the class."""
    content = torch.load(folder / "ae.pt", weights_only=True)
    if "ae" in content:
        name = json.loads((folder / "config.json").read_text())["trainer"]["dict_class"]
        whole = random_dictionary(name)
        whole.load_state_dict(content["ae"])
        whole.scale_biases(scale)
        if name == "AutoEncoder":
            whole.normalize_decoder()
    elif "decoder.bias" in content:
        whole = AutoEncoderNew.from_pretrained(folder / "ae.pt")
    else:
        whole, _ = load_dictionary(str(folder), "cpu")
    save_expected(folder, LIBRARY, whole.encode, lambda latents, _x: whole.decode(latents), x)


def main(for_training: Path, for_tests: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    scale = 3.0
    write_trained(folder / "trained", activations(for_training, "resid"))
    write_random(folder / "random", scale)
    for path in sorted(folder.rglob("ae.pt")):
        components = RANDOM_COMPONENTS if "random" in path.parts else None
        expect(path.parent, activations(for_tests, "resid", components), scale)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
