#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family mixtral() {
  const Naming names = {.router = "block_sparse_moe.gate",
                        .expert = "block_sparse_moe.experts.",
                        .expert_gate = "w1",
                        .expert_up = "w3",
                        .expert_down = "w2"};
  return {
      .model_type = "mixtral",
      .architecture = "MixtralForCausalLM",
      .names = names,
      .defaults = {.kv_heads = 8, .context = 131072, .epsilon = 1e-5, .rope_theta = 1'000'000, .bos = 1, .eos = 2},
      .windows = WindowRule::every_layer,
      .default_window = 0,
      .stored = stacked_experts(names),
      .read = [](ConfigFields& fields, CheckpointConfig& config) { read_experts(fields, config, 8, 2); },
      .gguf = {.name = "llama",
               .keys = gguf_experts("num_local_experts"),
               .adjacent_pairs = true,
               .rope_divisors = true,
               .long_divisors = true},
  };
}

}  // namespace hemostat::family_tables
