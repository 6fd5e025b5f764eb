#include "family.h"

namespace hemostat::family_tables {

// Mistral's models are LLaMA's but for the window, and GGUF files write them as such.
Family mistral() {
  return {
      .model_type = "mistral",
      .architecture = "MistralForCausalLM",
      .defaults = {.kv_heads = 8, .context = 131072, .bos = 1, .eos = 2},
      .windows = WindowRule::every_layer,
      .gguf = {.name = "llama",
               .adjacent_pairs = true,
               .optional_bias = true,
               .rope_divisors = true,
               .long_divisors = true},
  };
}

}  // namespace hemostat::family_tables
