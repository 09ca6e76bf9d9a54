"""Text in any common encoding is read as it was written; what was recognised is told, what cannot be is refused."""

import codecs
import json

import pytest
from text_files import read_and_told as read
from text_files import refusal_of as refused

from stratalens.errors import CorpusError

SENTENCES = {
    "English": "The bank’s profit rose by £20 million – “a strong quarter”, said the café’s chairman.",
    "German": "Die Bank erhöhte die Zinsen für Kredite; Gläubiger müssen höhere Gebühren zahlen.",
    "French": "La banque a annoncé une hausse des taux : les crédits seront plus chers à l’été.",
    "Spanish": "El banco subirá los tipos de interés el próximo año; la inflación bajó según los datos.",
    "Polish": "Bank ogłosił, że stopy procentowe są wyższe i że kredyty nie będą tanie dla klientów.",
    "Czech": "Banka oznámila zvýšení úrokových sazeb, úvěry budou dražší a zisk společnosti vzrostl.",
    "Russian": "Банк объявил о повышении процентной ставки, и кредиты станут дороже.",
    "Greek": "Η τράπεζα ανακοίνωσε αύξηση των επιτοκίων και τα δάνεια θα γίνουν ακριβότερα.",
    "Turkish": "Banka faiz oranlarını yükselteceğini açıkladı, krediler daha pahalı olacak.",
    "Japanese": "銀行は金利の引き上げを発表し、住宅ローンの返済額が増える見通しとなった。",
    "Chinese": "银行宣布上调利率，贷款将变得更加昂贵。公司去年的利润翻了一番，股票价格上涨。",
    "Korean": "은행은 금리 인상을 발표했으며 대출은 더 비싸질 것이다. 회사의 이익은 두 배로 늘었다.",
}
WRITTEN_IN = [
    *(
        (language, encoding)
        for language in SENTENCES
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    ),
    *((language, "cp1252") for language in ("English", "German", "French", "Spanish")),
    *[("German", "latin-1"), ("Spanish", "latin-1"), ("Polish", "cp1250"), ("Czech", "cp1250"), ("Russian", "cp1251")],
    *[("Russian", "koi8-r"), ("Greek", "cp1253"), ("Turkish", "cp1254"), ("Japanese", "shift-jis")],
    *[("Japanese", "euc-jp"), ("Japanese", "iso2022-jp"), ("Chinese", "gb18030"), ("Korean", "euc-kr")],
]


@pytest.mark.parametrize(("language", "encoding"), WRITTEN_IN, ids=lambda name: str(name))
def test_lines_in_another_encoding_are_recognised_and_told(tmp_path, language, encoding):
    lines = [f"{number}. {SENTENCES[language]}" for number in range(30)]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode(encoding))
    texts, told = read(tmp_path / "a.txt")
    assert texts == lines
    assert len(told) == 1
    assert "as UTF-8 does not hold" in told[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig"])
def test_tables_in_another_encoding_are_read(tmp_path, name, encoding):
    texts = [f"{number}. {SENTENCES['German']}" for number in range(20)]
    content = {
        "a.jsonl": "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts),
        "a.json": json.dumps([{"text": text} for text in texts], ensure_ascii=False),
        "a.csv": "text\n" + "\n".join(texts),
    }[name]
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read(tmp_path / name)[0] == texts


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_says_enough(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("naïve €\nzwei".encode(encoding))
    assert read(tmp_path / "a.txt")[0] == ["naïve €", "zwei"]


def test_an_encoding_that_shows_only_after_a_megabyte_of_ascii_is_recognised(tmp_path):
    lines = ["plain words of English"] * 60_000 + [SENTENCES["French"]] * 20
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode("cp1252"))
    texts, told = read(tmp_path / "a.txt")
    assert texts == lines
    assert "read as cp1252" in told[0]


def test_a_character_cut_between_two_blocks_is_whole(tmp_path):
    line = "x" * (2**20 - 1) + "é" + "y"
    (tmp_path / "a.txt").write_text(line)
    assert read(tmp_path / "a.txt") == ([line], [])


def test_a_given_encoding_is_used_without_a_word(tmp_path):
    (tmp_path / "a.txt").write_bytes("Žluťoučký kůň".encode("iso8859-2"))
    assert read(tmp_path / "a.txt", encoding="iso-8859-2") == (["Žluťoučký kůň"], [])


def test_bytes_that_are_not_of_the_encoding_are_refused_with_their_line_or_skipped(tmp_path, documented):
    rows = [json.dumps({"text": SENTENCES["Russian"]}, ensure_ascii=False).encode() for _ in range(9)]
    rows[6] = rows[6][:40] + b"\xff\xfe" + rows[6][40:]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    message = refused(tmp_path / "a.jsonl")
    assert message.endswith(
        "a.jsonl:7: not UTF-8 text; convert it, name its encoding with --encoding, or skip such rows with "
        "--skip_bad_rows"
    )
    documented("Texts", "damaged bytes in a line of UTF-8", message)
    texts, told = read(tmp_path / "a.jsonl", skip_bad_rows=True)
    assert len(texts) == 8
    assert told[0].startswith("skipped rows that cannot be read: 1; the first: ")
    (tmp_path / "b.csv").write_bytes("id,text\n1,one\n2,zwölf\n".encode("cp1252"))
    assert "b.csv:3: not UTF-8 text" in refused(tmp_path / "b.csv", encoding="utf-8")


def test_what_is_no_text_is_refused(tmp_path, documented):
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    message = refused(tmp_path / "a.txt")
    assert "neither UTF-8 nor another encoding of text that can be recognised; name it with --encoding" in message
    documented("Texts", "a file that is no text", message)


def test_control_characters_are_removed_and_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\0\x07 two\nthr\ufeffee\nfo\x9fur \x00".encode() + b"\0")
    texts, told = read(tmp_path / "a.txt")
    assert texts == ["one two", "three", "four"]
    assert told == [f"removed control characters: 6, the first at {tmp_path}/a.txt:1"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_zero_byte_at_the_end_ends_nothing(tmp_path, name):
    content = {"a.jsonl": b'{"text": "one"}\n{"text": "two"}\n\0', "a.csv": b"text\none\ntwo\n", "a.txt": b"one\ntwo\0"}
    (tmp_path / name).write_bytes(content[name])
    assert read(tmp_path / name)[0] == ["one", "two"]


def test_halves_of_characters_are_removed_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud83d of one, whole \\ud83d\\ude00"}\n')
    texts, told = read(tmp_path / "a.jsonl")
    assert texts == ["half  of one, whole 😀"]
    assert told == [f"removed control characters: 1, the first at {tmp_path}/a.jsonl:1"]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_line_ends_of_every_system_are_line_ends(tmp_path, name, end):
    lines = {
        "a.jsonl": ['{"text": "one"}', '{"text": "two"}'],
        "a.csv": ["text", "one", "two"],
        "a.txt": ["one", "two"],
    }
    (tmp_path / name).write_bytes(end.join(lines.get(name, ["one", "two"])).encode())
    assert read(tmp_path / name)[0] == ["one", "two"]


def test_line_ends_inside_a_text_are_newlines_in_all_formats(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one\r\ntwo\rthree\x0cfour"}))
    (tmp_path / "a.csv").write_bytes(b'text\r\n"one\r\ntwo\rthree\x0cfour"\r\n')
    assert read(tmp_path / "a.jsonl")[0] == read(tmp_path / "a.csv")[0] == ["one\ntwo\nthree\nfour"]


def test_a_byte_order_mark_is_removed_wherever_files_were_joined(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + codecs.BOM_UTF8 + b'{"text": "two"}\n')
    assert read(tmp_path / "a.jsonl")[0] == ["one", "two"]


def test_a_page_says_its_encoding_itself(tmp_path):
    page = '<html><head><meta charset="iso-8859-2"></head><body><p>Žluťoučký kůň úpěl</p></body></html>'
    (tmp_path / "a.html").write_bytes(page.encode("iso-8859-2"))
    assert read(tmp_path / "a.html")[0] == ["Žluťoučký kůň úpěl"]


@pytest.mark.parametrize("name", ["base64", "unicode_escape", "idna", "nonsense", "", "x" * 500])
def test_only_encodings_of_text_can_be_named(name):
    from stratalens.config.text_words import known_encoding

    assert known_encoding(name) is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["Банк объявил о повышении ставки", "Η τράπεζα ανακοίνωσε", "הבנק הודיע", "The bank"])
def test_wide_characters_of_an_alphabet_need_no_mark_and_no_bytes_beyond_ascii(tmp_path, text, encoding):
    (tmp_path / "a.txt").write_bytes(f"{text}\n".encode(encoding) * 30)
    (tmp_path / "a.jsonl").write_bytes((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode(encoding) * 30)
    for name in ("a.txt", "a.jsonl"):
        texts, told = read(tmp_path / name)
        assert texts == [text] * 30
        assert [line.split(",")[0] for line in told] == [f"read as {encoding.replace('-', '_')}"]


def test_greek_of_a_short_table_is_of_windows(tmp_path):
    lines = [f"{number}\tΗ τράπεζα αριθμός {number} αύξησε το επιτόκιο για τους πελάτες της." for number in range(30)]
    (tmp_path / "a.csv").write_bytes("\n".join(["id\ttext", *lines]).encode("cp1253"))
    assert read(tmp_path / "a.csv")[0] == [line.split("\t")[1] for line in lines]


@pytest.mark.parametrize("text", ["The bank", "The café", "Банк"])
def test_codes_of_a_terminal_are_removed_whole(tmp_path, text):
    (tmp_path / "a.txt").write_text(f"\x1b[1;31m{text}\x1b[0m \x1b[2K{text}\n" * 30)
    texts, [told] = read(tmp_path / "a.txt")
    assert texts == [f"{text} {text}"] * 30
    assert told.startswith("removed control characters: 90, ")


def test_an_encoding_that_needs_a_mark_is_refused_without_one(tmp_path, documented):
    (tmp_path / "a.txt").write_text("a line\n")
    with pytest.raises(CorpusError) as error:
        read(tmp_path / "a.txt", encoding="utf_16")
    documented("Texts", "an encoding whose byte order mark is missing", str(error.value))
