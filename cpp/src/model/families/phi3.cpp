#include <algorithm>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family phi3() {
  return {
      .model_type = "phi3",
      .architecture = "Phi3ForCausalLM",
      .names = {.q = "self_attn.qkv_proj.q",
                .k = "self_attn.qkv_proj.k",
                .v = "self_attn.qkv_proj.v",
                .gate = "mlp.gate_up_proj.gate",
                .up = "mlp.gate_up_proj.up"},
      .defaults = {.context = 4096, .epsilon = 1e-5, .original_context = 4096, .bos = 1, .eos = 32000, .pad = 32000},
      .windows = WindowRule::every_layer,
      .default_window = 0,
      .stored = {{.name = "self_attn.qkv_proj",
                  .parts = {"self_attn.qkv_proj.q", "self_attn.qkv_proj.k", "self_attn.qkv_proj.v"}},
                 {.name = "mlp.gate_up_proj", .parts = {"mlp.gate_up_proj.gate", "mlp.gate_up_proj.up"}}},
      .yarn_is_longrope = true,
      .gguf = {.name = "phi3",
               .names = {.q = "attn_qkv", .k = "attn_qkv", .v = "attn_qkv", .gate = "ffn_up", .up = "ffn_up"},
               .own_head_dim = false,
               .partial_rotation = true,
               .long_divisors = true,
               .windows = true,
               .otherwise =
                   [](const CheckpointConfig& config) {
                     const bool window =
                         std::any_of(config.layers.begin(), config.layers.end(), [&](const LayerConfig& layer) {
                           return layer.window > 0 && layer.window < config.model.context;
                         });
                     return std::string(window ? "overlooks its windows" : "");
                   }},
  };
}

}  // namespace hemostat::family_tables
