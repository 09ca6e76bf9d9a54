"""Any content of a file of the user gives a value or a named error: no traceback, no hang, no foreign code."""

import csv
import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import named_error, refusal, with_options
from special_files import made_special
from tiny import TINY_K, TINY_LATENTS, TINY_WIDTH, write_sae

from stratalens.cli.arguments import parse
from stratalens.config.layer_numbers import parse_layers
from stratalens.config.options import RunConfig
from stratalens.config.result_options import RANK_METRICS
from stratalens.config.validation import make_config
from stratalens.labels.concepts.lexicon import read_lexicon
from stratalens.labels.prompts import SAMPLE_VALUES, TEMPLATE_NAMES, Prompts
from stratalens.ranking.feature_list import read_feature_list
from stratalens.saes.activations import GroupMax, TopK
from stratalens.saes.formats.sparsify import load

fuzzed = settings(
    max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a\0b", "~nobody/x", "../../x", "1e5", "0-99999", "nan", "/dev/null/x", "x" * 5000])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
WORD = st.from_regex(r"[a-z]{2,9}", fullmatch=True)
YAML_TEXT = st.text(alphabet="[]{}:,-&*!|>%@`'\"#?\n\t 0aé\u2028\ufeff<=.", max_size=60) | st.text(max_size=60)


@pytest.fixture
def refused(capsys, tiny_arguments) -> Callable[..., str]:
    return lambda **options: refusal(with_options(tiny_arguments, options), capsys)


BOMBS: dict[str, tuple[str, str]] = {
    "values that repeat others without end": (
        "a: &a [x, x]\nb: &b [*a, *a]\nlayers: [*b, *b]\n",
        "run.yaml: line 2: `*a` repeats another value; write the value itself",
    ),
    "a list nested without end": ("layers: " + "[" * 100_000, "lists and tables are nested more than 32 deep"),
    "a Python object": ("domain: !!python/object/apply:os.system [ls]\n", "`tag:yaml.org,2002:python/object/apply:os"),
    "a tag of YAML's own": ("top_n: !!int ''\n", "`tag:yaml.org,2002:int` is a tag; only plain values are accepted"),
    "a key given twice": ("top_n: 5\ntop_n: 6\n", "run.yaml: line 2: `top_n` is given twice"),
    "a key in two spellings": ("top_n: 5\ntop-n: 6\n", "run.yaml: `top_n` is given twice, once with a hyphen"),
    "a number of thousands of digits": (f"top_n: 0x{'f' * 9000}\n", "top_n: "),
    "a decimal of thousands of digits": (f"top_n: {'9' * 9000}\n", "run.yaml: not valid YAML or JSON ("),
    "a date that is none": ("domain: 2024-13-45\n", "run.yaml: not valid YAML or JSON ("),
    "a specialization that is no number": ("min_specialization: .nan\n", "min_specialization: input should be a fin"),
    "a key that is a number": ("5: 6\n", "run.yaml: expected options such as `top_n: 20`, one per line"),
    "a table for a value": ("top_n: {a: 1}\n", "top_n: input should be a valid integer (got {'a': 1})"),
    "a zero byte in a path": ('domain_data: ["a\\0b"]\n', "a path or an address contains a zero byte"),
    "UTF-16": ("top_n: 5\n".encode("utf-16").decode("latin1"), "run.yaml: cannot be read: not UTF-8 text"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_configuration_that_is_more_than_plain_values_is_refused(refused, documented, tmp_path, case):
    content, telling = BOMBS[case]
    (tmp_path / "run.yaml").write_bytes(content.encode("latin1"))
    line = refused(config=str(tmp_path / "run.yaml"))
    assert telling in line
    assert len(line) < 600
    documented("Configuration files", case, line)


def test_a_configuration_without_end_is_refused(refused, documented):
    line = refused(config="/dev/zero")
    assert "cannot be read: a regular file was expected, this is a device" in line
    documented("Configuration files", "a file without end", line)


@pytest.mark.parametrize(
    "text", ['{"top_n": 5, "layers": "4 10-12"}', "top-n: 5\nlayers: [4, 10-12]\n", "\ufefftop_n: 5\nlayers: 4 10-12\n"]
)
def test_a_sound_configuration_is_taken(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    taken = parse(["--config", str(tmp_path / "run.yaml")], "stratalens analyze", RunConfig)
    assert taken.top_n == 5
    assert taken.layers == ("4", "10-12")


@fuzzed
@given(YAML_TEXT | VALUES.map(lambda value: json.dumps(value)) | st.binary(max_size=40))
def test_any_bytes_as_a_configuration_are_options_or_a_named_error(tmp_path, content):
    (tmp_path / "run.yaml").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    named_error(lambda: parse(["--config", str(tmp_path / "run.yaml")], "stratalens analyze", RunConfig))


SOUND_VALUES: dict[str, st.SearchStrategy[object]] = {
    "top_n": st.integers(1, 2**31 - 1),
    "seed": st.integers(0, 2**63 - 1),
    "min_specialization": st.floats(0, allow_infinity=False, allow_nan=False),
    "domain": st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True).filter(lambda name: name != "general"),
    "layers": st.sets(st.integers(0, 99_999), max_size=5).map(sorted),
    "output_dir": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    "rank_by": st.sampled_from(RANK_METRICS),
    "no_examples": st.booleans(),
}


@fuzzed
@given(st.fixed_dictionaries({}, optional=SOUND_VALUES))
def test_every_sound_value_is_taken_as_it_is(options):
    config = make_config(**options)
    for name, value in options.items():
        taken = getattr(config, name)
        assert taken == (tuple(map(str, value)) if name == "layers" else value)


@fuzzed
@given(st.dictionaries(st.sampled_from(sorted(RunConfig.model_fields)), VALUES, max_size=3))
def test_any_value_of_any_option_is_taken_or_refused_by_name(options):
    error = named_error(lambda: make_config(**options))
    assert error is None or len(str(error)) < 400 * (len(options) + 1)


@pytest.mark.parametrize("option", ["top_n", "top_features_n", "max_documents", "min_length", "batch_tokens"])
def test_a_number_that_nothing_can_count_is_refused(refused, documented, option):
    line = refused(**{option: "1" + "0" * 30})
    assert f"{option}: input should be less than or equal to 2147483647" in line
    if option == "top_n":
        documented("Commands and options", "a huge top_n", line)


def test_a_long_range_of_layers_is_read_at_once(refused, documented):
    assert len(parse_layers(("0-99999",)) or ()) == 100_000
    line = refused(layers=["0-99999", "5-99999"])
    assert "layers: 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ... named more than once" in line
    documented("Commands and options", "two ranges that overlap", line)


LISTS: dict[str, tuple[bytes, str]] = {
    "a list that is not UTF-8": (b"\xff\xfe16 163", "cannot be read: not UTF-8 text"),
    "a list of nothing": (b"# mine\n", "no feature in this file; write lines such as `16 163`"),
    "a feature named twice": (b"2 7\n2 7\n", "line 2: feature 7 of layer 2 is listed twice"),
    "a negative feature": (b"2 -7\n", "line 1: expected a layer and a latent, such as `16 163`"),
    "a feature number beyond all SAEs": (b"2 99999999\n", "line 1: expected a layer and a latent"),
    "a cell of megabytes": (b"layer,feature_number\n" + b"2," + b"7" * 200_000, "line 2: not a line of a CSV file ("),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_feature_list_that_cannot_be_used_is_refused_with_its_line(refused, documented, tmp_path, case):
    content, telling = LISTS[case]
    (tmp_path / "list.csv").write_bytes(content)
    before = csv.field_size_limit(131_072)  # one for the whole process; reading texts raises it
    line = refused(features=str(tmp_path / "list.csv"))
    csv.field_size_limit(before)
    assert telling in line
    documented("Feature lists, lexicons and prompts", case, line)


@fuzzed
@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9_999_999)), min_size=1, max_size=6), st.booleans())
def test_every_list_of_pairs_is_read(tmp_path, pairs, as_table):
    lines = [f"{layer},{latent}" if as_table else f"{layer} {latent}" for layer, latent in pairs]
    (tmp_path / "list").write_text("\n".join([*(["layer,feature_number"] if as_table else []), *lines]))
    listed = read_feature_list(str(tmp_path / "list"))
    assert {(place.block, latent) for place, latents in listed.items() for latent in latents} == pairs


@fuzzed
@given(st.binary(max_size=60) | st.text(alphabet='0123 ,;/"\n\r\0layerfeature_number\u2028', max_size=60))
def test_any_bytes_as_a_feature_list_are_features_or_a_named_error(tmp_path, content):
    (tmp_path / "list").write_bytes(content if isinstance(content, bytes) else content.encode())
    named_error(lambda: read_feature_list(str(tmp_path / "list")))


@fuzzed
@given(st.lists(st.tuples(WORD, st.lists(WORD, min_size=1, max_size=4)), min_size=1, max_size=4))
def test_every_list_of_concepts_is_read(tmp_path, concepts):
    entries = [{"concept": name, "group": "g", "terms": terms} for name, terms in concepts]
    (tmp_path / "lexicon").write_text(json.dumps(entries))
    assert [(concept.name, list(concept.terms)) for concept in read_lexicon(tmp_path / "lexicon")] == concepts


@fuzzed
@given(YAML_TEXT | VALUES.map(json.dumps) | st.binary(max_size=40))
def test_any_bytes_as_a_lexicon_are_concepts_or_a_named_error(tmp_path, content):
    (tmp_path / "lexicon").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    named_error(lambda: read_lexicon(tmp_path / "lexicon"))


LEXICONS: dict[str, tuple[str, str]] = {
    "a lexicon that is no YAML": ("- concept: [", "lexicon.yaml: not valid YAML or JSON ("),
    "a lexicon that is no list": ("concept: Goals", "lexicon.yaml: expected a list of concepts, each with `concept`"),
    "a concept without terms": ("- concept: Goals", "lexicon.yaml: entry 1 is not a concept; expected `concept: NAME`"),
    "a lexicon nested without end": ("[" * 100_000, "lists and tables are nested more than 32 deep"),
    "a lexicon that repeats values": ("- &a {concept: A, terms: [b]}\n- *a\n", "line 2: `*a` repeats another value"),
    "a lexicon with a Python object": ("- !!python/name:os.system {}\n", "is a tag; only plain values are accepted"),
}


@pytest.mark.parametrize("case", LEXICONS)
def test_a_lexicon_that_cannot_be_used_is_refused(refused, documented, tmp_path, case):
    content, telling = LEXICONS[case]
    (tmp_path / "lexicon.yaml").write_text(content)
    line = refused(lexicon=str(tmp_path / "lexicon.yaml"))
    assert telling in line
    documented("Feature lists, lexicons and prompts", case, line)


TEMPLATES: dict[str, tuple[bytes, str]] = {
    "a template that cannot be parsed": (b"{% for %}", "a prompt template cannot be parsed ("),
    "a template that is not UTF-8": (b"caf\xe9", "label.jinja: cannot be read: not UTF-8 text"),
    "a template that asks for what there is not": (b"{{ labels }}", "label.jinja cannot be filled in: 'labels' is und"),
    "a template that reaches for Python": (
        b"{{ ''.__class__.__mro__[1].__subclasses__ }}",
        "label.jinja cannot be filled in: access to attribute '__class__' of 'str' object is unsafe",
    ),
    "a template that changes a value": (b"{{ examples.clear() }}", "label.jinja uses a call in line 1; "),
    "a template that calls itself": (b"{% macro a() %}{{ a() }}{% endmacro %}", "label.jinja uses a macro in line 1; "),
    "a template with half a character": (b"{{ '\\ud800' }}", "label.jinja cannot be filled in: "),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_cannot_be_used_is_refused_before_the_text_is_read(refused, documented, tmp_path, case):
    content, telling = TEMPLATES[case]
    (tmp_path / "label.jinja").write_bytes(content)
    model = {"labeling_endpoint": "http://127.0.0.1:9", "labeling_model": "any"}
    line = refused(prompts=str(tmp_path), domain_data="/no/such.txt", **model)
    assert telling in line
    documented("Feature lists, lexicons and prompts", case, line)


@pytest.mark.parametrize(
    "template",
    [
        "{{ label.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
        "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
        "{{ (label | attr('__class__')) }}",
        "{{ '{0.__class__}'.format(label) }}",
        "{% set x = namespace() %}{{ x.__init__.__globals__ }}",
        "{% include '../../../etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
    ],
)
def test_a_template_sees_nothing_of_python_and_no_other_file(tmp_path, template):
    (tmp_path / "label.jinja").write_text(template.replace("MARK", str(tmp_path / "mark")))
    error = named_error(lambda: Prompts(str(tmp_path)))
    if error is None:
        filled = Prompts(str(tmp_path)).messages("label", SAMPLE_VALUES)[1]["content"]
        assert not {"root:", "class", "module", "context"} & set(filled.replace(".", " ").split()), filled
    assert not (tmp_path / "mark").exists()


@fuzzed
@given(st.text(alphabet="a bc.é{{ label }}<>&", max_size=20).map(lambda text: text.replace("{", "").replace("}", "")))
def test_every_text_without_braces_is_a_prompt_as_it_stands(tmp_path, text):
    (tmp_path / "label.jinja").write_text(text + "{{ most_words }}", encoding="utf-8")
    assert Prompts(str(tmp_path)).messages("label", SAMPLE_VALUES)[1]["content"] == f"{text}8".strip()


@fuzzed
@given(st.text(alphabet="{}%|().[]'\"~+*-/ labelexamplesforif01\n", max_size=40), st.sampled_from(TEMPLATE_NAMES))
def test_any_text_as_a_template_is_a_prompt_or_a_named_error(tmp_path, text, name):
    for path in tmp_path.glob("*.jinja"):
        path.unlink()
    (tmp_path / f"{name}.jinja").write_text(text, encoding="utf-8")
    named_error(lambda: Prompts(str(tmp_path)))


@fuzzed
@given(st.dictionaries(st.sampled_from(["d_in", "k", "num_latents", "activation", "signed", "transcode"]), VALUES))
def test_any_cfg_of_an_sae_loads_or_is_a_named_error(tmp_path, options):
    folder = write_sae(tmp_path / "layers.0")
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | options))
    error = named_error(lambda: load(folder))
    assert error is None or len(str(error)) < 800
    assert options or error is None, "as it was written it loads"


@pytest.mark.parametrize(
    "options", [{}, {"k": 1}, {"k": TINY_LATENTS}, {"transcode": True}, {"activation": "groupmax"}]
)
def test_every_sound_cfg_of_an_sae_loads(tmp_path, options):
    folder = write_sae(tmp_path / "layers.0", config=options)
    kind = GroupMax if options.get("activation") == "groupmax" else TopK
    assert load(folder).activation == kind(options.get("k", TINY_K))


@fuzzed
@given(st.lists(st.tuples(st.integers(0, 2**14), st.integers(0, 7)), max_size=6), st.none() | st.integers(0, 2**14))
def test_any_damage_to_the_weights_of_an_sae_loads_or_is_a_named_error(tmp_path, flips, length):
    folder = write_sae(tmp_path / "layers.0")
    whole = (folder / "sae.safetensors").read_bytes()
    raw = bytearray(whole)
    for position, bit in flips:
        raw[position % len(raw)] ^= 1 << bit
    (folder / "sae.safetensors").write_bytes(raw[:length])
    error = named_error(lambda: load(folder))
    assert length is None or length >= len(raw) or error is not None
    unchanged = (folder / "sae.safetensors").read_bytes() == whole
    assert not unchanged or error is None, "as it was written it loads"


def safetensors_file(**tensors: tuple[str, list[int], int, int]) -> bytes:
    """A file whose header says of each tensor: kind of number, shape, first and last byte."""
    header = {name: {"dtype": d, "shape": s, "data_offsets": [a, b]} for name, (d, s, a, b) in tensors.items()}
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(64)


WEIGHT = "encoder.weight"
HEADERS: dict[str, tuple[bytes, str]] = {
    "a header that claims exabytes": (struct.pack("<Q", 2**60) + b"{}", "truncated or corrupt ("),
    "a tensor that claims exabytes": (safetensors_file(W_dec=("F32", [2**40, 2**20], 0, 2**62)), "truncated or corr"),
    "tensors that overlap": (safetensors_file(W_dec=("F32", [8], 0, 32), b=("F32", [8], 16, 48)), "truncated or co"),
    "offsets that run backwards": (safetensors_file(W_dec=("F32", [8], 32, 0)), "truncated or corrupt ("),
    "numbers of an unknown kind": (safetensors_file(W_dec=("F13", [16], 0, 64)), "truncated or corrupt ("),
    "tensors of no size": (safetensors_file(**{WEIGHT: ("F32", [0, 32], 0, 0), "b": ("U8", [64], 0, 64)}), "has shape"),
    "whole numbers for weights": (safetensors_file(**{WEIGHT: ("I32", [16], 0, 64)}), "`encoder.weight` holds I32, "),
}


@pytest.mark.parametrize("case", HEADERS)
def test_weights_that_are_not_what_their_header_says_are_refused(refused, documented, tmp_path, case):
    content, telling = HEADERS[case]
    folder = write_sae(tmp_path / "saes" / "layers.2")
    (folder / "sae.safetensors").write_bytes(content)
    line = refused(sae_model=str(tmp_path / "saes"))
    assert telling in line
    documented("SAE checkpoints", case, line)


def test_weights_of_eight_bits_are_read(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_sae(tmp_path / "layers.0")
    whole = load_file(folder / "sae.safetensors")
    save_file(whole | {"W_dec": whole["W_dec"].to(torch.float8_e4m3fn)}, folder / "sae.safetensors")
    decoder = load(folder).decoder.weight
    assert decoder.shape == (TINY_LATENTS, TINY_WIDTH)
    np.testing.assert_allclose(decoder.numpy(), whole["W_dec"].numpy(), atol=0.05)


def test_a_configuration_in_a_pipe_is_refused_as_nobody_may_ever_write_into_it(refused, documented, tmp_path):
    made_special("a named pipe", tmp_path / "run.yaml")
    line = refused(config=str(tmp_path / "run.yaml"))
    assert line.endswith("run.yaml: cannot be read: a regular file was expected, this is a named pipe")
    documented("Configuration files", "a named pipe", line)
