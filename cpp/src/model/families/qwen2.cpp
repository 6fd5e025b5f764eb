#include "family.h"

namespace hemostat::family_tables {

Family qwen2() {
  return {
      .model_type = "qwen2",
      .architecture = "Qwen2ForCausalLM",
      .defaults = {.kv_heads = 32, .context = 32768},
      .shape = {.qkv_bias = true},
      .windows = WindowRule::past_layer,
      .gguf = {.name = "qwen2", .own_head_dim = false},
  };
}

}  // namespace hemostat::family_tables
