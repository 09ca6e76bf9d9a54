"""A number and its noun agree in what a run says."""

import pytest
from finished_result import analysed, feature_file, features

from stratalens.cli.main import main
from stratalens.errors import counted

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((0, "row"), "0 rows"),
        ((1, "row"), "1 row"),
        ((1200, "row"), "1,200 rows"),
        ((2, "batch", "batches"), "2 batches"),
    ],
)
def test_a_number_and_its_noun(words, text):
    assert counted(*words) == text


def test_a_result_of_one_feature_is_told_in_the_singular(arguments, finished, tmp_path, capsys):
    number = int(features(finished).query("layer == 2")["feature_number"].iloc[0])
    listed = feature_file(tmp_path, (2, number))
    out = analysed(arguments, tmp_path / "out", "--features", listed, "--min_specialization", "1e6")
    capsys.readouterr()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "its reported feature adds" in page
    assert "confirmed <strong>1 of 1</strong>, transfers not tested" in " ".join(page.split())
    assert "1 of 1 reported feature is below --min_specialization" in page
    assert "<dd>1 layer<br>" in page
    assert main(["show", str(out), "2", str(number)]) == 0
    assert "Rank 1 of 1 reported financial feature of the layer" in capsys.readouterr().out
