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
  return family;
}

}  // namespace hemostat::family_tables
