"""Of a repository in a published layout, the files of the wanted layer are fetched, and the SAE in them is read."""

from collections.abc import Iterator

import pytest
import torch
from hub_server import HubServer, hub_server
from library_files import refusal_of
from published_layouts import LAYOUTS, write_layout
from tiny import TINY_K, TINY_WIDTH

from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import find_model
from stratalens.saes.source import find_saes

REPOSITORIES = {
    "dictionary_learning": "someone/dictionaries-of-tiny",
    "llama_scope": "fnlp/Tiny-LXR-8x",
    "llamascopium": "OpenMOSS-Team/Llama-Scope-2-Tiny",
    "qwen_scope": f"Qwen/SAE-Res-Tiny-W1K-L0_{TINY_K}",
    "circuit_tracer": "mntss/transcoder-Tiny",
}
FETCHED = {
    "dictionary_learning": [f"resid_post_layer_2/trainer_0/{name}" for name in ("ae.pt", "config.json")],
    "llama_scope": [
        f"Llama3_1-8B-Base-L2R-8x/{name}" for name in ("checkpoints/final.safetensors", "hyperparams.json")
    ],
    "llamascopium": [f"transcoder/layer2/{name}" for name in ("config.json", "sae_weights.safetensors")],
    "qwen_scope": ["layer2.sae.pt"],
    "circuit_tracer": ["config.yaml", "layer_2.safetensors"],
}


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[HubServer]:
    import huggingface_hub.constants as constants

    repositories = {}
    for layout, name in REPOSITORIES.items():
        root = tmp_path / layout
        write_layout(root, layout)
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        repositories[name] = {"main": files}
    qwen = repositories[REPOSITORIES["qwen_scope"]]
    repositories["someone/no-number"] = qwen
    with hub_server(repositories) as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        changed = {"ENDPOINT": server.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
        changed |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_PROGRESS_BARS": True}
        for name, value in changed.items():
            monkeypatch.setattr(constants, name, value)
        yield server


def found(tiny_model, name: str) -> dict:
    model = {"base_model": str(tiny_model), "domain_data": "d.jsonl", "general_data": "g.jsonl"}
    config = RunConfig(**model, sae_model=name, layers=("2",))
    sites = ("mlp_norm",) if name == REPOSITORIES["circuit_tracer"] else ()
    config = config.model_copy(update={"sites": sites})
    return find_saes(config, find_model(config))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_files_of_the_layer_are_fetched_and_they_are_read(hub, tiny_model, layout):
    saes = found(tiny_model, REPOSITORIES[layout])
    assert hub.fetched == FETCHED[layout]
    assert list(saes) == [Hookpoint(2, "mlp_norm" if layout == "circuit_tracer" else "resid")]
    (file,) = saes.values()
    latents = file.load().encode(torch.randn(5, TINY_WIDTH))
    assert len(latents.value) > 0
    assert layout != "qwen_scope" or file.k == TINY_K


def test_k_of_qwen_scope_is_not_guessed_from_a_repository_without_it(hub, tiny_model):
    assert "give --sae_activation topk:K" in refusal_of(lambda: found(tiny_model, "someone/no-number"))
