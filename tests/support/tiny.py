"""A tiny random Llama with a byte-level tokenizer of 300 tokens, and random SAEs for it: enough for most tests."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TINY_BLOCKS = 4
TINY_WIDTH = 32
TINY_LATENTS = 64
TINY_K = 8
TINY_VOCABULARY = 300
SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>")
MARKED_TOKEN = "<file_sep>"
"""Special only by its flag: the tokenizer gives it no role."""
MERGES = (
    "Ġ t",
    *("h e", "i n", "e r", "n d", "r e", "o n", "a n", "o r", "e s", "i s", "e n", "a t", "o u", "l l", "a r", "in g"),
    *("Ġ a", "Ġ s", "Ġ o", "Ġ w", "Ġ b", "Ġ c", "Ġ f", "Ġ p", "Ġ m", "Ġ l", "Ġ d", "Ġ r", "Ġ n", ". ."),
    *("Ġt he", "Ġa nd", "Ġo f", "Ġt o", "Ġb an", "Ġban k", "Ġl o", "Ġlo an", "Ġr at", "Ã ¼"),
)
CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer in which every byte is a token and some pairs are merged, so that tokens have one or more bytes."""
    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in MERGES)]
    pieces += [left + right for left, right in pairs]
    model = models.BPE({piece: number for number, piece in enumerate(pieces)}, pairs)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    end, pad = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=pad)
    tokenizer.add_tokens([MARKED_TOKEN], special_tokens=True)
    tokenizer.chat_template = CHAT
    assert len(tokenizer) == TINY_VOCABULARY
    return tokenizer


def write_tiny_model(directory: Path) -> None:
    """Write model and tokenizer, as a local directory of the Hub's layout."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=TINY_WIDTH,
        intermediate_size=64,
        num_hidden_layers=TINY_BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)


def write_sae(folder: Path, *, width: int = TINY_WIDTH, seed: int = 0, config: dict | None = None, **tensors) -> Path:
    """Write a random SAE in sparsify's format; `config` and `tensors` override parts of it."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(TINY_LATENTS, width, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    weights = {
        "encoder.weight": rows.clone(),
        "encoder.bias": 0.1 * torch.randn(TINY_LATENTS, generator=generator),
        "W_dec": rows,
        "b_dec": 0.1 * torch.randn(width, generator=generator),
        **tensors,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae.safetensors")
    settings = {"activation": "topk", "expansion_factor": 2, "num_latents": TINY_LATENTS, "k": TINY_K, "d_in": width}
    (folder / "cfg.json").write_text(json.dumps(settings | (config or {})))
    return folder


def write_tiny_saes(root: Path) -> None:
    """Write random SAEs at layers 0 and 2 of the tiny model."""
    for layer in (0, 2):
        write_sae(root / f"layers.{layer}", seed=layer)
    (root / "config.json").write_text("{}")


def write_small_texts(folder: Path, documents: int = 24) -> None:
    """Write two jsonl files of so many short documents each, domain and general, no two of which are alike."""
    subjects = {"domain": "loan bank rate bond price", "general": "river stone bird cloud song"}
    for name, words in subjects.items():
        rows = []
        for i in range(documents):
            pairs = [f"{word} {word[: 2 + i % 3]}" for word in words.split()]
            random.Random(i).shuffle(pairs)
            rows.append({"id": f"{name}-{i}", "text": f"No. {i}: " + " ".join(pairs)})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tiny_run_arguments(model: Path, saes: Path, texts: tuple[Path, Path], output: Path) -> list[str]:
    """Arguments of a run that takes about a second; its random SAEs need `--allow_poor_fit`."""
    domain, general = map(str, texts)
    return [
        *("--base_model", str(model), "--sae_model", str(saes), "--domain_data", domain, "--general_data", general),
        *("--output_dir", str(output), "--dtype", "float32", "--allow_poor_fit"),
    ]
