// What config.json says, field by field: honoured, known to change no number, or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/model.h>

namespace hemostat {

struct CheckpointConfig {
  ModelConfig model;
  std::optional<at::ScalarType> dtype;  // of weights that are stored in several; none: it names none of ours
  int64_t layers, heads, kv_heads, head_dim, intermediate_size;
  double norm_epsilon, rope_theta;
  bool qkv_bias, o_bias, mlp_bias, tied;
  Activation activation;
  Rope rope;
  std::vector<int64_t> windows;  // one a layer; 0: none
};

// `file` names the source in messages. Throws ValueError.
CheckpointConfig parse_config(const std::string& json, const std::string& file);

// Whether a config.json of that model_type is of a family that hemostat reads, perhaps with the structure's mark.
bool is_model_type(const std::string& model_type);

// The tokens that end a text by generation_config.json, which comes before config.json; none where it names none.
std::optional<std::vector<int64_t>> generation_eos(const std::string& json, const std::string& file);

// 1/theta^(2i/head_dim): a rotation without scaling, in float32 as transformers computes it.
std::vector<float> inverse_frequencies(double theta, int64_t head_dim);

// config.json for a model of the same family with one block for each of `windows`.
std::string updated_config(const ModelConfig& config, const std::vector<int64_t>& windows, bool tied,
                           at::ScalarType dtype);

// The same with a model_type that other loaders don't know, so that none of them computes something else without a
// word.
std::string with_structure_mark(const std::string& config_json);
std::string without_structure_mark(const std::string& config_json, const std::string& file);

}  // namespace hemostat
