#include "family.h"

namespace hemostat::family_tables {

// Norms stand on the sublayers' outputs alone.
Family olmo2() {
  Block block;
  block.attention.qk_norm_scope = NormScope::all;
  return {
      .model_type = "olmo2",
      .architecture = "Olmo2ForCausalLM",
      .names = {.attention_output_norm = "post_attention_layernorm", .mlp_output_norm = "post_feedforward_layernorm"},
      .defaults = {.epsilon = 1e-5, .eos = 50279, .pad = 1},
      .shape = {.input_norms = false, .output_norms = true, .qk_norms = true},
      .block = block,
      .attention_bias = true,
      .gguf = {.name = "olmo2", .head = GgufArchitecture::Head::own, .own_head_dim = false},
  };
}

}  // namespace hemostat::family_tables
