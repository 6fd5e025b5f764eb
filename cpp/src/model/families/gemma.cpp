#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family gemma() {
  return {
      .model_type = "gemma",
      .architecture = "GemmaForCausalLM",
      .defaults = {.kv_heads = 16,
                   .head_dim = 256,
                   .context = 8192,
                   .activation = "gelu_pytorch_tanh",
                   .bos = 2,
                   .eos = 1,
                   .pad = 0,
                   .tied = true},
      .shape = {.norm_offset = 1, .scaled_embedding = true},
      .attention_bias = true,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            // The official releases say gelu, and mean its tanh approximation.
            if (config.block.mlp.activation == Activation::gelu) {
              config.block.mlp.activation = Activation::gelu_tanh;
            }
            fields.take("hidden_activation");  // of releases between the two, which overrode hidden_act so
          },
      .gguf = {.name = "gemma", .head = GgufArchitecture::Head::tied},
  };
}

}  // namespace hemostat::family_tables
