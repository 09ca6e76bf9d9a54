"""What holds for a file on this machine holds for one behind an address, whatever the service."""

import gzip
import json
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from file_server import PASSWORD, QUOTED_PASSWORD, USER, FileServer, file_server
from refusal import output_of, refusal, with_options
from text_files import FILES, ROWS, TEXTS, jsonl

from stratalens.cli.main import main
from stratalens.corpus import addresses, remote
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError

LONG = [{"id": str(number), "text": f"{number} " + "word " * 2000} for number in range(700)]
"""About 7 MB, more than fsspec takes at once."""
SERVED = {
    **FILES,
    **{f"{name}.gz": gzip.compress(content) for name, content in FILES.items()},
    **{f"private/{name}": content for name, content in FILES.items()},
    "texts/b.txt": b"one\ntwo\n",
    "texts/a/deep/c.md": b"three\n",
    "texts/a/d.jsonl": b'{"text": "four"}\n',
    "texts/.hidden.txt": b"not read",
    "texts/picture.png": b"not read",
    "long.jsonl": jsonl(LONG),
    "long.jsonl.gz": gzip.compress(jsonl(LONG), 1),
}


def read(*given: str, **options: object) -> list[Row]:
    return [row for file in find_files(given, TextOptions(**options)) for row in read_rows(file)]


REMOTE = "Texts elsewhere"


def texts(*given: str) -> list[str]:
    return [row.text for row in read(*given)]


def problem(given: str) -> str:
    with pytest.raises(CorpusError) as error:
        read(given)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module", params=[True, False], ids=["ranges", "no-ranges"])
def server(request) -> Iterator[FileServer]:
    with file_server(SERVED, ranges=request.param) as one:
        yield one


@pytest.fixture
def memory() -> Iterator[str]:
    """The served files in a file system that needs no server."""
    filesystem = fsspec.filesystem("memory")
    for name, content in SERVED.items():
        filesystem.pipe_file(f"/shelf/{name}", content)
    yield "memory://shelf/"
    filesystem.rm("/shelf", recursive=True)


@pytest.mark.parametrize("ending", ["", ".gz"], ids=["plain", "gz"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_table_is_read_from_the_web_as_from_disk(server, name, ending):
    assert read(server.url(name + ending)) == [Row(row["text"], row["id"]) for row in ROWS]


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_table_is_read_from_any_file_system(memory, name):
    assert read(memory + name) == read(memory + name + ".gz") == [Row(row["text"], row["id"]) for row in ROWS]


@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz"])
def test_a_file_of_many_blocks_comes_whole_and_in_order(server, name):
    expected = [Row(row["text"].strip(), row["id"]) for row in LONG]
    assert read(server.url(name)) == read(server.url(name)) == expected


def test_a_query_takes_no_part_in_the_kind_of_a_file(server):
    assert texts(server.url("a.csv?name=b.jsonl&sig=x.gz")) == TEXTS


def test_directories_and_globs_are_read_in_order_without_hidden_files(server, memory):
    for root in (server.url("texts/"), memory + "texts/"):
        assert texts(root) == ["four", "three", "one\ntwo"]
        assert texts(root + "*.txt") == ["one", "two"]
        assert texts(root + "**/*.md") == ["three"]
        assert [file.unit for file in find_files([root])] == ["row", "file", "file"]
    assert texts("memory://shelf/texts") == ["four", "three", "one\ntwo"]


def test_a_local_file_is_the_same_by_path_and_by_address(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert texts(f"file://{tmp_path}/a.txt", str(tmp_path / "a.txt"), f"file://{tmp_path}/*.txt") == ["one", "two"]
    assert texts(f"file://{tmp_path}") == ["one\ntwo"]


def test_an_address_named_twice_is_read_once(server, memory):
    assert texts(server.url("a.jsonl"), server.url("a.jsonl")) == TEXTS
    assert texts(memory + "texts/b.txt", memory + "texts/") == ["one", "two", "four", "three"]


def test_user_and_password_open_what_is_private_and_are_in_no_name(server):
    url = server.url("private/a.jsonl", user=f"{USER}:{QUOTED_PASSWORD}@")
    assert texts(url) == TEXTS
    [file] = find_files([url])
    for shown in (str(file.path), repr(file.path), repr(file), f"{file.path}"):
        assert USER not in shown
        assert QUOTED_PASSWORD not in shown
    assert str(file.path) == server.url("private/a.jsonl", user="***@")


def test_what_is_missing_or_refused_says_so_with_a_remedy(server, documented):
    assert problem(server.url("none.jsonl")).endswith("none.jsonl: no such file, directory or glob")
    assert problem(server.url("none*.jsonl")).endswith("none*.jsonl: no such file, directory or glob")
    assert "no .txt, .md" in problem(server.url("none/"))
    for path in ("private/a.jsonl", "forbidden/a.jsonl"):
        assert "access was refused (40" in problem(server.url(path))
        assert "give credentials the way" in problem(server.url(path))
    documented(REMOTE, "an address where nothing is", problem(server.url("none.jsonl")))
    documented(REMOTE, "access refused", problem(server.url("forbidden/a.jsonl")))
    wrong = problem(server.url("private/a.jsonl", user="reader:wrong-word@"))
    assert "access was refused (401 Unauthorized)" in wrong
    assert "wrong-word" not in wrong


def test_a_refused_connection_and_an_unknown_host_say_to_check_the_network(documented):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = problem(f"http://127.0.0.1:{closed.getsockname()[1]}/a.jsonl?sig=my-secret")
    assert "a.jsonl?sig=***: cannot be read (" in refused
    assert "check its name and the network" in refused
    assert "my-secret" not in refused
    documented(REMOTE, "nobody listening at the address", refused)
    assert "check its name and the network" in problem("http://no-such-host.invalid/a.jsonl")


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz", "a.parquet"])
def test_a_transfer_that_breaks_is_an_error_and_not_a_shorter_corpus(name, ranges):
    with file_server(SERVED, ranges=ranges, cut_after=1000) as broken:
        assert f"{name}: " in problem(broken.url(name))


def test_a_server_that_falls_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(remote, "READ_TIMEOUT_SECONDS", 0.3)
    with file_server(SERVED) as server:
        assert "cannot be read" in problem(server.url("silent/a.jsonl"))


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_service_whose_package_is_missing_is_refused_with_the_command_that_installs_it(
    scheme, package, monkeypatch, documented
):
    monkeypatch.setitem(sys.modules, package, None)
    line = problem(f"{scheme}://bucket/a.jsonl")
    assert line.endswith(f"needs the package `{package}`: pip install {package}")
    documented(REMOTE, f"an address of {scheme}:// without its package", line)


def test_credentials_in_an_s3_address_are_refused_with_where_they_go():
    line = problem("s3://AKIAKEY:my-secret@bucket/a.jsonl")
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert "my-secret" not in line
    assert "AKIAKEY" not in line


@pytest.mark.parametrize(
    "given", ["foo://x/y.txt", "https://", "http://[::1/x.txt", "://x", "memory://", "http://h:x@/y.txt", "ftp://:0/x"]
)
def test_what_is_no_address_is_refused_on_one_line(given):
    assert problem(given).startswith(remote.redacted(given))


def test_an_address_from_a_record_is_refused_because_its_credentials_are_not_there():
    assert "give the complete address" in problem("https://***@host/a.jsonl?sig=***")


class _Faulty(fsspec.AbstractFileSystem):
    """A file system that fails in its own way."""

    protocol = "faulty"
    cachable = False

    def info(self, path, **kwargs):
        if "credentials" in path:
            raise NoCredentialsError("Unable to locate credentials")
        return {"name": path, "size": 9, "type": "file"}

    def _open(self, path, mode="rb", **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
        if "open" in path:
            raise ServiceError("Internal trouble\nwith https://host/x?token=my-secret")
        return _FaultyFile()


class _FaultyFile:
    def read(self, size):
        raise ServiceError("broke off")

    def close(self):
        pass


class ServiceError(Exception):
    """Of no common base, as the errors of services are."""


class NoCredentialsError(Exception):
    """As botocore has it."""


def test_errors_of_a_service_of_whatever_kind_are_one_line_without_secrets(monkeypatch):
    monkeypatch.setattr(addresses, "PLAIN_PROTOCOLS", ("faulty",))
    fsspec.register_implementation("faulty", _Faulty, clobber=True)
    assert "cannot be read (Internal trouble with https://host/x?token=***)" in problem("faulty://b/open.jsonl")
    assert "read.jsonl: cannot be read (broke off)" in problem("faulty://b/read.jsonl")
    assert "access was refused (Unable to locate credentials)" in problem("faulty://b/credentials.jsonl")


def test_a_run_on_addresses_reveals_none_of_their_secrets(server, tiny_arguments, small_texts, capsys):
    domain, general = (path.read_bytes() for path in small_texts)
    with file_server({"private/domain.jsonl": domain, "general.jsonl": general}) as host:
        options = {
            "domain_data": host.url("private/domain.jsonl", user=f"{USER}:{QUOTED_PASSWORD}@"),
            "general_data": host.url("general.jsonl?X-Amz-Signature=5ec7e7&v=2#frag-5ec7e7"),
        }
        assert main(["analyze", *with_options(tiny_arguments, options)]) == 0
        said = capsys.readouterr()
        assert host.url("private/domain.jsonl", user="***@") in said.err + said.out
        secrets = [QUOTED_PASSWORD, PASSWORD, USER + ":", "5ec7e7"]
        written = [path for path in output_of(tiny_arguments).rglob("*") if path.is_file()]
        for source, content in [("said", (said.err + said.out).encode()), *((p, p.read_bytes()) for p in written)]:
            assert not [secret for secret in secrets if secret.encode() in content], source
        record = json.loads((output_of(tiny_arguments) / "run.json").read_text())
        assert record["settings"]["domain_data"] == [host.url("private/domain.jsonl", user="***@")]
        assert record["corpus"]["files"]["general"] == [host.url("general.jsonl?X-Amz-Signature=***&v=***#***")]
        again = with_options(tiny_arguments, {"config": str(output_of(tiny_arguments) / "run.json")})
        for name in ("--domain_data", "--general_data"):
            del again[again.index(name) : again.index(name) + 2]
        again[again.index("--output_dir") + 1] += "-again"
        assert "give the complete address" in refusal(again, capsys)


def test_a_mistake_in_an_address_is_refused_by_the_command_line_on_one_line(server, tiny_arguments, capsys):
    line = refusal(with_options(tiny_arguments, {"domain_data": server.url("none.jsonl?key=my-secret")}), capsys)
    assert line.endswith("none.jsonl?key=***: no such file, directory or glob")


def test_an_error_in_a_remote_file_names_address_and_line(memory):
    fsspec.filesystem("memory").pipe_file("/shelf/bad.jsonl", b'{"text": "x"}\n{"text": 7}\n')
    line = problem(memory + "bad.jsonl")
    assert line.startswith("memory:///shelf/bad.jsonl:2: the text column holds int, not text; give the text column")


@pytest.mark.parametrize(
    "address",
    [
        "github://owner:my-secret@main/a.jsonl",
        "zip://a.jsonl::github://owner:my-secret@main/a.zip",
        "zip://a.jsonl::dask::file:///a.zip",
        "Http://reader:my-secret@127.0.0.1/a.jsonl",
        "python://a.jsonl",
    ],
)
def test_an_address_of_another_protocol_is_refused_with_those_that_are_read(address, documented):
    line = problem(address)
    assert "is not a protocol that is read; expected one of file, http, https, ftp," in line
    assert "my-secret" not in line
    if address.startswith("github"):
        documented(REMOTE, "an address of another protocol", line)


@pytest.mark.parametrize("protocol", ["filecache", "blockcache"])
def test_a_cache_that_writes_addresses_to_the_disk_is_refused(tmp_path, server, protocol):
    for address in (f"{protocol}::{server.url('a.jsonl')}", f"{protocol}::zip://a.jsonl::file://{tmp_path}/a.zip"):
        assert f"`{protocol}` is not a protocol that is read; expected one of" in problem(address)


def test_the_user_may_nest_addresses(tmp_path, server):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.jsonl", FILES["a.jsonl"])
    (tmp_path / "refs.json").write_text(json.dumps({"version": 1, "refs": {"a.jsonl": FILES["a.jsonl"].decode()}}))
    for address in (
        f"zip://a.jsonl::file://{tmp_path}/a.zip",
        f"zip://a.jsonl::{tmp_path}/a.zip",
        f"reference://a.jsonl::file://{tmp_path}/refs.json",
        f"simplecache::{server.url('a.jsonl')}",
    ):
        assert texts(address) == TEXTS, address


def test_a_path_with_a_colon_is_a_path(tmp_path):
    (tmp_path / "a:b.txt").write_text("x")
    assert texts(str(tmp_path / "a:b.txt")) == ["x"]
    assert isinstance(find_files([tmp_path / "a:b.txt"])[0].path, Path)
