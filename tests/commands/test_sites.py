"""Two sites of one layer in one run: each is read as if it were alone, and every file and command tells them apart."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_result import label, refused
from refusal import with_options
from shared import made_once
from sparsify import SparseCoder
from threads import one_thread
from tiny import write_sae
from transformers import AutoModel

import stratalens
from stratalens.cli.main import main
from stratalens.hookpoint import SITE_NAMES, Hookpoint
from stratalens.report.evidence_file import read_evidence_file

BLOCK, MLP = Hookpoint(2), Hookpoint(2, "mlp")


@pytest.fixture(scope="session")
def several_sites(tmp_path_factory) -> Path:
    """SAEs of block 2, of its MLP, and of what the MLP of block 1 reads (a transcoder)."""

    def make(root: Path) -> None:
        write_sae(root / "layers.2", seed=2)
        write_sae(root / "layers.2.mlp", seed=3)
        write_sae(root / "layers.1.mlp", seed=4, config={"transcode": True})

    return made_once(tmp_path_factory, "several sites", make)


def run(arguments: list[str], saes: Path, output: Path, *more: str) -> Path:
    options = {"sae_model": str(saes), "output_dir": str(output)}
    with one_thread():
        assert main(["analyze", *with_options(arguments, options), *more]) == 0
    return output


@pytest.fixture(scope="session")
def both(arguments, several_sites, tmp_path_factory) -> Path:
    return run(arguments, several_sites, tmp_path_factory.mktemp("both"), "--sites", "resid", "mlp", "--quiet")


def tables(output: Path) -> dict[str, pd.DataFrame]:
    paths = [*output.glob("*.csv"), *output.glob("layer_*/*.csv")]
    return {str(path.relative_to(output)): pd.read_csv(path) for path in paths}


def test_both_sites_are_read_in_one_pass_as_each_is_alone(arguments, several_sites, both, tmp_path, capsys):
    for place, site in ((BLOCK, "resid"), (MLP, "mlp")):
        alone = run(arguments, several_sites, tmp_path / site, "--layers", "2", "--sites", site, "--quiet")
        name = f"harvest/layer_{place}.state"
        assert (alone / name).read_bytes() == (both / name).read_bytes()
        assert (
            json.loads((alone / "run.json").read_text())["tokens_read"]
            == json.loads((both / "run.json").read_text())["tokens_read"]
        ), "one pass for both"
        one, two = (pd.read_parquet(at / f"layer_{place}" / "all_features.parquet") for at in (alone, both))
        of_all_layers = ["q_value", "opposed_q_value", "opposed_confirmed"]
        pd.testing.assert_frame_equal(one.drop(columns=of_all_layers), two.drop(columns=of_all_layers))
    capsys.readouterr()


def test_the_site_is_what_its_name_says(both, tiny_model, several_sites):
    """The strongest activation of features at the MLP, by sparsify on the output of the MLP itself."""
    model, coder = (
        AutoModel.from_pretrained(tiny_model, dtype=torch.float32),
        SparseCoder.load_from_disk(several_sites / "layers.2.mlp"),
    )
    taken = []
    model.layers[2].mlp.register_forward_hook(lambda _module, _args, output: taken.append(output[0]))
    passages = pd.read_parquet(both / "evidence" / "passages.parquet")
    evidence = np.load(both / "evidence" / f"layer_{MLP}.npz")
    with torch.inference_mode():
        for ids in passages["token_ids"]:
            model(input_ids=torch.from_numpy(np.array(ids))[None])
        latents = coder.encode(torch.cat(taken))
    dense = torch.zeros(len(torch.cat(taken)), coder.num_latents).scatter_(1, latents.top_indices, latents.top_acts)
    for column, feature in enumerate(evidence["features"]):
        rows = slice(evidence["indptr"][column], evidence["indptr"][column + 1])
        np.testing.assert_allclose(evidence["data"][rows], dense[evidence["indices"][rows], feature], rtol=1e-4)
    assert len(evidence["data"]) > 50


def test_files_and_tables_tell_the_sites_apart(both):
    found = tables(both)
    assert {name.split("/")[0] for name in found if "/" in name} == {"layer_2", "layer_2_mlp"}
    for name, table in found.items():
        assert "site" in table, name
        if "/" in name:
            assert set(table["site"]) == {"mlp" if "_mlp" in name else "resid"}
    consolidated = found["consolidated_top_features_all_layers.csv"]
    assert set(zip(consolidated["layer"], consolidated["site"], strict=True)) == {(2, "resid"), (2, "mlp")}
    assert len(consolidated) == 10
    assert sorted(found["layer_comparison_report.csv"]["site"]) == ["mlp", "resid"]
    result = stratalens.load_result(both)
    assert set(result.all_features("2_mlp")["site"]) == {"mlp"}
    assert set(result.all_features(2)["site"]) == {"resid"}
    record = json.loads((both / "run.json").read_text())
    assert {place: sae["hookpoint"] for place, sae in record["saes"].items()} == {
        "2": "layers.2",
        "2_mlp": "layers.2.mlp",
    }


@pytest.mark.figures
def test_figures_and_page_tell_the_sites_apart(both, tmp_path):
    import shutil

    from stratalens.optional_parts import OptionalParts
    from stratalens.progress import NoProgress
    from stratalens.report.figures.write import write_figures

    result = stratalens.load_result(both)
    write_figures(result.tables, tmp_path, OptionalParts(NoProgress(), required=True))
    assert {path.parent.name for path in tmp_path.glob("layer_*/*.png")} == {"layer_2", "layer_2_mlp"}
    page = (both / "report.html").read_text(encoding="utf-8")
    assert '"hookpoints":["2","2_mlp"]' in page
    assert "% of the hookpoint's norm more on" in page
    copy = shutil.copytree(both, tmp_path / "copy")
    assert main(["report", str(copy), "--quiet"]) == 0
    assert (copy / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("words", [["2_mlp", "{}"], ["2_mlp/{}"]])
def test_show_takes_the_name_of_a_site(both, capsys, words):
    stored = read_evidence_file(both / "layer_2_mlp" / "evidence.json")
    feature = next(iter(stored))
    assert main(["show", str(both), *(word.format(feature) for word in words)]) == 0
    assert f"Feature {feature} of layer 2_mlp: " in capsys.readouterr().out


def test_show_still_takes_two_numbers_and_refuses_a_site_that_was_not_analysed(both, capsys):
    assert main(["show", str(both), "2", "0"]) == 0
    assert "Feature 0 of layer 2" in capsys.readouterr().out
    assert "has layers 2 2_mlp; layer 2_attn was asked for" in refused(capsys, "show", str(both), "2_attn", "0")
    assert "expected a layer and a feature" in refused(capsys, "show", str(both), "2_nothing", "0")


def test_rank_and_label_keep_the_sites_apart(both, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(both, tmp_path / "copy")
    with one_thread():
        assert main(["rank", str(copy), "--rank_by", "auroc", "--quiet"]) == 0
        result = stratalens.load_result(copy)
        wanted = int(result.all_features("2_mlp").query("live and not selected")["feature_number"].iloc[0])
        (tmp_path / "list").write_text(f"2_mlp/{wanted}\n")
        assert label(copy, "--features", str(tmp_path / "list")) == 0
    result = stratalens.load_result(copy)
    assert wanted in result.findings.features[MLP]
    assert len(result.findings.features[BLOCK]) == 5


def test_a_list_of_features_chooses_the_sites(arguments, several_sites, tmp_path, capsys):
    (tmp_path / "list").write_text("2_mlp 5\n1_mlp_norm 7\n")
    output = run(arguments, several_sites, tmp_path / "out", "--features", str(tmp_path / "list"), "--quiet")
    assert {str(place): numbers for place, numbers in stratalens.load_result(output).findings.features.items()} == {
        "1_mlp_norm": [7],
        "2_mlp": [5],
    }
    assert (output / "layer_1_mlp_norm" / "evidence.json").is_file()
    options = with_options(arguments, {"sae_model": str(several_sites), "output_dir": str(tmp_path / "other")})
    line = refused(capsys, "analyze", *options, "--features", str(tmp_path / "list"), "--sites", "mlp")
    assert "--features names sites mlp mlp_norm, --sites others; leave out --sites" in line


def test_without_sites_the_block_is_analysed_and_one_line_names_the_others(arguments, several_sites, tmp_path, capsys):
    output = run(arguments, several_sites, tmp_path / "out")
    said = capsys.readouterr().out
    assert "The SAE folder also has sites that are not analysed: mlp mlp_norm (choose with --sites)" in said
    assert list(stratalens.load_result(output).findings.top) == [BLOCK]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["head"], "sites: `head` is unknown; expected resid, resid_in, attn, mlp"),
        (["mlp", "mlp"], "sites: one is named more than once"),
        (["attn"], "no SAE at site attn; it has resid mlp mlp_norm"),
    ],
)
def test_a_site_that_cannot_be_analysed_is_refused(arguments, several_sites, tmp_path, capsys, sites, message):
    options = with_options(arguments, {"sae_model": str(several_sites), "output_dir": str(tmp_path / "out")})
    assert message in refused(capsys, "analyze", *options, "--quiet", "--sites", *sites)


def test_every_name_of_a_site_is_parsed_as_it_is_printed():
    for name in SITE_NAMES:
        place = Hookpoint.at(28, name)
        assert Hookpoint.parse(str(place)) == place
        assert str(place) == ("28" if name == "resid" else f"28_{name}")
    for wrong in ("", "x", "-1", "028", "28_resid", "28_mlp_", "28 mlp", "28_MLP", "１", "28_resid_out"):
        with pytest.raises(ValueError, match="no hookpoint"):
            Hookpoint.parse(wrong)
    for wrong in ((-1, "resid", "out"), (1, "head", "out"), (1, "mlp", "in"), (1, "resid", "left")):
        with pytest.raises(ValueError, match=r"hookpoint|input side"):
            Hookpoint(*wrong)
    assert sorted([Hookpoint(2, "mlp"), Hookpoint(2), Hookpoint(1, "mlp"), Hookpoint(2, "resid", "in")]) == [
        Hookpoint(1, "mlp"),
        Hookpoint(2),
        Hookpoint(2, "resid", "in"),
        Hookpoint(2, "mlp"),
    ]
