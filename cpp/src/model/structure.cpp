#include "structure.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "json.h"
#include "skeleton.h"

namespace hemostat {

// One list of fields serves all: a Writer fills JSON from the model, a Reader the model from JSON, and a Collector
// takes the tensors, so that parts can be compared. A field that a file does not have is neutral, so that what is saved
// today can be read when there are more fields; one that is not known is refused, since it may not be neutral.
namespace {

using nlohmann::json;

constexpr int64_t kVersion = 3;  // 2: enumerations were numbers

std::vector<int64_t> shape(const at::Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

class Writer {
 public:
  explicit Writer(bool words) : words_(words) {}

  template <typename T>
  void field(const char* name, const T& value) {
    object[name] = value;
  }
  void field(const char* name, const at::Tensor& tensor) {
    if (tensor.defined()) {
      object[name] = shape(tensor);
    }
  }
  void numbers(const char* name, const at::Tensor& tensor) {
    if (tensor.defined()) {
      const at::Tensor values = tensor.to(at::kCPU).contiguous();
      object[name] =
          std::vector<float>(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
    }
  }
  template <typename T, typename Fields>
  void part(const char* name, T& value, const Fields& fields) {
    Writer inner(words_);
    fields(inner, value);
    object[name] = std::move(inner.object);
  }
  template <typename T, typename Fields>
  void parts(const char* name, std::vector<T>& values, const Fields& fields) {
    object[name] = json::array();
    for (T& value : values) {
      Writer inner(words_);
      fields(inner, value);
      object[name].push_back(std::move(inner.object));
    }
  }
  template <typename Enum, size_t n>
  void choice(const char* name, Enum& value, const std::array<const char*, n>& words) {
    const auto index = static_cast<size_t>(value);
    object[name] = words_ ? json(words[index]) : json(index);
  }
  json object = json::object();

 private:
  bool words_;  // spell enumerations as words
};

class Reader {
 public:
  explicit Reader(const json& given) : object(given) {}

  void field(const char* name, bool& value) {
    if (has(name)) {
      value = object.at(name).get<bool>();
    }
  }
  void field(const char* name, double& value) {
    if (has(name)) {
      value = object.at(name).get<double>();
    }
  }
  void field(const char* name, int64_t& value) {
    if (has(name)) {
      value = integer(name, object.at(name));
    }
  }
  void field(const char* name, at::Tensor& tensor) {
    if (has(name)) {
      std::vector<int64_t> sizes;
      for (const json& size : object[name]) {
        sizes.push_back(integer(name, size));
      }
      tensor = shape_only(sizes);
    }
  }
  void numbers(const char* name, at::Tensor& tensor) {
    if (has(name)) {
      tensor = at::tensor(object[name].get<std::vector<float>>());
    }
  }
  template <typename T, typename Fields>
  void part(const char* name, T& value, const Fields& fields) {
    if (has(name)) {
      Reader inner(object.at(name));
      fields(inner, value);
      inner.check_known();
    }
  }
  template <typename T, typename Fields>
  void parts(const char* name, std::vector<T>& values, const Fields& fields) {
    if (!has(name)) {
      return;
    }
    for (const json& given : object.at(name)) {
      Reader inner(given);
      fields(inner, values.emplace_back());
      inner.check_known();
    }
  }
  template <typename Enum, size_t n>
  void choice(const char* name, Enum& value, const std::array<const char*, n>& words) {
    if (!has(name)) {
      return;
    }
    const json& given = object.at(name);
    const auto fits = [&](size_t i) { return given == words[i] || (given.is_number_integer() && given == i); };
    for (size_t i = 0; i < n; ++i) {
      if (fits(i)) {
        value = static_cast<Enum>(i);
        return;
      }
    }
    throw ValueError(fmt::format("hemostat.Model.load: hemostat.json: field '{}' is {}, but takes {}", name,
                                 given.dump(-1, ' ', false, json::error_handler_t::replace), fmt::join(words, ", ")));
  }

  void check_known() const {
    for (const auto& [name, value] : object.items()) {
      if (known_.count(name) == 0) {
        throw ValueError(fmt::format(
            "hemostat.Model.load: hemostat.json: field '{}' is unknown; a later hemostat may have written it", name));
      }
    }
  }
  const json& object;

 private:
  bool has(const char* name) {
    known_.insert(name);
    return object.contains(name);
  }

  static int64_t integer(const char* name, const json& value) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
      throw ValueError(fmt::format("hemostat.Model.load: hemostat.json: field '{}' has no integer", name));
    }
    return value.get<int64_t>();
  }

  std::set<std::string> known_;  // what was asked for
};

class Collector {
 public:
  template <typename T>
  void field(const char*, const T&) {}
  void field(const char*, const at::Tensor& tensor) { tensors.push_back(tensor); }
  void numbers(const char*, const at::Tensor&) {}  // a Writer writes them
  template <typename T, typename Fields>
  void part(const char*, T& value, const Fields& fields) {
    if constexpr (std::is_same_v<T, Linear>) {
      tensors.push_back(value.packed ? value.packed->dequantize() : at::Tensor());
    }
    fields(*this, value);
  }
  template <typename T, typename Fields>
  void parts(const char*, std::vector<T>& values, const Fields& fields) {
    for (T& value : values) {
      fields(*this, value);
    }
  }
  template <typename Enum, size_t n>
  void choice(const char*, Enum&, const std::array<const char*, n>&) {}
  std::vector<at::Tensor> tensors;
};

// Words of enumerations, in the order of model.h.
constexpr std::array<const char*, 4> kNormKinds = {"none", "rms", "layer", "dynamic_tanh"};
constexpr std::array<const char*, 4> kActivations = {"silu", "gelu", "gelu_tanh", "relu"};
constexpr std::array<const char*, 2> kPlacements = {"pre", "post"};
constexpr std::array<const char*, 4> kTokenNoises = {"none", "replace", "drop", "swap"};

constexpr auto linear_fields = [](auto& archive, Linear& linear) {
  archive.field("weight", linear.weight);
  archive.field("a", linear.a);
  archive.field("b", linear.b);
  archive.field("bias", linear.bias);
  archive.field("input_scale", linear.input.scale);
  archive.field("input_rotation", linear.input.rotation);
  archive.field("input_bits", linear.input.bits);
  archive.field("input_symmetric", linear.input.symmetric);
  archive.field("input_noise", linear.input.noise);
  archive.field("input_noise_seed", linear.input.noise_seed);
};

constexpr auto norm_fields = [](auto& archive, Norm& norm) {
  archive.choice("kind", norm.kind, kNormKinds);
  archive.field("weight", norm.weight);
  archive.field("bias", norm.bias);
  archive.field("epsilon", norm.epsilon);
  archive.field("alpha", norm.alpha);
};

constexpr auto mlp_fields = [](auto& archive, Mlp& mlp) {
  archive.part("gate", mlp.gate, linear_fields);
  archive.part("up", mlp.up, linear_fields);
  archive.part("down", mlp.down, linear_fields);
  archive.choice("activation", mlp.activation, kActivations);
};

constexpr auto attention_fields = [](auto& archive, Attention& attention) {
  archive.part("q", attention.q, linear_fields);
  archive.part("k", attention.k, linear_fields);
  archive.part("v", attention.v, linear_fields);
  archive.part("o", attention.o, linear_fields);
  archive.field("heads", attention.heads);
  archive.field("kv_heads", attention.kv_heads);
  archive.field("head_dim", attention.head_dim);
  archive.part("q_norm", attention.q_norm, norm_fields);
  archive.part("k_norm", attention.k_norm, norm_fields);
  archive.numbers("inverse_frequencies", attention.rope.inverse_frequencies);
  archive.field("rope_attention_scale", attention.rope.attention_scale);
  archive.field("scale", attention.scale);
  archive.field("window", attention.window);
  archive.field("sinks", attention.sinks);
  archive.field("cache_bits", attention.cache.bits);
  archive.field("cache_key_min", attention.cache.key_min);
  archive.field("cache_key_max", attention.cache.key_max);
};

constexpr auto experts_fields = [](auto& archive, Experts& experts) {
  archive.part("router", experts.router, linear_fields);
  archive.field("top_k", experts.top_k);
  archive.field("normalize", experts.normalize);
  archive.field("temperature", experts.temperature);
  archive.parts("mlps", experts.mlps, mlp_fields);
};

constexpr auto block_fields = [](auto& archive, Block& block) {
  archive.choice("placement", block.placement, kPlacements);
  archive.part("attention_norm", block.attention_norm, norm_fields);
  archive.part("mlp_norm", block.mlp_norm, norm_fields);
  archive.part("attention_output_norm", block.attention_output_norm, norm_fields);
  archive.part("mlp_output_norm", block.mlp_output_norm, norm_fields);
  archive.part("attention", block.attention, attention_fields);
  archive.part("mlp", block.mlp, mlp_fields);
  archive.part("experts", block.experts, experts_fields);
  archive.field("skip_attention", block.skip_attention);
  archive.field("skip_mlp", block.skip_mlp);
  archive.field("attention_residual", block.attention_residual);
  archive.field("mlp_residual", block.mlp_residual);
};

constexpr auto head_fields = [](auto& archive, Head& head) {
  archive.part("head", head.linear, linear_fields);
  archive.field("logit_scale", head.map.scale);
  archive.field("logit_bias", head.map.bias);
  archive.field("logit_a", head.map.a);
  archive.field("logit_b", head.map.b);
};

constexpr auto model_fields = [](auto& archive, Model& model) {
  archive.choice("token_noise", model.input.kind, kTokenNoises);
  archive.field("token_noise_rate", model.input.rate);
  archive.field("token_noise_seed", model.input.seed);
  archive.field("embedding", model.embedding);
  archive.parts("blocks", model.blocks, block_fields);
  archive.part("final_norm", model.final_norm, norm_fields);
  head_fields(archive, model.head);
  archive.field("temperature", model.decoder.temperature);
  archive.field("do_sample", model.decoder.do_sample);
};

template <typename Part, typename Fields>
bool same_part(Part x, Part y, const Fields& fields) {
  Writer numbers_x(false), numbers_y(false);
  numbers_x.part("", x, fields);
  numbers_y.part("", y, fields);
  if (numbers_x.object != numbers_y.object) {
    return false;
  }
  Collector ours, theirs;
  ours.part("", x, fields);
  theirs.part("", y, fields);
  return std::equal(ours.tensors.begin(), ours.tensors.end(), theirs.tensors.begin(), theirs.tensors.end(),
                    [](const at::Tensor& a, const at::Tensor& b) { return same(a, b); });
}

}  // namespace

bool same(const at::Tensor& x, const at::Tensor& y) {
  if (!x.defined() || !y.defined()) {
    return x.defined() == y.defined();
  }
  if (x.sizes() != y.sizes() || x.scalar_type() != y.scalar_type() || x.device() != y.device()) {
    return false;
  }
  const bool one_memory = x.is_alias_of(y) && x.storage_offset() == y.storage_offset() && x.strides() == y.strides();
  return one_memory || at::equal(x, y);  // the same memory also where it holds NaN
}

bool same(const Linear& x, const Linear& y) { return same_part(x, y, linear_fields); }
bool same(const Norm& x, const Norm& y) { return same_part(x, y, norm_fields); }
bool same(const Head& x, const Head& y) { return same_part(x, y, head_fields); }
bool same(const Block& x, const Block& y) { return same_part(x, y, block_fields); }

namespace {

std::string written(const Model& model, int64_t version, bool words) {
  Writer writer(words);
  Model copy = model;
  bool tied = model.tied();
  writer.field("version", version);
  writer.field("tied", tied);
  model_fields(writer, copy);
  return writer.object.dump(1) + "\n";
}

}  // namespace

// What models are known by must not change with the form of files.
std::string structure(const Model& model) { return written(model, 2, /*words=*/false); }

std::string saved_structure(const Model& model) { return written(model, kVersion, /*words=*/true); }

Model from_structure(const std::string& text, const ModelConfig& config, const std::string& file) {
  try {
    const json object = parse_object(text, file);
    int64_t version = 0;
    Reader reader(object);
    bool tied = false;
    reader.field("version", version);
    reader.field("tied", tied);
    if (version < 2 || version > kVersion) {
      throw ValueError(
          fmt::format("hemostat.Model.load: {} has version {}; this hemostat reads 2 to {}", file, version, kVersion));
    }
    Model model;
    model.config = config;
    model_fields(reader, model);
    reader.check_known();
    if (tied) {
      model.head.linear.weight = model.embedding;
    }
    for (size_t i = 0; i < model.blocks.size(); ++i) {
      model.blocks[i].origin = static_cast<int64_t>(i);
    }
    return model;
  } catch (const json::exception& error) {
    throw ValueError(fmt::format("hemostat.Model.load: {} is not a model's structure (JSON error {})", file, error.id));
  }
}

}  // namespace hemostat
