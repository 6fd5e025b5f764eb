#include "model/gguf/config.h"

#include <algorithm>
#include <set>

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "model/rope_config.h"
#include "model/structure.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;

// The hyperparameters of one architecture: "llama.context_length" and so on.
class Hyperparameters {
 public:
  Hyperparameters(const File& file, const std::string& architecture) : file_(file), prefix_(architecture + ".") {}

  std::optional<int64_t> integer(const std::string& name) { return file_.integer(take(name)); }
  std::optional<double> number(const std::string& name) { return file_.number(take(name)); }
  std::optional<std::string_view> text(const std::string& name) { return file_.text(take(name)); }
  std::optional<bool> boolean(const std::string& name) { return file_.boolean(take(name)); }

  int64_t required_integer(const std::string& name) { return required(name, integer(name)); }
  double required_number(const std::string& name) { return required(name, number(name)); }

  template <typename T>
  void only(const std::string& name, std::optional<T> value, T supported) {
    if (value && *value != supported) {
      file_.fail(fmt::format("has {}{} {}; only {} is supported", prefix_, name, *value, supported));
    }
  }

  void harmless(const std::string& name) { take(name); }

  // Everything not taken must be known to change nothing, and none is.
  void refuse_the_rest() const {
    for (auto entry = file_.metadata().lower_bound(prefix_);
         entry != file_.metadata().end() && entry->first.starts_with(prefix_); ++entry) {
      if (seen_.count(entry->first) == 0) {
        file_.fail(fmt::format("has metadata '{}', which is not supported", entry->first));
      }
    }
  }

 private:
  std::string take(const std::string& name) { return *seen_.insert(prefix_ + name).first; }

  template <typename T>
  T required(const std::string& name, std::optional<T> value) const {
    if (!value) {
      file_.fail(fmt::format("has no metadata '{}{}'", prefix_, name));
    }
    return *value;
  }

  const File& file_;
  std::string prefix_;
  std::set<std::string> seen_;
};

at::ScalarType stored_dtype(const File& file) {
  std::set<std::string_view> types;
  for (const auto& [name, info] : file.tensors()) {
    if (info.shape.size() > 1) {
      types.insert(std::string_view(info.type->name));
    }
  }
  return types.count("BF16") != 0 ? at::kBFloat16 : types.count("F16") != 0 ? at::kHalf : at::kFloat;
}

json rope_scaling(const File& file, Hyperparameters& parameters) {
  const std::string_view type = parameters.text("rope.scaling.type").value_or("linear");
  const double older = parameters.number("rope.scale_linear").value_or(0);
  const double factor = parameters.number("rope.scaling.factor").value_or(older);
  for (const char* only_yarn : {"original_context_length", "finetuned"}) {
    parameters.harmless(std::string("rope.scaling.") + only_yarn);
  }
  parameters.only<double>("rope.scaling.attn_factor", parameters.number("rope.scaling.attn_factor"), 1);
  if (type != "none" && type != "linear") {
    file.fail(fmt::format("has rope.scaling.type '{}'; none and linear are supported", type));
  }
  if (type == "none" || factor == 0 || factor == 1) {
    return nullptr;
  }
  return {{"type", "linear"}, {"factor", factor}};
}

// The frequencies that the file's divisors leave of `rope`'s.
Rope divided(const File& file, const Rope& rope) {
  const auto found = file.tensors().find(kRopeFactors);
  if (found == file.tensors().end()) {
    return rope;
  }
  const TensorInfo& info = found->second;
  if (info.type->blocks || info.shape != rope.inverse_frequencies.sizes().vec()) {
    file.fail(fmt::format("has in tensor '{}' not one divisor for each of {} frequencies", kRopeFactors,
                          rope.inverse_frequencies.size(0)));
  }
  const at::Tensor frequencies = rope.inverse_frequencies.div(file.view(info).to(at::kFloat));
  if (!at::isfinite(frequencies).all().item<bool>()) {
    file.fail(fmt::format("has in tensor '{}' divisors that give rotations that are not finite", kRopeFactors));
  }
  Rope result = rope;
  result.inverse_frequencies = frequencies;
  return result;
}

bool has(const File& file, const char* tensor) { return file.tensors().count(std::string_view(tensor)) != 0; }

}  // namespace

CheckpointConfig read_config(const File& file) {
  const std::string name(file.text("general.architecture").value_or(""));
  const Family* family = family_tables::find(name);
  if (family == nullptr || family->gguf.name != name) {
    file.fail(
        fmt::format("has the architecture '{}'; llama (as which Mistral's models are written) and qwen2 are "
                    "supported",
                    name));
  }
  const int64_t parts = file.integer("split.count").value_or(1);
  if (parts > 1) {
    file.fail(fmt::format("is one of {} parts of a split file; merge them first", parts));
  }
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end()) {
    file.fail("has no tensor 'token_embd.weight'");
  }

  Hyperparameters parameters(file, name);
  json config = {
      {"architectures", {family->architecture}},
      {"model_type", name},
      {"hidden_act", "silu"},
      {"vocab_size", embedding->second.shape[0]},
      {"max_position_embeddings", parameters.required_integer("context_length")},
      {"hidden_size", parameters.required_integer("embedding_length")},
      {"intermediate_size", parameters.required_integer("feed_forward_length")},
      {"num_hidden_layers", parameters.required_integer("block_count")},
      {"num_attention_heads", parameters.required_integer("attention.head_count")},
      {"rms_norm_eps", parameters.required_number("attention.layer_norm_rms_epsilon")},
      {"rope_theta", parameters.number("rope.freq_base").value_or(10000.0)},
      {"tie_word_embeddings", !has(file, "output.weight")},
  };
  const at::ScalarType dtype = stored_dtype(file);
  config["dtype"] = dtype == at::kFloat ? "float32" : dtype == at::kHalf ? "float16" : "bfloat16";
  config["num_key_value_heads"] =
      parameters.integer("attention.head_count_kv").value_or(config["num_attention_heads"].get<int64_t>());
  if (family->gguf.optional_bias) {
    config["attention_bias"] = has(file, "blk.0.attn_q.bias");
    config["mlp_bias"] = has(file, "blk.0.ffn_up.bias");
  }
  const std::optional<int64_t> key_length = parameters.integer("attention.key_length");
  if (key_length) {
    config["head_dim"] = *key_length;
    parameters.only<int64_t>("attention.value_length", parameters.integer("attention.value_length"), *key_length);
  }
  const json scaling = rope_scaling(file, parameters);
  if (!scaling.is_null()) {
    config["rope_scaling"] = scaling;
  }
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
  parameters.only<int64_t>("vocab_size", parameters.integer("vocab_size"), embedding->second.shape[0]);
  parameters.only<int64_t>("expert_count", parameters.integer("expert_count"), 0);
  parameters.only<int64_t>("expert_used_count", parameters.integer("expert_used_count"), 0);
  parameters.only<bool>("attention.causal", parameters.boolean("attention.causal"), true);
  for (const char* factor : {"logit_scale", "embedding_scale", "residual_scale"}) {
    parameters.only<double>(factor, parameters.number(factor), 1);
  }
  for (const char* cap : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    parameters.only<double>(cap, parameters.number(cap), 0);
  }
  for (const char* none : {"expert_shared_count", "leading_dense_block_count", "pooling_type"}) {
    parameters.only<int64_t>(none, parameters.integer(none), 0);
  }
  parameters.only<bool>("use_parallel_residual", parameters.boolean("use_parallel_residual"), false);
  parameters.harmless("tensor_data_layout");
  const std::optional<int64_t> window = parameters.integer("attention.sliding_window");
  if (window && *window > 0 && *window < config["max_position_embeddings"].get<int64_t>()) {
    file.fail(fmt::format("has {}.attention.sliding_window {}; windows are not supported", name, *window));
  }
  const std::optional<int64_t> rotated = parameters.integer("rope.dimension_count");
  parameters.refuse_the_rest();

  // As config.json says it, so that the same rules hold; blocks that a file cannot hold are none to make room for.
  if (config["num_hidden_layers"].get<int64_t>() > static_cast<int64_t>(file.tensors().size())) {
    file.fail(fmt::format("has {}.block_count {}, but only {} tensors", name,
                          config["num_hidden_layers"].get<int64_t>(), file.tensors().size()));
  }
  CheckpointConfig result = parse_config(config.dump(2) + "\n", file.path());
  if (rotated && *rotated != result.head_dim) {
    file.fail(fmt::format("rotates {} of a head's {} features; partial rotation is not supported", *rotated,
                          result.head_dim));
  }
  for (LayerConfig& layer : result.layers) {
    layer.rope = divided(file, layer.rope);
  }
  return result;
}

std::string tensor_name(const Naming& names, const std::string& name) {
  const size_t dot = name.rfind('.');
  const std::string owner = name.substr(0, dot), kind = name.substr(std::min(dot, name.size()));
  if (owner == names.embedding) return "token_embd" + kind;
  if (owner == names.final_norm) return "output_norm" + kind;
  if (owner == names.head) return "output" + kind;
  if (!owner.starts_with(names.block)) return "";
  const size_t end = owner.find('.', names.block.size());
  if (end == std::string::npos) return "";
  const std::string block = owner.substr(names.block.size(), end - names.block.size()), part = owner.substr(end + 1);
  const std::pair<const std::string&, const char*> parts[] = {
      {names.q, "attn_q"},          {names.k, "attn_k"},  {names.v, "attn_v"},      {names.o, "attn_output"},
      {names.gate, "ffn_gate"},     {names.up, "ffn_up"}, {names.down, "ffn_down"}, {names.attention_norm, "attn_norm"},
      {names.mlp_norm, "ffn_norm"},
  };
  for (const auto& [ours, theirs] : parts) {
    if (part == ours) return fmt::format("blk.{}.{}{}", block, theirs, kind);
  }
  return "";
}

std::string add_config(Writer& writer, const Model& model, const CheckpointConfig& config) {
  const std::string name = family_of(model.config).gguf.name;
  const auto fail = [](const std::string& what) {
    throw ValueError(fmt::format("hemostat.Model.save: a GGUF file cannot express {}", what));
  };
  if (name.empty()) {
    fail(fmt::format("a model of the family {} yet", model.config.family));
  }
  if (config.block.mlp.activation != Activation::silu || config.block.mlp.slope != 1) {
    fail("an activation other than silu");
  }
  Rope plain;
  plain.inverse_frequencies = at::tensor(inverse_frequencies(config.rope_theta, config.head_dim));
  const Rope& rope = model.blocks.empty() ? plain : model.blocks[0].attention.rope;
  for (const Block& block : model.blocks) {
    const int64_t window = block.attention.window;
    if (window > 0 && window < model.config.context) {
      fail(fmt::format("a window of {} tokens in a context of {}", window, model.config.context));
    }
    const Rope& other = block.attention.rope;
    if (other.dynamic_factor > 0 || other.long_inverse_frequencies.defined()) {
      fail("rotations that depend on how much text is read (dynamic, longrope)");
    }
    if (!other.inverse_frequencies.defined() || other.attention_scale != 1 ||
        !same(other.inverse_frequencies, rope.inverse_frequencies) ||
        other.inverse_frequencies.sizes() != plain.inverse_frequencies.sizes()) {
      fail("rotations that differ between blocks, are partial or are scaled");
    }
  }

  const auto set = [&](const char* key, const auto& value) { writer.add(fmt::format("{}.{}", name, key), value); };
  const auto count = [&](const char* key, int64_t value) { set(key, static_cast<uint32_t>(value)); };
  writer.add("general.architecture", name);
  writer.add("general.type", "model");
  count("vocab_size", model.config.vocab_size);
  count("context_length", model.config.context);
  count("embedding_length", model.config.hidden_size);
  count("block_count", static_cast<int64_t>(model.blocks.size()));
  count("feed_forward_length", config.intermediate_size);
  count("attention.head_count", config.heads);
  count("attention.head_count_kv", config.kv_heads);
  set("attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_epsilon));
  count("rope.dimension_count", config.head_dim);
  set("rope.freq_base", static_cast<float>(config.rope_theta));
  if (config.head_dim * config.heads != model.config.hidden_size) {
    count("attention.key_length", config.head_dim);
    count("attention.value_length", config.head_dim);
  }
  const auto token = [&](const char* kind, int64_t id) {
    writer.add(fmt::format("tokenizer.ggml.{}_token_id", kind), static_cast<uint32_t>(id));
  };
  if (model.config.bos_token_id) {
    token("bos", *model.config.bos_token_id);
  }
  const char* const kinds[] = {"eos", "eot", "eom"};
  for (size_t i = 0; i < model.config.eos_token_ids.size(); ++i) {
    if (i < std::size(kinds)) {
      token(kinds[i], model.config.eos_token_ids[i]);
    } else if (i == std::size(kinds)) {
      fail(fmt::format("more than {} tokens that end a text", std::size(kinds)));
    }
  }

  std::string note;
  const at::Tensor frequencies = rope.inverse_frequencies.to(at::kCPU);
  const at::Tensor divisors = plain.inverse_frequencies.div(frequencies);
  if (!at::equal(frequencies, plain.inverse_frequencies)) {
    const float factor = divisors[0].item<float>();
    if (at::equal(plain.inverse_frequencies.div(factor), frequencies)) {
      set("rope.scaling.type", "linear");
      set("rope.scaling.factor", factor);
    } else {
      writer.add(kRopeFactors, divisors);
    }
    note = "its scaled rotation";
  }
  if (name == "llama" && (config.shape.qkv_bias || config.shape.mlp_bias)) {
    note += std::string(note.empty() ? "" : " and ") + "its biases";
  }
  return note;
}

}  // namespace hemostat::gguf
