"""A local labelling model is not trusted: its chat template and its settings for generation end, and name no work."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from refusal import named_error
from transformers.utils.chat_template_utils import render_jinja_template

from stratalens.errors import LabelingError
from stratalens.labels.llm import chat_template
from stratalens.labels.llm.chat_template import ChatTemplate
from stratalens.labels.llm.local import LocalModel

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def shared() -> ChatTemplate:
    return ChatTemplate("model", "", TOKENS)


@pytest.fixture
def filled(shared) -> Callable[[str], str]:
    """The prompt that a template makes; the process starts only once, as that takes most of a second."""

    def fill(template: str) -> str:
        shared._template = template
        return shared.prompt(TURNS)

    return fill


SOUND = {
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "a generation block": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "a namespace": (
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content %}{% endfor %}{{ ns.s }}"
    ),
    "a macro": "{% macro turn(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}{{ turn(messages[1]) }}",
    "json": "{{ messages[1:] | tojson(indent=2) }}{{ '*' * 3 }}{{ add_generation_prompt }}{{ tools is none }}",
    "a date": "{{ strftime_now('%Y') | int > 2000 }}",
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_template_makes_the_prompt_that_transformers_makes(filled, case):
    options = {"chat_template": SOUND[case], "add_generation_prompt": True, **TOKENS}
    assert filled(SOUND[case]) == render_jinja_template([TURNS], **options)[0][0]


FAILING = {
    "a division by zero": ("{{ 1 / 0 }}", "fails (ZeroDivisionError division by zero)"),
    "a sum of different things": ("{{ 1 + 'a' }}", "fails (TypeError"),
    "a broken template": ("{% for %}", "fails (TemplateSyntaxError"),
    "nothing": ("{# #}", "fails (no prompt)"),
    "a macro in itself": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails (RecursionError"),
    "another template": ("{% include '/etc/passwd' %}", "fails (TypeError no loader"),
    "control characters": ("{{ raise_exception('\\x1b[2Jno\\nway') }}", r"fails (TemplateError \x1b[2Jno way)"),
    "a text that fills the memory": ("{{ 'x' * 10 ** 10 }}", "fails (MemoryError"),
    "a text that doubles": (
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "fails (MemoryError",
    ),
    "a prompt without end": ("{{ 'x' * 5000000 }}", "fails (a prompt without end)"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_template_that_fails_is_refused_in_one_line(filled, case):
    template, message = FAILING[case]
    with pytest.raises(LabelingError) as caught:
        filled(template)
    line = str(caught.value)
    assert line.startswith(f"model: its chat template {message}")
    assert line.endswith("; choose another model with --labeling_model")
    assert line.isprintable()
    assert len(line) < 400


ENDLESS = ["{{ 10 ** (10 ** 9) }}", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"]


@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_that_does_not_end_is_given_up_and_its_process_ends(filled, shared, monkeypatch, template):
    assert filled("fine") == "fine"
    process = shared._process
    monkeypatch.setattr(chat_template, "MAX_TEMPLATE_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(LabelingError, match=r"its chat template (did not end within 0\.5 s|ended its process)"):
        filled(template)
    assert time.monotonic() - started < 5
    assert process.poll() is not None
    monkeypatch.undo()
    assert filled("fine again") == "fine again"


def test_the_process_knows_no_key_and_ends_with_its_owner(monkeypatch):
    monkeypatch.setenv("STRATALENS_API_KEY", "sk-very-secret-0123456789")
    own = ChatTemplate("model", "fine", {})
    assert own.prompt(TURNS) == "fine"
    process = own._process
    assert process is not None
    assert b"secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    del own
    assert process.poll() is not None


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def labeller(model: Path) -> LocalModel:
    return LocalModel(str(model), device="cpu", dtype="float32")


def with_settings(model: Path, **settings: object) -> None:
    path = model / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{# #}"])
def test_a_bad_template_is_named_before_the_run(model, template):
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(LabelingError, match="model: its chat template fails"):
        labeller(model).check()


WORK: list[dict[str, object]] = [
    {"num_beams": 10**6},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    {"num_return_sequences": 5, "do_sample": True},
    {"stop_strings": ["a" * 10**6]},
    {"bad_words_ids": [[10**9]]},
    {"suppress_tokens": [10**9]},
    {"force_words_ids": [[1]]},
    {"forced_bos_token_id": 10**9},
    {"min_length": 10**9},
    {"max_time": "x"},
    {"repetition_penalty": 50.0},
    {"prompt_lookup_num_tokens": 10**9},
    {"cache_implementation": "static", "max_length": 10**9},
    {"watermarking_config": {"context_width": 10**9}},
    {"dola_layers": "high"},
    {"penalty_alpha": 0.5, "top_k": 4},
    {"eos_token_id": []},
]


@pytest.fixture(scope="module")
def answer(tiny_model, tmp_path_factory):
    """The answer of a model that is asked without a chat template, which needs no process."""
    plain = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("plain") / "model"))
    (plain / "chat_template.jinja").unlink()
    return labeller(plain).reply(TURNS, max_tokens=8)


@pytest.mark.parametrize("settings", WORK, ids=lambda settings: next(iter(settings)))
def test_settings_for_generation_change_no_answer_and_ask_for_no_work(model, settings, answer):
    with_settings(model, **settings)
    (model / "chat_template.jinja").unlink()
    started = time.monotonic()
    own = labeller(model)
    refused = named_error(own.check)
    assert time.monotonic() - started < 20
    if refused is None:
        assert own.reply(TURNS, max_tokens=8) == answer
    else:  # by the library, when it reads them
        assert len(str(refused).splitlines()) == 1


@pytest.mark.parametrize("token_id", ["a", {}, [[1]], 300, -1, 10**9, 1.5, [0, 10**9], True])
def test_an_end_that_is_no_token_of_the_model_is_refused(model, token_id):
    with_settings(model, eos_token_id=token_id)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(LabelingError, match=r"no token of this model|no usable Hugging Face model") as caught:
        labeller(model).check()
    assert len(str(caught.value).splitlines()) == 1


def test_an_error_of_a_library_while_it_answers_is_one_line(model, monkeypatch):
    (model / "chat_template.jinja").unlink()
    sound = labeller(model)
    sound.check()
    assert sound._loaded is not None
    monkeypatch.setattr(sound._loaded.model, "generate", lambda **_: json.loads("x"))
    with pytest.raises(LabelingError, match=r"no usable Hugging Face model here .Expecting value"):
        sound.reply(TURNS, max_tokens=8)
