"""What `--sae_model` names: a path with whatever characters, a Hub id, a folder in either, or a pattern."""

import pytest

from stratalens.errors import CheckpointError, ConfigError
from stratalens.saes.places import SaePlace, parse_place


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("google/gemma-scope-2b-pt-res", SaePlace("google/gemma-scope-2b-pt-res", False)),
        ("gpt2", SaePlace("gpt2", False)),
        ("someone/saes:", SaePlace("someone/saes", False)),
        ("someone/saes:layers.5", SaePlace("someone/saes", False, "layers.5")),
        ("someone/saes:a/b/", SaePlace("someone/saes", False, "a/b")),
        ("someone/saes:a b/layer_{layer}", SaePlace("someone/saes", False, "a b", "layer_{layer}")),
        ("someone/saes:*/layer_{layer}/x", SaePlace("someone/saes", False, "", "*/layer_{layer}/x")),
    ],
)
def test_a_hub_id_may_be_followed_by_a_folder_or_a_pattern(monkeypatch, tmp_path, name, place):
    monkeypatch.chdir(tmp_path)
    assert parse_place(name) == place


def test_what_exists_by_its_whole_name_is_that_with_colons_spaces_and_braces(tmp_path):
    for name in ("a: b", "x:y/z", "C:", "C:\\saes", "layer_{layer}", "someone"):
        (tmp_path / name).mkdir(parents=True)
        assert parse_place(str(tmp_path / name)) == SaePlace(str(tmp_path / name), True)
    assert parse_place(str(tmp_path / "x:y:z")) == SaePlace(str(tmp_path / "x:y"), True, "z")
    assert parse_place(str(tmp_path / "C::layers.{layer}")) == SaePlace(
        str(tmp_path / "C:"), True, "", "layers.{layer}"
    )


def test_a_local_folder_of_the_form_of_a_hub_id_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not parse_place("someone/saes:one").is_local
    (tmp_path / "someone" / "saes").mkdir(parents=True)
    assert parse_place("someone/saes:one") == SaePlace("someone/saes", True, "one")
    assert parse_place("someone/saes/layer_{layer}") == SaePlace("someone/saes", True, "", "layer_{layer}")


@pytest.mark.parametrize("name", ["C:\\saes\\gemma", "C:/saes", "C:/saes:layer_{layer}", "d:\\saes:layers.5"])
def test_the_colon_of_a_drive_is_no_separator(name):
    with pytest.raises(CheckpointError, match=r"^[Cd]:[/\\]saes.*: no such directory, and not a Hub id"):
        parse_place(name)


@pytest.mark.parametrize("inside", ["../x", "a/../../x", "/etc", "C:/x", "\\\\host\\x"])
def test_what_leads_out_of_the_place_is_refused(documented, inside):
    with pytest.raises(ConfigError) as caught:
        parse_place(f"someone/saes:{inside}")
    assert str(caught.value) == f"sae_model: `{inside}` leads out of someone/saes; name a folder or pattern in it"
    if inside == "../x":
        documented("SAE checkpoints", "a folder that is not in the place", str(caught.value))


def test_a_folder_of_a_repository_written_as_a_path_is_told_how_to_be_written(documented):
    with pytest.raises(CheckpointError) as caught:
        parse_place("google/gemma-scope-2b-pt-res/layer_{layer}/width_16k")
    line = str(caught.value)
    assert line.endswith("is written with a colon, google/gemma-scope-2b-pt-res:layer_{layer}/width_16k")
    documented("SAE checkpoints", "a folder of a Hub repository without a colon", line)


@pytest.mark.parametrize("name", ["https://hf.co/google/x:y", "no such: folder", "/no/such/{layer}", "a:b:c/../d"])
def test_what_is_neither_path_nor_hub_id_is_refused(name):
    with pytest.raises((CheckpointError, ConfigError)):
        parse_place(name)


@pytest.mark.parametrize(
    ("pattern", "path", "layer"),
    [
        ("layer_{layer}/width_16k", "layer_12/width_16k/average_l0_82", 12),
        ("layer_{layer}/width_16k", "layer_12/width_16k", 12),
        ("layer_{layer}/width_16k", "layer_12/width_16ks", None),
        ("layer_{layer}/width_16k", "layer_x/width_16k", None),
        ("layer_{layer}", "x/layer_12", None),
        ("L{layer}/*_{layer}", "L003/run_3/deep", 3),
        ("L{layer}/*_{layer}", "L3/run_4", None),
        ("a.b_{layer}", "axb_1", None),
        ("w[1]_{layer}", "w[1]_2", 2),
        ("l?_{layer}", "lx_2", 2),
        ("*/x", "a/b/x", None),
        ("*/x", "a/x/y", True),
    ],
)
def test_a_pattern_means_paths_and_what_is_below_them_and_says_the_layer(pattern, path, layer):
    assert SaePlace("p", False, "", pattern).matches(path) == layer
