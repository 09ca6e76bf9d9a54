"""Tokenizers of many kinds: without BOS, without pad, with BOS doubled; what they add is read, and never counts."""

import copy

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.hooks import forward
from stratalens.models.loading import Placement, load_model
from stratalens.models.tokens import PassageCutter

TEXT = "Bonds fell sharply, and the bank raised its rate again."
BOS, EOS = ("<|endoftext|>", 0), ("<file_sep>", 299)
FRAMES = {
    "no special tokens": "$A",
    "BOS": "<|endoftext|> $A",
    "BOS twice": "<|endoftext|> <|endoftext|> $A",
    "EOS alone": "$A <file_sep>",
    "BOS and EOS": "<|endoftext|> $A <file_sep>",
}


def framed(tokenizer, frame: str):
    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.post_processor = TemplateProcessing(single=FRAMES[frame], special_tokens=[BOS, EOS])
    return own


def batch_of(cutter: PassageCutter, *texts: str) -> TokenBatch:
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    (batch,) = pack_batches(sequences, 4096, cutter.special_ids)
    return batch


@pytest.mark.parametrize("frame", FRAMES)
def test_the_model_reads_what_its_tokenizer_makes_of_plain_text(tokenizer, frame):
    own = framed(tokenizer, frame)
    batch = batch_of(PassageCutter(own, 64), TEXT)
    assert batch.input_ids[0].tolist() == own(TEXT)["input_ids"]


@pytest.mark.parametrize("frame", FRAMES)
def test_of_a_passage_everything_counts_but_the_first_position_and_special_tokens(tokenizer, frame):
    own = framed(tokenizer, frame)
    batch = batch_of(PassageCutter(own, 64), TEXT)
    bare = own(TEXT, add_special_tokens=False)["input_ids"]
    ids = batch.input_ids[0].tolist()
    counted = [token for token, counts in zip(ids, batch.countable[0].tolist(), strict=True) if counts]
    assert counted == (bare if ids[0] == BOS[1] else bare[1:])


def test_a_bos_that_the_text_spells_out_again_does_not_count_either(tokenizer):
    batch = batch_of(PassageCutter(framed(tokenizer, "BOS"), 64), f"<|endoftext|>{TEXT}")
    assert batch.input_ids[0, :2].tolist() == [0, 0]
    assert batch.countable[0, :3].tolist() == [False, False, True]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_tokenizer_without_pad_token_gives_the_same_passages_and_batches(tokenizer, frame):
    own = framed(tokenizer, frame)
    without = copy.deepcopy(own)
    without.pad_token = None
    assert without.pad_token_id is None
    texts = (TEXT, "Shares rose.")
    one, other = (batch_of(PassageCutter(which, 64), *texts) for which in (own, without))
    assert torch.equal(one.input_ids, other.input_ids)
    assert torch.equal(one.countable, other.countable)


@pytest.mark.parametrize("frame", FRAMES)
def test_the_shorter_passage_is_read_as_alone_whatever_pads_it(tiny_model, tokenizer, frame):
    model = load_model(tiny_model, blocks=2, placement=Placement(torch.device("cpu"), torch.float32))
    cutter = PassageCutter(framed(tokenizer, frame), 64)
    passages = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in (TEXT, "Shares rose.")]
    (alone,) = pack_batches(passages[1:], 4096, cutter.special_ids)
    expected = forward(model, alone.input_ids).last_hidden_state[0]
    for pad_id in (0, 1, 40, 299):
        (batch,) = pack_batches(passages, 4096, cutter.special_ids, pad_id)
        row = list(batch.rows).index(1)
        found = forward(model, batch.input_ids).last_hidden_state[row, : len(expected)]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert batch.countable[row, : len(expected)].tolist() == alone.countable[0].tolist()
        assert not batch.countable[row, len(expected) :].any()
