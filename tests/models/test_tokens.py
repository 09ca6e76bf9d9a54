"""Cutting documents into passages, and packing passages into batches."""

import copy
import string
import time
import tracemalloc
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from stratalens.models import tokens
from stratalens.models.batches import pack_batches
from stratalens.models.tokens import PassageCutter, TokenSpan

PLAIN = (
    "The bank raised its rate by 3.5%, and bonds fell sharply.  Nobody in Zürich had expected it;\n\nshares rose. " * 12
)
EMOJI = "Gains 😀😃 of £5 in 東京 and 上海, said Émile. " * 20
WORDS = " responsibilities internationalization acknowledgement"


@pytest.fixture(scope="module")
def framed_tokenizer(tokenizer):
    """A copy of the tokenizer that puts a BOS before and an EOS behind plain text."""
    framed = copy.deepcopy(tokenizer)
    framed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    assert framed("a")["input_ids"][0] == 1
    return framed


def bare_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def joined(spans: list[TokenSpan]) -> list[int]:
    return list(chain.from_iterable(span.token_ids for span in spans))


@pytest.mark.parametrize("text", [PLAIN, EMOJI, "Short one."])
@pytest.mark.parametrize("max_length", [16, 33, 4096])
def test_spans_cover_all_tokens_of_a_document_in_order(tokenizer, text, max_length):
    spans = list(PassageCutter(tokenizer, max_length, min_length=1).spans(text))
    assert joined(spans) == bare_ids(tokenizer, text)
    assert all(len(span.token_ids) == max_length for span in spans[:-1])


@pytest.mark.parametrize("max_length", [16, 33])
def test_offsets_slice_the_text_that_the_tokens_spell(tokenizer, max_length):
    for span in PassageCutter(tokenizer, max_length).spans(PLAIN):
        assert PLAIN[span.start : span.end] == tokenizer.decode(span.token_ids, clean_up_tokenization_spaces=False)


def test_offsets_of_a_character_split_between_spans_keep_the_whole_character_in_both(tokenizer):
    spans = list(PassageCutter(tokenizer, 16, min_length=1).spans(EMOJI))
    assert spans[0].start == 0
    assert spans[-1].end == len(EMOJI.rstrip()) + 1
    split = 0
    for before, after in pairwise(spans):
        assert before.end - 1 <= after.start <= before.end
        split += after.start == before.end - 1
    assert split > 0, "at least one character stands on a boundary"


@pytest.mark.parametrize("text", [PLAIN, EMOJI])
def test_sequences_hold_at_most_max_length_tokens_with_the_special_ones(framed_tokenizer, text):
    cutter = PassageCutter(framed_tokenizer, 24)
    spans = list(cutter.spans(text))
    sequences = [cutter.sequence(span) for span in spans]
    assert max(map(len, sequences)) == 24
    assert all(sequence[0] == 1 and sequence[-1] == 2 for sequence in sequences)
    assert all(list(sequence[1:-1]) == span.token_ids for sequence, span in zip(sequences, spans, strict=True))


def test_a_passage_is_framed_as_the_tokenizer_frames_plain_text(tokenizer, framed_tokenizer):
    for one in (tokenizer, framed_tokenizer):
        cutter = PassageCutter(one, 64)
        (span,) = cutter.spans("Bonds fell.")
        assert list(cutter.sequence(span)) == one("Bonds fell.")["input_ids"]


def test_tails_shorter_than_min_length_are_left_out(tokenizer):
    ids = bare_ids(tokenizer, PLAIN)[: 5 * 16 + 3]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert bare_ids(tokenizer, text) == ids
    kept = [joined(list(PassageCutter(tokenizer, 16, minimum).spans(text))) for minimum in (3, 4)]
    assert kept == [ids, ids[:-3]]


def test_first_spans_are_the_first_of_all_spans(tokenizer):
    cutter = PassageCutter(tokenizer, 16)
    assert cutter.first_spans(PLAIN, 3) == list(cutter.spans(PLAIN))[:3]
    assert cutter.first_spans("Two words here", 3) == list(cutter.spans("Two words here"))


def test_a_text_cut_into_pieces_loses_no_character_and_claims_true_offsets(tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_PIECE_CHARACTERS", 200)
    for text in (PLAIN, "x" * 1_001, "word " * 300):
        spans = list(PassageCutter(tokenizer, 16, min_length=1).spans(text))
        decoded = [tokenizer.decode(span.token_ids, clean_up_tokenization_spaces=False) for span in spans]
        assert "".join(decoded) == text
        assert [text[span.start : span.end] for span in spans] == decoded


@pytest.mark.serial
def test_ten_million_characters_are_cut_within_seconds(tokenizer):
    text = (WORDS * 200_000)[:10_000_000]
    cutter = PassageCutter(tokenizer, 256)
    started = time.process_time()
    last = 0
    for span in cutter.spans(text):
        assert span.start >= last
        last = span.end
    assert last > len(text) - 1000
    assert time.process_time() - started < 20


@pytest.mark.serial
def test_memory_for_cutting_does_not_grow_with_the_document(tokenizer):
    peaks = []
    for characters in (100_000, 1_000_000):
        text = (WORDS * 40_000)[:characters]
        assert len(text) == characters
        tracemalloc.start()
        for _ in PassageCutter(tokenizer, 256).spans(text):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(
    "text", ["", "One", "One two three four five", PLAIN, ("\n" + " " * 80) * 26 + "x", " " * 600 + "x", "ab" * 300]
)
@pytest.mark.parametrize("min_length", [2, 8, 32])
def test_a_text_is_too_short_exactly_when_nothing_of_it_would_be_read(tokenizer, text, min_length):
    cutter = PassageCutter(tokenizer, 64, min_length)
    assert cutter.too_short(text) == (not list(cutter.spans(text)))


@pytest.mark.parametrize("min_length", [2, 16])
def test_a_long_text_is_read_also_where_special_tokens_take_part_of_the_least_length(framed_tokenizer, min_length):
    cutter = PassageCutter(framed_tokenizer, 16, min_length)
    assert not cutter.too_short(PLAIN)
    assert list(cutter.spans(PLAIN))


def test_every_token_that_the_tokenizer_marks_as_special_is_special(tokenizer):
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    cutter = PassageCutter(tokenizer, 64)
    assert tokenizer.convert_tokens_to_ids("<file_sep>") in marked
    assert cutter.special_ids >= marked
    assert len(cutter.special_ids) < 100, "ordinary words are not special"


def random_sequences(count: int, longest: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 50, rng.integers(1, longest + 1)) for _ in range(count)]


@pytest.mark.parametrize("batch_tokens", [1, 40, 200, 100_000])
def test_pack_covers_every_sequence_once_within_the_token_budget(batch_tokens):
    sequences = random_sequences(60, 40)
    batches = list(pack_batches(sequences, batch_tokens, ()))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(60))
    for batch in batches:
        assert batch.input_ids.numel() <= batch_tokens or len(batch.rows) == 1
        for row, index in enumerate(batch.rows):
            assert batch.lengths[row] == len(sequences[index])
            assert np.array_equal(batch.input_ids[row, : batch.lengths[row]].numpy(), sequences[index])
    assert sum(batch.tokens for batch in batches) == sum(map(len, sequences))


def test_pack_groups_like_lengths_longest_first_and_fills_the_budget():
    batches = list(pack_batches(random_sequences(60, 40), 200, ()))
    assert np.array_equal(
        np.concatenate([batch.lengths for batch in batches]), np.sort([len(s) for s in random_sequences(60, 40)])[::-1]
    )
    for batch in batches[:-1]:
        assert batch.input_ids.numel() + batch.input_ids.shape[1] > 200, "one more row would not have fitted"


@pytest.mark.parametrize("pad_id", [0, 49])
def test_exactly_real_positions_past_the_first_that_hold_no_special_token_are_countable(pad_id):
    sequences, special = random_sequences(40, 12, seed=2), {3, 7, 11}
    marked = 0
    for batch in pack_batches(sequences, 60, special, pad_id):
        for row, index in enumerate(batch.rows):
            width = batch.input_ids.shape[1]
            expected = [0 < i < len(sequences[index]) and sequences[index][i] not in special for i in range(width)]
            assert batch.countable[row].tolist() == expected
            assert batch.input_ids[row, len(sequences[index]) :].eq(pad_id).all()
            marked += sum(token in special for token in sequences[index][1:])
    assert marked > 0


def test_moving_a_batch_keeps_what_it_holds():
    (batch,) = pack_batches(random_sequences(3, 5), 100, {1})
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.input_ids, batch.input_ids)
    assert torch.equal(moved.countable, batch.countable)
    assert moved.tokens == batch.tokens


def test_nothing_packs_to_nothing():
    assert list(pack_batches([], 100, ())) == []


@pytest.mark.parametrize("known", [string.digits, "xyz", ["loan", "bank"]])
def test_special_tokens_are_found_where_a_tokenizer_leaves_out_what_it_does_not_know(known):
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(("<s>", *known))}, []))
    if isinstance(known, list):
        backend.add_tokens(known)
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])  # pyright: ignore[reportAttributeAccessIssue]
    cutter = PassageCutter(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"), 16)
    assert (cutter.prefix, cutter.suffix) == ([0], [])
