#include <cmath>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family gpt2() {
  return {
      .model_type = "gpt2",
      .architecture = "GPT2LMHeadModel",
      .names = {.embedding = "transformer.wte",
                .positions = "transformer.wpe",
                .block = "transformer.h.",
                .final_norm = "transformer.ln_f",
                .q = "attn.c_attn.q",
                .k = "attn.c_attn.k",
                .v = "attn.c_attn.v",
                .o = "attn.c_proj",
                .up = "mlp.c_fc",
                .down = "mlp.c_proj",
                .attention_norm = "ln_1",
                .mlp_norm = "ln_2"},
      .keys = {.hidden_size = "n_embd",
               .layers = "n_layer",
               .heads = "n_head",
               .kv_heads = "",
               .head_dim = "",
               .intermediate_size = "n_inner",
               .context = "n_positions",
               .activation = "activation_function",
               .epsilon = "layer_norm_epsilon"},
      .defaults = {.intermediate_multiple = 4,
                   .context = 1024,
                   .activation = "gelu_new",
                   .epsilon = 1e-5,
                   .bos = 50256,
                   .eos = 50256,
                   .tied = true},
      .shape = {.norm = NormKind::layer,
                .norm_bias = true,
                .gate = false,
                .qkv_bias = true,
                .o_bias = true,
                .mlp_bias = true,
                .rotary = false},
      .stored = {{.name = "attn.c_attn",
                  .parts = {"attn.c_attn.q", "attn.c_attn.k", "attn.c_attn.v"},
                  .transposed = true},
                 {.name = "attn.c_proj", .parts = {"attn.c_proj"}, .transposed = true},
                 {.name = "mlp.c_fc", .parts = {"mlp.c_fc"}, .transposed = true},
                 {.name = "mlp.c_proj", .parts = {"mlp.c_proj"}, .transposed = true}},
      .ignored = {".attn.bias", ".attn.masked_bias"},
      .neutral = {{"n_ctx", {}},
                  {"reorder_and_upcast_attn", {}},  // changes how, not what, is computed
                  {"summary_activation", {}},
                  {"summary_first_dropout", {}},
                  {"summary_proj_to_labels", {}},
                  {"summary_type", {}},
                  {"summary_use_proj", {}}},
      .padded_embedding = false,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            const bool scaled = fields.boolean("scale_attn_weights", true);
            const double scale = scaled ? 1 / std::sqrt(static_cast<double>(config.head_dim)) : 1;
            const bool by_layer = fields.boolean("scale_attn_by_inverse_layer_idx", false);
            for (size_t i = 0; i < config.layers.size(); ++i) {
              config.layers[i].attention_scale = by_layer ? scale / static_cast<double>(i + 1) : scaled ? 0 : scale;
            }
          },
      .gguf = {.name = "gpt2", .names = {.q = "attn_qkv", .k = "attn_qkv", .v = "attn_qkv"}, .own_head_dim = false},
  };
}

}  // namespace hemostat::family_tables
