"""A labelling model that runs on this machine: the embedded one, for a few tokens."""

import json
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoTokenizer

from stratalens.errors import LabelingError
from stratalens.labels.answers import UnusableAnswer
from stratalens.labels.judge import LabelEvidence, LanguageJudge
from stratalens.labels.llm import chat_template
from stratalens.labels.llm.chat import CutOff, NoReply
from stratalens.labels.llm.local import LocalModel
from stratalens.labels.llm.local_answers import decode
from stratalens.labels.llm.reasoning import remove_reasoning
from stratalens.labels.prompts import Prompts

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def model(embedded_model) -> LocalModel:
    return LocalModel(str(embedded_model), device="cpu", dtype="float32")


def test_it_answers_and_always_the_same(model):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: model.reply(QUESTION, max_tokens=12), range(2))
    assert "Paris" in first.text
    assert "<|im_end|>" not in first.text
    assert first == second
    assert first.prompt_tokens > first.completion_tokens > 0
    assert not first.cut_off


def test_an_answer_that_runs_into_its_limit_is_marked(model):
    answer = model.reply(QUESTION, max_tokens=2)
    assert answer.completion_tokens == 2
    assert answer.cut_off


def test_a_prompt_longer_than_the_context_is_refused_not_cut(model, capfd):
    with pytest.raises(NoReply, match=r"^prompt longer than the model's context$"):
        model.reply([{"role": "user", "content": "word " * 9000}], max_tokens=2)
    assert capfd.readouterr().err == ""


def test_the_name_tells_models_of_the_same_directory_name_apart(tiny_model, embedded_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / tiny_model.name)
    assert LocalModel(str(copy)).name == LocalModel(str(tiny_model)).name
    (copy / "chat_template.jinja").write_text("other")
    assert LocalModel(str(copy)).name != LocalModel(str(tiny_model)).name
    assert LocalModel(str(tiny_model)).name.startswith(tiny_model.name)
    assert LocalModel("organisation/name").name == "organisation/name"


@pytest.mark.parametrize(
    "template",
    [None, "{{ raise_exception('no system turn') if messages[0].role == 'system' else messages[0].content }}"],
)
def test_the_system_turn_is_not_lost_where_the_template_has_none(tiny_model, tmp_path, template, tokenizer):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    if template:
        (copy / "chat_template.jinja").write_text(template)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    answer = LocalModel(str(copy), device="cpu", dtype="float32").reply(turns, max_tokens=8)
    assert answer.prompt_tokens == len(tokenizer("Be brief.\n\nWhy?")["input_ids"])


def test_reasoning_between_special_tokens_is_told_from_the_answer(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    added = ["<|start|>", "<|channel|>", "<|message|>", "[THINK]", "[/THINK]", "<|other|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*added, *tokenizer.all_special_tokens]})
    end = tokenizer.eos_token
    for text in (
        f"<|channel|>analysis<|message|>a bank{end}<|start|>assistant<|channel|>final<|message|>a loan{end}",
        f"[THINK]a bank[/THINK]a <|other|>loan{end}",
        f"a loan{end}",
    ):
        answer_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert " ".join(remove_reasoning(decode(tokenizer, answer_ids)).split()) == "a loan"


def test_reasoning_that_the_template_opens_is_no_answer(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}\n<think>\n")
    with pytest.raises(CutOff, match=r"^cut off before the answer began$"):
        LocalModel(str(copy), device="cpu", dtype="float32").reply(QUESTION, max_tokens=8)


def test_a_truncated_answer_gets_more_room(tiny_model):
    model = LocalModel(str(tiny_model), device="cpu", dtype="float32")
    judge = LanguageJudge(model, Prompts(), max_tokens=4)
    with pytest.raises(UnusableAnswer, match=r"^the answer is cut off at 16 tokens; raise --labeling_max_tokens$"):
        judge.label(LabelEvidence([], [], ["a"], ["b"], [], 1.0), show_text=False)


def test_a_template_that_loops_is_given_up(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_TEMPLATE_SECONDS", 1.0)
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    long = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (copy / "chat_template.jinja").write_text(long)
    with pytest.raises(LabelingError, match=r"copy: its chat template did not end within 1 s; choose another model"):
        LocalModel(str(copy), device="cpu", dtype="float32").reply(QUESTION, max_tokens=8)


def test_sampling_settings_of_the_model_change_nothing_and_warn_of_nothing(tiny_model, tmp_path, capfd):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(settings | {"do_sample": True, "temperature": 5.0}))
    answers = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (tiny_model, copy, copy):
            sampler = LocalModel(str(source), device="cpu", dtype="float32")
            answers.add(sampler.reply(QUESTION, max_tokens=8).text)
    assert len(answers) == 1
    assert capfd.readouterr().err == ""


def test_running_out_of_memory_fails_only_one_request(model, monkeypatch):
    model.check()

    def fail(*_inputs, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model._loaded.model, "generate", fail)
    with pytest.raises(NoReply, match=r"^out of memory$"):
        model.reply(QUESTION, max_tokens=2)
    monkeypatch.undo()
    assert model.reply(QUESTION, max_tokens=2).text


def test_a_model_that_is_not_there_is_a_labeling_error(tmp_path, documented):
    with pytest.raises(LabelingError, match="no such directory, and not a Hub id") as caught:
        LocalModel(str(tmp_path / "missing")).check()
    documented("Labelling models", "no such directory", str(caught.value))
    with pytest.raises(LabelingError, match="no usable Hugging Face model here"):
        LocalModel(str(tmp_path)).check()


def test_code_that_comes_with_a_model_is_not_run(tmp_path, documented, tiny_model):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())
    settings |= {
        "model_type": "unheard_of",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    (copy / "config.json").write_text(json.dumps(settings))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    save_file({"weight": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(LabelingError, match="which is never run here; name another model") as caught:
        LocalModel(str(copy)).check()
    documented("Labelling models", "a model that needs code of its own", str(caught.value))
    assert not (tmp_path / "ran").exists()


def test_the_hub_gets_no_key_of_a_labelling_server(monkeypatch):
    keys = {"STRATALENS_API_KEY": "sk-very-secret-0123456789", "OPENAI_API_KEY": "sk-other-fedcba9876543210"}
    for name, key in keys.items():
        monkeypatch.setenv(name, key)
    received = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(f"{self.requestline}\n{self.headers}")
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        with pytest.raises(LabelingError, match="no such public Hub repository"):
            LocalModel("someone/labeller", device="cpu").check()
        hub.shutdown()
    assert any("someone/labeller" in request for request in received)
    for key in keys.values():
        assert key not in "".join(received)
