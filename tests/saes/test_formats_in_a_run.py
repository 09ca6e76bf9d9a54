"""Checkpoints of other libraries, in the layout in which they are published, given to `--sae_model`."""

from pathlib import Path

import pytest
import torch
from published_layouts import LAYERS, LAYOUTS, write_layout
from refusal import refusal, with_options
from tiny import TINY_K, TINY_LATENTS, TINY_WIDTH

from stratalens.cli.main import main
from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import find_model
from stratalens.saes.source import find_saes


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path) -> Path:
    """A folder of SAEs of the tiny model in one of the layouts."""
    root = tmp_path / "saes"
    write_layout(root, request.param)
    return root


def options(root: Path, layout: str, **more: object) -> dict:
    told = {"sae_activation": f"topk:{TINY_K}"} if layout == "qwen_scope" else {}
    return {"sae_model": str(root), **told, **more}


@pytest.mark.parametrize("told", [False, True])
def test_each_layer_is_found_in_the_published_layout(layout, request, tiny_model, told):
    kind = request.node.callspec.params["layout"]
    more = options(layout, kind, sae_format=kind if told else None)
    config = RunConfig(domain_data="d.jsonl", general_data="g.jsonl", base_model=str(tiny_model), **more)
    saes = find_saes(config, find_model(config))
    site = "mlp_norm" if kind == "circuit_tracer" else "resid"
    assert list(saes) == [Hookpoint(layer, site) for layer in LAYERS]
    assert all((sae.d_model, sae.num_latents) == (TINY_WIDTH, TINY_LATENTS) for sae in saes.values())
    x = torch.randn(5, TINY_WIDTH)
    for sae in saes.values():
        whole = sae.load()
        assert whole.decode(whole.encode(x), x).shape == x.shape


def test_a_run_is_analysed_with_each(layout, request, tiny_arguments, capsys, tmp_path):
    kind = request.node.callspec.params["layout"]
    changed = {name: str(value) for name, value in options(layout, kind).items()}
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, changed)]) == 0, capsys.readouterr().err


def test_another_format_than_the_files_have_is_refused(layout, request, tiny_arguments, capsys):
    kind = request.node.callspec.params["layout"]
    other = "saelens" if kind == "sparsify" else "sparsify"
    changed = {name: str(value) for name, value in options(layout, kind, sae_format=other).items()}
    refusal(with_options(tiny_arguments, changed), capsys)
