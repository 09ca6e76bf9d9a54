"""A part that fails is left out: the run succeeds, and record, page and `show` say what is missing and why.

The causes are real where a run can be given them: a head of another width, with odd values, or none; a damaged font.
Labels and the page fail by no input that a run accepts, and memory and disks are not filled up: there a function is
replaced by one that raises.
"""

import errno
import json
from collections.abc import Callable
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
import torch
from chat_servers import MisbehavingServer, ok
from finished_result import analysed, contents, features, label, refused
from refusal import with_options
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from stratalens.cli.main import main
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.labelling import NOT_LABELLED

pytestmark = pytest.mark.usefixtures("own_environment")

Weights = dict[str, torch.Tensor]


def missing_parts(directory: Path) -> dict[str, str]:
    """What the record says is missing; checks that the page says the same of all but itself."""
    missing = json.loads((directory / "run.json").read_text())["missing_parts"]
    page = directory / "report.html"
    if page.exists():
        told = unescape(page.read_text(encoding="utf-8"))
        assert ("Left out of this result" in told) == bool(missing)
        assert all(f"{name}" in told and reason in told for name, reason in missing.items())
    return missing


def left_out(capsys, arguments: list[str], directory: Path, *more: str) -> dict[str, str]:
    """What a run leaves out; checks that it succeeds and warns of each part in one line."""
    capsys.readouterr()
    words = with_options([word for word in arguments if word != "--quiet"], {"output_dir": str(directory)})
    assert main(["analyze", *words, *more]) == 0
    warned = capsys.readouterr().err.splitlines()
    missing = missing_parts(directory)
    for name, reason in missing.items():
        assert warned.count(f"Note: {name}: left out ({reason})") == 1
    return missing


def fails(problem: BaseException) -> Callable[..., None]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise problem

    return fail


def fail_at(monkeypatch, module: str, name: str, problem: BaseException) -> None:
    monkeypatch.setattr(import_module(f"stratalens.{module}"), name, fails(problem))


def with_weights(sources: Path, change: Callable[[Weights], object]) -> dict[str, str]:
    """Change weights of the copied model; returns the option that names it."""
    path = sources / "model" / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})
    return {"base_model": str(sources / "model")}


def narrow_head(weights: Weights) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:, ::2].contiguous()


def head_of_one_nan(weights: Weights) -> None:
    weights["lm_head.weight"][5, 7] = torch.nan


def infinite_norm(weights: Weights) -> None:
    weights["model.norm.weight"][3] = torch.inf


def no_head(weights: Weights) -> None:
    del weights["lm_head.weight"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (narrow_head, "model: its files lack 1 weight of the model (lm_head.weight)"),
        (head_of_one_nan, "the final norm or the unembedding gives logits that are not finite"),
        (infinite_norm, "the final norm or the unembedding gives logits that are not finite"),
        (no_head, "model: its files lack 1 weight of the model (lm_head.weight)"),
    ],
)
def test_a_head_that_cannot_be_used_costs_the_logit_lens_alone(
    arguments, finished, sources, tmp_path, capsys, change, reason
):
    missing = left_out(capsys, with_options(arguments, with_weights(sources, change)), tmp_path / "out")
    assert list(missing) == ["logit lens"]
    assert missing["logit lens"].startswith("ModelError: ")
    assert reason in missing["logit lens"]
    same = features(tmp_path / "out")
    assert same.equals(features(finished))


def test_a_model_saved_without_head_has_no_logit_lens(arguments, sources, tmp_path, capsys):
    model = AutoModel.from_pretrained(sources / "model")
    model.save_pretrained(sources / "model")
    missing = left_out(capsys, with_options(arguments, {"base_model": str(sources / "model")}), tmp_path / "out")
    assert list(missing) == ["logit lens"]
    assert "model: its files lack 1 weight of the model (lm_head.weight)" in missing["logit lens"]


@pytest.mark.parametrize(
    "problem", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), KeyError("odd"), AssertionError()]
)
def test_any_error_of_the_lens_is_told_by_its_class(arguments, tmp_path, monkeypatch, capsys, problem):
    fail_at(monkeypatch, "evidence.logit_lens", "baseline", problem)
    reason = left_out(capsys, arguments, tmp_path / "out")["logit lens"]
    assert reason == f"{type(problem).__name__}: {problem}".removesuffix(": ")


def test_a_reason_is_one_short_line_without_secrets(arguments, tmp_path, monkeypatch, capsys):
    nasty = ValueError(f"https://user:secret@host/x\n\x1b[31m<b>{'long ' * 200}")
    fail_at(monkeypatch, "evidence.logit_lens", "load_head", nasty)
    reason = left_out(capsys, arguments, tmp_path / "out")["logit lens"]
    assert reason.startswith("ValueError: https://***@host/x \\x1b[31m<b>long ")
    assert len(reason) < 320


def test_features_without_lens_keep_their_evidence_and_show_says_why(arguments, sources, tmp_path, capsys):
    options = with_options(arguments, with_weights(sources, no_head))
    out = analysed(options, tmp_path / "out")
    number = features(out).query("layer == 0")["feature_number"].iloc[0]
    capsys.readouterr()
    assert main(["show", str(out), "0", str(number)]) == 0
    shown = capsys.readouterr().out
    assert f"Left out of this result: logit lens ({missing_parts(out)['logit lens']})" in shown
    assert "Tokens with most activation" in shown
    assert "Promotes next" not in shown


@pytest.mark.parametrize("command", ["rank", "label", "report"])
def test_what_is_missing_stays_missing_where_a_command_does_not_make_it_again(arguments, sources, tmp_path, command):
    out = analysed(with_options(arguments, with_weights(sources, no_head)), tmp_path / "out")
    missing = missing_parts(out)
    assert main([command, str(out), "--quiet"]) == 0
    assert missing_parts(out) == missing
    assert list(missing) == ["logit lens"]


def test_without_labels_of_the_evidence_every_feature_has_a_plain_one_until_label_makes_them(
    arguments, finished, tmp_path, monkeypatch, capsys
):
    out, part = tmp_path / "out", "labels from the evidence"
    with monkeypatch.context() as patch:
        fail_at(patch, "labels.by_evidence", "choose_label", ZeroDivisionError("no sentence"))
        assert left_out(capsys, arguments, out) == {part: "ZeroDivisionError: no sentence"}
        plain = features(out)
        assert set(plain["label"]) == {NOT_LABELLED}
        assert set(plain["label_note"]) == {"left out (ZeroDivisionError: no sentence)"}
        assert plain["specialization"].equals(features(finished)["specialization"])
        assert main(["rank", str(out), "--quiet"]) == 0
        assert missing_parts(out) == {part: "ZeroDivisionError: no sentence"}
        with pytest.raises(ZeroDivisionError):
            label(out)
    assert main(["rank", str(out), "--quiet"]) == 0
    assert list(missing_parts(out)) == [part]  # the labels are kept, and so is what is said of them
    assert label(out) == 0
    assert missing_parts(out) == {}
    assert features(out).equals(features(finished))


def test_a_labelling_model_that_breaks_down_leaves_the_labels_of_the_evidence(
    arguments, finished, tmp_path, monkeypatch, capsys
):
    out, problem = tmp_path / "out", RuntimeError("CUDA error: device-side assert triggered")
    with monkeypatch.context() as patch, MisbehavingServer(ok("never asked")) as server:
        patch.setattr(LanguageJudge, "label", fails(problem))
        missing = left_out(capsys, arguments, out, "--labeling_endpoint", server.url)
        assert missing == {"labelling model": f"RuntimeError: {problem}"}
        assert features(out).equals(features(finished))
        before = contents(out)
        with pytest.raises(RuntimeError, match="device-side assert"):
            label(out, "--labeling_endpoint", server.url)
        assert contents(out) == before
    assert label(out) == 0
    assert missing_parts(out) == {}


def test_where_the_passages_cannot_be_matched_the_model_is_not_asked(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(AnnotatedPassages, "of", fails(KeyError("odd")))
    with MisbehavingServer(ok("never asked")) as server:
        missing = left_out(capsys, arguments, tmp_path / "out", "--labeling_endpoint", server.url)
        assert server.requests == 0
    assert missing == {
        "labels from the evidence": "KeyError: 'odd'",
        "labelling model": "LabelingError: its labels cannot be scored without the terms in the passages",
    }
    assert set(features(tmp_path / "out")["label"]) == {NOT_LABELLED}


@pytest.mark.figures
def test_a_damaged_font_costs_the_figures_until_report_draws_them(arguments, tmp_path, monkeypatch, capsys):
    from matplotlib.font_manager import fontManager

    out, font = tmp_path / "out", tmp_path / "damaged.ttf"
    font.write_bytes(b"\0\1\0\0 no font")
    with monkeypatch.context() as patch:
        patch.setattr(fontManager, "_findfont_cached", lambda *_arguments, **_options: str(font))
        missing = left_out(capsys, arguments, out)
        assert list(missing) == ["figures of all layers", "figures of layer 0", "figures of layer 2"]
        assert not [*out.rglob("*.png"), *out.rglob("*.svg")]
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "figures of all layers, figures of layer 0, figures of layer 2: RuntimeError: " in page
        assert "papers are in the folder of this file, except those left out." in page
        assert main(["rank", str(out), "--quiet"]) == 0
        assert missing_parts(out) == missing
        before = contents(out)
        with pytest.raises(RuntimeError):
            main(["report", str(out), "--quiet"])
        assert contents(out) == before
    assert main(["report", str(out), "--quiet"]) == 0
    assert missing_parts(out) == {}
    assert len([*out.rglob("*.png"), *out.rglob("*.svg")]) == 6


@pytest.mark.figures
def test_a_figure_that_fails_costs_only_itself(arguments, tmp_path, monkeypatch, capsys):
    fail_at(monkeypatch, "report.figures.write", "write_overview", OverflowError("odd numbers"))
    missing = left_out(capsys, arguments, tmp_path / "out")
    assert missing == {"figures of all layers": "OverflowError: odd numbers"}
    drawn = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.svg"))
    assert drawn == ["layer_0/financial_features.svg", "layer_2/financial_features.svg"]


@pytest.mark.figures
def test_a_style_that_cannot_be_applied_costs_all_figures(arguments, tmp_path, monkeypatch, capsys):
    import matplotlib.style

    monkeypatch.setattr(matplotlib.style, "context", fails(OSError("no such style")))
    assert left_out(capsys, arguments, tmp_path / "out") == {"figures": "OSError: no such style"}


def test_without_page_there_are_the_tables_until_report_writes_it(arguments, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        fail_at(patch, "report.page.write", "charts_library", FileNotFoundError(errno.ENOENT, "no file", "plotly.js"))
        missing = left_out(capsys, arguments, out)
        assert missing == {"report page": "FileNotFoundError: [Errno 2] no file: 'plotly.js'"}
        assert not (out / "report.html").exists()
        assert "report.html" not in json.loads((out / "run.json").read_text())["files"]
        assert len(features(out)) == 10
    assert main(["report", str(out), "--quiet"]) == 0
    assert (out / "report.html").is_file()
    assert missing_parts(out) == {}


@pytest.mark.parametrize("place", [("evidence.logit_lens", "baseline"), ("report.page.write", "charts_library")])
def test_a_full_disk_stays_an_error(arguments, tmp_path, monkeypatch, capsys, place):
    fail_at(monkeypatch, *place, OSError(errno.ENOSPC, "No space left on device"))
    out = tmp_path / "out"
    line = refused(capsys, "analyze", "--quiet", *with_options(arguments, {"output_dir": str(out)}))
    assert line.endswith(
        "the disk is full; free some space and run the same command again, or choose another --output_dir"
    )
    assert not (out / "run.json").exists()


@pytest.mark.parametrize("place", [("evidence.logit_lens", "baseline"), ("labels.by_evidence", "choose_label")])
def test_ctrl_c_in_a_part_ends_the_run(arguments, tmp_path, monkeypatch, place):
    fail_at(monkeypatch, *place, KeyboardInterrupt())
    assert main(["analyze", "--quiet", *with_options(arguments, {"output_dir": str(tmp_path / "out")})]) == 130


def test_results_of_earlier_versions_name_no_missing_parts(result):
    path = result / "run.json"
    record = json.loads(path.read_text())
    assert record.pop("missing_parts") == {}
    path.write_text(json.dumps(record))
    assert main(["report", str(result), "--quiet"]) == 0
    assert missing_parts(result) == {}
