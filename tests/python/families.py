"""Tiny checkpoints with random weights of every family that is loaded, as transformers makes them: data for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from small_models import LINEAR_ROPE, LLAMA3_ROPE, SIZES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Case(NamedTuple):
    """What a config is made of beside its sizes, and how config.json spells that."""

    model_type: str
    fields: dict[str, Any]
    # None: as transformers 5 writes it. Else as transformers 4 did: the fields with these in place of rope_parameters,
    # and nothing that the class would have by default.
    older: dict[str, Any] | None = None


# Where the sizes have other names than LLaMA's, or there are fewer.
FAMILY_SIZES = {
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "opt": {
        "vocab_size": 97,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "gpt_neox": {name: size for name, size in SIZES.items() if name != "num_key_value_heads"},
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # some classes' own lie beyond so small a vocabulary


def rope(kind: str = "default", theta: float = 100.0, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **parameters}}


def older_rope(kind: str, theta: float = 100.0, **parameters: Any) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_scaling": {"type": kind, **parameters}}


THETA = {"rope_theta": 100.0}  # the older spelling of rope()
YARN = {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 2.0, "beta_slow": 0.1}
OSS_YARN = YARN | {"truncate": False}
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.5, 2.0, 3.0, 5.0]}
HALF_FACTORS = {"short_factor": [1.0, 1.2], "long_factor": [2.0, 4.0]}
LONG = {"original_max_position_embeddings": 32}
DYNAMIC = {"max_position_embeddings": 32}  # its frequencies depend on the length beyond that

HEAD = {"head_dim": 12}  # not hidden_size / num_attention_heads
WINDOW = {"sliding_window": 8}
FOUR = {"num_hidden_layers": 4}  # a pattern of layers that dropping one breaks
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]}
LATE_WINDOW = FOUR | WINDOW | {"use_sliding_window": True, "max_window_layers": 3}
SOFT_CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}
GEMMA2 = FOUR | HEAD | WINDOW | SOFT_CAPS | {"query_pre_attn_scalar": 5}
GEMMA3 = HEAD | WINDOW | {"num_hidden_layers": 6, "query_pre_attn_scalar": 5}
TWO_ROPES = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
}
OLDER_TWO_ROPES = {
    "rope_theta": 5000.0,
    "rope_local_base_freq": 100.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},  # this class overlooks "type"
}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.7,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.0,
}
NEOX_HALF = rope(partial_rotary_factor=0.5)
OLDER_NEOX_HALF = {"rotary_emb_base": 100.0, "rotary_pct": 0.5}
EIGHT = {"num_experts": 8, "num_experts_per_tok": 3}
QWEN3_MOE = EIGHT | {"moe_intermediate_size": 24}
OSS = FOUR | HEAD | WINDOW | {"num_local_experts": 6, "num_experts_per_tok": 2, "swiglu_limit": 0.6}

CASES = {
    "llama": Case("llama", {}),
    "llama-old": Case("llama", {}, {}),
    "llama-head-dim": Case("llama", HEAD | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-theta-old": Case("llama", rope(), THETA | {"rope_scaling": None}),
    "llama-linear": Case("llama", {"rope_parameters": LINEAR_ROPE}),
    "llama-linear-old": Case("llama", rope("linear", factor=4.0), older_rope("linear", factor=4.0)),
    "llama-dynamic": Case("llama", DYNAMIC | rope("dynamic", factor=4.0)),
    "llama-dynamic-old": Case("llama", DYNAMIC | rope("dynamic", factor=2.0), older_rope("dynamic", factor=2.0)),
    "llama-llama3": Case("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-llama3-old": Case(
        "llama",
        {"rope_parameters": LLAMA3_ROPE},
        {"rope_theta": 1000.0, "rope_scaling": {k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"}},
    ),
    "llama-yarn": Case("llama", rope("yarn", **YARN)),
    "llama-yarn-attention": Case("llama", rope("yarn", **YARN, attention_factor=1.7, truncate=False)),
    "llama-yarn-mscale": Case("llama", rope("yarn", **YARN, mscale=0.7, mscale_all_dim=2.0)),
    "llama-yarn-old": Case("llama", rope("yarn", **YARN), older_rope("yarn", **YARN)),
    # without the original context, which then is the context
    "llama-yarn-bare-old": Case("llama", rope("yarn", factor=2.0), older_rope("yarn", factor=2.0)),
    "mistral": Case("mistral", WINDOW),
    "mistral-head-dim": Case("mistral", HEAD | {"sliding_window": None, "num_key_value_heads": 1}),
    "mistral-old": Case("mistral", WINDOW | rope(), THETA),
    "ministral": Case("ministral", FOUR | WINDOW | ALTERNATING | {"head_dim": 8}),
    "qwen2": Case("qwen2", {}),
    "qwen2-window": Case("qwen2", LATE_WINDOW),
    "qwen2-window-old": Case("qwen2", LATE_WINDOW | {"tie_word_embeddings": True} | rope(), THETA),
    "qwen3": Case("qwen3", HEAD),
    "qwen3-window": Case("qwen3", HEAD | LATE_WINDOW | {"attention_bias": True}),
    "qwen3-old": Case("qwen3", HEAD | {"tie_word_embeddings": True} | rope(), THETA),
    "gemma": Case("gemma", HEAD),
    # "gelu" is read as its approximation, which is what those weights were trained with
    "gemma-old": Case("gemma", HEAD | {"hidden_act": "gelu"} | rope(), THETA | {"hidden_activation": None}),
    "gemma2": Case("gemma2", GEMMA2),
    "gemma2-old": Case("gemma2", GEMMA2 | rope(), THETA | {"hidden_act": "gelu_pytorch_tanh"}),
    "gemma3": Case("gemma3_text", GEMMA3 | TWO_ROPES | {"final_logit_softcapping": 2.0}),
    "gemma3-old": Case("gemma3_text", GEMMA3, {}),
    "gemma3-pattern-old": Case("gemma3_text", GEMMA3 | TWO_ROPES | {"sliding_window_pattern": 2}, OLDER_TWO_ROPES),
    "phi3": Case("phi3", WINDOW),
    "phi3-old": Case("phi3", {"tie_word_embeddings": True} | rope(), THETA | {"rope_scaling": None}),
    "phi3-partial": Case("phi3", rope(partial_rotary_factor=0.5)),
    "phi3-partial-old": Case("phi3", rope(partial_rotary_factor=0.5), THETA | {"partial_rotary_factor": 0.5}),
    "phi3-longrope": Case("phi3", LONG | rope("longrope", **HALF_FACTORS, partial_rotary_factor=0.5)),
    "phi3-longrope-old": Case("phi3", LONG | rope("longrope", **FACTORS), older_rope("longrope", **FACTORS)),
    "phi3-su-old": Case("phi3", LONG | rope("longrope", **FACTORS), older_rope("su", **FACTORS, **LONG)),
    "olmo2": Case("olmo2", {"attention_bias": True}),
    "olmo2-old": Case("olmo2", rope(), THETA),
    "smollm3": Case("smollm3", FOUR | {"no_rope_layers": [1, 0, 1, 1]}),
    "smollm3-old": Case("smollm3", FOUR | {"no_rope_layer_interval": 3}, {}),
    "granite": Case("granite", MULTIPLIERS),
    "granite-old": Case("granite", MULTIPLIERS | {"attention_bias": True, "tie_word_embeddings": True} | rope(), THETA),
    "gpt2": Case("gpt2", {}),
    "gpt2-inner": Case("gpt2", {"n_inner": 48, "tie_word_embeddings": False, "activation_function": "relu"}),
    "gpt2-unscaled": Case("gpt2", {"scale_attn_weights": False, "reorder_and_upcast_attn": True}),
    "gpt2-layer-scale": Case("gpt2", FOUR | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2-old": Case("gpt2", {}, {"n_ctx": 64, "task_specific_params": {"text-generation": {"do_sample": True}}}),
    "opt": Case("opt", {}),
    "opt-post-norm": Case("opt", {"do_layer_norm_before": False}),
    "opt-no-bias": Case("opt", {"enable_bias": False, "activation_function": "gelu"}),
    "opt-bare-norms": Case("opt", {"layer_norm_elementwise_affine": False}),
    "opt-no-final-norm": Case("opt", {"_remove_final_layer_norm": True}),
    "opt-old": Case("opt", {}, {}),
    "gpt_neox": Case("gpt_neox", NEOX_HALF),
    "gpt_neox-sequential": Case("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
    "gpt_neox-old": Case("gpt_neox", NEOX_HALF, OLDER_NEOX_HALF),
    # as later releases of transformers 4 write it: the same twice
    "gpt_neox-twice-old": Case("gpt_neox", NEOX_HALF, OLDER_NEOX_HALF | THETA | {"partial_rotary_factor": 0.5}),
    "gpt_neox-sequential-old": Case("gpt_neox", {"use_parallel_residual": False}, {}),
    "mixtral": Case("mixtral", {"num_local_experts": 6}),
    "mixtral-window": Case("mixtral", HEAD | WINDOW | {"num_local_experts": 6, "num_experts_per_tok": 3}),
    "mixtral-old": Case("mixtral", rope(), THETA),
    "qwen3_moe": Case("qwen3_moe", QWEN3_MOE | {"head_dim": 12}),
    "qwen3_moe-normalized": Case("qwen3_moe", QWEN3_MOE | {"norm_topk_prob": True}),
    "qwen3_moe-sparse-step": Case("qwen3_moe", FOUR | QWEN3_MOE | {"decoder_sparse_step": 2}),
    "qwen3_moe-dense-layers": Case("qwen3_moe", FOUR | QWEN3_MOE | {"mlp_only_layers": [1]}),
    "qwen3_moe-old": Case("qwen3_moe", FOUR | QWEN3_MOE | {"mlp_only_layers": [2]} | rope(), THETA),
    "olmoe": Case("olmoe", EIGHT),
    "olmoe-normalized": Case("olmoe", EIGHT | {"norm_topk_prob": True}),
    "olmoe-old": Case("olmoe", EIGHT | rope(), THETA),
    "gpt_oss": Case("gpt_oss", OSS | rope("yarn", **OSS_YARN)),
    "gpt_oss-no-bias": Case("gpt_oss", OSS | {"attention_bias": False, "swiglu_alpha": 1.0} | rope()),
    "gpt_oss-old": Case("gpt_oss", OSS | rope("yarn", **OSS_YARN), older_rope("yarn", **OSS_YARN)),
    "gpt_oss-default-old": Case("gpt_oss", OSS, {}),  # the class's own YaRN
}


def checkpoint(case: Case, directory: Path) -> PreTrainedModel:
    """Makes the module of a case, in float32 with seeded weights, and saves it without a tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {**FAMILY_SIZES.get(case.model_type, SIZES), **TOKENS, **case.fields}
    torch.manual_seed(0)
    # A copy, since transformers completes the rope_parameters that it is given.
    config = AutoConfig.for_model(case.model_type, **json.loads(json.dumps(fields)))
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager")
    with torch.no_grad():
        for parameter in module.parameters():  # none at what it is at first: norms at 1, biases and routers at 0
            parameter.add_(torch.randn_like(parameter) * 0.25)
    module.eval().save_pretrained(directory)
    if case.older is not None:
        kept = {name: value for name, value in fields.items() if name not in ("rope_parameters", "layer_types")}
        described = {"architectures": [type(module).__name__], "model_type": case.model_type, "torch_dtype": "float32"}
        (directory / "config.json").write_text(json.dumps(described | kept | case.older))
    return module
