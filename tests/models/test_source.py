"""A model or an SAE is found where its name says: a local folder, the Hub cache, or nowhere with the remedy."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hub_cache import COMMIT, cached
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import get_session, hf_raise_for_status
from refusal import Options, with_options
from tiny import TINY_BLOCKS, TINY_LATENTS, TINY_WIDTH, tiny_run_arguments, write_sae

from stratalens.config.validation import make_config
from stratalens.errors import CheckpointError, ConfigError, ModelError
from stratalens.files.hashing import digest_of
from stratalens.hookpoint import Hookpoint
from stratalens.models.hub import hub_errors
from stratalens.models.source import ModelSource, find_model
from stratalens.saes.formats.sparsify import _checkpoints
from stratalens.saes.source import find_saes
from stratalens.saes.steps import Linear
from stratalens.saes.tree import SaeTree

RUN_ALL = """
import contextlib, io, json, sys
from stratalens.cli.main import main
import stratalens.report.publish
sys.modules["stratalens.report.publish"].write_figures = lambda tables, directory, parts, effects: None
answers = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["analyze", "--quiet", *words])
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    """Exit code, standard error and output directory of one command."""

    code: int
    said: str
    output: Path


@pytest.fixture(scope="module")
def offline(tmp_path_factory, tiny_model, tiny_saes, small_texts) -> Mapping[str, Answer]:
    """Runs on what lies in a Hub cache, without network.

    All are in one process of their own, as the Hub's client reads its environment once, on import.
    """
    root = tmp_path_factory.mktemp("offline")
    shutil.copytree(tiny_model, root / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    write_sae(root / "one" / "layers.2" / "seed0")
    cached(root / "hub", "someone/tiny-model", tiny_model)
    cached(root / "hub", "someone/tiny-saes", tiny_saes, commit=COMMIT[::-1])
    cached(root / "hub", "someone/one-sae", root / "one")
    cached(root / "hub", "someone/no-weights", root / "bare")
    options: dict[str, Options] = {
        "both cached": {"base_model": "someone/tiny-model", "sae_model": "someone/tiny-saes"},
        "one layer cached": {"sae_model": "someone/one-sae", "layers": "2"},
        "unknown base_model": {"base_model": "someone/unknown"},
        "unknown sae_model": {"sae_model": "someone/unknown"},
        "no weights": {"base_model": "someone/no-weights"},
    }
    outputs = {name: root / name.replace(" ", "_") for name in options}
    commands = [
        with_options(tiny_run_arguments(tiny_model, tiny_saes, small_texts, outputs[name]), given)
        for name, given in options.items()
    ]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(root / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    answers = json.loads(done.stdout)
    return {name: Answer(*answer, outputs[name]) for name, answer in zip(options, answers, strict=True)}


def test_hub_ids_are_found_in_the_cache_without_network(offline):
    code, said, output = offline["both cached"]
    assert (code, said) == (0, "")
    record = json.loads((output / "run.json").read_text())
    assert (record["model"]["name"], record["model"]["digest"]) == ("someone/tiny-model", COMMIT)
    assert {layer: sae["hookpoint"] for layer, sae in record["saes"].items()} == {"0": "layers.0", "2": "layers.2"}


def test_only_the_requested_layers_need_to_be_in_the_cache(offline):
    code, said, output = offline["one layer cached"]
    assert (code, said) == (0, "")
    assert list(json.loads((output / "run.json").read_text())["saes"]) == ["2"]


@pytest.mark.parametrize("option", ["base_model", "sae_model"])
def test_a_hub_id_that_is_not_in_the_cache_names_the_network_when_there_is_none(offline, documented, option):
    code, said, output = offline[f"unknown {option}"]
    assert code == 2
    documented("The Hub", "no network, and not in the Hub cache", said)
    assert said == (
        "stratalens: someone/unknown: not a local directory, not in the Hub cache, and the Hub cannot be reached; "
        "check the network, or give a local directory\n"
    )
    assert not output.exists()


def test_weights_that_are_not_in_the_cache_are_reported_like_a_config_that_is_not(offline):
    code, said, _ = offline["no weights"]
    assert code == 2
    assert len(said.splitlines()) == 1, said
    assert said.startswith("stratalens: someone/no-weights: ")


ANSWERS = {"gated": (403, "GatedRepo"), "missing": (401, "RepoNotFound"), "other-revision": (404, "RevisionNotFound")}
REMEDIES = {
    "gated": "is gated: accept its terms on its Hub page, then log in with `hf auth login` or set HF_TOKEN",
    "missing": "no such public Hub repository; check the name, or log in with `hf auth login` if it is private",
    "other-revision": "has no such revision; see the branches and tags on its Hub page, or leave out --revision",
    "broken": "cannot be loaded (",
}

WRONG_WITH = {
    "gated": "a gated repository",
    "missing": "no such repository, or a private one",
    "other-revision": "no such revision",
    "broken": "the Hub itself fails",
}


class Refusal(BaseHTTPRequestHandler):
    """Answers as the Hub does for repositories that it will not hand out; which one it is stands in the address."""

    def do_GET(self) -> None:
        status, code = next((answer for name, answer in ANSWERS.items() if name in self.path), (500, ""))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing_hub() -> Iterator[str]:
    """Address of a server on this machine that refuses as the Hub does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def request_config(address: str, name: str) -> None:
    """Ask the Hub at an address, by its own client, for the config of a model."""
    with hub_errors(f"someone/{name}", ModelError):
        hf_raise_for_status(get_session().get(f"{address}/someone/{name}/resolve/main/config.json"))


def request_through_a_library(address: str, name: str) -> None:
    """The same, when a library in between reports the refusal with an error of its own."""
    with hub_errors(f"someone/{name}", ModelError):
        try:
            hf_raise_for_status(get_session().get(f"{address}/someone/{name}/resolve/main/config.json"))
        except OSError as error:
            raise OSError("something is wrong") from error


@pytest.mark.parametrize("ask", [request_config, request_through_a_library])
@pytest.mark.parametrize("case", REMEDIES)
def test_each_refusal_of_the_hub_is_reported_with_its_own_remedy(monkeypatch, documented, refusing_hub, case, ask):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelError) as caught:
        ask(refusing_hub, case)
    line = str(caught.value)
    assert line.startswith(f"someone/{case}")
    assert REMEDIES[case] in line
    documented("The Hub", WRONG_WITH[case], line)


def test_the_network_is_named_when_the_connection_fails(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ModelError, match="the Hub cannot be reached; check the network"):
            request_config(f"http://127.0.0.1:{unused.getsockname()[1]}", "model")


def test_the_network_is_named_when_a_file_is_not_in_the_cache(tmp_path):
    line = r"^someone/model: not a local directory, not in the Hub cache, and the Hub cannot be reached"
    with pytest.raises(CheckpointError, match=line), hub_errors("someone/model", CheckpointError):
        hf_hub_download("someone/model", "config.json", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.real
def test_a_run_that_the_hub_refuses_ends_in_the_line_with_the_remedy(tmp_path, tiny_arguments, refusing_hub):
    cases = [("base_model", case) for case in ("gated", "missing", "other-revision")]
    cases += [("sae_model", case) for case in ("gated", "missing")]
    commands = [with_options(tiny_arguments, {option: f"someone/{case}"}) for option, case in cases]
    environment = {"HF_ENDPOINT": refusing_hub, "HF_HUB_CACHE": str(tmp_path / "hub"), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | environment,
    )
    for (_, case), (code, said) in zip(cases, json.loads(done.stdout), strict=True):
        assert (code, len(said.splitlines())) == (2, 1), said
        assert said.startswith(f"stratalens: someone/{case}")
        assert REMEDIES[case] in said
    assert done.stderr == ""
    assert not (tmp_path / "out").exists()


def test_seeds_lie_one_level_deeper_and_the_lowest_is_taken(tmp_path):
    for seed in (2, 1):
        write_sae(tmp_path / "layers.3" / f"seed{seed}", seed=seed)
    write_sae(tmp_path / "layers.0")
    assert _checkpoints(SaeTree.of(tmp_path)) == {
        "layers.0": tmp_path / "layers.0",
        "layers.3": tmp_path / "layers.3" / "seed1",
    }


def test_other_files_and_folders_of_a_run_and_spaces_in_names_do_not_matter(tmp_path):
    root = tmp_path / "my run, second try"
    write_sae(root / "layers.0")
    write_sae(root / ".trash" / "layers.1")
    for name in ("config.json", "optimizer_0.pt", "rank_0_state.safetensors", "lr_scheduler_0.pt"):
        (root / name).write_text("other")
    (root / "logs").mkdir()
    assert _checkpoints(SaeTree.of(root)) == {"layers.0": root / "layers.0"}


@pytest.mark.parametrize("deeper", ["", "seed0"])
def test_one_checkpoint_may_be_named_itself(tmp_path, deeper):
    folder = write_sae(tmp_path / "layers.2" / deeper)
    assert _checkpoints(SaeTree.of(folder)) == {"layers.2": folder}


def test_one_checkpoint_may_be_named_from_inside_it(monkeypatch, tmp_path, tiny):
    monkeypatch.chdir(write_sae(tmp_path / "layers.2"))
    saes = find_saes(make_config(base_model="m", sae_model="."), tiny)
    assert {str(place): sae.module for place, sae in saes.items()} == {"2": "layers.2"}


def test_the_hookpoints_of_a_run_are_listed_by_their_names(tmp_path):
    names = ["embed_tokens", "h.3.attn", "layers.10", "layers.2", "layers.5.mlp"]
    for name in names:
        write_sae(tmp_path / name)
    assert sorted(_checkpoints(SaeTree.of(tmp_path))) == names


def test_half_a_checkpoint_is_listed_so_that_its_missing_half_is_reported(tmp_path):
    for name, missing in (("layers.0", "cfg.json"), ("layers.1", "sae.safetensors")):
        (write_sae(tmp_path / name) / missing).unlink()
    assert sorted(_checkpoints(SaeTree.of(tmp_path))) == ["layers.0", "layers.1"]


def test_a_folder_without_checkpoints_is_refused(tmp_path, tiny):
    with pytest.raises(CheckpointError, match=r"no SAE found; expected directories such as `layers.16`"):
        loaded(tiny, tmp_path)


@pytest.fixture
def tiny(tiny_model) -> ModelSource:
    """The tiny model, found but not loaded."""
    return find_model(make_config(base_model=str(tiny_model), sae_model="unused"))


def loaded(
    tiny: ModelSource, saes: Path, *layers: str, sites: Sequence[str] = (), notes: list[str] | None = None
) -> dict[str, str]:
    """Hookpoint -> module of the SAE that is used for it."""
    config = make_config(base_model=tiny.location, sae_model=str(saes), layers=layers, sites=sites)
    say = (lambda _line: None) if notes is None else notes.append
    return {str(hookpoint): sae.module for hookpoint, sae in find_saes(config, tiny, say=say).items()}


def test_without_layers_or_with_all_every_layer_that_has_an_sae_is_used(tmp_path, tiny):
    for name in ("layers.3", "layers.0", "embed_tokens"):
        write_sae(tmp_path / name)
    assert list(loaded(tiny, tmp_path).items()) == [("0", "layers.0"), ("3", "layers.3")]
    assert loaded(tiny, tmp_path, "all") == loaded(tiny, tmp_path)
    assert loaded(tiny, tmp_path, "3") == {"3": "layers.3"}


def test_of_several_sites_the_output_of_the_block_is_read_and_one_line_names_the_others(tmp_path, tiny):
    for name in ("layers.1", "layers.1.mlp", "layers.1.self_attn", "layers.2.mlp"):
        write_sae(tmp_path / name)
    notes = []
    assert loaded(tiny, tmp_path, notes=notes) == {"1": "layers.1"}
    assert notes == ["The SAE folder also has sites that are not analysed: attn mlp (choose with --sites)"]
    assert loaded(tiny, tmp_path, sites=["mlp"]) == {"1_mlp": "layers.1.mlp", "2_mlp": "layers.2.mlp"}
    assert list(loaded(tiny, tmp_path, "1", sites=["mlp", "resid"])) == ["1", "1_mlp"]


def test_without_an_sae_of_a_block_the_only_site_is_read(tmp_path, tiny):
    for name in ("layers.1.mlp", "layers.2.mlp"):
        write_sae(tmp_path / name)
    assert loaded(tiny, tmp_path, "1") == {"1_mlp": "layers.1.mlp"}


def test_a_transcoder_reads_what_its_module_reads(tmp_path, tiny):
    for name in ("layers.1", "layers.1.mlp", "layers.2.self_attn"):
        write_sae(tmp_path / name, config={"transcode": True})
    config = make_config(base_model=tiny.location, sae_model=str(tmp_path), sites=("resid_in", "mlp_norm", "attn_norm"))
    targets = {str(place): str(sae.target) for place, sae in find_saes(config, tiny).items()}
    assert targets == {"1_resid_in": "1", "1_mlp_norm": "1_mlp", "2_attn_norm": "2_attn"}


def test_two_parts_of_a_block_are_a_choice_that_the_user_must_make(tmp_path, tiny):
    for name in ("layers.1.mlp", "layers.1.self_attn"):
        write_sae(tmp_path / name)
    with pytest.raises(ConfigError, match=r"its SAEs are at several sites; choose with --sites attn mlp"):
        loaded(tiny, tmp_path)
    with pytest.raises(ConfigError, match=r"no SAE at site resid; it has attn mlp"):
        loaded(tiny, tmp_path, sites=["resid"])
    with pytest.raises(ConfigError, match=r"no SAE for layer 2 at site mlp; it has layers 1"):
        loaded(tiny, tmp_path, "2", sites=["mlp"])


def test_a_folder_whose_names_are_of_another_model_is_refused(tmp_path, tiny):
    for name in ("transformer.h.1", "embed_tokens", "layers.1.no_such_part"):
        write_sae(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=r"none of its SAEs belongs to a block of this model.*found: embed_tokens"
    ):
        loaded(tiny, tmp_path)


def test_an_sae_of_a_layer_that_the_model_lacks_is_an_error(tmp_path, tiny):
    write_sae(tmp_path / f"layers.{TINY_BLOCKS}.mlp")
    with pytest.raises(ModelError, match=rf"has layers 0 to {TINY_BLOCKS - 1}; layer {TINY_BLOCKS} was asked for"):
        loaded(tiny, tmp_path)


def test_a_layer_is_read_from_its_number_and_not_from_its_digits(tmp_path, tiny):
    for name in ("layers.1", "layers.11", "layers.21.mlp"):
        write_sae(tmp_path / name)
    assert loaded(tiny, tmp_path, "1") == {"1": "layers.1"}


def test_the_sae_of_a_folder_is_the_one_on_disk(tmp_path, tiny):
    bias = torch.arange(TINY_LATENTS).float()
    tensors: dict[str, Any] = {"encoder.bias": bias, "b_dec": torch.zeros(TINY_WIDTH)}
    write_sae(tmp_path / "layers.1", **tensors)
    config = make_config(base_model=tiny.location, sae_model=str(tmp_path))
    (step,) = find_saes(config, tiny)[Hookpoint(1)].load().steps
    assert isinstance(step, Linear)
    assert torch.equal(step.bias, bias)


def test_a_local_model_is_described_by_its_own_config(tiny, tiny_model):
    assert tiny[:5] == (str(tiny_model), str(tiny_model), None, TINY_BLOCKS, TINY_WIDTH)


def test_a_digest_changes_with_content_and_names_and_not_with_order(tmp_path):
    for name, content in (("a", "1"), ("b", "2"), ("c", "2")):
        (tmp_path / name).write_text(content)
    a, b, c = (tmp_path / name for name in "abc")
    assert digest_of([a, b]) == digest_of([b, a])
    assert len({digest_of(paths) for paths in ([a], [b], [c], [a, b], [a, c], [a, b, c])}) == 6


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            KeyError("rope"),
            "m: cannot be used (KeyError: 'rope'); try another version of transformers, or another model",
        ),
        (AttributeError("no such\nthing"), "m: cannot be used (AttributeError: no such thing); try another version"),
        (ZeroDivisionError(), "m: cannot be used (ZeroDivisionError); try"),
        (RuntimeError("x" * 5000), f"m: cannot be used (RuntimeError: {'x' * 200}); try"),
    ],
)
def test_an_error_that_is_not_about_files_keeps_its_own_words(tmp_path, monkeypatch, error, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelError) as caught, hub_errors("m", ModelError):
        raised_by_a_library(error)
    assert str(caught.value).startswith(line)


def test_an_error_in_the_code_of_a_model_keeps_its_own_words(tmp_path, monkeypatch):
    with (
        pytest.raises(ModelError, match=r"cannot be used \(ValueError: too many values\)"),
        hub_errors("m", ModelError),
    ):
        raised_by_a_library(ValueError("too many values"), "transformers_modules.m.modeling")


def test_an_error_of_a_model_that_runs_keeps_its_own_words():
    def fail(*_inputs: object) -> None:
        raise ValueError("expected another width")

    module = torch.nn.Identity()
    module.forward = fail
    with pytest.raises(ModelError, match=r"cannot be used \(ValueError: expected another"), hub_errors("m", ModelError):
        module(1)


def test_errors_of_files_are_described(tmp_path):
    for error in (FileNotFoundError(2, "No such file"), ValueError("no such model type"), EOFError("cut short")):
        with (
            pytest.raises(ModelError, match="no usable Hugging Face model here"),
            hub_errors(str(tmp_path), ModelError),
        ):
            raised_by_a_library(error)


def test_a_mistake_in_this_package_is_no_named_error():
    with pytest.raises(KeyError), hub_errors("m", ModelError):
        raised_by_a_library(KeyError("x"), "stratalens.models.source")


def raised_by_a_library(error: Exception, module: str = "transformers.modeling_utils") -> None:
    exec("raise error", {"error": error, "__name__": module})
