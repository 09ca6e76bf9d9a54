"""dictionary_learning: what its own library wrote and encoded, trained and random, of every class, scale included."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from library_files import ORACLES, activations, at_block_16, described, expected, found, refusal_of
from oracles import assert_same_latents, assert_same_vectors, dense
from tiny import TINY_LATENTS, TINY_WIDTH

from stratalens.config.sae_activation import SaeActivation
from stratalens.config.validation import make_config
from stratalens.harvest.inputs import find_model_inputs
from stratalens.hookpoint import Hookpoint
from stratalens.progress import NoProgress
from stratalens.saes.formats import dictionary_learning
from stratalens.saes.sae import SaeFile

FILES = ORACLES / "dictionary_learning"
RANDOM_COMPONENTS = 24
FOLDERS = sorted(path.parent.relative_to(FILES).as_posix() for path in FILES.rglob("ae.pt"))
TRAINED = [folder for folder in FOLDERS if folder.startswith("trained")]
TOPK, BATCHTOPK = FILES / "random/AutoEncoderTopK/plain", FILES / "random/BatchTopKSAE/plain"


def read(folder: Path, told: SaeActivation | None = None) -> SaeFile:
    return dictionary_learning.describe(at_block_16(folder, told))


def vectors(folder: str) -> torch.Tensor:
    return activations("resid", RANDOM_COMPONENTS if folder.startswith("random") else None)


def assert_as_its_library(file: SaeFile, folder: str, source: Path | None = None) -> None:
    x, theirs, sae = vectors(folder), expected((source or FILES / folder) / "expected.safetensors"), file.load()
    assert (file.num_latents, file.d_model) == (theirs.latents.shape[1], x.shape[1])
    assert_same_latents(sae, x, theirs.latents, precision=2e-5)
    few = x[: len(theirs.reconstructions)]
    assert_same_vectors(sae.decode(sae.encode(few), few), theirs.reconstructions, precision=2e-5)


def test_there_is_a_trained_and_a_random_one_of_every_class_and_backups_of_those_whose_biases_are_scaled():
    classes = set(dictionary_learning.DECODER_BIASES)
    assert {folder.split("/")[1] for folder in FOLDERS if folder.startswith("random")} == classes
    assert {folder.split("/")[1] for folder in TRAINED} == classes | {"AutoEncoderAprilUpdate"}
    assert sum(folder.endswith("backup") for folder in FOLDERS) == len(classes) - 1


@pytest.mark.parametrize("folder", FOLDERS)
def test_latents_and_reconstructions_are_those_of_its_own_library(folder):
    assert_as_its_library(read(FILES / folder), folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_encoder_and_decoder_alone_are_those_of_the_whole(folder):
    file, x = read(FILES / folder), vectors(folder)
    whole, encoder, decoder = file.load(), file.encoder(), file.decoder()
    latents = whole.encode(x)
    assert torch.equal(encoder.encode(x).value, latents.value)
    assert torch.equal(decoder(latents, x), whole.decode(latents, x))
    some = torch.arange(0, file.num_latents, 3)
    narrow = dense(encoder.only(some).encode(x), len(x), file.num_latents)
    torch.testing.assert_close(narrow[:, some], dense(latents, len(x), file.num_latents)[:, some])


@pytest.mark.parametrize("folder", TRAINED)
def test_a_trainers_folder_is_the_output_of_its_block(folder):
    run = FILES / Path(folder).parents[1]
    assert {name: one.hookpoint for name, one in found(dictionary_learning, run).items()} == {
        "resid_post_layer_16/trainer_0": Hookpoint(16)
    }


@pytest.mark.parametrize(
    ("name", "place"),
    {
        "resid_post_layer_3": Hookpoint(3),
        "resid_out_layer3": Hookpoint(3),
        "resid_pre_layer_3": Hookpoint(3, "resid", "in"),
        "mlp_out_layer3": Hookpoint(3, "mlp"),
        "attn_out_layer_3": Hookpoint(3, "attn"),
        "attention_out_layer_3": Hookpoint(3, "attn"),
        "mlp_layer_3": Hookpoint(3, "mlp"),
        "blocks.3.hook_mlp_out": Hookpoint(3, "mlp"),
        "layers.3": Hookpoint(3),
    }.items(),
)
@pytest.mark.parametrize("where", ["folder", "config"])
def test_a_place_is_named_by_the_folder_or_by_the_trainer(tmp_path, name, place, where):
    folder = tmp_path / (name if where == "folder" else "run")
    shutil.copytree(TOPK, folder)
    trainer = {"dict_class": "AutoEncoderTopK"} | ({"submodule_name": name} if where == "config" else {})
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    assert described(dictionary_learning, tmp_path).hookpoint == place


@pytest.mark.parametrize(
    ("name", "place"),
    {
        "layers.3": Hookpoint(3, "resid", "in"),
        "layers.3.mlp": Hookpoint(3, "mlp_norm"),
        "mlp_layer_3": Hookpoint(3, "mlp_norm"),
        "attn_layer_3": Hookpoint(3, "attn_norm"),
        "resid_layer_3": Hookpoint(3, "resid", "in"),
        "resid_post_layer_3": Hookpoint(3),
        "blocks.3.hook_mlp_out": Hookpoint(3, "mlp"),
    }.items(),
)
def test_a_buffer_of_a_modules_inputs_is_where_the_module_reads(tmp_path, name, place):
    shutil.copytree(TOPK, tmp_path / "run")
    content = {"trainer": {"dict_class": "AutoEncoderTopK", "submodule_name": name}, "buffer": {"io": "in"}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    assert described(dictionary_learning, tmp_path).hookpoint == place


def test_a_trainer_that_names_a_layer_alone_reads_the_output_of_its_block(tmp_path):
    change(tmp_path / "saes", TOPK, layer=7, submodule_name=None)
    assert described(dictionary_learning, tmp_path).hookpoint == Hookpoint(7)


def test_a_backup_of_a_training_whose_vectors_were_not_scaled_is_read_as_it_is(tmp_path):
    shutil.copytree(BACKUP, tmp_path / "saes")
    content = torch.load(BACKUP / "ae.pt", weights_only=True)
    torch.save(content | {"norm_factor": None}, tmp_path / "saes" / "ae.pt")
    assert_as_its_library(read(tmp_path / "saes"), "random/BatchTopKSAE/plain")


def test_in_the_cache_of_the_hub_files_are_links_and_their_folders_say_the_place(tmp_path):
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b" / "resid_post_layer_16" / "trainer_0"
    shutil.copytree(TOPK, blobs)
    folder.mkdir(parents=True)
    (folder / "ae.pt").symlink_to(Path("../../../../blobs/ae.pt"))
    assert described(dictionary_learning, tmp_path / "snapshots", SaeActivation("topk", 6)).hookpoint == Hookpoint(16)


def test_several_trainers_of_a_layer_are_all_found(tmp_path):
    for number in range(3):
        shutil.copytree(TOPK, tmp_path / "resid_post_layer_16" / f"trainer_{number}")
    names = [f"resid_post_layer_16/trainer_{number}" for number in range(3)]
    assert list(found(dictionary_learning, tmp_path)) == names


def test_a_class_that_is_trained_on_a_mean_number_of_latents_declares_it():
    (batch,) = found(dictionary_learning, BATCHTOPK).values()
    (topk,) = found(dictionary_learning, TOPK).values()
    (jump,) = found(dictionary_learning, FILES / "trained" / "JumpReluAutoEncoder").values()
    assert (batch.l0, topk.l0, jump.l0) == (6, None, 3)
    assert (read(TOPK).k, read(BATCHTOPK).k) == (6, None)


def test_a_batchtopk_whose_threshold_was_never_set_lets_every_positive_latent_pass(tmp_path):
    content = torch.load(BATCHTOPK / "ae.pt", weights_only=True)
    torch.save(content | {"threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    x = vectors("random")
    fires = dense(read(tmp_path, SaeActivation("jumprelu")).load().encode(x), len(x), 40) > 0
    product = (x - content["b_dec"]) @ content["encoder.weight"].T + content["encoder.bias"]
    assert torch.equal(fires, product > 0)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5])
def test_a_threshold_that_was_never_set_is_a_warning_of_a_run(tiny_model, tmp_path, threshold):
    folder = tmp_path / "resid_post_layer_1"
    folder.mkdir()
    arrays = {"encoder.weight": torch.ones(TINY_LATENTS, TINY_WIDTH), "encoder.bias": torch.ones(TINY_LATENTS)}
    arrays |= {"decoder.weight": torch.ones(TINY_WIDTH, TINY_LATENTS), "b_dec": torch.zeros(TINY_WIDTH)}
    torch.save(arrays | {"k": torch.tensor(4), "threshold": torch.tensor(threshold)}, folder / "ae.pt")
    told = WarningsOnly()
    config = make_config(base_model=str(tiny_model), sae_model=str(tmp_path), sae_activation="jumprelu", max_length=32)
    warnings = find_model_inputs(config, told).warnings
    words = "the threshold of this BatchTopKSAE was never set, so that every positive latent fires"
    assert told.warned == list(warnings)
    assert [words in warning and str(folder / "ae.pt") in warning for warning in warnings] == [True] * (threshold < 0)


class WarningsOnly(NoProgress):
    """Keeps the warnings."""

    def __init__(self):
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)


@pytest.mark.parametrize(("folder", "told"), [(TOPK, SaeActivation("topk", 6)), (BATCHTOPK, SaeActivation("jumprelu"))])
def test_without_a_configuration_the_user_says_whether_it_is_a_topk_or_a_batchtopk(tmp_path, folder, told):
    shutil.copy(folder / "ae.pt", tmp_path)
    assert_as_its_library(read(tmp_path, told), folder.relative_to(FILES).as_posix(), folder)


@pytest.mark.parametrize("folder", [one for one in FOLDERS if "TopK" not in one and one.endswith("plain")])
def test_without_a_configuration_the_tensors_tell_every_other_class(tmp_path, folder):
    shutil.copy(FILES / folder / "ae.pt", tmp_path)
    assert_as_its_library(read(tmp_path), folder, FILES / folder)


def change(folder: Path, source: Path, **settings: object) -> Path:
    """A copy with other settings of the trainer."""
    shutil.copytree(source, folder)
    content = json.loads((folder / "config.json").read_text())
    content["trainer"] |= settings
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def stored(folder: Path, source: Path, **content: object) -> Path:
    """A copy, unless it is one already, whose file holds other things too; None takes one away."""
    if source != folder:
        shutil.copytree(source, folder)
    whole = torch.load(source / "ae.pt", weights_only=True) | content
    torch.save({name: value for name, value in whole.items() if value is not None}, folder / "ae.pt")
    return folder


BACKUP = FILES / "random/BatchTopKSAE/backup"
REFUSED = {
    "a dictionary of a class that is not read": (lambda at: change(at, TOPK, dict_class="CrossCoder"), None),
    "a dictionary whose tensors are of another class": (
        lambda at: change(at, TOPK, dict_class="GatedAutoEncoder"),
        None,
    ),
    "a TopK of two k": (lambda at: change(at, TOPK, k=7), None),
    "a TopK without k": (lambda at: stored(at, change(at, TOPK, k=None), k=None), None),
    "a TopK or BatchTopK without a configuration": (lambda at: change(at, TOPK, dict_class=None), None),
    "a TopK of more than there are": (lambda at: stored(at, change(at, TOPK, k=41), k=torch.tensor(41)), None),
    "an activation that a dictionary says itself": (lambda at: change(at, BATCHTOPK), SaeActivation("topk", 6)),
    "a BatchTopK of a threshold that is told": (
        lambda at: change(at, TOPK, dict_class=None),
        SaeActivation("jumprelu", threshold=0.5),
    ),
    "a dictionary of no known tensors": (lambda at: stored(at, change(at, TOPK), b_dec=None), None),
    "a dictionary without an encoder": (lambda at: stored(at, change(at, TOPK), **{"encoder.weight": None}), None),
    "a dictionary with a decoder of another shape": (
        lambda at: stored(at, change(at, TOPK), **{"decoder.weight": torch.zeros(40, 24)}),
        None,
    ),
    "a backup of a training without its scale": (lambda at: stored(at, BACKUP, norm_factor=None), None),
    "a backup of a training with a scale of text": (lambda at: stored(at, BACKUP, norm_factor="3"), None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_as_it_was_meant_is_refused(tmp_path, documented, case):
    make, told = REFUSED[case]
    folder = make(tmp_path / "saes")
    documented("SAE checkpoints", case, refusal_of(lambda: read(folder, told)))


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0, -1.0, True, 10**400, [3.0]])
def test_a_backup_of_a_nonsensical_scale_is_refused(tmp_path, factor):
    assert "norm_factor of a backup must be a number above 0" in refusal_of(
        lambda: read(stored(tmp_path / "saes", BACKUP, norm_factor=factor))
    )


def test_a_folder_and_a_trainer_that_disagree_are_refused(tmp_path, documented):
    folder = change(tmp_path / "resid_post_layer_3", TOPK)
    line = refusal_of(lambda: found(dictionary_learning, folder))
    documented("SAE checkpoints", "a dictionary in the folder of another layer", line)


def test_a_place_that_the_model_does_not_have_is_named(tmp_path):
    folder = change(tmp_path / "saes", TOPK, submodule_name="logits_layer_3")
    assert "(found: logits_layer_3)" in refusal_of(lambda: found(dictionary_learning, folder))


def test_code_in_an_ae_pt_is_refused_unread(tmp_path, documented):
    folder = change(tmp_path / "saes", TOPK)
    torch.save({"encoder.weight": Path("/")}, folder / "ae.pt")
    documented("SAE checkpoints", "a dictionary with code in it", refusal_of(lambda: read(folder)))


@pytest.mark.parametrize("name", ["encoder.weight", "b_dec", "threshold"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name, number):
    array = torch.load(BATCHTOPK / "ae.pt", weights_only=True)[name]
    folder = stored(tmp_path / "saes", BATCHTOPK, **{name: torch.full_like(array, number)})
    assert "holds NaN or infinite values" in refusal_of(lambda: read(folder).load())


@pytest.mark.parametrize("size", [0, 10, 1000, 8000])
def test_a_truncated_file_is_refused(tmp_path, size):
    folder = change(tmp_path / "saes", TOPK)
    (folder / "ae.pt").write_bytes((TOPK / "ae.pt").read_bytes()[:size])
    refusal_of(lambda: read(folder).load())
