#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family granite() {
  return {
      .model_type = "granite",
      .architecture = "GraniteForCausalLM",
      .defaults = {.bos = 1, .eos = 2},
      .attention_bias = true,
      .mlp_bias = true,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            config.embedding_scale = fields.positive("embedding_multiplier", 1);
            config.block.residual_scale = fields.positive("residual_multiplier", 1);
            config.block.attention.scale = fields.positive("attention_multiplier", 1);
            config.head.scale = 1 / fields.positive("logits_scaling", 1);
          },
  };
}

}  // namespace hemostat::family_tables
