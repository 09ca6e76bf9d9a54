"""A file is replaced or removed only if our record lists it and a run writes such names; others are the user's."""

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest
from finished_result import contents, label, refused
from refusal import output_of, refusal, with_options

from stratalens.cli.main import main
from stratalens.config.options import RunConfig
from stratalens.errors import OutputError
from stratalens.files.output_dir import working_in
from stratalens.files.record import MAX_RECORDED_FILES, read_record, recorded_names
from stratalens.files.result_names import ANY_RESULT_NAME, WORK_FOLDER, result_names

KIND = "Output, disk and cache"
NAMES = {"domain": "financial", "top_n": 30, "top_features_n": 50}


def made(path: Path, content: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def record_of(*names: object, **more: object) -> str:
    return json.dumps({"format": 1, "stratalens": "0.1.0", "files": names} | more)


def publish(output: Path, *names: str, overwrite: bool = False, early: bool = True) -> None:
    """A run that writes these files."""
    writes = result_names(**NAMES) if early else None
    with working_in(output, writes=writes, overwrite=overwrite) as work:
        for name in names:
            made(work.staging / name, "new")
        made(work.staging / "run.json", record_of(*names))


# names


@pytest.mark.figures
def test_every_file_that_a_run_writes_has_a_name_that_is_known(tiny_arguments, capsys):
    output = output_of(tiny_arguments)
    options = ["--domain", "tax_law-2", "--top_n", "7", "--top_features_n", "12", "--layers", "2", "--quiet"]
    assert main(["analyze", *tiny_arguments, *options]) == 0
    written = set(contents(output))
    assert len(written) > 15
    exactly = result_names("tax_law-2", 7, 12)
    assert [name for name in written if not exactly.fullmatch(name)] == []
    assert recorded_names(output) == written
    for other in (result_names("tax_law", 7, 12), result_names("tax_law-2", 8, 12), result_names("tax_law-2", 7, 1)):
        assert [name for name in written if not other.fullmatch(name)]


@pytest.mark.parametrize(
    "name",
    [
        *("data/precious.csv", "precious.csv", "REPORT.html", "report.html.bak", "report-html", "xreport.html", ""),
        *("../report.html", "/report.html", "./report.html", "layer_0/../report.html", "layer_0//evidence.json"),
        *("layer_0/report.html", "layer_00/evidence.json", "layer_x/evidence.json", "layer_0/deep/evidence.json"),
        *("report.html\n", "top_0_financial_features.csv", "top_50__features.csv", "top_50_../x_features.csv"),
        *("harvest/layer_0.state/x", "harvest/context.json", "evidence", "harvest", "layer_0", ".stratalens.lock"),
        *(".unfinished/shards/context.json", "layer_٣/evidence.json", "top_٣_financial_features.csv"),
    ],
)
def test_other_names_are_none_of_a_run(name):
    assert ANY_RESULT_NAME.fullmatch(name) is None


@pytest.mark.parametrize("domain", ["a", "financial", "A-b_9", "x" * 64, "features", "top_3"])
def test_a_run_of_any_domain_and_any_numbers_has_known_names(domain):
    assert RunConfig(domain=domain, domain_data=("x",), top_n=1).domain == domain
    for number in (1, 50, 2**31 - 1):
        for name in (f"top_{number}_{domain}_features.csv", f"layer_{number}/feature_labels_clean_{domain}.csv"):
            assert result_names(domain, number, number).fullmatch(name)
            assert ANY_RESULT_NAME.fullmatch(name)
    assert not result_names("a.c", 1, 1).fullmatch("abc_feature_summary.json")


# records


FOREIGN_RECORDS = {
    "another tool's": {"files": ["data/precious.csv", "report.html"]},
    "without format": {"stratalens": "0.1.0", "files": ["report.html"]},
    "without version": {"format": 1, "files": ["report.html"]},
    "whose version is no text": {"format": 1, "stratalens": 1, "files": ["report.html"]},
    "without files": {"format": 1, "stratalens": "0.1.0"},
    "whose files are a text": {"format": 1, "stratalens": "0.1.0", "files": "report.html"},
    "a list": ["report.html"],
}


@pytest.mark.parametrize("case", FOREIGN_RECORDS)
def test_the_record_of_another_tool_names_no_file_of_ours(tmp_path, case):
    made(tmp_path / "run.json", json.dumps(FOREIGN_RECORDS[case]))
    assert (read_record(tmp_path), recorded_names(tmp_path)) == ({}, set())
    with pytest.raises(OutputError, match=r"run\.json would be replaced"):
        publish(tmp_path, "report.html")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\0", '{"format": 1e999999'])
def test_a_damaged_record_names_no_file(tmp_path, content):
    made(tmp_path / "run.json", content)
    assert recorded_names(tmp_path) == set()


def test_a_record_that_is_a_link_names_no_file(tmp_path):
    (tmp_path / "run.json").symlink_to(made(tmp_path / "other" / "run.json", record_of("report.html")))
    assert recorded_names(tmp_path) == set()
    assert recorded_names(tmp_path / "other") == {"run.json", "report.html"}


def test_a_record_that_is_too_large_names_no_file(tmp_path):
    record = made(tmp_path / "run.json", record_of("report.html"))
    size = record.stat().st_size
    assert recorded_names(tmp_path, max_bytes=size) == {"run.json", "report.html"}
    assert recorded_names(tmp_path, max_bytes=size - 1) == set()


def test_a_record_of_more_files_than_any_run_writes_names_none_and_is_passed_over_quickly(tmp_path):
    most = ["report.html", *map(str, range(MAX_RECORDED_FILES - 1))]
    made(tmp_path / "run.json", record_of(*most))
    assert recorded_names(tmp_path) == {"run.json", "report.html"}
    made(tmp_path / "run.json", record_of(*most, *["a/" * 100] * 300_000))
    began = time.perf_counter()
    assert recorded_names(tmp_path) == set()
    assert time.perf_counter() - began < 5


def test_a_name_that_is_longer_than_any_of_a_run_is_passed_over(tmp_path):
    made(tmp_path / "run.json", record_of("./" * 10_000_000 + "report.html", "features.parquet"))
    began = time.perf_counter()
    assert recorded_names(tmp_path) == {"run.json", "features.parquet"}
    assert time.perf_counter() - began < 5


def test_files_that_a_record_lists_under_names_of_no_run_stay(tmp_path):
    mine = ("data/precious.csv", "layer_0/notes.txt", "x.state", "evidence/thesis.docx", ".bashrc")
    for name in mine:
        made(tmp_path / name)
    made(tmp_path / "layer_1" / "evidence.json", "old")
    made(tmp_path / "run.json", record_of("layer_1/evidence.json", *mine, "../x", "/etc/passwd", 7, None, ["x"]))
    publish(tmp_path, "report.html")
    assert contents(tmp_path) == {
        **dict.fromkeys(mine, b"mine"),
        "report.html": b"new",
        "run.json": record_of("report.html").encode(),
    }
    assert not (tmp_path / "layer_1").exists()


def test_a_folder_or_a_pipe_in_the_place_of_an_earlier_file_is_not_removed(tmp_path):
    made(tmp_path / "features.parquet" / "thesis.txt")
    os.mkfifo(tmp_path / "layer_comparison_report.csv")
    made(tmp_path / "run.json", record_of("features.parquet", "layer_comparison_report.csv"))
    publish(tmp_path, "report.html", early=False)
    assert (tmp_path / "features.parquet" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "layer_comparison_report.csv").is_fifo()


# files of the user's own


OWN = ["report.html", "features.parquet", "layer_4/evidence.json", "top_50_financial_features.csv", "run.json"]


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_the_users_own_is_refused_before_the_work(tmp_path, documented, name):
    made(tmp_path / "out" / name)
    with pytest.raises(OutputError) as error, working_in(tmp_path / "out", writes=result_names(**NAMES)):
        pytest.fail("the run began")
    assert str(error.value) == (
        f"{tmp_path}/out/{name} would be replaced, and no run.json of a run lists it; choose another --output_dir, "
        "or let `analyze --overwrite` replace what a run writes"
    )
    assert contents(tmp_path / "out") == {name: b"mine"}
    if name == "report.html":
        documented(KIND, "a file of yours with the name of a file of the result", str(error.value))


def test_several_are_counted_and_the_first_is_named(tmp_path, documented):
    for name in (*OWN, "mine.txt", "top_10_cat_features.csv", "evidence/notes.txt"):
        made(tmp_path / "out" / name)
    with pytest.raises(OutputError) as error:
        publish(tmp_path / "out", *OWN)
    assert f"out/features.parquet and {len(OWN) - 1} more of your files would be replaced" in str(error.value)
    documented(KIND, "files of yours with the names of files of the result", str(error.value))


def test_files_that_the_run_would_not_write_are_not_in_its_way(tmp_path):
    others = ["top_10_financial_features.csv", "cats_feature_summary.json", "layer_3/top_5_features_analysis.csv"]
    for name in others:
        made(tmp_path / name)
    publish(tmp_path, "report.html")
    assert {name: (tmp_path / name).read_text() for name in others} == dict.fromkeys(others, "mine")


def test_overwrite_replaces_what_the_run_writes_and_nothing_else(tmp_path):
    for name in (*OWN, "mine.txt"):
        made(tmp_path / name)
    publish(tmp_path, "report.html", overwrite=True)
    kept = {name: b"mine" for name in (*OWN, "mine.txt") if name not in ("report.html", "run.json")}
    assert contents(tmp_path) == {**kept, "report.html": b"new", "run.json": record_of("report.html").encode()}
    publish(tmp_path, "report.html", early=False)


def test_a_folder_in_the_place_of_a_file_is_refused_even_then(tmp_path, documented):
    made(tmp_path / "out" / "report.html" / "thesis.txt")
    for early in (True, False):
        with pytest.raises(OutputError) as error:
            publish(tmp_path / "out", "report.html", overwrite=True, early=early)
    assert "out/report.html: a folder, where a run writes a file; move it away or choose" in str(error.value)
    documented(KIND, "a folder in the place of a file of the result", str(error.value))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_during_a_run_is_looked_at_as_well(tmp_path, overwrite):
    publish(tmp_path, "features.parquet")

    def run() -> None:
        with working_in(tmp_path, writes=result_names(**NAMES), overwrite=overwrite) as work:
            made(tmp_path / "report.html")
            made(work.staging / "report.html", "new")
            made(work.staging / "run.json", record_of("report.html"))

    if overwrite:
        run()
        assert contents(tmp_path) == {"report.html": b"new", "run.json": record_of("report.html").encode()}
        return
    with pytest.raises(OutputError, match=r"report\.html would be replaced"):
        run()
    expected = {"report.html": b"mine", "features.parquet": b"new", "run.json": record_of("features.parquet").encode()}
    assert contents(tmp_path) == expected


NEW = ("report.html", "evidence/passages.parquet", "layer_2/evidence.json")


@pytest.fixture
def interrupted(tmp_path) -> Path:
    """An output directory in which one of three files of a new result has been moved; the old record is still there."""
    made(tmp_path / "run.json", record_of("features.parquet"))
    made(tmp_path / "features.parquet", "old")
    made(tmp_path / NEW[0], "new")
    for name in NEW[1:]:
        made(tmp_path / WORK_FOLDER / "complete" / name, "new")
    made(tmp_path / WORK_FOLDER / "complete" / "run.json", record_of(*NEW))
    return tmp_path


def stopped(output: Path, *, overwrite: bool = False) -> None:
    """A run that finds what another left, and is stopped itself."""
    with pytest.raises(ZeroDivisionError), working_in(output, writes=result_names(**NAMES), overwrite=overwrite):
        raise ZeroDivisionError


def test_an_interrupted_publish_is_finished_and_its_files_are_not_taken_for_the_users(interrupted):
    stopped(interrupted)
    assert contents(interrupted) == {**dict.fromkeys(NEW, b"new"), "run.json": record_of(*NEW).encode()}


def test_a_file_of_the_users_own_is_not_replaced_by_an_interrupted_publish_either(interrupted):
    made(interrupted / NEW[1])
    before = contents(interrupted)
    with pytest.raises(OutputError, match=r"evidence/passages\.parquet would be replaced"):
        publish(interrupted, "report.html", early=False)
    assert contents(interrupted) == before
    stopped(interrupted, overwrite=True)
    assert contents(interrupted) == {**dict.fromkeys(NEW, b"new"), "run.json": record_of(*NEW).encode()}


# commands


def test_an_analysis_beside_files_of_the_user(tiny_arguments, capsys):
    output = output_of(tiny_arguments)
    mine = {"report.html": b"mine", "run.json": b'{"files": ["data/precious.csv"]}', "data/precious.csv": b"mine"}
    for name, content in mine.items():
        made(output / name, content.decode())
    missing_text = with_options(tiny_arguments, {"domain_data": "/no/such.txt"})
    line = refusal(missing_text, capsys, leaves_shards=True)
    assert "out/report.html and 1 more of your files would be replaced" in line
    assert contents(output) == mine
    assert main(["analyze", "--quiet", *tiny_arguments, "--overwrite"]) == 0
    result = contents(output)
    assert result.pop("data/precious.csv") == b"mine"
    assert recorded_names(output) == set(result)
    record = json.loads(result["run.json"])
    assert "overwrite" not in record["settings"]
    assert "overwrite" not in json.loads(result["layer_0/top_30_features_analysis.json"])["config"]


@pytest.mark.usefixtures("own_environment")
def test_commands_on_a_result_need_no_overwrite_and_leave_files_of_the_user(result, capsys):
    made(result / "layer_0" / "notes.txt")
    made(result / "top_9_cats_features.csv")
    assert main(["rank", str(result), "--quiet", "--top_n", "3"]) == 0
    assert main(["report", str(result), "--quiet"]) == 0
    assert label(result) == 0
    assert recorded_names(result) == set(contents(result)) - {"layer_0/notes.txt", "top_9_cats_features.csv"}
    before = pd.read_parquet(result / "features.parquet")
    made(result / "layer_0" / "top_4_features_analysis.csv")
    line = refused(capsys, "rank", str(result), "--quiet", "--top_n", "4")
    assert "layer_0/top_4_features_analysis.csv would be replaced" in line
    assert (result / "layer_0" / "top_4_features_analysis.csv").read_text() == "mine"
    pd.testing.assert_frame_equal(pd.read_parquet(result / "features.parquet"), before)


def test_no_file_turns_overwrite_on(finished, tiny_arguments, tmp_path, capsys):
    record = json.loads((finished / "run.json").read_text())
    record["settings"]["overwrite"] = True
    hostile = made(tmp_path / "hostile.json", json.dumps(record))
    mine = made(tmp_path / "other" / "report.html")
    arguments = with_options(tiny_arguments, {"output_dir": str(mine.parent)})
    line = refusal(["--config", str(hostile), *arguments], capsys, leaves_shards=True)
    assert "other/report.html would be replaced" in line
    assert mine.read_text() == "mine"
