#include "model/gguf/config.h"

#include <algorithm>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "model/gguf/hyperparameters.h"
#include "model/gguf/rope.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;

bool has(const File& file, const std::string& tensor) { return file.tensors().count(tensor) != 0; }

bool has_experts(const Family& family) {
  return std::any_of(family.gguf.keys.begin(), family.gguf.keys.end(),
                     [](const GgufKey& key) { return key.key == "expert_count"; });
}

// Of families whose files have one architecture, the first with experts, or without, as the file.
const Family& family_of(const File& file) {
  const std::string name(file.text("general.architecture").value_or(""));
  const bool experts = !name.empty() && file.integer(name + ".expert_count").value_or(0) > 0;
  const Family* found = nullptr;
  std::vector<std::string> known;
  for (const Family& family : family_tables::all()) {
    const std::string& own = family.gguf.name;
    if (own.empty()) {
      continue;
    }
    if (own == name && (found == nullptr || has_experts(*found) != experts)) {
      found = &family;
    }
    if (std::find(known.begin(), known.end(), own) == known.end()) {
      known.push_back(own);
    }
  }
  if (found == nullptr) {
    file.fail(fmt::format("has the architecture '{}'; supported are {}", name, fmt::join(known, ", ")));
  }
  return *found;
}

at::ScalarType stored_dtype(const File& file) {
  std::set<std::string_view> types;
  for (const auto& [name, info] : file.tensors()) {
    if (info.shape.size() > 1) {
      types.insert(std::string_view(info.type->name));
    }
  }
  return types.count("BF16") != 0 ? at::kBFloat16 : types.count("F16") != 0 ? at::kHalf : at::kFloat;
}

void read_sizes(Hyperparameters& parameters, const Family& family, json& config) {
  const File& file = parameters.file();
  const ConfigKeys& keys = family.keys;
  const int64_t vocabulary = file.tensors().find("token_embd.weight")->second.shape[0];
  parameters.only_integer("vocab_size", vocabulary);
  const int64_t hidden = parameters.required_integer("embedding_length");
  const int64_t heads = parameters.required_integer("attention.head_count");
  const int64_t kv_heads = parameters.integer("attention.head_count_kv").value_or(heads);
  config["vocab_size"] = vocabulary;
  config[keys.context] = parameters.required_integer("context_length");
  config[keys.hidden_size] = hidden;
  config[keys.intermediate_size] = parameters.required_integer("feed_forward_length");
  config[keys.layers] = parameters.required_integer("block_count");
  config[keys.heads] = heads;
  if (!keys.kv_heads.empty()) {
    config[keys.kv_heads] = kv_heads;
  }
  if (kv_heads != heads && (keys.kv_heads.empty() || !family.gguf.grouped_heads)) {
    file.fail(fmt::format("has {} key-value heads for {} heads; {} takes as many", kv_heads, heads, family.gguf.name));
  }
  const bool rms = family.shape.norm == NormKind::rms;
  config[keys.epsilon] =
      parameters.required_number(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon");

  const std::optional<int64_t> key_length = parameters.integer("attention.key_length");
  const int64_t usual = heads > 0 ? hidden / heads : 0;
  if (key_length && *key_length != usual && !family.gguf.own_head_dim) {
    file.fail(fmt::format("has heads of {} features, where {} takes embedding_length / head_count", *key_length,
                          family.gguf.name));
  }
  if (!keys.head_dim.empty() && (key_length || family.defaults.head_dim > 0)) {
    config[keys.head_dim] = key_length.value_or(usual);
  }
  parameters.only_integer("attention.value_length", key_length.value_or(usual));
  read_rope(parameters, family, key_length.value_or(usual), config);
}

void read_own_keys(Hyperparameters& parameters, const Family& family, json& config) {
  for (const GgufKey& key : family.gguf.keys) {
    if (key.kind == GgufKey::Kind::boolean) {
      config[key.field] = parameters.required(key.key, parameters.boolean(key.key));
      continue;
    }
    const std::optional<double> given = parameters.number(key.key);
    const double value = parameters.required(key.key, given ? given : key.missing);
    if (key.kind == GgufKey::Kind::integer) {
      config[key.field] = static_cast<int64_t>(value);
    } else {
      config[key.field] = value == 0 ? json(nullptr) : json(value);
    }
  }
}

void read_windows(Hyperparameters& parameters, const Family& family, json& config) {
  const std::optional<int64_t> given = parameters.integer("attention.sliding_window");
  const int64_t context = config[family.keys.context].get<int64_t>();
  if (!family.gguf.windows) {
    if (given && *given > 0 && *given < context) {
      parameters.file().fail(
          fmt::format("has {}.attention.sliding_window {}; windows are not supported", family.gguf.name, *given));
    }
    return;
  }
  const int64_t window = given.value_or(family.gguf.missing_window);
  config["sliding_window"] = window > 0 ? json(window) : json(nullptr);
  if (family.window_period == 0) {
    return;
  }
  const char* pattern = "attention.sliding_window_pattern";
  const auto each = parameters.array(pattern);
  const auto layers = each ? each->integers() : std::nullopt;
  const int64_t period = parameters.integer_of(pattern).value_or(family.window_period);
  const auto most = static_cast<int64_t>(parameters.file().tensors().size());
  json& types = config["layer_types"] = json::array();
  for (int64_t i = 0; i < std::min(config[family.keys.layers].get<int64_t>(), most); ++i) {
    const bool slides = layers && static_cast<size_t>(i) < layers->size() ? (*layers)[i] != 0
                        : period > 0                                      ? (i + 1) % period != 0
                                                                          : true;
    types.push_back(slides ? "sliding_attention" : "full_attention");
  }
}

void read_tokens(const File& file, json& config) {
  config["bos_token_id"] = config["eos_token_id"] = nullptr;
  if (const auto bos = file.token("bos")) {
    config["bos_token_id"] = *bos;
  }
  for (const char* kind : {"eos", "eot", "eom"}) {  // all that end a text
    const auto id = file.token(kind);
    json& known = config["eos_token_id"];
    if (id && known.is_null()) {
      known = json::array({*id});
    } else if (id && std::find(known.begin(), known.end(), *id) == known.end()) {
      known.push_back(*id);
    }
  }
  if (config["eos_token_id"].is_array() && config["eos_token_id"].size() == 1) {
    config["eos_token_id"] = json(config["eos_token_id"][0]);
  }
}

// What would compute something else, for an architecture that does not have it.
void refuse_the_rest(Hyperparameters& parameters) {
  for (const char* none :
       {"expert_count", "expert_used_count", "expert_shared_count", "leading_dense_block_count", "pooling_type"}) {
    parameters.only_integer(none, 0);
  }
  for (const char* factor : {"logit_scale", "embedding_scale", "residual_scale"}) {
    parameters.only_number(factor, 1);
  }
  for (const char* cap : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    parameters.only_number(cap, 0);
  }
  parameters.only_boolean("attention.causal", true);
  parameters.only_boolean("use_parallel_residual", false);
  parameters.harmless("tensor_data_layout");
  parameters.refuse_the_rest();
}

}  // namespace

CheckpointConfig read_config(const File& file) {
  const Family& family = family_of(file);
  const GgufArchitecture& architecture = family.gguf;
  const int64_t parts = file.integer("split.count").value_or(1);
  if (parts > 1) {
    file.fail(fmt::format("is one of {} parts of a split file; merge them first", parts));
  }
  if (!has(file, "token_embd.weight")) {
    file.fail("has no tensor 'token_embd.weight'");
  }
  const bool own_head = has(file, "output.weight");
  if (architecture.head != GgufArchitecture::Head::either &&
      own_head != (architecture.head == GgufArchitecture::Head::own)) {
    file.fail(fmt::format("has {} tensor 'output.weight', but a file of {} has {}", own_head ? "the" : "no",
                          architecture.name, own_head ? "none" : "it"));
  }

  Hyperparameters parameters(file, architecture.name);
  const at::ScalarType dtype = stored_dtype(file);
  json config = {
      {"architectures", {family.architecture}},
      {"model_type", family.model_type},
      {"tie_word_embeddings", !own_head},
      {"dtype", dtype == at::kFloat  ? "float32"
                : dtype == at::kHalf ? "float16"
                                     : "bfloat16"},
  };
  for (const std::string& flag : architecture.only_true) {
    parameters.only_boolean(flag, true);
  }
  read_sizes(parameters, family, config);
  read_own_keys(parameters, family, config);
  read_windows(parameters, family, config);
  if (architecture.optional_bias) {
    config["attention_bias"] = has(file, fmt::format("blk.0.{}.bias", architecture.names.q));
    config["mlp_bias"] = has(file, fmt::format("blk.0.{}.bias", architecture.names.up));
  }
  read_tokens(file, config);
  if (architecture.complete != nullptr) {
    architecture.complete(config);
  }
  refuse_the_rest(parameters);

  // As config.json says it, so that the same rules hold; blocks that a file cannot hold are none to make room for.
  const auto blocks = config[family.keys.layers].get<int64_t>();
  if (blocks > static_cast<int64_t>(file.tensors().size())) {
    file.fail(
        fmt::format("has {}.block_count {}, but only {} tensors", architecture.name, blocks, file.tensors().size()));
  }
  CheckpointConfig result = parse_config(config.dump(2) + "\n", file.path());
  for (LayerConfig& layer : result.layers) {
    layer.rope = divided(file, family, layer.rope);
  }
  return result;
}

}  // namespace hemostat::gguf
