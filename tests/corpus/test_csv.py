"""Delimiters and quotation marks of CSV files: found or given; rows are never joined without a word."""

import csv
import io
import json
from pathlib import Path

import pytest
from text_files import read_and_told as read
from text_files import refusal_of as refused

SENTENCE = "Rates rose, bonds fell; the bank said it would wait."
LINES = [f"{number}: {SENTENCE}" for number in range(40)]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(rows: list[list[str]], **options: object) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_usual_delimiters_are_found_by_the_header(tmp_path, name, delimiter):
    rows = [["date", "text", "n"], *([f"2024-01-{day:02}", f"{SENTENCE} {day}", "1"] for day in range(1, 29))]
    (tmp_path / name).write_text("\ufeff" + table(rows, delimiter=delimiter))
    assert read(tmp_path / name) == ([row[1] for row in rows[1:]], [])


def test_a_delimiter_can_be_given_by_name_or_named_in_the_first_line(tmp_path):
    rows = [["id", "text"], ["1", SENTENCE], ["2", "two"]]
    (tmp_path / "a.csv").write_text(table(rows, delimiter="^"))
    assert read(tmp_path / "a.csv", csv_delimiter="^")[0] == [SENTENCE, "two"]
    (tmp_path / "a.csv").write_text(table(rows, delimiter="\t"))
    assert read(tmp_path / "a.csv", csv_delimiter="tab")[0] == [SENTENCE, "two"]
    (tmp_path / "a.csv").write_text("sep=;\n" + table(rows, delimiter=";"))
    assert read(tmp_path / "a.csv")[0] == [SENTENCE, "two"]


@pytest.mark.parametrize("stray", [(3, 20), (0, 39), (5, 5), (7, 8)])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv", ";")])
def test_two_stray_quotation_marks_join_no_rows(tmp_path, name, delimiter, stray):
    texts = [f"earnings of the bank rose in year {number}" for number in range(40)]
    texts[stray[0]] = '"' + texts[stray[0]]
    texts[stray[1]] += '"'
    written(tmp_path / name, f"n{delimiter}text", *(f"{number}{delimiter}{text}" for number, text in enumerate(texts)))
    found, told = read(tmp_path / name)
    assert len(found) == 40
    assert [text.strip('"') for text in found] == [text.strip('"') for text in texts]
    assert stray[0] == stray[1] or told == [f"read with --csv_quoting none, which fits better: {tmp_path / name}"]


def test_stray_marks_that_only_the_text_could_tell_are_refused_with_the_way_out(tmp_path, documented):
    texts = [f"The bank of {name} earned more" for name in ("Ulm", "Bonn", "Kiel", "Jena", "Gera", "Trier")]
    rows = [f"{text},good words here and {text[12:15]}" for text in texts]
    rows[1], rows[4] = '"' + rows[1], rows[4] + '"'
    written(tmp_path / "a.csv", "title,text", *rows)
    message = refused(tmp_path / "a.csv")
    assert "a.csv:3: " in message
    documented("Texts", "a quotation mark that may join rows of CSV", message)
    assert len(read(tmp_path / "a.csv", csv_quoting="none")[0]) == 6


def test_a_stray_mark_far_down_a_file_is_refused_by_the_line_that_it_begins_in(tmp_path):
    rows = [f"{number},{'words of the bank ' * 20}{number}" for number in range(3000)]
    rows[2000], rows[2100] = rows[2000].replace(",", ',"'), rows[2100] + '"'
    written(tmp_path / "a.csv", "id,text", *rows)
    assert "a.csv:2002: a quotation mark joins 101 lines, which may be rows; give --csv_quoting none" in refused(
        tmp_path / "a.csv"
    )
    assert len(read(tmp_path / "a.csv", csv_quoting="none")[0]) == 3000


@pytest.mark.parametrize("lines", [2, 19, 60])
def test_a_cell_of_many_lines_is_one_text_and_told_if_it_is_long(tmp_path, lines):
    rows = [["id", "text"], *([str(number), f"{SENTENCE}\nand more, of it"] for number in range(10))]
    rows[4][1] = "\n".join([SENTENCE] * lines)
    (tmp_path / "a.csv").write_text(table(rows))
    texts, told = read(tmp_path / "a.csv")
    assert texts == [row[1] for row in rows[1:]]
    assert bool(told) == (lines > 20)
    assert not told or "cells of more than 20 lines: 1, the longest of 60, the first at" in told[0]


@pytest.mark.parametrize(
    "rows", [["first line\nsecond line", "plain"], ["plain", "a\nb\nc"], ["one, two\nthree, four"]]
)
@pytest.mark.parametrize("columns", [1, 2])
def test_small_tables_with_a_cell_of_several_lines_are_read(tmp_path, rows, columns):
    cells = [["text"], *([text] for text in rows)] if columns == 1 else [["id", "text"], *(["7", t] for t in rows)]
    (tmp_path / "a.csv").write_text(table(cells))
    assert read(tmp_path / "a.csv")[0] == rows


def test_quotation_marks_after_a_backslash_are_read(tmp_path):
    texts = [f'he said "{number}, of course" and left, "for good"' for number in range(40)]
    lines = [f'{number},"{text.replace(chr(34), chr(92) + chr(34))}"' for number, text in enumerate(texts)]
    written(tmp_path / "a.csv", "id,text", *lines)
    found, told = read(tmp_path / "a.csv")
    assert found == texts
    assert "read with --csv_quoting backslash" in told[0]


def test_backslashes_that_escape_nothing_stay(tmp_path):
    written(tmp_path / "a.csv", "id,text", r'1,"C:\new\table, and \"x\""', r'2,"ends in \\"')
    assert read(tmp_path / "a.csv")[0] == [r'C:\new\table, and "x"', "ends in \\"]


def test_errors_name_the_line_that_a_row_begins_in(tmp_path, documented):
    written(tmp_path / "a.csv", "id,text", '1,"two\nlines, here"', "2,fine", "3,one, two, three", "4,fine")
    message = refused(tmp_path / "a.csv")
    assert "a.csv:5: more cells than columns; put texts that contain a `,` in quotes" in message
    documented("Texts", "a row of CSV with more cells than columns", message)
    texts, told = read(tmp_path / "a.csv", skip_bad_rows=True)
    assert texts == ["two\nlines, here", "fine", "fine"]
    assert told == [f"skipped rows that cannot be read: 1; the first: {tmp_path}/a.csv:5: more cells than columns"]


def test_rows_that_lack_cells_are_read_if_they_have_a_text_and_told(tmp_path):
    written(tmp_path / "a.csv", "text,label,n", "one,a,1", "two", "", "three,b")
    texts, told = read(tmp_path / "a.csv")
    assert texts == ["one", "two", "three"]
    assert told == [f"rows with fewer cells than columns: 2, the first at {tmp_path}/a.csv:3"]


def test_a_row_without_a_cell_for_the_text_is_bad(tmp_path, documented):
    written(tmp_path / "a.csv", "id,text", "1,a text", "broken by a newline", "2,another")
    message = refused(tmp_path / "a.csv")
    assert "a.csv:3: fewer cells than columns, and none for `text`" in message
    documented("Texts", "a row of CSV without a cell for the text", message)
    assert read(tmp_path / "a.csv", skip_bad_rows=True)[0] == ["a text", "another"]


def test_extra_empty_cells_at_the_end_are_no_cells(tmp_path):
    written(tmp_path / "a.csv", "id,text", "1,one,", "2,two,,,")
    assert read(tmp_path / "a.csv")[0] == ["one", "two"]


def test_two_columns_of_one_name_are_refused(tmp_path, documented):
    written(tmp_path / "a.csv", "text,text", "one,two")
    documented("Texts", "two columns of one name", refused(tmp_path / "a.csv"))


def test_a_header_is_read_without_white_space_and_blank_lines_before_it(tmp_path):
    written(tmp_path / "a.csv", "", " id , text ", "1,one")
    assert read(tmp_path / "a.csv")[0] == ["one"]


def test_an_unclosed_quote_at_the_end_is_refused_where_it_opens(tmp_path, documented):
    lines = [f'{number},"one, {number}"' for number in range(9)]
    written(tmp_path / "a.csv", "id,text", *lines, '9,"never closed, and', "more, of it")
    message = refused(tmp_path / "a.csv")
    assert "a.csv:11: not a readable CSV row" in message
    documented("Texts", "a quotation mark in CSV that is never closed", message)
    assert "a.csv:11" in refused(tmp_path / "a.csv", skip_bad_rows=True)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_of_two_lines_that_look_like_rows_are_told_apart_by_the_other_columns(tmp_path, end):
    rows = [["id", "text"], *([str(n), f"He said {n}{end}no, never"] for n in range(30))]
    (tmp_path / "a.csv").write_text(table(rows), newline="")
    assert read(tmp_path / "a.csv") == ([f"He said {n}\nno, never" for n in range(30)], [])


def test_a_stray_mark_is_found_where_the_texts_are_short(tmp_path):
    rows = [f'{n},"Line, {n}",2024-01-{n:02}' for n in range(1, 29)]
    stray = ['29,"It began,2024-02-01', "30,Line 30,2024-02-02", '31,it ended",2024-02-03']
    message = refused(written(tmp_path / "a.csv", "id,text,date", *rows, *stray, *rows))
    assert "a.csv:30: a quotation mark joins 3 lines" in message


def test_sentences_under_a_single_name_are_one_column(tmp_path):
    lines = [f"Rates rose, bonds fell; line {n}" for n in range(30)]
    assert read(written(tmp_path / "a.csv", "text", *lines))[0] == lines


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_space_before_a_quotation_mark_is_no_part_of_the_cell(tmp_path, delimiter):
    lines = [f'{n}{delimiter} "{SENTENCE} ""{n}"""' for n in range(30)]
    expected = [f'{SENTENCE} "{n}"' for n in range(30)]
    assert read(written(tmp_path / "a.csv", f"id{delimiter} text", *lines)) == (expected, [])


@pytest.mark.parametrize("end", ["\x1a", "\0\0\0", "\r\n\x1a"])
def test_a_mark_of_the_end_of_a_file_is_no_row(tmp_path, end):
    (tmp_path / "a.csv").write_text(f"id,text\n1,one\n2,two\n{end}", newline="")
    assert read(tmp_path / "a.csv") == (["one", "two"], [])


def test_a_million_characters_of_quotes_take_no_longer_than_other_text(tmp_path):
    written(tmp_path / "a.csv", "id,text", *[f'{number},"' + '""' * 5000 + '"' for number in range(100)])
    assert len(read(tmp_path / "a.csv")[0]) == 100


def test_json_of_every_shape_gives_its_objects(tmp_path):
    rows = [{"text": f"text {number}", "id": number} for number in range(5)]
    shapes = {
        "list": json.dumps(rows),
        "indented": json.dumps(rows, indent=2),
        "lines": "\n".join(map(json.dumps, rows)),
        "one after the other": "\n".join(json.dumps(row, indent=1) for row in rows),
    }
    for name, content in shapes.items():
        (tmp_path / f"{name}.json").write_text(content)
        assert read(tmp_path / f"{name}.json")[0] == [row["text"] for row in rows], name
    (tmp_path / "object.json").write_text(json.dumps({"cik": 1, "text": "whole"}))
    assert read(tmp_path / "object.json")[0] == ["whole"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"text": "one"}, {"text": ', "not valid JSON"),
        ('[{"text": "one"}] x', "not valid JSON"),
        ("[1, 2]", "a.json, value 1: a JSON object was expected, found int"),
        ('{"data": [{"text": "x"}]}', "no column `text` (found: data)"),
        ("nonsense", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_refused(tmp_path, content, expected):
    (tmp_path / "a.json").write_text(content)
    assert expected in refused(tmp_path / "a.json")


def test_a_json_file_is_read_value_by_value_and_a_value_is_bounded(tmp_path, monkeypatch, documented):
    from stratalens.corpus.reading import json_values

    monkeypatch.setattr(json_values, "MAX_ROW_CHARACTERS", 3 * 2**20)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "word " * 2000}] * 1000))
    assert len(read(tmp_path / "a.json")[0]) == 1000
    (tmp_path / "a.json").write_text(json.dumps({"text": "word " * 2_000_000}))
    message = refused(tmp_path / "a.json")
    assert "a value of more than 3,145,728 characters" in message
    documented("Texts", "a value of JSON without end", message.replace("3,145,728", f"{64 * 2**20:,}"))


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e400", "9" * 40, '"\\ud800"', '"a\nb\tc"', "[[[]]]", '{"text": "another"}']
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_values_that_only_some_programs_write_are_read_in_every_form(tmp_path, name, value):
    objects = [f'{{"text": "one {number}", "v": {value}}}' for number in range(30)]
    expected = [f"one {number}" for number in range(30)]
    for content in ("[" + ",\n".join(objects) + "]", "[\n" + ",".join(objects) + "\n]\n"):
        (tmp_path / name).write_text("\ufeff" + content)
        assert read(tmp_path / name)[0] == expected
    if "\n" not in value:
        for between in ("\n", "\n\ufeff", "\n\x1e", "\r\n"):
            (tmp_path / name).write_text(between.join(objects), newline="")
            assert read(tmp_path / name)[0] == expected


def test_objects_over_several_lines_are_read_whatever_the_ending_says(tmp_path):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text("\n".join(json.dumps({"text": line}, indent=2) for line in LINES))
        assert read(tmp_path / name)[0] == LINES


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_nested_without_end_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"text": "x", "a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "not valid JSON" in refused(tmp_path / name)


def test_json_cut_anywhere_into_pieces_is_the_same(tmp_path, monkeypatch):
    from stratalens.corpus.reading import decoding

    rows = [{"n": -1.5e-7, "text": f'"é\\ {number}', "b": [True, None, {"c": "\ud83d\ude00"}]} for number in range(9)]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), "".join(map(json.dumps, rows))):
        (tmp_path / "a.json").write_text(content)
        for size in range(1, 12):
            monkeypatch.setattr(decoding, "BUFFER_BYTES", size)
            assert read(tmp_path / "a.json")[0] == [row["text"] for row in rows]
