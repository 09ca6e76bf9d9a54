"""Of a Hub repository only the files of the wanted SAEs are fetched, after their size was told."""

import json
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hub_server import HubServer, as_the_hub, commit_of
from tiny import write_sae

from stratalens.config.validation import make_config
from stratalens.errors import CheckpointError, ConfigError, StratalensError
from stratalens.models.source import ModelSource, find_model
from stratalens.saes.hub_saes import LocatedSaes, Wanted, fetch_saes
from stratalens.saes.places import parse_place
from stratalens.saes.source import find_saes

SCOPE = "google/gemma-scope-2b-pt-res"
SECOND = "google/gemma-scope-2-270m-pt"
L0S = {"16k": (22, 82, 176), "65k": (21, 72)}
RESID = (0, 5, 12)
MODEL = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'
SIZES = {"small": 14, "medium": 55, "big": 120}


SMALL, ONE = "average_l0_22", "layer_5/width_16k/average_l0_22"


def scope_files() -> dict[str, bytes]:
    """A repository of the shape of Gemma Scope."""
    names = [f"layer_{n}/width_{width}/average_l0_{l0}" for n in RESID for width in L0S for l0 in L0S[width]]
    return {f"{name}/params.npz": name.encode() * 100 for name in [*names, "embedding/width_4k/average_l0_44"]}


def second_files() -> dict[str, bytes]:
    """A repository of the shape of Gemma Scope 2."""
    files: dict[str, bytes] = {}
    for site in ("resid_post", "resid_post_all", "mlp_out", "attn_out", "transcoder"):
        for layer in (5, 9):
            for size, l0 in SIZES.items():
                folder = f"{site}/layer_{layer}_width_16k_l0_{size}{'_affine' * (site == 'transcoder')}"
                files[f"{folder}/config.json"] = json.dumps({"l0": l0, "architecture": "jump_relu"}).encode()
                files[f"{folder}/params.safetensors"] = folder.encode() * 10
    return files


@pytest.fixture(scope="module")
def saes_on_disk(tmp_path_factory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("saes")
    for name in ("layers.0", "layers.1", "layers.2", "layers.2.mlp"):
        write_sae(root / name)
    (root / "README.md").write_text("about")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def hub(monkeypatch, tmp_path, saes_on_disk) -> Iterator[HubServer]:
    other = {name: content for name, content in saes_on_disk.items() if name.startswith("layers.1/")}
    repositories = {
        SCOPE: {"main": scope_files()},
        SECOND: {"main": second_files()},
        "someone/saes": {"main": saes_on_disk, "old": {"deep/er/" + name: content for name, content in other.items()}},
        "someone/plain": {"main": {"model.safetensors": b"x", "config.json": MODEL, "tokenizer.json": b"{}"}},
        "mntss/clt": {"main": {f"W_{part}_{n}.safetensors": b"x" for part in ("enc", "dec") for n in (0, 1)}},
        "someone/parts": {"main": {f"{site}/layer_1/ae.pt": b"x" for site in ("mlp_out", "attn_out")}},
    }
    with as_the_hub(repositories, tmp_path / "hub", monkeypatch) as server:
        yield server


class Given(NamedTuple):
    name: str
    layers: tuple[int, ...] | None = (12,)
    sites: tuple[str, ...] = ()
    picks: tuple[str, ...] = ()
    revision: str | None = None

    def fetch(self, said: list[str] | None = None) -> LocatedSaes:
        say = [].append if said is None else said.append
        return fetch_saes(parse_place(self.name), self.revision, Wanted(self.layers, self.sites, self.picks), say)


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        (Given(SCOPE, (12,), (), ("width_16k", "l0=70")), ["layer_12/width_16k/average_l0_82"]),
        (Given(SCOPE, (12,), (), ("l0=70",)), ["layer_12/width_65k/average_l0_72"]),
        (Given(SCOPE, (0, 12), (), (f"width_16k/{SMALL}",)), [f"layer_{n}/width_16k/{SMALL}" for n in (0, 12)]),
        (Given(f"{SCOPE}:layer_{{layer}}/width_16k", (5,), (), ("l0=1000",)), ["layer_5/width_16k/average_l0_176"]),
        (Given(f"{SCOPE}:layer_{{layer}}/*/*_l0_72", None), [f"layer_{n}/width_65k/average_l0_72" for n in (0, 12, 5)]),
        (Given(f"{SCOPE}:{ONE}", None), [ONE]),
        (Given(f"{SCOPE}:{ONE}/params.npz", (5,)), [ONE]),
        (Given(f"{SECOND}:resid_post", (9,), (), ("*l0_small",)), ["resid_post/layer_9_width_16k_l0_small"]),
        (Given(f"{SECOND}:resid_post", (9,), (), ("l0=70",)), ["resid_post/layer_9_width_16k_l0_medium"]),
        (Given(SECOND, (5,), ("mlp",), ("*big",)), ["mlp_out/layer_5_width_16k_l0_big"]),
        (Given(SECOND, (5,), ("attn",), ("l0=1",)), ["attn_out/layer_5_width_16k_l0_small"]),
        (Given(f"{SECOND}:transcoder", (5,), (), ("*_l0_big_*",)), ["transcoder/layer_5_width_16k_l0_big_affine"]),
        (Given(f"{SECOND}:mlp_out/layer_{{layer}}_*_big", (9,)), ["mlp_out/layer_9_width_16k_l0_big"]),
        (Given("someone/saes", (2,)), ["layers.2"]),
        (Given("someone/saes", (2,), ("resid", "mlp")), ["layers.2", "layers.2.mlp"]),
        (Given("someone/saes:layers.{layer}", None), ["layers.0", "layers.1", "layers.2"]),
        (Given("someone/saes:deep/er", (1,), (), (), "old"), ["deep/er/layers.1"]),
        (Given("someone/plain"), [""]),
    ],
)  # fmt: skip
def test_exactly_the_files_of_the_wanted_saes_are_fetched(hub, given, folders):
    said: list[str] = []
    found = given.fetch(said)
    snapshot = found.tree.root
    while snapshot.parent.name != "snapshots":
        snapshot = snapshot.parent
    names = [path.relative_to(snapshot).as_posix() for path in found.tree.files]
    assert sorted({name.rpartition("/")[0] for name in names}) == folders
    weights = [name for name in hub.fetched if not name.endswith("config.json")]
    assert set(weights) <= set(names), "configurations alone are looked at to choose by L0"
    assert all(path.is_file() for path in found.tree.files)
    assert snapshot.name == found.commit == commit_of(given.name.partition(":")[0], given.revision or "main")
    (line,) = said
    assert f" of {given.name.partition(':')[0]} at {found.commit[:8]} into " in line


def test_size_and_destination_are_told_before_and_nothing_is_told_of_what_is_there(hub, tmp_path):
    said: list[str] = []
    given = Given(SCOPE, (0, 5), (), ("*l0_22",))
    given.fetch(said)
    content = scope_files()
    size = sum(len(content[f"layer_{n}/width_16k/average_l0_22/params.npz"]) for n in (0, 5))
    assert said == [
        f"Fetching 2 files ({size / 1e6:.1f} MB) of {SCOPE} at {commit_of(SCOPE, 'main')[:8]} into {tmp_path / 'hub'}"
    ]
    given.fetch(said)
    assert len(said) == 1
    Given(SCOPE, (0, 5, 12), (), ("*l0_22",)).fetch(said)
    assert said[1].startswith("Fetching 1 file (")


@pytest.mark.parametrize(
    ("case", "given", "line"),
    [
        (
            "several SAEs of a layer on the Hub",
            Given(SCOPE),
            f"{SCOPE}: layer 12 resid: several SAEs fit: layer_12/width_16k/average_l0_176, "
            "layer_12/width_16k/average_l0_22, layer_12/width_16k/average_l0_82, layer_12/width_65k/average_l0_21, "
            "layer_12/width_65k/average_l0_72; choose one, such as by --sae_pick 'average_l0_176' or --sae_pick l0=176",
        ),
        (
            "a layer that no SAE on the Hub has",
            Given(SCOPE, (3, 12), (), ("l0=70",)),
            f"{SCOPE}: no SAE for layer 3; it has layers 0 5 12",
        ),
        (
            "a `--sae_pick` that fits none",
            Given(f"{SCOPE}:layer_{{layer}}/width_65k", (12,), (), ("l0_22",)),
            f"{SCOPE}:layer_{{layer}}/width_65k: layer 12 resid: none of its SAEs fits --sae_pick l0_22; there are "
            "layer_12/width_65k/average_l0_21, layer_12/width_65k/average_l0_72",
        ),
        (
            "a pattern that fits none",
            Given(f"{SECOND}:resid_post/layers_{{layer}}", (5,)),
            f"{SECOND}:resid_post/layers_{{layer}}: no SAE has such a path; there are layer_5_width_16k_l0_big, "
            "layer_5_width_16k_l0_medium, layer_5_width_16k_l0_small, layer_9_width_16k_l0_big, "
            "layer_9_width_16k_l0_medium, layer_9_width_16k_l0_small",
        ),
        (
            "an L0 that no SAE says",
            Given("someone/parts", (1,), ("mlp",), ("l0=70",)),
            "someone/parts: layer 1 mlp: none of its SAEs says its L0, so choose by a glob; there are mlp_out/layer_1",
        ),
        (
            "a folder that a repository lacks",
            Given(f"{SCOPE}:layer_99"),
            f"{SCOPE}:layer_99: there is no such folder in the repository; see the files on its Hub page",
        ),
        (
            "cross-layer transcoders on the Hub",
            Given("mntss/clt"),
            "mntss/clt: it holds cross-layer transcoders, which are not read",
        ),
        (
            "SAEs at several sites on the Hub",
            Given("someone/parts", (1,)),
            "someone/parts: its SAEs are at several sites; choose with --sites attn mlp",
        ),
        (
            "a site that no SAE on the Hub has",
            Given("someone/parts", (1,), ("attn_norm",)),
            "someone/parts: no SAE at site attn_norm; it has attn mlp",
        ),
        (
            "a revision of SAEs that there is not",
            Given(SCOPE, revision="v9"),
            f"{SCOPE} has no such revision; see the branches and tags on its Hub page, or leave out --sae_revision",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_weights_are_fetched(hub, documented, case, given, line):
    with pytest.raises(StratalensError) as caught:
        given.fetch()
    assert str(caught.value) == line
    assert not [name for name in hub.fetched if not name.endswith("config.json")]
    documented("The Hub", case, line)


def test_a_disk_without_room_is_refused_before_anything_is_fetched(hub, documented, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**6, 10**6, 0))
    with pytest.raises(
        CheckpointError, match="free some space, or name another directory in the environment"
    ) as caught:
        Given(SCOPE, picks=("l0=70",)).fetch()
    assert hub.fetched == []
    documented("The Hub", "no room for SAEs of the Hub", str(caught.value))


def test_without_the_hub_what_was_fetched_is_found_again_and_what_was_not_is_not(hub, monkeypatch):
    import huggingface_hub.constants as constants

    given = Given(SCOPE, (12,), (), ("l0=70",))
    before = given.fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert given.fetch() == before
    with pytest.raises(ConfigError, match="no SAE for layer 5; it has layers 12; the Hub cannot be reached, so"):
        given._replace(layers=(5,)).fetch()
    with pytest.raises(CheckpointError, match="not in the Hub cache, and the Hub cannot be reached"):
        Given(SECOND).fetch()


@pytest.fixture
def tiny(tiny_model) -> ModelSource:
    return find_model(make_config(base_model=str(tiny_model), sae_model="unused"))


def test_a_run_a_resumed_run_and_a_worker_find_the_same_saes_with_their_commit(hub, tiny):
    config = make_config(base_model=tiny.location, sae_model="someone/saes", layers=("1-2",), sites=("resid", "mlp"))
    with pytest.raises(ConfigError, match="someone/saes: no SAE for layer 1 at site mlp; it has layers 2"):
        find_saes(config, tiny)
    config = config.model_copy(update={"sites": ()})
    found = find_saes(config, tiny)
    assert {str(place): (sae.module, sae.name) for place, sae in found.items()} == {
        str(n): (f"layers.{n}", f"layers.{n}") for n in (1, 2)
    }
    assert {sae.commit for sae in found.values()} == {commit_of("someone/saes", "main")}
    again = find_saes(make_config(**config.model_dump()), tiny, list(found))
    assert [(sae.digest, sae.commit) for sae in again.values()] == [(sae.digest, sae.commit) for sae in found.values()]
    old = config.model_copy(update={"layers": ("1",), "sae_model": "someone/saes:deep/er", "sae_revision": "old"})
    assert [sae.commit for sae in find_saes(old, tiny).values()] == [commit_of("someone/saes", "old")]


def test_files_that_are_in_the_cache_from_another_run_are_not_taken_for_chosen_ones(hub, tiny):
    options = {"base_model": tiny.location, "sae_model": "someone/saes"}
    find_saes(make_config(**options, layers=("0-2",)), tiny)
    found = find_saes(make_config(**options | {"sae_model": "someone/saes:layers.{layer}"}, layers=("2",)), tiny)
    assert list(map(str, found)) == ["2"]


def test_a_model_in_place_of_saes_is_named_without_its_weights(hub, tiny):
    with pytest.raises(CheckpointError, match="a language model, not SAEs; give it with --base_model"):
        find_saes(make_config(base_model=tiny.location, sae_model="someone/plain", layers=("1",)), tiny)
    assert hub.fetched == ["config.json", "tokenizer.json"]


def test_a_local_folder_has_no_revision(documented, tiny, tmp_path):
    write_sae(tmp_path / "layers.1")
    config = make_config(base_model=tiny.location, sae_model=str(tmp_path), sae_revision="v2")
    with pytest.raises(ConfigError, match="is on this machine and has no revisions; leave it out") as caught:
        find_saes(config, tiny)
    documented("SAE checkpoints", "`--sae_revision` of a local folder", str(caught.value))


@pytest.mark.parametrize("written", [":layers.{layer}", "/layers.{layer}", ":layers.?", ":layers.{layer}/seed0"])
def test_a_pattern_chooses_among_local_folders(tiny, tmp_path, written):
    root = tmp_path / "my saes: all"
    for name in ("layers.1", "layers.2", "layers.2.mlp", "layers.3"):
        write_sae(root / name / ("seed0" if "seed0" in written else ""))
    config = make_config(base_model=tiny.location, sae_model=f"{root}{written}", layers=("1-2",))
    assert [sae.module for sae in find_saes(config, tiny).values()] == ["layers.1", "layers.2"]


def test_a_local_folder_that_is_not_there_is_named(documented, tiny, tmp_path):
    write_sae(tmp_path / "layers.1")
    config = make_config(base_model=tiny.location, sae_model=f"{tmp_path}:more/layers")
    with pytest.raises(CheckpointError, match="there is no `more/layers` in it") as caught:
        find_saes(config, tiny)
    documented("SAE checkpoints", "a folder that a local folder lacks", str(caught.value))


def test_a_pick_without_a_number_is_refused(documented):
    with pytest.raises(ConfigError, match="sae_pick: `l0=many` has no number; write the nearest L0 as l0=70") as caught:
        make_config(base_model="m", sae_model="s", sae_pick="l0=many")
    documented("Commands and options", "`--sae_pick` that cannot be meant", str(caught.value))


def test_picks_are_words_in_a_file_or_a_list():
    assert make_config(base_model="m", sae_model="s", sae_pick="l0=70").sae_pick == ("l0=70",)
    assert make_config(base_model="m", sae_model="s", sae_pick=["a", "l0=7.5"]).sae_pick == ("a", "l0=7.5")
