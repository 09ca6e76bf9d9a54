"""Tiny random models of every causal language model of the Hugging Face library that can be built from its defaults."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
BLOCKS, WIDTH, VOCABULARY = 6, 32, 99
SIZES: dict[str, Any] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), BLOCKS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "attention_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "v_head_dim", "hidden_size_per_layer_input", "state_size"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "encoder_layers", "num_kv_shared_layers"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "bos_token_id"), 1),
    **{"encoder_attention_heads": 4, "pad_token_id": 0, "eos_token_id": 2, "sliding_window": 16, "scale_depth": 1.4},
    **{"residual_multiplier": 0.22, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_d_state": 8},
}
"""Names of sizes in configurations -> tiny values; a configuration takes those that it knows."""
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"head_dim": 4},
    {"head_dim": 16},
    {"head_dim": None, "num_kv_shared_layers": 0},
)
"""Other sizes, tried in this order; None leaves the family its own."""
MAX_PARAMETERS = 20_000_000


class NotBuilt(Exception):  # noqa: N818 - an outcome that is listed
    """A family that cannot be built tiny in this way; the text says why."""


def write_tiny(family: str, directory: Path) -> None:
    """Write a random decoder of a family.

    Raises:
        NotBuilt: it cannot be built.
    """
    reasons = []
    for variant in VARIANTS:
        try:
            return _write({**SIZES, **variant}, family, directory)
        except NotBuilt as reason:
            reasons.append(str(reason))
    raise NotBuilt(reasons[0])


def tiny_config(family: str, **sizes: object) -> Any:
    """The configuration of a tiny model of a family, with the sizes that it knows; None leaves it its own."""
    kind = CONFIG_MAPPING[family]
    known = {*kind().to_dict(), *getattr(kind, "attribute_map", {})}
    return kind(**{name: size for name, size in {**SIZES, **sizes}.items() if name in known and size is not None})


def _write(sizes: dict[str, Any], family: str, directory: Path) -> None:
    try:
        config = tiny_config(family, **sizes)
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
        if parameters > MAX_PARAMETERS:
            raise NotBuilt(f"{parameters / 1e6:,.0f} million parameters")
        torch.manual_seed(0)
        model = AutoModel.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
            model(input_ids=torch.arange(3, 10)[None], use_cache=False)
    except NotBuilt:
        raise
    except Exception as error:
        raise NotBuilt(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from None
    model.save_pretrained(directory)
