"""The trial of a loaded model refuses, before text is read, what would end a run late or give meaningless numbers."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear8bitLt
from refusal import output_of, refusal, with_options
from safetensors.torch import load_file, save_file
from tiny import MARKED_TOKEN, TINY_VOCABULARY, TINY_WIDTH, tiny_tokenizer, write_sae
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
)

from stratalens.cli.main import main

SIZES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3},
    "mixtral": {"intermediate_size": 48, "num_key_value_heads": 2, "num_local_experts": 4, "initializer_range": 0.3},
    "gpt2": {"n_positions": 64},
    "opt": {"ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": TINY_WIDTH},
    "gptj": {"n_positions": 64, "rotary_dim": 4},
    "xlm-roberta": {"intermediate_size": 48, "max_position_embeddings": 300},
    "bert": {"intermediate_size": 48, "max_position_embeddings": 300},
    "mamba": {"state_size": 8},
    "bloom": {},
    "gemma3_text": {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3},
    "gpt_neox": {"intermediate_size": 48},
}
USUAL = {"hidden_size": TINY_WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": TINY_VOCABULARY}
BLOCKS = {"gpt2": "h.{}", "opt": "decoder.layers.{}", "gptj": "h.{}", "bert": "encoder.layer.{}", "mamba": "layers.{}"}
BLOCKS |= {"bloom": "h.{}", "xlm-roberta": "encoder.layer.{}"}


@pytest.fixture
def arguments(tiny_arguments, tmp_path) -> Callable[..., list[str]]:
    """Writes a tiny model of a family with SAEs at layers 0 and 2; returns the arguments of a run."""

    def write(family: str, change: Callable[[Any], object] = lambda _model: None, **sizes: Any) -> list[str]:
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family, **{**USUAL, "bos_token_id": 0, "eos_token_id": 0, **SIZES[family], **sizes}
        )
        model = AutoModelForCausalLM.from_config(config)
        change(model)
        model.save_pretrained(tmp_path / "model")
        tiny_tokenizer().save_pretrained(tmp_path / "model")
        for layer in (0, 2):
            write_sae(tmp_path / "saes" / BLOCKS.get(family, "layers.{}").format(layer), seed=layer)
        paths = {"base_model": str(tmp_path / "model"), "sae_model": str(tmp_path / "saes")}
        return with_options(tiny_arguments, paths)

    return write


@pytest.fixture
def text_is_not_read(monkeypatch) -> None:
    """Fails the test if the text is scanned."""
    monkeypatch.setattr("stratalens.harvest.inputs.survey", lambda *_a, **_k: pytest.fail("the text was read"))


@pytest.mark.parametrize("family", ["llama", "mixtral", "mamba", "gpt_neox"])
def test_a_causal_model_passes(arguments, family):
    assert main(["analyze", "--quiet", *arguments(family)]) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_causal_model_passes_in_half_precision(arguments, dtype):
    assert main(["analyze", "--quiet", *with_options(arguments("mixtral"), {"dtype": dtype})]) == 0


@pytest.mark.usefixtures("text_is_not_read")
@pytest.mark.parametrize(("family", "positions"), [("gpt2", 64), ("opt", 64), ("gptj", 64)])
def test_fewer_positions_than_passages_have_tokens_are_refused_with_the_number(
    capsys, documented, arguments, family, positions
):
    words = arguments(family)
    for more in ([], ["--dry_run"]):
        line = refusal([*words, *more], capsys)
        assert f"model: it has {positions} positions, and passages may have --max_length 256 tokens" in line
        assert line.endswith(f"; give --max_length {positions}")
    if family == "gpt2":
        documented("Base models", "a model with fewer positions than passages have tokens", line)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gptj"])
def test_as_many_positions_as_passages_have_tokens_suffice(arguments, family):
    words = with_options(arguments(family), {"max_length": "64", "batch_tokens": "512"})
    assert main(["analyze", "--quiet", *words]) == 0


def test_a_table_of_positions_for_images_is_no_limit(arguments, tmp_path):
    words = arguments("llama")
    images = CLIPVisionConfig(hidden_size=36, intermediate_size=48, num_hidden_layers=1, image_size=32, patch_size=8)
    config = LlavaConfig(text_config=AutoConfig.from_pretrained(tmp_path / "model"), vision_config=images)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "model")
    assert main(["analyze", "--quiet", *words]) == 0


def test_a_limit_that_shows_only_when_the_model_runs_is_measured(capsys, documented, arguments, monkeypatch):
    monkeypatch.setattr("stratalens.models.limits.POSITION_TABLE", re.compile("no such name"))
    monkeypatch.setattr("stratalens.harvest.inputs.survey", lambda *_a, **_k: pytest.fail("the text was read"))
    line = refusal(arguments("gpt2"), capsys)
    assert "model: fails on more than 64 tokens (IndexError: " in line
    assert line.endswith("and passages may have --max_length 256; give --max_length 64")
    documented("Base models", "a model that fails on long passages", line)


def test_passages_beyond_the_trained_positions_are_told_and_recorded(capsys, arguments):
    words = arguments("llama", max_position_embeddings=64)
    assert main(["analyze", *words]) == 0
    said = capsys.readouterr().err
    warning = "was trained on 64 positions, and its activations beyond them mean little; --max_length 64 keeps to them"
    assert said.count(warning) == 1
    warnings = json.loads((output_of(words) / "run.json").read_text())["warnings"]
    assert [text for text in warnings if warning in text]


def test_positions_that_were_stretched_count_as_before(capsys, arguments):
    scaling = {"rope_type": "linear", "factor": 8.0, "original_max_position_embeddings": 128, "rope_theta": 10000.0}
    words = arguments("llama", max_position_embeddings=1024, rope_parameters=scaling)
    assert main(["analyze", *words, "--dry_run"]) == 0
    assert "was trained on 128 positions before they were stretched to 1,024, and its" in capsys.readouterr().err


def test_tokens_beyond_the_embedding_are_refused_with_their_ids(capsys, documented, arguments):
    words = arguments("llama", vocab_size=290)
    for more in ([], ["--dry_run"]):
        line = refusal([*words, *more], capsys)
        assert "its tokenizer has 9 tokens that the model has no vector for (" in line
        assert line.endswith("the model has ids 0 to 289); use the tokenizer that belongs to the model")
    documented("Base models", "a tokenizer of more tokens than the model", line)


def test_a_special_token_beyond_the_embedding_is_read_as_text(arguments, small_texts, tmp_path):
    rows = [json.loads(line) for line in small_texts[0].read_text().splitlines()]
    text = tmp_path / "marked.jsonl"
    text.write_text("".join(json.dumps({"text": f"{row['text']} {MARKED_TOKEN} and more"}) + "\n" for row in rows))
    words = with_options(arguments("llama", vocab_size=TINY_VOCABULARY - 1), {"domain_data": str(text)})
    assert main(["analyze", "--quiet", *words]) == 0


def with_gaps(tokenizer: Any) -> Any:
    """The tokenizer with no tokens for the ids 200 to 206."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {name: number + 7 * (number >= 200) for name, number in vocabulary.items()}
    for token in content["added_tokens"]:
        token["id"] += 7 * (token["id"] >= 200)
    backend = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", pad_token="<|pad|>")


def test_ids_without_a_token_change_nothing_but_the_numbers_of_the_others(arguments, tmp_path):
    """A model with unused rows for such ids gives the features and tokens of one without."""
    words = arguments("llama", vocab_size=TINY_VOCABULARY + 7)
    assert main(["analyze", "--quiet", *with_options(words, {"output_dir": str(tmp_path / "a")})]) == 0
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name][207:307] = tensors[name][200:300].clone()
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with_gaps(tiny_tokenizer()).save_pretrained(tmp_path / "model")
    assert main(["analyze", "--quiet", *with_options(words, {"output_dir": str(tmp_path / "b")})]) == 0
    results = [json.loads((tmp_path / name / "layer_2" / "evidence.json").read_text())["features"] for name in "ab"]
    for name in ("feature_number", "top_tokens", "examples"):
        assert [feature.get(name) for feature in results[0]] == [feature.get(name) for feature in results[1]], name
    promoted = {entry["token"] for feature in results[1] for entry in (*feature["promoted"], *feature["suppressed"])}
    assert "" not in promoted
    assert {f"<no token {number}>" for number in range(200, 207)} & promoted


def overflowing(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.mul_(1e6)


@pytest.mark.usefixtures("text_is_not_read")
def test_an_overflow_is_refused_with_the_layer_and_another_type(capsys, documented, arguments):
    words = with_options(arguments("llama", overflowing), {"dtype": "float16"})
    line = refusal(words, capsys)
    assert line.endswith("model: activations at layer 2 are not finite in float16; give --dtype bfloat16 or float32")
    documented("Base models", "activations that overflow", line)


def overflowing_inside(model: Any) -> None:
    """Let the vector that enters the last product of a block exceed float16, and the block's output be as before."""
    with torch.no_grad():
        model.model.layers[2].mlp.gate_proj.weight.mul_(100)
        model.model.layers[2].mlp.up_proj.weight.mul_(1e4)
        model.model.layers[2].mlp.down_proj.weight.mul_(1e-6)


@pytest.mark.usefixtures("text_is_not_read")
def test_an_overflow_in_8_bit_products_is_refused_with_what_helps(capsys, documented, arguments, monkeypatch):
    """On the CPU bitsandbytes keeps the type of the model; the input of a product is cast here as it is on cuda."""
    product = Linear8bitLt.forward
    monkeypatch.setattr(Linear8bitLt, "forward", lambda self, x: product(self, x.half().to(x.dtype)))
    words = with_options(arguments("llama", overflowing_inside), {"dtype": "bfloat16", "load_in": "8bit"})
    line = refusal(words, capsys)
    assert "activations at layer 2 are not finite in bfloat16; bitsandbytes makes 8-bit products in float16" in line
    assert line.endswith("give --load_in 4bit, or leave it out")
    documented("Base models", "an overflow in 8-bit products", line)


def test_the_same_model_runs_without_8_bit_products(arguments):
    assert (
        main(["analyze", "--quiet", *with_options(arguments("llama", overflowing_inside), {"dtype": "bfloat16"})]) == 0
    )


def test_the_same_model_runs_in_another_type(arguments):
    assert main(["analyze", "--quiet", *with_options(arguments("llama", overflowing), {"dtype": "bfloat16"})]) == 0


@pytest.mark.usefixtures("text_is_not_read")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_not_numbers_are_refused_by_their_name(capsys, documented, arguments, dtype):
    def damage(model: Any) -> None:
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")

    line = refusal(with_options(arguments("llama", damage), {"dtype": dtype}), capsys)
    assert "activations at layer 1 are not finite in" in line
    assert "its weights hold NaN (`layers.1.mlp.up_proj.weight`)" in line
    if dtype == "float32":
        documented("Base models", "weights that are no numbers", line)


def test_an_overflow_above_the_deepest_layer_does_not_matter(arguments):
    def damage(model: Any) -> None:
        with torch.no_grad():
            model.model.layers[3].mlp.down_proj.weight.mul_(1e6)

    assert main(["analyze", "--quiet", *with_options(arguments("llama", damage), {"dtype": "float16"})]) == 0


@pytest.mark.usefixtures("text_is_not_read")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_an_encoder_is_refused_with_what_was_measured(capsys, documented, arguments, family, dtype):
    line = refusal(with_options(arguments(family), {"dtype": dtype}), capsys)
    assert "model: not a causal language model: with another last token, the vectors of the tokens before it" in line
    if (family, dtype) == ("bert", "float32"):
        documented("Base models", "an encoder", re.sub(r"[\d.e-]+%", "5%", line, count=1))


@pytest.mark.usefixtures("text_is_not_read")
def test_a_decoder_that_attends_both_ways_is_refused(capsys, arguments, monkeypatch):
    from transformers.models.llama import modeling_llama

    def see_all(inputs_embeds: torch.Tensor, **_options: object) -> torch.Tensor:
        tokens = inputs_embeds.shape[1]
        return torch.zeros(1, 1, tokens, tokens, dtype=inputs_embeds.dtype)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", see_all)
    assert "not a causal language model" in refusal(arguments("llama"), capsys)


def test_a_head_that_the_files_lack_is_told_and_leaves_no_logit_lens(capsys, arguments, tmp_path):
    words = arguments("llama")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert main(["analyze", *words]) == 0
    assert "logit lens: left out (ModelError: " in capsys.readouterr().err
    record = json.loads((output_of(words) / "run.json").read_text())
    assert "its files lack 1 weight of the model (lm_head.weight)" in record["missing_parts"]["logit lens"]
    features = json.loads((output_of(words) / "layer_2" / "evidence.json").read_text())["features"]
    assert not any(feature.get("promoted") for feature in features)


@pytest.mark.usefixtures("text_is_not_read")
def test_a_decoder_that_attends_to_the_next_token_alone_is_refused(capsys, arguments):
    sizes = {"head_dim": 8, "sliding_window": 3, "use_bidirectional_attention": True}
    assert "model: not a causal language model: " in refusal(arguments("gemma3_text", **sizes), capsys)


@pytest.mark.usefixtures("text_is_not_read")
@pytest.mark.parametrize(
    ("family", "lacking"),
    [("gpt2", "wpe.weight"), ("bloom", "word_embeddings_layernorm.bias"), ("opt", "decoder.project_in.weight")],
)
def test_weights_before_the_first_block_that_the_files_lack_are_refused(capsys, arguments, tmp_path, family, lacking):
    sizes = {"gpt2": {"n_positions": 256}, "opt": {"max_position_embeddings": 256, "word_embed_proj_dim": 16}}
    words = arguments(family, **sizes.get(family, {}))
    path = tmp_path / "model" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(lacking)}
    save_file(tensors, path, metadata={"format": "pt"})
    assert f"its files lack 1 weight of the model ({lacking})" in refusal(words, capsys)


@pytest.mark.usefixtures("text_is_not_read")
def test_weights_of_a_block_that_the_files_lack_are_refused_by_name(capsys, documented, arguments, tmp_path):
    words = arguments("llama")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    line = refusal(words, capsys)
    assert "model: its files lack 1 weight of the model (layers.1.mlp.up_proj.weight); copy or download it" in line
    documented("Base models", "weights that are not in the files", line)


@pytest.mark.usefixtures("text_is_not_read")
@pytest.mark.parametrize("name", ["mlp.up_proj.scales", "mlp.down_proj.weight_scale_inv"])
def test_scales_of_a_layer_that_the_configuration_leaves_out_are_refused(capsys, documented, arguments, tmp_path, name):
    words = arguments("llama")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path) | {f"model.layers.{layer}.{name}": torch.ones(TINY_WIDTH) for layer in (1, 3)}
    save_file(tensors, path, metadata={"format": "pt"})
    line = refusal([*words, "--layers", "0"], capsys)
    assert "model: its files hold 1 tensor of layers that its config.json has no place for (" in line
    if name.endswith("scales"):
        documented("Base models", "scales of weights that the configuration does not name", line)
