"""Small random models: settings of those that transformers makes for the oracles, and a LLaMA's checkpoint."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 1000.0,
}


def save_llama(
    directory: Path, *, vocab: int, hidden: int, intermediate: int, blocks: int, heads: int, kv_heads: int, context: int
) -> None:
    """A float32 checkpoint with random weights, without a tokenizer; its last two tokens begin and end a text."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": vocab - 2,
        "eos_token_id": vocab - 1,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config))

    generator = torch.Generator().manual_seed(0)

    def weight(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    tensors = {"model.embed_tokens.weight": weight(vocab, hidden) * 4, "model.norm.weight": torch.ones(hidden)}
    kv = hidden // heads * kv_heads
    for index in range(blocks):
        block = f"model.layers.{index}"
        tensors |= {
            f"{block}.input_layernorm.weight": torch.ones(hidden),
            f"{block}.post_attention_layernorm.weight": torch.ones(hidden),
            f"{block}.self_attn.q_proj.weight": weight(hidden, hidden),
            f"{block}.self_attn.k_proj.weight": weight(kv, hidden),
            f"{block}.self_attn.v_proj.weight": weight(kv, hidden),
            f"{block}.self_attn.o_proj.weight": weight(hidden, hidden),
            f"{block}.mlp.gate_proj.weight": weight(intermediate, hidden),
            f"{block}.mlp.up_proj.weight": weight(intermediate, hidden),
            f"{block}.mlp.down_proj.weight": weight(hidden, intermediate),
        }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
