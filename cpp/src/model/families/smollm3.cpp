#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

// Every fourth layer sees no positions.
Family smollm3() {
  return {
      .model_type = "smollm3",
      .architecture = "SmolLM3ForCausalLM",
      .keys = {.rotated_layers = "no_rope_layers"},
      .defaults = {.kv_heads = 4,
                   .context = 32768,
                   .rope_theta = 2'000'000,
                   .bos = 128000,
                   .eos = 128001,
                   .pad = 128004,
                   .tied = true},
      .windows = WindowRule::by_type,
      .default_window = 0,
      .attention_bias = true,
      .mlp_bias = true,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            const int64_t interval = fields.integer("no_rope_layer_interval", 4);
            const std::vector<int64_t> given = fields.integers("no_rope_layers", config.layers.size());
            const bool windows = fields.boolean("use_sliding_window", false);
            const bool typed = !fields.take("layer_types").is_null();
            for (size_t i = 0; i < config.layers.size(); ++i) {
              const bool rotated = given.empty() ? (i + 1) % interval != 0 : given[i] != 0;
              if (!rotated) {
                config.layers[i].rope = {};
              }
              if (!windows || (!typed && rotated)) {
                config.layers[i].window = 0;
              }
            }
          },
      .gguf = {.name = "smollm3", .adjacent_pairs = true},
  };
}

}  // namespace hemostat::family_tables
