#include <cmath>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family gemma2() {
  Family family = gemma();
  family.model_type = "gemma2";
  family.architecture = "Gemma2ForCausalLM";
  family.names.attention_output_norm = "post_attention_layernorm";
  family.names.mlp_norm = "pre_feedforward_layernorm";
  family.names.mlp_output_norm = "post_feedforward_layernorm";
  family.keys.activation = "hidden_activation";
  family.defaults.kv_heads = 4;
  family.shape.output_norms = true;
  family.windows = WindowRule::by_type;
  family.window_period = 2;
  family.neutral = {{"hidden_act", {}}, {"cache_implementation", {}}};
  family.read = [](ConfigFields& fields, CheckpointConfig& config) {
    config.block.attention.scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256));
    config.block.attention.softcap = fields.cap("attn_logit_softcapping", 50);
    config.head.softcap = fields.cap("final_logit_softcapping", 30);
  };
  const auto cap = [](const CheckpointConfig& config) { return config.block.attention.softcap; };
  const auto final_cap = [](const CheckpointConfig& config) { return config.head.softcap; };
  family.gguf.name = "gemma2";
  family.gguf.windows = true;
  family.gguf.missing_window = 4096;
  family.gguf.keys = {
      {.key = "attn_logit_softcapping", .field = "attn_logit_softcapping", .value = cap, .missing = 50},
      {.key = "final_logit_softcapping", .field = "final_logit_softcapping", .value = final_cap, .missing = 30}};
  family.gguf.complete = [](nlohmann::json& config) { complete_query_scale(config, /*wide_layers=*/46); };
  return family;
}

}  // namespace hemostat::family_tables
