#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family gpt_oss() {
  using enum Stored::Order;
  const std::string experts = "mlp.experts";
  Block block;
  block.mlp.up_offset = 1;
  std::vector<GgufKey> keys = gguf_experts("num_local_experts");
  keys.push_back({.key = "expert_feed_forward_length",
                  .field = "intermediate_size",
                  .value = [](const CheckpointConfig& config) { return static_cast<double>(config.expert_size); },
                  .kind = GgufKey::Kind::integer});
  return {
      .model_type = "gpt_oss",
      .architecture = "GptOssForCausalLM",
      .names = {.router = "mlp.router", .expert_gate = "gate_up_proj.gate", .expert_up = "gate_up_proj.up"},
      .defaults = {.kv_heads = 8,
                   .head_dim = 64,
                   .context = 131072,
                   .epsilon = 1e-5,
                   .rope_theta = 150'000,
                   .rope_parameters = R"({"rope_type": "yarn", "factor": 32, "beta_fast": 32, "beta_slow": 1,
                                          "truncate": false, "original_max_position_embeddings": 4096})"},
      .shape = {.qkv_bias = true, .o_bias = true, .mlp_bias = true, .router_bias = true, .sink_logits = true},
      .block = block,
      .windows = WindowRule::by_type,
      .window_period = 2,
      .default_window = 128,
      .stored = {{.scope = Stored::Scope::experts,
                  .name = experts + ".gate_up_proj",
                  .parts = {"gate_up_proj.gate", "gate_up_proj.up"},
                  .order = alternating,
                  .transposed = true,
                  .weight = "",
                  .bias = "_bias"},
                 {.scope = Stored::Scope::experts,
                  .name = experts + ".down_proj",
                  .parts = {"down_proj"},
                  .transposed = true,
                  .weight = "",
                  .bias = "_bias"}},
      .neutral = {{"initial_context_length", {}},  // rope_scaling says it too
                  {"experts_per_token", {}}},
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            if (fields.peek("quantization_config").value("quant_method", "") == "mxfp4") {
              fields.take("quantization_config");  // loading dequantizes the experts
            }
            config.shape.qkv_bias = config.shape.o_bias = fields.boolean("attention_bias", true);
            read_experts(fields, config, 128, 4);
            config.block.mlp.slope = fields.positive("swiglu_alpha", 1.702);
            config.block.mlp.limit = fields.positive("swiglu_limit", 7);
          },
      .gguf = {.name = "gpt-oss",
               .names = {.mlp_norm = "post_attention_norm"},
               .keys = keys,
               .head = GgufArchitecture::Head::own,
               .windows = true,
               .missing_window = 128,
               .otherwise =
                   [](const CheckpointConfig& config) {
                     const bool yarn = config.rope_scaling.type == "yarn";
                     return std::string(yarn ? "rounds where YaRN's ramp begins and ends" : "");
                   }},
  };
}

}  // namespace hemostat::family_tables
