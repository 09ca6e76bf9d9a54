"""A user's own list of features: lines or a table, in its order, and every mistake in it named."""

import pytest

from stratalens.errors import ConfigError
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.feature_list import read_feature_list, require_latents

WIDTHS = {Hookpoint(4): 64, Hookpoint(16): 64}


def read(tmp_path, text: str) -> dict[str, list[int]]:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    return {str(hookpoint): latents for hookpoint, latents in read_feature_list(str(path)).items()}


@pytest.mark.parametrize(
    "text",
    [
        "16 163\n4 7\n16 2\n",
        "16,163\n4,7\n16,2",
        "# mine\n\n16/163\n4;7\n  16\t2  \n",
        "\ufeff16 163\r\n4 7\r\n16 2\r\n",
        "layer,feature_number\n16,163\n4,7\n16,2\n",
        'feature_number,label,Layer\n163,"Rates, rising",16\n7,x,4\n2,,16\n',
        "layer,latent\n# mine\n16, 163\n4, 7\n16, 2\n",
    ],
    ids=["lines", "commas", "comments", "bom", "table", "columns", "latent"],
)
def test_a_list_is_read_in_its_order(tmp_path, text):
    found = read(tmp_path, text)
    assert found == {"16": [163, 2], "4": [7]}
    assert list(found) == ["16", "4"]


@pytest.mark.parametrize(
    "text",
    [
        "16 163\n16_mlp 7\n16_resid_in 2\n",
        "16/163\n16_mlp/7\n16_resid_in/2\n",
        "layer,feature_number,site\n16,163,resid\n16,7,mlp\n16,2,resid_in\n",
        "site,latent,layer\n,163,16\nmlp,7,16\nresid_in,2,16\n",
    ],
)
def test_a_list_may_name_sites(tmp_path, text):
    assert read(tmp_path, text) == {"16": [163], "16_mlp": [7], "16_resid_in": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no feature in this file; write lines such as `16 163`"),
        ("# nothing\n\n", "no feature in this file"),
        ("layer,feature_number\n", "no feature in this file"),
        ("16 163\n16\n", "line 2: expected a layer and a latent, such as `16 163`"),
        ("16 163 4\n", "line 1: expected a layer and a latent"),
        ("16 -3\n", "line 1: expected a layer and a latent"),
        ("16 1.5\n", "line 1: expected a layer and a latent"),
        ("16 ²\n", "line 1: expected a layer and a latent"),
        ("16 123456789\n", "line 1: expected a layer and a latent"),
        ("\n# a\n16 163\n16 163\n", "line 4: feature 163 of layer 16 is listed twice"),
        ("layer,feature_number\n16\n", "line 2: expected a layer and a latent"),
        ("layer,feature_number\n16,x\n", "line 2: expected a layer and a latent"),
        ("16_head 163\n", "line 1: expected a layer and a latent"),
        ("layer,latent,site\n16,163,head\n", "line 2: expected a layer and a latent"),
        ("layer,label\n16,x\n", "line 1: expected a layer and a latent"),
        ("layer,feature_number\n\n16,1\n16,1\n", "line 4: feature 1 of layer 16 is listed twice"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin").write_bytes(b"16 163 # caf\xe9")
    for name, reason in (("none", "No such file"), ("", "directory"), ("latin", "not UTF-8 text")):
        with pytest.raises(ConfigError, match=f"cannot be read: .*{reason}"):
            read_feature_list(str(tmp_path / name))


def test_features_must_exist():
    require_latents({Hookpoint(4): [0, 63], Hookpoint(16): [5]}, WIDTHS)
    with pytest.raises(ConfigError, match="--features names layer 5; the analysed layers are 4 16"):
        require_latents({Hookpoint(5): [0]}, WIDTHS)
    with pytest.raises(ConfigError, match="--features names feature 64 of layer 4, which has features 0 to 63"):
        require_latents({Hookpoint(4): [0, 64, 3]}, WIDTHS)
