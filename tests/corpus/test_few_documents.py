"""A run in which few documents confirm says how far its intervals can be trusted."""

import json

import pytest

from stratalens.cli.main import main
from stratalens.corpus.describe import MIN_COVERED_DOCUMENTS, coverage_warnings
from stratalens.corpus.side_rows import SideCounts


def warned(domain: int, general: int) -> list[str]:
    counts = SideCounts(confirmation_documents=domain), SideCounts(confirmation_documents=general)
    return coverage_warnings(counts, ("legal", "general"))


@pytest.mark.parametrize(("domain", "general", "said"), [(39, 400, "legal"), (400, 20, "general")])
def test_the_smaller_side_is_named_with_the_measured_coverage(domain, general, said):
    [warning] = warned(domain, general)
    assert warning.startswith(f"only {min(domain, general)} {said} documents confirm the features")
    assert "cover about 92% instead of 95%" in warning
    assert "about 7% instead of 5%" in warning


def test_enough_documents_say_nothing():
    assert warned(MIN_COVERED_DOCUMENTS, 400) == []


def test_a_small_run_has_the_warning_in_its_record_and_a_run_without_a_split_has_not(tiny_arguments, tmp_path, capsys):
    assert main(["analyze", *tiny_arguments]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    [warning] = [text for text in record["warnings"] if "documents confirm the features" in text]
    fewest = min(record["corpus"][side]["confirmation_documents"] for side in ("financial", "general"))
    assert warning.startswith(f"only {fewest} ")
    assert f"only {fewest} " in capsys.readouterr().err
    assert main(["analyze", "--quiet", *tiny_arguments, "--max_documents", "12", "--overwrite"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert not any("documents confirm the features" in text for text in record["warnings"])
