"""A record that someone else wrote decides nothing about where data go, and fetches nothing without permission."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from chat_servers import MisbehavingServer, completion
from file_server import FileServer, file_server
from finished_result import contents, refused

import stratalens
from stratalens.cli.main import main
from stratalens.errors import ConfigError

pytestmark = pytest.mark.usefixtures("own_environment")


def change_settings(directory: Path, settings: Mapping[str, object]) -> Path:
    """Change the settings in the record of a result and return the path of the record."""
    path = directory / "run.json"
    record = json.loads(path.read_text())
    record["settings"] |= settings
    path.write_text(json.dumps(record))
    return path


def settings_of(directory: Path) -> dict[str, object]:
    return json.loads((directory / "run.json").read_text())["settings"]


@pytest.fixture
def bare(finished_without_examples, tmp_path) -> Path:
    """A copy of a result without examples: `rank` and `label` need its text and its model again."""
    return Path(shutil.copytree(finished_without_examples, tmp_path / "bare"))


@pytest.fixture
def host(small_texts) -> Iterator[FileServer]:
    """A server with the texts of all results here."""
    with file_server({f"shelf/{path.name}": path.read_bytes() for path in small_texts}) as server:
        yield server


def hostile(host: FileServer, folder: Path) -> dict[str, object]:
    """Settings that would send text to a server, ask it other questions, and say nothing about it."""
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / "label.jinja").write_text("Send everything.")
    return {
        "labeling_endpoint": host.url("v1"),
        "labeling_model": "collector",
        "prompts": str(folder / "templates"),
        "quiet": True,
        "trust_remote_code": True,
        "allow_fetch": True,
        "overwrite": True,
    }


def test_a_repeated_run_sends_nothing_where_the_record_says_and_is_not_silenced(result, host, tmp_path, capsys):
    path = change_settings(result, hostile(host, tmp_path))
    capsys.readouterr()
    assert main(["analyze", "--config", str(path), "--output_dir", str(tmp_path / "again")]) == 0
    printed = capsys.readouterr()
    assert host.requests == []
    assert "Results: " in printed.out
    assert "not taken from this file: labeling_model, labeling_endpoint, prompts" in printed.err
    again = settings_of(tmp_path / "again")
    assert [again[name] for name in ("labeling_endpoint", "labeling_model", "prompts")] == [None, None, None]
    assert (again["quiet"], again["trust_remote_code"]) == (False, False)


def test_no_command_on_a_result_sends_anything_where_its_record_says(result, host, tmp_path, capsys):
    change_settings(result, hostile(host, tmp_path))
    feature = stratalens.load_result(result).top_features.iloc[0]
    for words in (
        ["rank", str(result), "--top_n", "4"],
        ["label", str(result)],
        ["report", str(result)],
        ["show", str(result), str(feature["layer"]), str(feature["feature_number"])],
    ):
        capsys.readouterr()
        change_settings(result, hostile(host, tmp_path))
        assert main(words) == 0
        assert capsys.readouterr().out != "", "not silenced"
    assert host.requests == []


def test_a_loaded_result_has_nothing_of_it_but_as_facts(result, host, tmp_path):
    settings = hostile(host, tmp_path) | {"workers": "ray"}
    change_settings(result, settings)
    loaded = stratalens.load_result(result)
    taken = loaded.config.model_dump(include=set(settings))
    assert set(taken.values()) == {None, False, "local"}
    assert loaded.recorded.labeling_endpoint == settings["labeling_endpoint"]


def test_rank_keeps_what_the_record_says_about_the_labels(result, tmp_path):
    made_with = {"labeling_endpoint": "http://host.invalid/v1", "labeling_model": "m", "prompts": "p"}
    change_settings(result, made_with)
    assert main(["rank", str(result), "--top_n", "4", "--quiet"]) == 0
    assert settings_of(result).items() >= made_with.items()
    table = json.loads((result / "layer_2" / "top_4_features_analysis.json").read_text())
    assert table["config"].items() >= made_with.items()
    assert main(["label", str(result), "--quiet"]) == 0
    assert settings_of(result)["labeling_endpoint"] is None


COMMANDS = ["analyze", "rank", "label"]


def words_of(command: str, record: Path) -> list[str]:
    if command == "analyze":
        return [command, "--config", str(record), "--output_dir", str(record.parent.parent / "new"), "--quiet"]
    return [command, str(record.parent), "--quiet"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_in_a_record_is_fetched_only_with_permission(bare, host, capsys, documented, command):
    record = change_settings(bare, {"domain_data": [host.url("shelf/domain.jsonl")], "allow_fetch": True})
    before = contents(bare)
    line = refused(capsys, *words_of(command, record))
    assert line == (
        f"stratalens: {record}: it names what is not on this machine: domain_data {host.url('shelf/domain.jsonl')}; "
        "if you trust these, add --allow_fetch"
    )
    assert host.requests == []
    assert contents(bare) == before
    if command == "label":
        documented("Finished results", "a record that names an address", line)
    assert main([*words_of(command, record), "--allow_fetch"]) == 0
    assert host.requests != []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "address",
    [
        "reference://::http://HOST/shelf/refs.json",
        "zip://domain.jsonl::http://HOST/shelf/texts.zip",
        "simplecache::http://HOST/shelf/domain.jsonl",
        "Http://HOST/shelf/domain.jsonl",
        "github://owner:repository@main/domain.jsonl",
    ],
)
def test_no_permission_allows_an_address_that_is_not_plain(bare, host, capsys, documented, command, address):
    address = address.replace("HOST", f"127.0.0.1:{host.port}")
    record = change_settings(bare, {"general_data": [address]})
    line = refused(capsys, *words_of(command, record), "--allow_fetch")
    assert "a file may name only addresses of file, http, https," in line
    assert host.requests == []
    if command == "analyze" and address.startswith("reference"):
        documented("Configuration files", "an address nested in another", line)


def test_a_dry_run_fetches_no_more_than_a_run(bare, host, capsys):
    record = change_settings(bare, {"domain_data": [host.url("shelf/domain.jsonl")]})
    assert "add --allow_fetch" in refused(capsys, *words_of("analyze", record), "--dry_run")
    assert host.requests == []


def test_what_the_user_types_needs_no_permission(bare, host, tmp_path):
    record = change_settings(bare, {"domain_data": ["http://host.invalid/a.jsonl", "reference://x"]})
    typed = ["--domain-data", host.url("shelf/domain.jsonl")]
    assert main([*words_of("analyze", record), *typed]) == 0
    assert any("domain.jsonl" in request for request in host.requests)


def test_a_file_of_the_user_may_name_addresses_but_plain_ones(bare, host, tmp_path, capsys):
    own = settings_of(bare) | {"domain_data": host.url("shelf/domain.jsonl"), "output_dir": str(tmp_path / "new")}
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    assert main(["analyze", "--config", str(tmp_path / "own.yaml"), "--quiet"]) == 0
    assert host.requests != []
    host.requests.clear()
    nested = f"zip://domain.jsonl::{host.url('shelf/texts.zip')}"
    (tmp_path / "own.yaml").write_text(json.dumps(own | {"domain_data": nested}))
    assert "a file may name only addresses of" in refused(capsys, "analyze", "--config", str(tmp_path / "own.yaml"))
    assert host.requests == []


def test_the_refusal_shows_no_credentials_and_does_not_grow(bare, host, capsys):
    addresses = [host.url(f"{number}.jsonl?key=secret-{number}", user="me:pass-word@") for number in range(50)]
    record = change_settings(bare, {"domain_data": addresses})
    line = refused(capsys, *words_of("label", record))
    assert host.url("0.jsonl?key=***", user="***@") in line
    assert "and 45 others" in line
    assert "pass-word" not in line
    assert "secret" not in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dataset_is_fetched_only_with_permission_wherever_it_lies(bare, host, tmp_path, capsys, command):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    address = host.url("shelf/domain.jsonl")
    (shelf / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {address}\n---\n")
    for dataset in (f"hf:{shelf}:train:text", "hf:owner/dataset:train:text"):
        record = change_settings(bare, {"domain_data": [dataset]})
        assert f"domain_data {dataset}; if you trust" in refused(capsys, *words_of(command, record))
    assert host.requests == []


def cached_repository(cache: Path, name: str, revision: str) -> None:
    """Make a cache of the Hub that holds one revision of a repository."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("0" * 40) / "config.json").write_text("{}")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of a Hub that cannot be reached."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_id_in_a_record_is_fetched_only_with_permission(bare, hub_cache, capsys, documented, command):
    record = change_settings(bare, {"base_model": "owner/model", "sae_model": "owner/saes", "revision": "pr/1"})
    line = refused(capsys, *words_of(command, record))
    assert "base_model owner/model (revision pr/1) from the Hugging Face Hub, sae_model owner/saes from the" in line
    if command == "label":
        documented("Finished results", "a record that names a model of the Hub", line)
    allowed = refused(capsys, *words_of(command, record), "--allow_fetch")
    assert "not in the Hub cache, and the Hub cannot be reached" in allowed


def test_a_revision_in_a_record_needs_permission_beside_a_model_that_the_user_types(bare, hub_cache, capsys):
    cached_repository(hub_cache, "owner/model", "main")
    record = change_settings(bare, {"revision": "stranger"})
    typed = [*words_of("analyze", record), "--base_model", "owner/model"]
    assert "base_model owner/model (revision stranger) from the Hugging Face Hub" in refused(capsys, *typed)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_id_in_the_cache_is_no_fetch(bare, hub_cache, capsys, command):
    for name in ("owner/model", "owner/saes"):
        cached_repository(hub_cache, name, "main")
    record = change_settings(bare, {"base_model": "owner/model", "sae_model": "owner/saes"})
    assert "--allow_fetch" not in refused(capsys, *words_of(command, record))


def answer_labels(request) -> None:
    request.answer(200, completion(json.dumps({"label": "loans and banks"})))


@pytest.mark.parametrize("quiet", [True, False])
def test_where_text_is_sent_is_printed_even_when_quiet(result, capsys, quiet):
    capsys.readouterr()
    with MisbehavingServer(answer_labels) as server:
        assert main(["label", str(result), "--labeling_endpoint", server.url, *(["--quiet"] if quiet else [])]) == 0
    printed = capsys.readouterr()
    told = f"Note: sentences of the corpus will be sent to {server.url}"
    assert told in printed.err.splitlines()
    if quiet:
        assert (printed.out, printed.err.splitlines()) == ("", [told])


def test_where_text_is_sent_is_printed_for_a_file_of_the_user(arguments, tmp_path, capsys):
    own = tmp_path / "own.yaml"
    with MisbehavingServer(answer_labels) as server:
        own.write_text(f"labeling_endpoint: {server.url}\nno_examples: true\nquiet: true\n")
        words = ["analyze", *arguments[:-1], str(tmp_path / "new"), "--config", str(own), "--quiet"]
        assert main(words) == 0
    assert capsys.readouterr().err == f"Note: tokens of the corpus, no sentences, will be sent to {server.url}\n"


def test_where_text_is_sent_is_logged_in_python(result, caplog):
    with MisbehavingServer(answer_labels) as server:
        stratalens.label(result, labeling_endpoint=server.url, labeling_timeout=9)
    assert f"sentences of the corpus will be sent to {server.url}" in caplog.messages


def test_python_asks_for_permission_as_well(bare, host):
    change_settings(bare, {"domain_data": [host.url("shelf/domain.jsonl")]})
    for call in (stratalens.rank, stratalens.label):
        with pytest.raises(ConfigError, match="add --allow_fetch"):
            call(bare)
    assert host.requests == []
    assert stratalens.rank(bare, allow_fetch=True).top_features is not None
