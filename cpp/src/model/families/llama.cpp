#include "family.h"

namespace hemostat::family_tables {

Family llama() {
  return {
      .model_type = "llama",
      .architecture = "LlamaForCausalLM",
      .defaults = {.bos = 1, .eos = 2},
      .attention_bias = true,
      .mlp_bias = true,
      .gguf = {.name = "llama",
               .adjacent_pairs = true,
               .optional_bias = true,
               .rope_divisors = true,
               .long_divisors = true},
  };
}

}  // namespace hemostat::family_tables
