"""Text from nested fields and several columns, ids from any column, bad rows skipped or refused."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from stratalens.config.validation import make_config
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.describe import examine_text
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import BUILT_IN_TEXTS, TextOptions
from stratalens.corpus.survey import survey
from stratalens.corpus.text_files import find_files
from stratalens.errors import ConfigError, CorpusError

NESTED = [{"meta": {"id": f"d{number}"}, "article": {"body": {"text": f"text {number}"}}} for number in range(4)]


def read(path: Path, **options: object) -> list[Row]:
    return [row for file in find_files([path], TextOptions(**options)) for row in read_rows(file)]


def refused(path: Path, **options: object) -> str:
    with pytest.raises(CorpusError) as error:
        read(path, **options)
    return str(error.value)


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_a_field_inside_a_field_is_named_with_dots(tmp_path, name):
    path = written(tmp_path / name, NESTED)
    found = read(path, text_column=("article.body.text",), id_column="meta.id")
    assert found == [Row(f"text {number}", f"d{number}") for number in range(4)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_a_column_whose_own_name_has_dots_goes_before_a_field(tmp_path, name):
    rows = [{"a.b": "the column", "a": {"b": "the field"}}]
    assert read(written(tmp_path / name, rows), text_column=("a.b",)) == [Row("the column", None)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_several_columns_are_joined_by_a_blank_line_without_empty_ones(tmp_path, name):
    rows = [{"item_1": "one ", "item_7": "seven"}, {"item_1": "", "item_7": "seven"}, {"item_1": None, "item_7": None}]
    found = read(written(tmp_path / name, rows), text_column=("item_1", "item_7"))
    assert [row.text for row in found] == ["one\n\nseven", "seven", ""]


def test_a_field_that_is_missing_is_refused_with_what_is_there(tmp_path, documented):
    path = written(tmp_path / "a.jsonl", [{"article": {"body": "x"}}])
    message = refused(path, text_column=("article.text",))
    assert "a.jsonl:1: no column `text` (found: body); give the text column with --text_column" in message
    documented("Texts", "a field that is not in a column", message)
    assert "no field `x` in the column `article.body`" not in refused(path, text_column=("article.body.x",))
    assert "holds str" in refused(path, text_column=("article.body.x",))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_rows_without_the_column_are_refused_or_skipped_and_counted(tmp_path, name, documented):
    content = {"a.jsonl": '{"text": "one"}\n{"headline": "two"}\n[1]\nnonsense\n{"text": 7}\n{"text": "six"}\n'}
    (tmp_path / name).write_text(content.get(name, "id,text\n1,one\n2\n3\n4,x,y\n5\n6,six\n"))
    message = refused(tmp_path / name)
    assert f"{name}:" in message
    assert "or skip such rows with --skip_bad_rows" in message
    documented("Texts", f"a row of {Path(name).suffix[1:]} without the text", message)
    notes = ReadingNotes()
    [file] = find_files([tmp_path / name], TextOptions(skip_bad_rows=True))
    assert [row.text for row in read_rows(file, notes)] == ["one", "six"]
    assert notes.bad_rows.count == 4
    assert "--" not in notes.warnings()[0].split("the first: ")[1]


def test_an_id_column_is_used_and_must_be_there(tmp_path, documented):
    path = written(tmp_path / "a.jsonl", [{"doc": 7, "id": "x", "text": "one"}, {"id": "x", "text": "two"}])
    message = refused(path, id_column="doc")
    assert "a.jsonl:2: no column `doc`" in message
    documented("Texts", "a row without the id column", message)
    assert [row.identifier for row in read(path)] == ["x", "x"]
    assert [row.identifier for row in read(path, id_column="none")] == [None, None]


def corpus_of(folder: Path, domain: list[dict], general: list[dict], **options: object) -> Corpus:
    paths = [written(folder / "domain.jsonl", domain), written(folder / "general.jsonl", general)]
    return Corpus.find(paths[:1], paths[1:], TextOptions(**options))


def test_an_id_that_all_rows_share_is_told(tmp_path, documented):
    domain = [{"id": "batch", "text": f"{number} finance text"} for number in range(40)]
    general = [{"id": str(number), "text": f"{number} general text"} for number in range(40)]
    corpus = corpus_of(tmp_path, domain, general)
    arguments = {"too_short": lambda _: False, "max_documents": None, "seed": 0, "keep_near_duplicates": True}
    with pytest.raises(CorpusError) as error:
        survey(corpus, **arguments)
    message = str(error.value)
    assert "1 usable document on the domain side (40 rows read: 40 rows share 1 id; see --id_column)" in message
    documented("Texts", "rows that share one id", message)
    domain += [{"id": str(number), "text": f"another {number}"} for number in range(20)]
    found = survey(corpus_of(tmp_path, domain, general), **arguments)
    assert found.warnings[0][0].startswith("40 of 60 rows share 1 id and count as one document")
    none = survey(corpus_of(tmp_path, domain, general, id_column="none"), **arguments)
    assert none.counts[0].documents == 60
    assert none.warnings == ((), ())


def test_the_built_in_texts_are_never_asked_for_the_users_columns(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"doc": number, "body": f"text {number}"} for number in range(9)])
    options = {"domain": "energy", "domain_data": str(path), "text_column": "body", "id_column": "doc"}
    corpus = Corpus.of_run(make_config(**options, encoding="cp1252", csv_delimiter=";"))
    corpus.check_first_rows()
    assert corpus.files[0][0].options.text_column == ("body",)
    assert corpus.files[1][0].options == BUILT_IN_TEXTS


def test_each_side_may_have_its_own_columns(tmp_path):
    own = written(tmp_path / "a.jsonl", [{"body": "domain"}])
    other = written(tmp_path / "b.jsonl", [{"title": "general", "lead": "text"}])
    config = make_config(
        domain_data=str(own), general_data=str(other), domain_text_column="body", general_text_column=["title", "lead"]
    )
    assert [row.text for row in Corpus.of_run(config).rows()] == ["domain", "general\n\ntext"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"general_text_column": "body"}, "general_text_column was given without general_data"),
        ({"encoding": "nonsense"}, "encoding: `nonsense` is unknown"),
        ({"csv_delimiter": "::"}, "csv_delimiter: `::` is no single character"),
        ({"id_column": ""}, "the name of a column is empty"),
        ({"text_column": ()}, "text_column: name at least one column"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_name_nothing_are_refused(options, expected, documented):
    with pytest.raises(ConfigError) as error:
        make_config(**options)
    assert expected in str(error.value)
    documented("Commands and options", f"`--{next(iter(options))}` that cannot be meant", f"stratalens: {error.value}")


def test_character_references_are_read_as_a_browser_would(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"text": "R&amp;D &#160;&pound;5&nbsp;m, AT&T &notit; &#x80;"}])
    assert read(path, unescape_html=True)[0].text == "R&D \xa0£5\xa0m, AT&T ¬it; €"
    assert read(path)[0].text == "R&amp;D &#160;&pound;5&nbsp;m, AT&T &notit; &#x80;"


def test_first_rows_are_looked_at_in_every_file(tmp_path):
    for name in "abc":
        written(tmp_path / f"{name}.jsonl", [{"text": "fine"}] * 5)
    Corpus.find([tmp_path], [tmp_path]).check_first_rows()
    (tmp_path / "c.jsonl").write_text('{"text": "fine"}\n{"txt": "not"}\n')
    with pytest.raises(CorpusError, match=r"c\.jsonl:2: no column `text`"):
        Corpus.find([tmp_path], [tmp_path]).check_first_rows()


def test_what_was_unusual_is_among_the_warnings_of_the_run(tmp_path):
    rows = [{"text": f"text {number} \u0007"} for number in range(9)]
    corpus = corpus_of(tmp_path, rows, [{"text": f"other {number}"} for number in range(9)])
    found = survey(corpus, too_short=lambda _: False, max_documents=None, seed=0, keep_near_duplicates=True)
    warnings = examine_text(make_config(), corpus, found).warnings
    assert warnings[0] == f"financial text: removed control characters: 9, the first at {tmp_path}/domain.jsonl:1"


def test_a_field_that_no_row_of_a_parquet_file_has_is_refused_with_those_that_are_there(tmp_path):

    table = pyarrow.table({"id": [1, 2], "article": [{"body": "one", "n": 1}, {"body": "two", "n": 2}]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    [file] = find_files([tmp_path / "a.parquet"], TextOptions(text_column=("article.text",)))
    with pytest.raises(CorpusError, match=r"no column `article.text` \(found: id, article.body, article.n\)"):
        list(read_rows(file))


def test_what_a_browser_hides_of_a_page_is_no_text(tmp_path):
    hidden = (
        '<div style="display: none"><ix:header><p>0001 FY</p></ix:header></div><p hidden>x</p><ix:header>y</ix:header>'
    )
    (tmp_path / "a.htm").write_text(f'<body>{hidden}<p style="color:red">shown</p></body>')
    [file] = find_files([tmp_path / "a.htm"])
    assert [row.text for row in read_rows(file)] == ["shown"]
