"""Links in a directory of texts are followed only inside it; those that lead out of it are counted and told."""

import glob
import re
from pathlib import Path

import pytest
from refusal import with_options

from stratalens.cli.main import main
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A directory with a text and its neighbour, which has a secret."""
    for name, text in (("corpus/deep/a.txt", "read me"), ("elsewhere/secret.txt", "secret")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "corpus"


def read(*paths: Path | str) -> tuple[list[str], list[str]]:
    """The texts of some paths, and the warnings about them."""
    warnings: list[str] = []
    return [row.text for file in find_files(paths, warn=warnings.append) for row in read_rows(file)], warnings


def test_links_to_files_and_folders_inside_the_directory_add_nothing_and_are_no_cause_for_a_warning(corpus):
    (corpus / "again.txt").symlink_to(corpus / "deep" / "a.txt")
    (corpus / "deeper").symlink_to("deep")
    (corpus / "round").symlink_to(corpus)
    assert read(corpus) == (["read me"], [])


def test_a_link_to_a_hidden_file_inside_the_directory_is_read(corpus):
    (corpus / ".store").mkdir()
    (corpus / ".store" / "blob").write_text("stored")
    (corpus / "deep" / "b.txt").symlink_to("../.store/blob")
    assert read(corpus) == (["read me", "stored"], [])


OUT = {
    "a file": ("b.txt", "../elsewhere/secret.txt"),
    "a folder": ("b", "../elsewhere"),
    "the folder above": ("b", ".."),
    "the root": ("b", "/"),
    "a file by way of the inside": ("b.txt", "deep/../../elsewhere/secret.txt"),
    "nothing": ("b.txt", "../elsewhere/missing.txt"),
}


@pytest.mark.parametrize(("name", "target"), OUT.values(), ids=OUT)
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_link_out_of_the_directory_is_not_followed_but_told(corpus, name, target, form):
    (corpus / name).symlink_to(target)
    texts, warnings = read(form.format(corpus))
    assert texts == ["read me"]
    assert warnings == [
        f"{form.format(corpus)}: links out of it are not followed: 1, such as {corpus / name}; "
        "to read them, name what they point to"
    ]


@pytest.mark.parametrize(("name", "target"), [("b", "../elsewhere"), ("deep/b.txt", "../../elsewhere/secret.txt")])
def test_two_stars_do_not_lead_out_of_the_directory(corpus, name, target):
    (corpus / name).symlink_to(target)
    texts, warnings = read(corpus / "**" / "*.txt")
    assert texts == ["read me"]
    assert len(warnings) == 1


def test_circles_of_links_are_not_gone_round(corpus):
    for number in range(3):
        (corpus / f"round {number}").symlink_to(corpus)
        (corpus / "deep" / f"up {number}").symlink_to("..")
    assert read(corpus / "**" / "*.txt") == read(corpus / "**") == read(corpus) == (["read me"], [])


@pytest.mark.parametrize(
    "pattern", ["**/*.txt", "**", "**/y/*", "x/**/*.txt", "**/**/*.txt", "*/**", ".z/**", "**/.w/*.txt", "**/[13].txt"]
)
def test_without_links_two_stars_find_what_they_find_in_pythons_glob(tmp_path, pattern):
    for name in ("1.txt", "x/2.txt", "x/y/3.txt", ".z/4.txt", "x/.5.txt", "x/.w/6.txt", "x/y/7.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = {path for path in glob.glob(str(tmp_path / pattern), recursive=True) if Path(path).is_file()}
    assert [str(file.path) for file in find_files([tmp_path / pattern])] == sorted(expected, key=Path)


def test_a_chain_of_links_counts_by_its_end(corpus):
    (corpus / "b.txt").symlink_to("c.txt")
    (corpus / "c.txt").symlink_to("../elsewhere/secret.txt")
    texts, warnings = read(corpus)
    assert texts == ["read me"]
    assert re.search(r"not followed: 2, such as .*/b\.txt;", warnings[0])


def test_links_that_would_not_be_read_anyway_do_not_count(corpus):
    (corpus / "picture.png").symlink_to("../elsewhere/secret.txt")
    (corpus / ".hidden.txt").symlink_to("../elsewhere/secret.txt")
    (corpus / "picture.jpg").symlink_to("picture.jpg")
    assert read(corpus) == (["read me"], [])


def test_a_link_that_the_user_names_is_followed(corpus, tmp_path):
    (tmp_path / "to a folder").symlink_to(corpus)
    (corpus / "b.txt").symlink_to("../elsewhere/secret.txt")
    assert read(corpus / "b.txt") == read(corpus / "*.txt") == (["secret"], [])
    (corpus / "b.txt").unlink()
    assert read(tmp_path / "to a folder") == (["read me"], [])


def test_a_directory_of_nothing_but_links_out_of_it_is_refused_with_their_number(corpus, tmp_path, documented):
    (tmp_path / "snapshot").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "snapshot" / name).symlink_to(corpus / "deep" / "a.txt")
    with pytest.raises(CorpusError, match=r"in this directory; links out of it are not followed: 2") as caught:
        read(tmp_path / "snapshot")
    documented("Texts", "a directory of links to elsewhere", str(caught.value))


def test_a_run_tells_of_links_that_it_does_not_follow(tmp_path, small_texts, tiny_arguments, capsys):
    domain, _ = small_texts
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "domain.jsonl").write_bytes(domain.read_bytes())
    (tmp_path / "secret.txt").write_text("swordfish " * 50)
    (tmp_path / "texts" / "passwords.txt").symlink_to("../secret.txt")
    assert main(["analyze", *with_options(tiny_arguments, {"domain_data": str(tmp_path / "texts")})]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{tmp_path / 'texts'}: links out of it are not followed: 1, such as" in said
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"swordfish" not in written
