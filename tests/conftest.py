"""Shared parts: a tiny random model with SAEs for laws and errors, and one real run of the embedded default."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stratalens.cli import main
from stratalens.embedded import embedded_model_directory

pytest_plugins = ["browser", "chat_servers", "error_book"]
TINY_BLOCKS = 4
TINY_WIDTH = 32
TINY_LATENTS = 64
TINY_K = 8


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """Directory of the real embedded model."""
    return embedded_model_directory()


@pytest.fixture(scope="session")
def tokenizer(embedded_model):
    """The embedded model's tokenizer."""
    return AutoTokenizer.from_pretrained(embedded_model)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer) -> Path:
    """A random Llama of four blocks with the real tokenizer, as a local directory."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TINY_WIDTH,
        intermediate_size=64,
        num_hidden_layers=TINY_BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    directory = tmp_path_factory.mktemp("tiny_model")
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_sae(folder: Path, *, width: int = TINY_WIDTH, seed: int = 0, config: dict | None = None, **tensors) -> Path:
    """Write a random SAE in sparsify's format; `config` and `tensors` override parts of it."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(TINY_LATENTS, width, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    weights = {
        "encoder.weight": rows.clone(),
        "encoder.bias": 0.1 * torch.randn(TINY_LATENTS, generator=generator),
        "W_dec": rows,
        "b_dec": 0.1 * torch.randn(width, generator=generator),
        **tensors,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae.safetensors")
    settings = {"activation": "topk", "expansion_factor": 2, "num_latents": TINY_LATENTS, "k": TINY_K, "d_in": width}
    (folder / "cfg.json").write_text(json.dumps(settings | (config or {})))
    return folder


@pytest.fixture(scope="session")
def tiny_saes(tmp_path_factory) -> Path:
    """A run directory, with a space in its name, of random SAEs at layers 0 and 2 of the tiny model."""
    root = tmp_path_factory.mktemp("tiny saes")
    for layer in (0, 2):
        write_sae(root / f"layers.{layer}", seed=layer)
    (root / "config.json").write_text("{}")
    return root


@pytest.fixture(scope="session")
def small_texts(tmp_path_factory) -> tuple[Path, Path]:
    """Two jsonl files of 24 short documents each, domain and general."""
    folder = tmp_path_factory.mktemp("texts")
    paths = folder / "domain.jsonl", folder / "general.jsonl"
    subjects = ("loan bank rate bond price", "river stone bird cloud song")
    for path, words in zip(paths, subjects, strict=True):
        rows = [
            {
                "id": f"{path.stem}-{i}",
                "text": f"No. {i}: " + " ".join(f"{w} {w[: 2 + i % 3]}" for w in words.split()),
            }
            for i in range(24)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.fixture
def tiny_arguments(tiny_model, tiny_saes, small_texts, tmp_path) -> list[str]:
    """Arguments of a run of the tiny model that takes about a second; random SAEs fit nothing, as allowed here."""
    domain, general = map(str, small_texts)
    return [
        *("--base_model", str(tiny_model), "--sae_model", str(tiny_saes), "--domain_data", domain),
        *("--general_data", general, "--output_dir", str(tmp_path / "out"), "--dtype", "float32", "--allow_poor_fit"),
    ]


@pytest.fixture(scope="session")
def embedded_run(tmp_path_factory) -> Path:
    """Result directory of the complete analysis on the real embedded default, run once by the command line."""
    output = tmp_path_factory.mktemp("embedded") / "results"
    assert main(["analyze", "--output_dir", str(output)]) == 0
    return output
