"""Requests of several threads that a local model answers together: the answers are those to single requests."""

import gc
import shutil
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from stratalens.errors import LabelingError
from stratalens.labels.llm import local, local_answers
from stratalens.labels.llm.chat import Message, NoReply, Reply
from stratalens.labels.llm.local import LocalModel
from stratalens.labels.llm.padded import TokenPrompt, fit_context
from stratalens.labels.llm.request_batches import RequestBatches

TEXTS = (
    "Why?",
    "The bank raised its rate to 4.25% in March, and a river runs past the old town.",
    "a loan " * 12,
    "No",
)


def turns(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def chat(source, batch: int) -> LocalModel:
    model = LocalModel(str(source), device="cpu", dtype="float32", batch=batch)
    model.check()
    return model


def together(model: LocalModel, texts: Sequence[str], max_tokens: Sequence[int]) -> list[Reply | Exception]:
    """Ask from as many threads as there are texts."""

    def ask(text: str, room: int) -> Reply | Exception:
        try:
            return model.reply(turns(text), max_tokens=room)
        except (NoReply, LabelingError) as problem:
            return problem

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(ask, texts, max_tokens))


class Generation:
    """Counts the rows of each call of `generate`, and may fail."""

    def __init__(self, model: LocalModel, monkeypatch: pytest.MonkeyPatch, most_rows: int = 99):
        assert model._loaded is not None
        self.rows: list[int] = []
        self.tensors: list[weakref.ref] = []
        inner = model._loaded.model.generate

        def generate(**options):
            self.rows.append(len(options["input_ids"]))
            if self.rows[-1] > most_rows:
                scratch = torch.zeros(1000)
                self.tensors.append(weakref.ref(scratch))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return inner(**options)

        monkeypatch.setattr(model._loaded.model, "generate", generate)


@pytest.fixture(scope="module")
def alone(tiny_model) -> list[Reply | Exception]:
    """The answers to single requests."""
    model = chat(tiny_model, 1)
    return [model.reply(turns(text), max_tokens=room) for text, room in zip(TEXTS, (12, 7, 12, 3), strict=True)]


def test_answers_of_a_batch_are_those_of_single_prompts(tiny_model, alone, monkeypatch):
    model = chat(tiny_model, 4)
    assert model.concurrency == 4
    calls = Generation(model, monkeypatch)
    assert together(model, TEXTS, (12, 7, 12, 3)) == alone
    assert calls.rows == [4]


def test_a_batch_that_does_not_fit_is_halved_after_its_memory_is_free(tiny_model, alone, monkeypatch):
    model = chat(tiny_model, 4)
    calls = Generation(model, monkeypatch, most_rows=1)
    alive: list[bool] = []

    def release() -> None:
        gc.collect()
        alive.extend(one() is not None for one in calls.tensors)

    monkeypatch.setattr(local_answers, "release_device_memory", release)
    assert together(model, TEXTS, (12, 7, 12, 3)) == alone
    assert sorted(calls.rows) == [1, 1, 1, 1, 2, 2, 4]
    assert len(alive) >= 3
    assert not any(alive)


def test_only_the_prompt_that_fails_by_itself_has_no_answer(tiny_model, alone, monkeypatch):
    model = chat(tiny_model, 4)
    assert model._loaded is not None
    inner = model._loaded.model.generate
    widest = max(len(model._loaded.tokenizer(text)["input_ids"]) for text in TEXTS)

    def generate(**options):
        if options["attention_mask"].sum(1).max() >= widest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inner(**options)

    monkeypatch.setattr(model._loaded.model, "generate", generate)
    answers = together(model, TEXTS, (12, 7, 12, 3))
    failed = [at for at, answer in enumerate(answers) if isinstance(answer, NoReply)]
    assert len(failed) == 1
    assert str(answers[failed[0]]) == "out of memory"
    assert [answer for at, answer in enumerate(answers) if at not in failed] == [
        answer for at, answer in enumerate(alone) if at not in failed
    ]


def test_prompts_that_would_leave_the_context_together_are_not_answered_together():
    short, long = TokenPrompt([1] * 10, 50), TokenPrompt([1] * 55, 5)
    assert fit_context([short], 60)
    assert fit_context([long], 60)
    assert not fit_context([short, long], 60)
    assert fit_context([short, long], None)


class ReadsPadding(nn.Module):
    """A model that adds the mean of all its tokens to each, masked or not."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.inner(input_ids)
        return x + 3 * x.mean(1, keepdim=True)


def test_a_model_that_reads_the_padding_answers_one_at_a_time(tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    model = LocalModel(str(copy), device="cpu", dtype="float32", batch=4)
    load = local._load

    def load_another(*given: str) -> local_answers.LoadedChat:
        loaded = load(*given)
        loaded.model.set_input_embeddings(ReadsPadding(loaded.model.get_input_embeddings()))
        return loaded

    monkeypatch.setattr(local, "_load", load_another)
    model.check()
    assert model.concurrency == 1


def test_on_the_cpu_one_request_is_answered_at_a_time(tiny_model):
    model = LocalModel(str(tiny_model), device="cpu", dtype="float32")
    model.check()
    assert model.concurrency == 1


@pytest.mark.parametrize("threads", [1, 4, 7])
def test_every_request_of_many_threads_is_answered_once_in_batches_that_are_not_too_large(threads):
    sizes: list[int] = []
    busy = threading.Lock()

    def work(numbers: Sequence[int]) -> list[int | Exception]:
        assert busy.acquire(blocking=False), "one batch at a time"
        sizes.append(len(numbers))
        busy.release()
        return [ValueError(number) if number % 10 == 3 else 2 * number for number in numbers]

    batches: RequestBatches[int, int] = RequestBatches(4, work)
    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(batches.answer, number) for number in range(50)]
    for number, one in enumerate(asked):
        if number % 10 == 3:
            with pytest.raises(ValueError, match=f"^{number}$"):
                one.result()
        else:
            assert one.result() == 2 * number
    assert sum(sizes) == 50
    assert max(sizes) == min(threads, 4)
    assert sizes.count(max(sizes)) >= 50 // min(threads, 4) - 6, "batches are full while there are requests"


def test_an_error_of_the_work_itself_reaches_every_request_of_the_batch():
    def work(_numbers: Sequence[int]) -> list[int | Exception]:
        raise KeyError("gone")

    batches: RequestBatches[int, int] = RequestBatches(2, work)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(batches.answer, number) for number in range(2)]
    assert all(isinstance(one.exception(), KeyError) for one in asked)
