"""A finished result is validated on other text: what transfers, what is kept, and what is refused."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_result import contents, refused
from refusal import with_options

import stratalens
from stratalens.cli.main import main
from stratalens.corpus import Half, Side
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import document_rows
from stratalens.ranking.separation import separation
from stratalens.validation.transfer import scores_of

pytestmark = pytest.mark.usefixtures("own_environment")

SUBJECTS = {"domain": "loan bank rate bond price", "general": "river stone bird cloud song"}
"""The words of the run's texts."""
PLAIN = "table chair spoon plate knife"


def write(path: Path, words: str, documents: int = 24, kind: str = "note") -> Path:
    """Documents of these words that are not in the run, in the form of the run's texts."""
    rows = []
    for i in range(documents):
        rng = random.Random(f"{path.name} {i}")
        pairs = [f"{word} {word[: 2 + i % 3]}" for word in words.split()]
        rng.shuffle(pairs)
        text = f"Nr {rng.randrange(10**6)}: " + " ".join(pairs)
        rows.append({"id": f"{path.stem}-{i}", "kind": kind, "text": text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(folder: Path, name: str, domain: str, general: str) -> list[str]:
    """Options for the texts of a validation."""
    folder.mkdir(exist_ok=True)
    files = [write(folder / f"{name}-{side}.jsonl", words) for side, words in (("one", domain), ("other", general))]
    return ["--domain_data", str(files[0]), "--general_data", str(files[1]), "--keep_near_duplicates"]


@pytest.fixture
def alike(tmp_path) -> list[str]:
    return texts(tmp_path / "texts", "alike", *SUBJECTS.values())


def validate(result: Path, name: str, *words: str) -> int:
    return main(["validate", str(result), "--name", name, "--quiet", *words])


def record(result: Path) -> dict:
    return json.loads((result / "run.json").read_text())


def reported(result: Path) -> pd.DataFrame:
    return pd.read_parquet(result / "features.parquet")


def test_planted_differences_transfer_and_others_do_not(result, alike, tmp_path):
    assert reported(result)["transfers"].isna().all()
    assert validate(result, "alike", *alike) == 0
    assert validate(result, "nothing", *texts(tmp_path / "texts", "nothing", PLAIN, PLAIN)) == 0
    assert validate(result, "swapped", *texts(tmp_path / "texts", "swapped", *reversed(SUBJECTS.values()))) == 0
    scores = [{score.name: score for score in scores_of(text)} for text in reported(result)["validations"]]
    assert sum(own["alike"].transfers for own in scores) >= len(scores) // 2
    assert not any(own["nothing"].transfers or own["swapped"].transfers for own in scores)
    assert set(reported(result)["transfers"]) <= {"0 of 3", "1 of 3"}
    kept = record(result)["validations"]
    assert [own["name"] for own in kept] == ["alike", "nothing", "swapped"]
    assert [own["transferring"] for own in kept][1:] == [0, 0]
    layers = pd.read_csv(result / "layer_comparison_report.csv")
    assert (layers["transferring_features"] == 0).all()


def test_the_numbers_are_those_of_all_documents_within_kinds(result, tmp_path):
    pairs = []
    for kind in ("news", "letter"):
        files = [write(tmp_path / f"{kind}-{side}.jsonl", words, 12) for side, words in SUBJECTS.items()]
        pairs += ["--pair", kind, *map(str, files)]
    assert validate(result, "kinds", *pairs, "--keep_near_duplicates") == 0
    own = stratalens.load_result(result).record.validations[0]
    assert own.kinds == ["letter", "news"]
    assert {side: counts["documents"] for side, counts in own.sides.items()} == {"financial": 24, "general": 24}
    table = pd.read_csv(result / "validation_kinds.csv")
    saved = stratalens.load_result(result)
    q = []
    for place, key in own.keys.items():
        from stratalens.harvest.store import HarvestFile

        state = HarvestFile(result / f"validation_kinds/layer_{place}.state", key).state()
        matrix = state.documents.matrix(64)
        populations = type(saved.record.populations)(("letter", "news"))
        assert set(populations.halves[matrix.population]) == {Half.DISCOVERY}
        features = saved.findings.features[Hookpoint.parse(place)]
        dense = matrix.values.toarray()[:, features]
        strata = [document_rows(matrix, populations, Half.DISCOVERY, at) for at in range(2)]
        assert [len(rows[Side.DOMAIN]) for rows in strata] == [12, 12]
        found = separation([(dense[x], dense[y]) for x, y in strata])
        there = table[table["layer"] == int(place)].set_index("feature_number").loc[features]
        np.testing.assert_allclose(there["auroc"], found.auroc, rtol=1e-6)
        np.testing.assert_allclose(there["p_value"], found.p_value, rtol=1e-2)
        q += there["q_value"].tolist()
    assert len(q) == len(table)
    assert (table["q_value"] >= table["p_value"] * (1 - 1e-6)).all()


def test_documents_of_the_run_are_dropped_and_counted(result, small_texts, alike, tmp_path, capsys):
    domain, general = (Path(alike[at]) for at in (1, 3))
    domain.write_text(domain.read_text() + "".join(small_texts[0].read_text().splitlines(keepends=True)[:7]))
    general.write_text(general.read_text() + "".join(small_texts[0].read_text().splitlines(keepends=True)[9:12]))
    assert main(["validate", str(result), "--name", "mixed", *alike]) == 0
    printed = capsys.readouterr().err
    assert "financial documents dropped: 7 were in the run" in printed
    sides = record(result)["validations"][0]["sides"]
    assert [sides[side]["in_the_run"] for side in ("financial", "general")] == [7, 3]
    assert [sides[side]["documents"] for side in ("financial", "general")] == [24, 24]
    assert record(result)["validations"][0]["overlap"] == "checked"


def test_documents_that_say_nearly_what_one_of_the_run_says_are_dropped_too(result, small_texts, alike):
    path = Path(alike[1])
    rows = [json.loads(line) for line in small_texts[0].read_text().splitlines()[:5]]
    changed = [row | {"id": f"near-{row['id']}", "text": row["text"].replace("No. ", "No. 77")} for row in rows]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in changed))
    assert validate(result, "near", *alike[:-1]) == 0
    assert record(result)["validations"][0]["sides"]["financial"]["nearly_in_the_run"] >= 5


def test_text_of_the_run_that_is_gone_is_a_warning(result, sources, arguments, alike, capsys):
    from finished_result import with_sources

    with_sources(result, sources, arguments)
    (sources / "domain.jsonl").unlink()
    assert main(["validate", str(result), "--name", "alone", *alike]) == 0
    output = capsys.readouterr()
    assert "documents that were in the run could not all be found and dropped" in output.err.replace("\n", " ")
    assert "not all documents of the run could be left out" in output.out
    assert record(result)["validations"][0]["overlap"].startswith("the text of the run cannot be read again")


def test_the_model_is_loaded_only_for_text_that_was_not_read(result, alike, monkeypatch, capsys):
    assert validate(result, "alike", *alike) == 0
    first = contents(result)

    def no_model(*_arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("stratalens.harvest.open_model.load_blocks", no_model)
    assert main(["rank", str(result), "--top_n", "8", "--quiet"]) == 0
    table = reported(result)
    assert table["transfers"].isna().sum() == 6
    assert set(table["transfers"].dropna()) <= {"0 of 1", "1 of 1"}
    new = table[table["transfers"].isna()].iloc[0]
    capsys.readouterr()
    assert main(["show", str(result), str(new["layer"]), str(new["feature_number"])]) == 0
    assert "Not validated on alike" in capsys.readouterr().out
    assert validate(result, "alike", *alike) == 0
    assert reported(result)["transfers"].notna().all()
    assert len(record(result)["validations"]) == 1
    assert main(["rank", str(result), "--top_n", "5", "--quiet"]) == 0
    assert validate(result, "alike", *alike) == 0
    again = contents(result)
    drawn = {name for name in first if name.endswith((".png", ".svg"))}
    assert set(again) == set(first) - drawn
    assert [name for name in again if name != "run.json" and again[name] != first[name]] == []


def test_a_validation_that_was_stopped_continues(result, alike, monkeypatch, capsys):
    from stratalens.harvest.store import HarvestFile

    write_state = HarvestFile.write

    def stopped(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HarvestFile, "write", stopped)
    before = {name: content for name, content in contents(result).items() if ".unfinished" not in name}
    assert validate(result, "alike", *alike) == 130
    assert {name: own for name, own in contents(result).items() if ".unfinished" not in name} == before
    monkeypatch.setattr(HarvestFile, "write", write_state)
    monkeypatch.setattr("stratalens.harvest.open_model.load_blocks", stopped)
    assert main(["validate", str(result), "--name", "alike", *alike]) == 0
    assert "Reusing 1 of 1 shard" in capsys.readouterr().out


def test_every_file_shows_it(result, alike, capsys):
    assert main(["validate", str(result), "--name", "newswire", *alike]) == 0
    printed = capsys.readouterr().out
    assert "Validation newswire: " in printed
    assert "1 of 1" in printed
    first = reported(result).iloc[0]
    assert main(["show", str(result), str(first["layer"]), str(first["feature_number"])]) == 0
    assert "AUROC on newswire: " in capsys.readouterr().out
    for name in ("consolidated_top_features_all_layers.csv", "layer_0/top_5_features_analysis.csv"):
        assert pd.read_csv(result / name)["transfers"].isin(["0 of 1", "1 of 1"]).all()
    layer = json.loads((result / "layer_0/top_5_features_analysis.json").read_text())
    assert {row["transfers"] for row in layer["top_features"]} <= {"0 of 1", "1 of 1"}
    assert layer["feature_sentences"]
    assert "newswire" in (result / "report.html").read_text()
    for command in ("report", "label", "rank"):
        before = reported(result)["validations"].tolist()
        assert main([command, str(result), "--quiet"]) == 0
        assert reported(result)["validations"].tolist() == before
        assert (result / "validation_newswire.csv").is_file()
        assert set(record(result)["files"]) | {"run.json"} == set(contents(result)) - {".stratalens.lock"}


def test_refusals_are_one_line_and_change_nothing(result, alike, tmp_path, capsys, small_texts, documented):
    assert validate(result, "newswire", *alike) == 0
    before = contents(result)
    other = texts(tmp_path / "texts", "else", *SUBJECTS.values())
    both = ["--domain_data", str(small_texts[0]), "--general_data", str(small_texts[1])]
    refusals = {
        "other texts under the name of a validation": [str(result), "--name", "newswire", *other],
        "a folder without a result": [str(tmp_path / "none"), "--name", "newswire", *alike],
        "a name of a validation that files cannot have": [str(result), "--name", "News wire", *alike],
        "a validation without a name": [str(result), *alike],
        "a validation on a device that there is not": [str(result), "--name", "a", "--device", "abacus", *alike],
        "a validation with text of one side": [str(result), "--name", "half", *alike[:2]],
        "a validation on the texts of the run": [str(result), "--name", "own", *both],
    }
    for wrong, words in refusals.items():
        documented("Finished results", wrong, refused(capsys, "validate", *words, "--quiet"))
        assert contents(result) == before
    shutil.rmtree(result)
    assert "no finished result here" in refused(capsys, "validate", str(result), "--name", "newswire", *alike)


@pytest.mark.parametrize(
    "damage",
    ["[", "{}", '[{"name": "x"}]', '[["x", 1, 1, 1, NaN, 0, 1, 0, 0, true]]'],
)
def test_scores_that_no_validation_wrote_are_refused(result, alike, capsys, damage):
    assert validate(result, "newswire", *alike) == 0
    table = reported(result)
    table.loc[0, "validations"] = damage
    table.to_parquet(result / "features.parquet", index=False)
    assert "the column validations does not hold scores" in refused(capsys, "report", str(result))


def test_a_new_analysis_says_before_it_begins_that_it_has_no_validations(result, alike, arguments, capsys):
    words = ["analyze", *with_options(arguments, {"output_dir": str(result)})]
    assert validate(result, "alike", *alike) == 0
    capsys.readouterr()
    assert main(words) == 0
    notes = capsys.readouterr().err
    warning = "the result in this directory has 1 validation, which the new one will not have"
    assert warning in " ".join(notes.split())
    assert record(result)["validations"] == []
    assert main(words) == 0
    assert "validation" not in capsys.readouterr().err
