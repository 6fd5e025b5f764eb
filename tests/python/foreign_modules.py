"""Modules that are none of the families: small random ones of transformers, of which hemostat knows nothing."""

from collections.abc import Callable
from typing import Any

import torch
from small_models import SIZES

VOCABULARY = SIZES["vocab_size"]


def mamba(transformers: Any) -> Any:
    """State spaces: dt_proj's weight is read, but the layer never called."""
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            state_size=8,
            time_step_rank=16,
        )
    )


def deepseek_v3(transformers: Any, **settings: Any) -> Any:
    """Latent attention, a block without experts before one whose experts lie in tensors of three dimensions."""
    return transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=8,
            v_head_dim=8,
            first_k_dense_replace=1,
            max_position_embeddings=64,
            attention_dropout=0.3,
            **settings,
        )
    )


def t5(transformers: Any) -> Any:
    """An encoder and a decoder, its head tied to the embedding."""
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=VOCABULARY, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    )


def falcon(transformers: Any) -> Any:
    """A subclass of nn.Linear with a forward of its own."""
    return transformers.FalconForCausalLM(
        transformers.FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    )


FOREIGN: dict[str, Callable[[Any], Any]] = {"mamba": mamba, "deepseek_v3": deepseek_v3, "t5": t5, "falcon": falcon}


def autoencoder(generator: torch.Generator) -> torch.nn.Module:
    """No language model; its dropout is on."""
    module = torch.nn.Sequential(
        torch.nn.Linear(16, 32),
        torch.nn.BatchNorm1d(32),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(32, 16),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.train()
