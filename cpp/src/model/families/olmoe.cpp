#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family olmoe() {
  Block block;
  block.attention.qk_norm_scope = NormScope::all;
  return {
      .model_type = "olmoe",
      .architecture = "OlmoeForCausalLM",
      .defaults = {.context = 4096, .epsilon = 1e-5, .eos = 50279, .pad = 1},
      .shape = {.qk_norms = true},
      .block = block,
      .stored = stacked_experts({}),
      .attention_bias = true,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            read_experts(fields, config, 64, 8);
            config.block.experts.normalize = fields.boolean("norm_topk_prob", false);
          },
      .gguf = {.name = "olmoe",
               .keys = gguf_experts("num_experts"),
               .head = GgufArchitecture::Head::own,
               .own_head_dim = false,
               .grouped_heads = false},
  };
}

}  // namespace hemostat::family_tables
