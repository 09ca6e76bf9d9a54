"""docs/own-domain.md: its example is a domain, and its commands run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from refusal import with_options

import stratalens
from stratalens.cli.main import main
from stratalens.commands.domains import examine_domain
from stratalens.config.domain_file import DomainFile, read_domain
from stratalens.corpus.sense_pairs import SensePair, load_sense_pairs

ROOT = Path(stratalens.__file__).parent.parent
PAGE = (ROOT / "docs/own-domain.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/climate"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_compares_with_the_built_in_general_text():
    found = examine_domain(EXAMPLE)
    assert found.name == "climate"
    assert len(found.kinds) == 8
    assert found.documents[0] >= 80
    assert found.concepts >= 30
    assert found.sense_pairs >= 20
    assert found.warnings == ()
    assert found.form_auroc is not None
    assert found.form_auroc < 0.75


def test_the_files_that_the_page_shows_are_like_those_of_the_example():
    lines, sentences = blocks("json")
    rows = [json.loads(line) for line in lines.splitlines()]
    shown = [SensePair(**json.loads(line)) for line in sentences.splitlines()]
    assert set(shown) <= set(load_sense_pairs("climate", [str(EXAMPLE / "senses.jsonl")]))
    own = [json.loads(line) for line in (EXAMPLE / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["kind"] for row in rows} <= {row["kind"] for row in own}
    description, concepts = map(yaml.safe_load, blocks("yaml"))
    assert DomainFile.model_validate(description) == read_domain(EXAMPLE)[0]
    lexicon = yaml.safe_load((EXAMPLE / "lexicon.yaml").read_text(encoding="utf-8"))
    assert set(concepts[0]) <= set(lexicon[0])
    for key in ("pair", "general"):
        assert re.search(rf"^# {key}: ", PAGE, re.MULTILINE)
        assert key in DomainFile.model_fields


def test_its_commands_run(tiny_arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert [words[:2] for words in commands] == [["stratalens", "domains"], ["stratalens", "analyze"]]
    assert main(commands[0][1:]) == 0
    printed = capsys.readouterr().out
    assert "climate" in printed
    assert "sentence pairs in which a word has another sense: 24" in printed
    options = dict(zip(commands[1][2::2], commands[1][3::2], strict=True))
    at = tiny_arguments.index("--domain_data")
    own_text = [*tiny_arguments[:at], *tiny_arguments[at + 4 :]]  # the model of the test in place of the embedded one
    words = with_options(own_text, {name.removeprefix("--"): value for name, value in options.items()})
    assert main(["analyze", "--quiet", "--max_documents", "160", *words]) == 0
    result = stratalens.load_result(tmp_path / "climate_results")
    assert "climate_activation" in result.top_features
    assert (tmp_path / "climate_results/climate_feature_summary.json").exists()
    assert result.recorded.rank_by == "transfer"
    [rank] = re.findall(r"`stratalens (rank climate_results [^`]*)`", PAGE)
    assert main([*shlex.split(rank), "--quiet"]) == 0


@pytest.mark.parametrize("words", [["--help"], []])
def test_domains_lists_the_built_in_ones_and_has_help(words, capsys):
    assert main(["domains", *words]) == 0
    printed = capsys.readouterr().out
    assert ("usage: stratalens domains" in printed) == bool(words)
    if not words:
        for name in ("financial", "medical", "legal"):
            assert re.search(rf"^ +{name} +\d+ +\d+ +8 ", printed, re.MULTILINE)
            assert f"{name}: " in printed


def test_a_domain_without_a_lexicon_says_what_is_missing(tmp_path, capsys):
    folder = tmp_path / "climate"
    folder.mkdir()
    (folder / "texts.jsonl").write_bytes((EXAMPLE / "texts.jsonl").read_bytes())
    (folder / "domain.yaml").write_text("kind_column: kind")
    assert main(["domains", str(folder)]) == 0
    assert "climate: there is no lexicon" in capsys.readouterr().err


def test_what_is_no_domain_is_refused_in_one_line(tmp_path, capsys):
    for words in (["--all"], [str(tmp_path / "nowhere")], [str(tmp_path)]):
        assert main(["domains", *words]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
