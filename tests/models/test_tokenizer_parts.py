"""A tokenizer is not trusted: it may not make a text far longer, nor leave no room for it."""

import base64
import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stratalens.config.options import RunConfig
from stratalens.errors import LabelingError, ModelError
from stratalens.labels.llm.local import LocalModel
from stratalens.models import model_files, tokenizer_parts
from stratalens.models.model_files import require_sound_files
from stratalens.models.source import find_model, load_tokenizer
from stratalens.models.tokenizer_parts import require_bounded_tokenizer
from stratalens.models.tokens import PassageCutter


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def with_parts(folder: Path, **parts: object) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def sequence(*steps: object) -> dict:
    return {"type": "Sequence", "normalizers": list(steps)}


def replace(pattern: str, content: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def table(*texts: str) -> dict:
    """A table of sentencepiece without its trie, which says which characters become these texts."""
    charsmap = (0).to_bytes(4, "little") + "\0".join(texts).encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}


def template(copies: int, tokens: int, texts: int = 1) -> dict:
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    entry = {"id": "<|endoftext|>", "ids": [0] * tokens, "tokens": ["<|endoftext|>"] * tokens}
    known = {"<|endoftext|>": entry}
    single = [special] * copies + [a] * texts
    return {"type": "TemplateProcessing", "single": single, "pair": [a, b], "special_tokens": known}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GROWING: dict[str, tuple[dict[str, object], str]] = {
    "a text in place of a letter, again and again": (
        {"normalizer": sequence(*[replace("a", "a" * 16)] * 9)},
        "its normalizer makes them more than 16 times as long",
    ),
    "sequences in sequences": (
        {"normalizer": sequence(sequence(replace("a", "aaaa")), sequence(sequence(*[replace("a", "aaa")] * 2)))},
        "its normalizer makes them more than 16 times as long",
    ),
    "a text between all characters": (
        {"normalizer": sequence(replace("", "aaa", "Regex"), replace("", "aaaa", "String"))},
        "its normalizer makes them more than 16 times as long",
    ),
    "a long text": ({"normalizer": replace("a", "b" * 10**6)}, "Replace of its normalizer puts in more than 16 "),
    "a character that stands for many": ({"normalizer": replace("a", "\ufdfa")}, "puts in more than 16 characters"),
    "a long beginning": (
        {"normalizer": {"type": "Prepend", "prepend": "z" * 10**6}},
        "a step Prepend of its normalizer",
    ),
    "many steps": ({"normalizer": sequence(*[{"type": "NFC"}] * 33)}, "its normalizer has more than 32 steps"),
    "a table with a long text": ({"normalizer": table("x", "y" * 33)}, "more than 32 characters for one"),
    "two tables": ({"normalizer": sequence(table("x" * 18), table("y" * 18))}, "more than one table"),
    "bytes of bytes": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 5}},
        "its pre_tokenizer makes them more than 16 times as long",
    ),
    "a decoder": (
        {"decoder": {"type": "Sequence", "decoders": [replace("a", "aa")] * 5}},
        "its decoder makes them more than 16 times as long",
    ),
    "many special tokens": ({"post_processor": template(200, 6)}, "adds more than 1,000 special tokens"),
    "the text many times": ({"post_processor": template(1, 1, texts=17)}, "more than 16 times as long"),
    "a step that is none": ({"post_processor": template(1, 1) | {"single": 5}}, "is not as it should be"),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_tokenizer_that_makes_texts_far_longer_is_refused_before_it_is_loaded(model, monkeypatch, case):
    parts, message = GROWING[case]
    with_parts(model, **parts)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **_options: pytest.fail("loaded"))
    with pytest.raises(ModelError) as caught:
        require_sound_files(str(model), ModelError)
    assert "model/tokenizer.json: its tokenizer makes texts far longer (" in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(LabelingError, match="its tokenizer makes texts far longer"):
        LocalModel(str(model)).check()


@pytest.mark.parametrize("name", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_a_long_piece_around_each_part_of_a_word_is_refused(model, name):
    content = json.loads((model / "tokenizer.json").read_text())
    with_parts(model, model=content["model"] | {name: "x" * 17})
    with pytest.raises(ModelError, match=f"its `{name}` has more than 16 characters"):
        require_sound_files(str(model), ModelError)


def test_a_file_for_another_version_is_looked_at_too(model):
    shutil.copy(model / "tokenizer.json", model / "tokenizer.4.0.0.json")
    require_sound_files(str(model), ModelError)
    (model / "tokenizer.4.0.0.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"tokenizer\.4\.0\.0\.json: not valid JSON"):
        require_sound_files(str(model), ModelError)


KNOWN = {
    "Llama": {
        "normalizer": sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                *(replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}),
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "post_processor": template(1, 1),
    },
    "Llama 3": {"post_processor": {"type": "Sequence", "processors": [BYTES, template(1, 1)]}},
    "Gemma": {"normalizer": replace(" ", "▁"), "pre_tokenizer": None},
    "T5": {"normalizer": sequence(table("x" * 18), replace(" {2,}", " ", "Regex"))},
    "XLNet": {
        "normalizer": sequence(
            *(replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "StripAccents"}),
            *(table("x" * 18), replace(" {2,}", " ", "Regex")),
        )
    },
    "Qwen": {"normalizer": {"type": "NFC"}},
}


@pytest.mark.parametrize("family", KNOWN)
def test_tokenizers_of_known_families_are_taken(model, family):
    with_parts(model, **KNOWN[family])
    require_sound_files(str(model), ModelError)


def test_the_tokenizer_of_the_embedded_model_is_taken(embedded_model):
    require_sound_files(str(embedded_model), ModelError)


def fast(normalizer: object = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"))
    backend.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_a_loaded_tokenizer_is_looked_at_before_it_is_used():
    require_bounded_tokenizer("model", fast(), ModelError)
    require_bounded_tokenizer("model", object(), ModelError)
    growing = fast(normalizers.Sequence([normalizers.Replace("a", "a" * 16)] * 9))
    with pytest.raises(ModelError, match="its normalizer makes them more than 16 times as long"):
        require_bounded_tokenizer("model", growing, ModelError)


def test_a_part_that_is_written_in_python_is_not_looked_at():
    tokenizer = fast()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(object())  # pyright: ignore
    require_bounded_tokenizer("model", tokenizer, ModelError)


def test_a_tokenizer_is_looked_at_once_more_when_it_is_loaded(model, monkeypatch):
    monkeypatch.setattr(model_files, "require_bounded_file", lambda *_: None)
    monkeypatch.setattr(tokenizer_parts, "MAX_STEPS", 0)
    source = find_model(RunConfig(base_model=str(model), sae_model="saes"))
    with pytest.raises(ModelError, match="has more than 0 steps"):
        load_tokenizer(source)


@pytest.mark.parametrize(("tokens", "room"), [(14, 2), (15, 1), (16, 0), (900, 0)])
def test_special_tokens_must_leave_room_for_text(model, tokens, room):
    with_parts(model, post_processor=template(1, tokens))
    tokenizer = load_tokenizer(find_model(RunConfig(base_model=str(model), sae_model="saes")))
    if room:
        cutter = PassageCutter(tokenizer, 16)
        assert cutter.span_tokens == room
        assert all(len(cutter.sequence(span)) <= 16 for span in cutter.spans("a bank, a loan"))
    else:
        with pytest.raises(ModelError, match=f"adds {tokens} special tokens to a passage, so that --max_length 16 "):
            PassageCutter(tokenizer, 16)
