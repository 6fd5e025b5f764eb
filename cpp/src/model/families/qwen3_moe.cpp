#include <algorithm>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family qwen3_moe() {
  std::vector<GgufKey> keys = gguf_experts("num_experts");
  keys.push_back({.key = "expert_feed_forward_length",
                  .field = "moe_intermediate_size",
                  .value = [](const CheckpointConfig& config) { return static_cast<double>(config.expert_size); },
                  .kind = GgufKey::Kind::integer});
  return {
      .model_type = "qwen3_moe",
      .architecture = "Qwen3MoeForCausalLM",
      .keys = {.dense_layers = "mlp_only_layers", .sparse_step = "decoder_sparse_step"},
      .defaults = {.kv_heads = 4, .context = 32768},
      .shape = {.qk_norms = true},
      .windows = WindowRule::past_layer,
      .windows_everywhere = true,
      .stored = stacked_experts({}),
      .attention_bias = true,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            read_experts(fields, config, 128, 8);
            config.expert_size = fields.integer("moe_intermediate_size", 768);
            config.block.experts.normalize = fields.boolean("norm_topk_prob", false);
            const auto step = static_cast<size_t>(fields.integer("decoder_sparse_step", 1));
            const std::vector<int64_t> dense = fields.integers("mlp_only_layers");
            for (size_t i = 0; i < config.layers.size(); ++i) {
              config.layers[i].experts = (i + 1) % step == 0 && std::count(dense.begin(), dense.end(), i) == 0;
            }
          },
      .gguf = {.name = "qwen3moe",
               .keys = keys,
               .complete = [](nlohmann::json& config) { config["norm_topk_prob"] = true; }},
  };
}

}  // namespace hemostat::family_tables
