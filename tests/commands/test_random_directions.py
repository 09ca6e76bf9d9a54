"""`--controls full`: SAEs of random directions read the same text, and their best latents are tested as features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import with_options
from safetensors.torch import load_file, save_file

import stratalens
from stratalens.cli.main import main
from stratalens.config.validation import make_config
from stratalens.harvest.other_text import other_harvest_path
from stratalens.models import find_model
from stratalens.report.controls_record import ControlsRecord
from stratalens.saes import find_saes
from stratalens.saes.random_directions import random_directions
from stratalens.saes.sae import SaeFile
from stratalens.saes.steps import Linear

pytestmark = pytest.mark.usefixtures("own_environment")

FOLDER = "random_directions"


@pytest.fixture
def saes(tiny_model, tiny_saes) -> dict:
    config = make_config(base_model=str(tiny_model), sae_model=str(tiny_saes))
    return find_saes(config, find_model(config))


@pytest.fixture
def result(tiny_arguments, tmp_path) -> stratalens.Result:
    assert main(["analyze", "--quiet", *tiny_arguments, "--controls", "full"]) == 0
    return stratalens.load_result(tmp_path / "out")


def controls_of(result: stratalens.Result) -> ControlsRecord:
    assert result.record.controls is not None
    return result.record.controls


def rows(sae: SaeFile) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder and decoder rows of an SAE."""
    loaded = sae.load()
    return next(step for step in loaded.steps if isinstance(step, Linear)).weight, loaded.decoder.weight


def test_directions_are_drawn_anew_and_norms_and_shape_stay(saes):
    for sae in saes.values():
        drawn = random_directions(sae, 0)
        for before, after in zip(rows(sae), rows(drawn), strict=True):
            torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
            cosine = torch.cosine_similarity(before, after, dim=1)
            assert cosine.abs().mean() < 3 / before.shape[1] ** 0.5
        torch.testing.assert_close(*(own / own.norm(dim=1, keepdim=True) for own in rows(drawn)))
        assert (drawn.num_latents, drawn.k, drawn.activation) == (sae.num_latents, sae.k, sae.activation)
        torch.testing.assert_close(rows(drawn), rows(random_directions(sae, 0)), rtol=0, atol=0)
        assert not torch.equal(rows(drawn)[0], rows(random_directions(sae, 1))[0])
    assert len({random_directions(sae, seed).digest for sae in saes.values() for seed in (0, 1)}) == 2 * len(saes)


def test_the_harvest_is_that_of_the_same_directions_in_a_checkpoint(result, saes, tiny_saes, tiny_arguments, tmp_path):
    folder = tmp_path / "drawn"
    shutil.copytree(tiny_saes, folder)
    for sae in saes.values():
        encoder, decoder = rows(random_directions(sae, 0))
        path = folder / sae.module / "sae.safetensors"
        weights = load_file(path) | {"encoder.weight": encoder.contiguous(), "W_dec": decoder.contiguous()}
        save_file(weights, path)
    options = {"sae_model": str(folder), "output_dir": str(tmp_path / "again")}
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, options)]) == 0
    again = stratalens.load_result(tmp_path / "again")
    own = controls_of(result).random_files(result.output_dir)
    assert set(own) == set(again.harvest)
    for place, file in own.items():
        width = len(again.findings.latents[place])
        one, other = file.state(width), again.harvest[place].state(width)
        np.testing.assert_allclose(one.stats.mean_sum, other.stats.mean_sum, rtol=1e-5)  # the bias is a sum of others
        values = (of.documents.matrix(width).values.toarray() for of in (one, other))
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-5)
        control = controls_of(result).hookpoints[str(place)].random_directions
        assert control is not None
        table = again.findings.top[place]
        assert control.features == len(table)
        assert control.confirmed == table["confirmed"].sum()
        assert control.average_auroc == pytest.approx(table["auroc"].mean())
        probes = controls_of(again).hookpoints[str(place)].best_features
        assert [probe.features for probe in control.best_features] == [probe.features for probe in probes]
        aurocs = ([probe.held_out.auroc for probe in of] for of in (control.best_features, probes))
        np.testing.assert_allclose(*aurocs, atol=1e-3)


def test_the_page_and_the_terminal_tell_of_it(result, tiny_arguments, capsys, tmp_path):
    page = (result.output_dir / "report.html").read_text()
    assert "Random directions confirmed" in page
    assert "directions drawn at random" in page
    capsys.readouterr()
    assert main(["rank", str(result.output_dir)]) == 0
    assert "the best random directions there" in capsys.readouterr().out
    assert main(["analyze", *with_options(tiny_arguments, {"output_dir": str(tmp_path / "plain")})]) == 0
    assert "random directions" not in capsys.readouterr().out
    assert "directions drawn at random" not in (tmp_path / "plain" / "report.html").read_text()


def test_every_command_on_the_result_keeps_it_and_rank_makes_it_anew(result, tmp_path):
    out = result.output_dir
    places = [other_harvest_path(FOLDER, place) for place in result.harvest]
    bytes_before = {place: (out / place).read_bytes() for place in places}
    for command in (["rank", "--top_n", "3", "--rank_by", "auroc"], ["label"], ["report"]):
        assert main([command[0], str(out), *command[1:], "--quiet"]) == 0
        assert {place: (out / place).read_bytes() for place in places} == bytes_before
    controls = controls_of(stratalens.load_result(out))
    found = [own.random_directions for own in controls.hookpoints.values()]
    assert [own.features for own in found if own is not None] == [3] * len(places)
    assert controls.random_keys == controls_of(result).random_keys


def test_a_new_run_without_it_leaves_nothing_of_it_and_one_with_it_reads_nothing_again(result, tiny_arguments, capsys):
    out = result.output_dir
    assert main(["analyze", *tiny_arguments, "--controls", "full"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("The text was read before") == 2
    assert "stopped in this directory" not in printed
    assert main(["analyze", "--quiet", *tiny_arguments]) == 0
    assert not (out / FOLDER).exists()
    assert controls_of(stratalens.load_result(out)).random_keys == {}


def test_a_run_that_was_stopped_in_the_second_reading_goes_on(tiny_arguments, tmp_path, monkeypatch, capsys):
    from stratalens.harvest import other_text

    def stop(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(other_text._LateWorker, "read", stop)
        assert main(["analyze", "--quiet", *tiny_arguments, "--controls", "full"]) == 130
    capsys.readouterr()
    assert main(["analyze", *tiny_arguments, "--controls", "full"]) == 0
    printed = capsys.readouterr().out
    assert "Reusing" in printed
    assert "had another" not in printed
    assert "read with another" not in printed
    assert (tmp_path / "out" / FOLDER).is_dir()


@pytest.mark.parametrize(
    "keys", [{"99": "a"}, {"..": "a"}, {"2": 7}], ids=["another layer", "no hookpoint", "a number for a key"]
)
def test_a_record_that_names_other_harvests_is_refused(result, keys, capsys):
    path = Path(result.output_dir) / "run.json"
    record = json.loads(path.read_text())
    record["controls"]["random_keys"] = keys
    path.write_text(json.dumps(record))
    assert main(["rank", str(result.output_dir)]) == 2
    assert "run.json" in capsys.readouterr().err


def test_listed_features_have_their_own_controls(result, tmp_path):
    """Features that `label` adds are in the probes on the best ones, and the controls are of what is reported then."""
    place, table = next(iter(result.findings.latents.items()))
    live = table.loc[table["live"], "feature_number"].tolist()
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"{place} {number}\n" for number in live))
    assert main(["label", str(result.output_dir), "--features", str(listed), "--quiet"]) == 0
    after = stratalens.load_result(result.output_dir)
    assert len(after.findings.top[place]) == len(live)
    probes = (controls_of(own).hookpoints[str(place)].best_features for own in (result, after))
    before, now = ([probe.features for probe in own] for own in probes)
    assert max(before) == len(result.findings.top[place])
    assert max(now) == min(30, len(live))
