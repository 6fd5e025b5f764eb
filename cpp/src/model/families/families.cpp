#include <algorithm>

#include "family.h"
#include "model/config.h"

namespace hemostat {

namespace family_tables {

const std::vector<Family>& all() {
  static const std::vector<Family> kAll = {
      llama(),   mistral(), ministral(), qwen2(), qwen3(),    gemma(),   gemma2(),    gemma3(), phi3(),    olmo2(),
      smollm3(), granite(), gpt2(),      opt(),   gpt_neox(), mixtral(), qwen3_moe(), olmoe(),  gpt_oss(),
  };
  return kAll;
}

const Family* find(const std::string& model_type) {
  const auto found =
      std::find_if(all().begin(), all().end(), [&](const Family& family) { return family.model_type == model_type; });
  return found == all().end() ? nullptr : &*found;
}

void read_experts(ConfigFields& fields, CheckpointConfig& config, int64_t default_experts, int64_t default_top_k) {
  const bool local = !fields.take("num_local_experts").is_null();
  constexpr int64_t kMost = 4096;  // beyond any model, so that a config that lies does not fill the memory
  const int64_t other = fields.integer("num_experts", default_experts, 1, kMost);
  config.experts = local ? fields.integer("num_local_experts", std::nullopt, 1, kMost) : other;
  config.block.experts.top_k = fields.integer("num_experts_per_tok", default_top_k, 1, config.experts);
  config.expert_size = config.intermediate_size;
  for (LayerConfig& layer : config.layers) {
    layer.experts = true;
  }
}

std::vector<GgufKey> gguf_experts(const std::string& count) {
  const auto experts = [](const CheckpointConfig& config) { return static_cast<double>(config.experts); };
  const auto top_k = [](const CheckpointConfig& config) { return static_cast<double>(config.block.experts.top_k); };
  using enum GgufKey::Kind;
  return {{.key = "expert_count", .field = count, .value = experts, .kind = integer},
          {.key = "expert_used_count", .field = "num_experts_per_tok", .value = top_k, .kind = integer}};
}

void complete_query_scale(nlohmann::json& config, int64_t wide_layers) {
  const bool wide = config.at("num_hidden_layers") == wide_layers;
  const auto heads = std::max<int64_t>(config.at("num_attention_heads").get<int64_t>(), 1);
  config["query_pre_attn_scalar"] =
      wide ? config.at("hidden_size").get<int64_t>() / heads : config.at("head_dim").get<int64_t>();
}

std::vector<Stored> stacked_experts(const Naming& names) {
  const std::string experts = "mlp.experts";
  return {
      {.scope = Stored::Scope::experts,
       .name = experts + ".gate_up_proj",
       .parts = {names.expert_gate, names.expert_up},
       .weight = "",
       .bias = "_bias",
       .read_only = true},
      {.scope = Stored::Scope::experts,
       .name = experts + ".down_proj",
       .parts = {names.expert_down},
       .weight = "",
       .bias = "_bias",
       .read_only = true},
      {.name = "mlp.gate", .parts = {names.router}, .read_only = true},
  };
}

}  // namespace family_tables

std::vector<FamilyName> families() {
  std::vector<FamilyName> names;
  for (const Family& family : family_tables::all()) {
    names.push_back({family.model_type, family.architecture});
  }
  return names;
}

}  // namespace hemostat
