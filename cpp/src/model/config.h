// What config.json says, field by field: honoured, known to change no number, or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/model.h>

#include "families/family.h"
#include "rope_config.h"

namespace hemostat {

struct LayerConfig {
  int64_t window = 0;  // 0: none
  Rope rope;
  double attention_scale = 0;  // 0: the block's
  bool experts = false;        // a mixture in the place of the MLP
};

// A family with what config.json says of one of its models.
struct CheckpointConfig {
  ModelConfig model;
  std::optional<at::ScalarType> dtype;  // of weights that are stored in several; none: it names none of ours
  int64_t heads, kv_heads, head_dim, intermediate_size;
  int64_t experts = 0, expert_size = 0;
  double norm_epsilon, rope_theta = 0, local_rope_theta = 0;
  RopeScaling rope_scaling;
  bool tied;
  Shape shape;
  Block block;  // what all blocks have alike, without tensors
  Head head;    // without tensors
  double embedding_scale = 1;
  int64_t position_offset = 0;
  std::vector<LayerConfig> layers;
};

// Of a multimodal checkpoint's config.json, whose language model is of a family that hemostat reads, that model's own;
// else none.
std::optional<std::string> language_model_config(const std::string& json, const std::string& file);

// `file` names the source in messages. Throws ValueError.
CheckpointConfig parse_config(const std::string& json, const std::string& file);

// Whether a config.json of that model_type is of a family that hemostat reads, perhaps with the structure's mark.
bool is_model_type(const std::string& model_type);

// The family of a model, which parse_config() found.
const Family& family_of(const ModelConfig& config);

// The tokens that end a text by generation_config.json, which comes before config.json; none where it names none.
std::optional<std::vector<int64_t>> generation_eos(const std::string& json, const std::string& file);

// config.json for a model of the same family with these blocks, as far as it can say so.
std::string updated_config(const ModelConfig& config, const std::vector<Block>& blocks, bool tied,
                           at::ScalarType dtype);

// The same with the sizes of a model whose blocks are alike; as it is where it then says no model's.
std::string with_sizes(const std::string& config_json, const Model& model);

// The same with a model_type that other loaders don't know, so that none of them computes something else without a
// word.
std::string with_structure_mark(const std::string& config_json);
std::string without_structure_mark(const std::string& config_json, const std::string& file);

}  // namespace hemostat
