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
      .gguf = {.name = "granite",
               .keys = {{.key = "embedding_scale",
                         .field = "embedding_multiplier",
                         .value = [](const CheckpointConfig& config) { return config.embedding_scale; },
                         .missing = 1},
                        {.key = "residual_scale",
                         .field = "residual_multiplier",
                         .value = [](const CheckpointConfig& config) { return config.block.residual_scale; },
                         .missing = 1},
                        {.key = "attention.scale",
                         .field = "attention_multiplier",
                         .value = [](const CheckpointConfig& config) { return config.block.attention.scale; }},
                        {.key = "logit_scale",
                         .field = "logits_scaling",
                         .value = [](const CheckpointConfig& config) { return 1 / config.head.scale; }}},
               .adjacent_pairs = true,
               .optional_bias = true,
               .rope_divisors = true,
               .long_divisors = true,
               .only_true = {"rope.scaling.finetuned"}},
  };
}

}  // namespace hemostat::family_tables
