#include "family.h"

namespace hemostat::family_tables {

Family ministral() {
  Family family = mistral();
  family.model_type = "ministral";
  family.architecture = "MinistralForCausalLM";
  family.windows = WindowRule::by_type;
  family.gguf = {};
  return family;
}

}  // namespace hemostat::family_tables
