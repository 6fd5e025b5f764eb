#include "family.h"

namespace hemostat::family_tables {

Family qwen3() {
  return {
      .model_type = "qwen3",
      .architecture = "Qwen3ForCausalLM",
      .defaults = {.kv_heads = 32, .head_dim = 128, .context = 32768},
      .shape = {.qk_norms = true},
      .windows = WindowRule::past_layer,
      .attention_bias = true,
      .gguf = {.name = "qwen3"},
  };
}

}  // namespace hemostat::family_tables
