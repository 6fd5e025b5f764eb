#include <cmath>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

// The text model: alone, or within a multimodal checkpoint.
Family gemma3() {
  Family family = gemma2();
  family.model_type = "gemma3_text";
  family.architecture = "Gemma3ForCausalLM";
  family.keys.local_rope_theta = "rope_local_base_freq";
  family.multimodal = "gemma3";
  family.defaults.vocab_size = 262208;  // a multimodal config leaves out what is as in the smallest model
  family.defaults.hidden_size = 2304;
  family.defaults.layers = 26;
  family.defaults.heads = 8;
  family.defaults.intermediate_size = 9216;
  family.defaults.context = 131072;
  family.defaults.rope_theta = 1'000'000;
  family.defaults.local_rope_theta = 10'000;
  family.shape.qk_norms = true;
  family.window_period = 6;
  family.neutral.push_back({"_sliding_window_pattern", {}});  // layer_types beside it say the same
  family.read = [](ConfigFields& fields, CheckpointConfig& config) {
    config.block.attention.scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256));
    fields.take("attn_logit_softcapping");  // which transformers' Gemma 3 does not read
    config.head.softcap = fields.cap("final_logit_softcapping", 0);
  };
  family.gguf.name = "gemma3";
  family.gguf.head = GgufArchitecture::Head::either;
  family.gguf.missing_window = 0;
  family.gguf.keys.erase(family.gguf.keys.begin());  // attn_logit_softcapping
  family.gguf.keys.front().missing = 0;
  family.gguf.complete = [](nlohmann::json& config) { complete_query_scale(config, /*wide_layers=*/62); };
  return family;
}

}  // namespace hemostat::family_tables
