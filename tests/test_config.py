"""Options come from defaults, a file and flags, in this order; help and version need no heavy library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stratalens
from stratalens.cli.arguments import parse
from stratalens.cli.main import main
from stratalens.config.config_file import read_config_file
from stratalens.config.layer_numbers import parse_layers
from stratalens.config.options import RECORDED_WITH_SIDES, RunConfig
from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.report.run_record import CorpusRecord

HEAVY = ("torch", "transformers", "numpy", "pandas", "matplotlib", "huggingface_hub")


def parsed(*words: str) -> RunConfig:
    return parse(list(words), "stratalens analyze", RunConfig)


def written(folder: Path, text: str, name: str = "options.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_without_arguments_every_option_has_its_default():
    assert parsed() == make_config()


def test_every_option_of_the_file_overrides_its_default(tmp_path):
    text = (
        "top_n: 7\nlayers: [4, 10-12]\nmin-specialization: 0.5\nno_examples: true\ndomain: legal\nmax_documents: 100\n"
    )
    expected = make_config(
        top_n=7, layers=("4", "10-12"), min_specialization=0.5, no_examples=True, domain="legal", max_documents=100
    )
    assert parsed("--config", written(tmp_path, text)) == expected
    assert parsed(f"--config={written(tmp_path, text)}") == expected


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path):
    path = written(tmp_path, "top_n: 7\nlayers: [4]\nallow_poor_fit: true\nseed: 3\n")
    config = parsed("--config", path, "--top-n", "9", "--layers", "16", "22", "--no-allow_poor_fit")
    assert (config.top_n, config.layers, config.allow_poor_fit, config.seed) == (9, ("16", "22"), False, 3)
    assert parsed("--top_n", "9", "--config", path).top_n == 9


def test_the_record_of_a_run_is_a_configuration_that_repeats_it(tmp_path):
    config = make_config(layers=[4, "10-12"], top_n=5, domain="tax_law", domain_data=["a.txt", "b.csv"], seed=11)
    record = {"stratalens": "0.1.0", "settings": config.model_dump(mode="json"), "tokens": 12, "files": []}
    assert parsed("--config", written(tmp_path, json.dumps(record), "run.json")) == config


def test_the_run_json_of_a_real_run_repeats_its_settings(tiny_arguments, tmp_path):
    assert main(["analyze", *tiny_arguments, "--layers", "2", "--top_n", "3", "--quiet"]) == 0
    before = json.loads((tmp_path / "out" / "run.json").read_text())
    again = ["--config", str(tmp_path / "out" / "run.json"), "--output_dir", str(tmp_path / "again"), "--quiet"]
    assert main(["analyze", *again]) == 0
    after = json.loads((tmp_path / "again" / "run.json").read_text())
    assert {k: v for k, v in after["settings"].items() if k != "output_dir"} == {
        k: v for k, v in before["settings"].items() if k != "output_dir"
    }
    assert [after[part] for part in ("files", "corpus", "saes")] == [
        before[part] for part in ("files", "corpus", "saes")
    ]


SENDING = {"labeling_endpoint": "http://host.invalid/v1", "labeling_model": "m", "prompts": "templates"}
"""Options about where text is sent and what is asked about it."""
ALLOWING = {"quiet": True, "trust_remote_code": True, "allow_fetch": True, "overwrite": True}
"""Options that silence or permit."""
OWN = {"domain": "tax", "domain_data": ["a.txt"], "top_n": 7}


@pytest.mark.parametrize("hyphens", [False, True])
@pytest.mark.parametrize("name", ["run.json", "renamed.yaml"])
def test_a_record_never_sets_where_text_goes_what_is_silenced_and_what_is_allowed(tmp_path, name, hyphens):
    settings = {**OWN, **SENDING, **ALLOWING, "workers": "ray"}
    settings = {key.replace("_", "-") if hyphens else key: value for key, value in settings.items()}
    path = written(tmp_path, json.dumps({"stratalens": "0.1.0", "settings": settings}), name)
    notes: list[str] = []
    assert parse(["--config", path], "stratalens analyze", RunConfig, note=notes.append) == make_config(**OWN)
    assert notes.pop() == f"{path}: it names texts on this machine: domain_data a.txt"
    assert len(notes) == 1
    for option in (*SENDING, *ALLOWING, "workers"):
        assert option in notes[0]
    assert "host.invalid" not in notes[0]


def test_a_record_sends_results_only_to_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "run.json"
    for named, taken in {
        "results": "results",
        str(tmp_path / "results"): str(tmp_path / "results"),
        "elsewhere": "multi_layer_results",
        "results/../elsewhere": "multi_layer_results",
    }.items():
        path.write_text(json.dumps({"settings": {"output_dir": named}}))
        notes: list[str] = []
        config = parse(["--config", "results/run.json"], "stratalens analyze", RunConfig, note=notes.append)
        assert config.output_dir == taken
        assert ["output_dir" in note for note in notes] == ([] if taken == named else [True])


@pytest.fixture
def own_record(tmp_path) -> Path:
    """A record that names its own directory as the place of results."""
    (tmp_path / "results").mkdir(mode=0o755)
    path = tmp_path / "results" / "run.json"
    path.write_text(json.dumps({"settings": {"output_dir": str(path.parent)}}))
    return path


@pytest.mark.parametrize("part", ["", "run.json"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_record_that_others_could_write_sends_results_nowhere(own_record, documented, part, mode):
    (own_record.parent / part).chmod(mode)
    with pytest.raises(ConfigError) as error:
        parsed("--config", str(own_record))
    line = f"{own_record.parent / part}: other users can write here, so this record does not decide where results go; "
    assert str(error.value) == line + "type --output_dir"
    assert parsed("--config", str(own_record), "--output_dir", "mine").output_dir == "mine"
    if part:
        documented("Configuration files", "a record that other users can write", str(error.value))


@pytest.mark.parametrize("part", ["", "run.json"])
def test_a_record_of_another_user_sends_results_nowhere(own_record, error_book, documented, part):
    case = ("Configuration files", "a record of another user")
    if os.geteuid() != 0:
        error_book.impossible.add(case)
        pytest.skip("only the superuser can give files to another user")
    os.chown(own_record.parent / part, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to user 65534, so this record does not decide where") as error:
        parsed("--config", str(own_record))
    assert parsed("--config", str(own_record), "--output_dir", "mine").output_dir == "mine"
    if part:
        documented(*case, str(error.value))


def test_texts_on_this_machine_that_a_record_names_are_told_and_those_of_the_users_own_file_are_not(tmp_path):
    texts = ["~/mail/*.txt", *(f"/shelf/{number}.txt" for number in range(9)), "file:///a.txt"]
    settings = {"domain_data": texts, "general_data": "g.txt", "domain": "tax"}
    record = written(tmp_path, json.dumps({"settings": settings}), "run.json")
    own = written(tmp_path, json.dumps(settings))
    notes: list[str] = []
    parse(["--config", record, "--domain_data", "a.txt"], "stratalens analyze", RunConfig, note=notes.append)
    assert notes.pop() == f"{record}: it names texts on this machine: general_data g.txt"
    parse(["--config", record], "stratalens analyze", RunConfig, note=notes.append)
    assert "machine: domain_data ~/mail/*.txt, domain_data /shelf/0.txt," in notes[-1]
    assert notes.pop().endswith(" and 7 others")
    parse(["--config", own], "stratalens analyze", RunConfig, note=notes.append)
    assert notes == []


NOT_UTF_8 = ["\udcff", "a\ud800b"]


@pytest.mark.parametrize("word", NOT_UTF_8)
def test_no_option_takes_a_text_that_is_not_utf_8(word):
    texts = [name for name, field in RunConfig.model_fields.items() if "str" in str(field.annotation)]
    assert {"domain", "device", "text_column", "layers", "revision"} <= set(texts)
    for name in RunConfig.model_fields:
        for value in (word, [word], {"a": [word]}, {word: 1}, Path(word)):
            with pytest.raises(ConfigError, match=r"the name '.*\\ud.*' is not UTF-8; rename it, or choose another"):
                make_config(**{name: value})
    with pytest.raises(ConfigError, match="is not UTF-8"):
        make_config(**{word: 1})


@pytest.mark.parametrize("option", ["--domain", "--device", "--text_column", "--output_dir"])
def test_the_command_line_refuses_such_a_text_in_one_line(capsys, option):
    assert main(["analyze", option, "\udcff"]) == 2
    assert capsys.readouterr().err == "stratalens: the name '\\udcff' is not UTF-8; rename it, or choose another\n"


@pytest.mark.parametrize(
    "device", ["cuda:99999999999999999999", "cuda:256", "cuda:100", "cuda:01", "cuda:٣", "cuda:-1"]
)
def test_a_device_of_a_number_that_no_machine_has_is_refused(device):
    with pytest.raises(ConfigError, match="is unknown; expected auto, cpu, mps, cuda or cuda:N"):
        make_config(device=device)
    assert make_config(device="cuda:15").device == "cuda:15"


def test_the_user_sets_all_of_them_beside_a_record(tmp_path):
    path = written(tmp_path, json.dumps({"settings": OWN}), "run.json")
    words = [f"--{name}={value}" for name, value in SENDING.items()] + [f"--{name}" for name in ALLOWING]
    notes: list[str] = []
    config = parse(["--config", path, *words], "stratalens analyze", RunConfig, note=notes.append)
    assert config == make_config(**OWN, **SENDING, **ALLOWING)
    assert notes == [f"{path}: it names texts on this machine: domain_data a.txt"]


def test_a_file_of_the_user_sets_where_text_goes_but_neither_silences_nor_allows(tmp_path):
    notes: list[str] = []
    path = written(tmp_path, json.dumps({**OWN, **SENDING, **ALLOWING, "workers": "ray"}))
    config = parse(["--config", path], "stratalens analyze", RunConfig, note=notes.append)
    assert config == make_config(**OWN, **SENDING, workers="ray")
    assert notes == [f"{path}: not taken from this file: {', '.join(ALLOWING)}; type an option to set it"]


HALF_RECORDS = {
    "a run.json without settings": ("run.json", {"labeling_endpoint": "http://host.invalid", "top_n": 5}),
    "a run.json whose settings are no table": ("Run.JSON", {"settings": ["quiet"], "top_n": 5}),
    "options beside the settings of a record": (
        "own.yaml",
        {"settings": {"top_n": 5}, "labeling-endpoint": "http://h"},
    ),
}


@pytest.mark.parametrize("case", HALF_RECORDS)
def test_a_file_between_a_record_and_a_file_of_the_user_is_refused(tmp_path, documented, case):
    name, content = HALF_RECORDS[case]
    with pytest.raises(ConfigError, match="settings") as error:
        read_config_file(Path(written(tmp_path, json.dumps(content), name)))
    documented("Configuration files", case, str(error.value))


def test_an_empty_value_in_the_file_leaves_the_default(tmp_path):
    assert parsed("--config", written(tmp_path, "top_n:\ndomain: legal\n")) == make_config(domain="legal")
    assert read_config_file(Path(written(tmp_path, "top-n: 5\nseed: null"))).taken == {"top_n": 5}


def test_underscores_and_hyphens_in_flags_are_read_alike():
    assert parsed("--top_features_n", "3", "--rank_by", "auroc") == parsed(
        "--top-features-n", "3", "--rank-by", "auroc"
    )


@pytest.mark.parametrize("layers", [16, "16", [16], ["16"], (16,), range(16, 17), "16-16"])
def test_layers_may_be_numbers_words_or_lists_of_either(layers):
    assert parse_layers(make_config(layers=layers).layers) == (16,)


@pytest.mark.parametrize("text", ["layers: 4 10-12 16", "layers: '4 10-12 16'", "layers: [4, 10-12, '16']"])
def test_layers_in_a_file_may_be_written_as_on_the_command_line(tmp_path, text):
    config = parsed("--config", written(tmp_path, text))
    assert parse_layers(config.layers) == parse_layers(parsed("--layers", "4", "10-12", "16").layers)


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ((), None),
        (("all",), "all"),
        (("4", "10-12", "2"), (2, 4, 10, 11, 12)),
        (("0",), (0,)),
        (("22", "16"), (16, 22)),
        (("3-3",), (3,)),
    ],
)
def test_ranges_include_both_ends_and_layers_are_sorted(words, layers):
    assert parse_layers(words) == layers


@pytest.mark.parametrize("word", ["", "-1", "4-", "-4", "4.0", "four", "4..6", "1-2-3", "4,10", "1e3", "999999"])
def test_a_word_that_is_not_a_layer_is_refused_by_name(word):
    with pytest.raises(ConfigError, match="is not a layer"):
        parse_layers((word,))


def test_a_path_may_be_given_as_one_word_or_as_several_or_as_a_path():
    assert make_config(domain_data="a.txt").domain_data == ("a.txt",)
    assert make_config(domain_data=Path("a.txt")).domain_data == ("a.txt",)
    assert make_config(domain_data=[Path("a.txt"), "b.txt"]).domain_data == ("a.txt", "b.txt")
    assert make_config(base_model=Path("m"), sae_model=Path("s"), output_dir=Path("o")) == make_config(
        base_model="m", sae_model="s", output_dir="o"
    )


def test_analyze_refuses_an_unknown_option_by_name():
    with pytest.raises(ConfigError, match=r"^unknown option `top_m`$"):
        stratalens.analyze(top_m=5)


def test_analyze_names_every_wrong_option_at_once():
    with pytest.raises(ConfigError, match=r"top_n: .*\(got 0\); seed: .*\(got -1\)"):
        stratalens.analyze(top_n=0, seed=-1)


@pytest.mark.parametrize("domain", RECORDED_WITH_SIDES)
def test_a_domain_has_no_name_that_the_record_uses(domain):
    assert domain in CorpusRecord.model_fields
    with pytest.raises(ConfigError, match=rf"domain: run.json has an entry `{domain}` of its own"):
        make_config(domain=domain, domain_data="a.txt")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        make_config().top_n = 5  # pyright: ignore[reportAttributeAccessIssue]


def light(call: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in its own process; its last line of output is the exit code and the heavy modules."""
    program = (
        "import sys\nfrom stratalens.cli.main import main\n"
        f"try:\n    code = main({call})\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"print(code or 0, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_help_lists_every_option_with_its_description_and_loads_nothing_heavy():
    done = light("['analyze', '--help']")
    *help_lines, last = done.stdout.splitlines()
    assert (last, done.stderr) == ("0 []", "")
    text = " ".join(" ".join(line.strip("│|╭╮╰╯─ ") for line in help_lines).split())
    for name in RunConfig.model_fields:
        assert f"--{name}" in text
    assert "--config" in text
    for words in ("Model to analyse: a local directory or a Hub id.", "Longest passage in tokens;", "(default: 30)"):
        assert words in text


def test_every_option_is_described():
    assert [name for name, field in RunConfig.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("call", ["['--help']", "['-h']", "['--version']", "['analyze', '--top_n', '0']"])
def test_help_version_and_refusals_load_nothing_heavy(call):
    assert light(call).stdout.splitlines()[-1].endswith(" []")


def test_importing_the_package_loads_nothing_heavy():
    program = f"import sys, stratalens; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_version_is_that_of_the_installed_package(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stratalens {version('stratalens')}\n"


def test_the_command_without_arguments_prints_its_usage_and_exits_with_2(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: stratalens COMMAND [OPTIONS]")
    assert main(["--help"]) == 0
    assert "analyze" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["base_model", "domain_data", "output_dir"])
def test_an_empty_path_is_refused(name):
    with pytest.raises(ConfigError, match="a path is empty"):
        make_config(**{"base_model": "m", "sae_model": "s", name: ""})
