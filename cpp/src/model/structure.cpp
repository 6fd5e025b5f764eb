#include "structure.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "skeleton.h"

namespace hemostat {

// One list of fields serves both directions: a Writer fills JSON from the model, a Reader the model from JSON.
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

std::vector<int64_t> shape(const at::Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

class Writer {
 public:
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
    Writer inner;
    fields(inner, value);
    object[name] = std::move(inner.object);
  }
  template <typename T, typename Fields>
  void parts(const char* name, std::vector<T>& values, const Fields& fields) {
    object[name] = json::array();
    for (T& value : values) {
      Writer inner;
      fields(inner, value);
      object[name].push_back(std::move(inner.object));
    }
  }
  json object = json::object();
};

class Reader {
 public:
  explicit Reader(const json& given) : object(given) {}

  template <typename T>
  void field(const char* name, T& value) {
    value = object.at(name).get<T>();
  }
  void field(const char* name, at::Tensor& tensor) {
    if (object.contains(name)) {
      tensor = shape_only(object[name].get<std::vector<int64_t>>());
    }
  }
  void numbers(const char* name, at::Tensor& tensor) {
    if (object.contains(name)) {
      tensor = at::tensor(object[name].get<std::vector<float>>());
    }
  }
  template <typename T, typename Fields>
  void part(const char* name, T& value, const Fields& fields) {
    Reader inner(object.at(name));
    fields(inner, value);
  }
  template <typename T, typename Fields>
  void parts(const char* name, std::vector<T>& values, const Fields& fields) {
    for (const json& given : object.at(name)) {
      Reader inner(given);
      fields(inner, values.emplace_back());
    }
  }
  const json& object;
};

// Enumerations travel as their numbers; their order in model.h is part of the format.
template <typename Archive, typename Enum>
void choice(Archive& archive, const char* name, Enum& value, Enum last) {
  auto number = static_cast<int64_t>(value);
  archive.field(name, number);
  if (number < 0 || number > static_cast<int64_t>(last)) {
    throw ValueError(fmt::format("hemostat.Model.load: hemostat.json: field '{}' is {}", name, number));
  }
  value = static_cast<Enum>(number);
}

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
  choice(archive, "kind", norm.kind, NormKind::dynamic_tanh);
  archive.field("weight", norm.weight);
  archive.field("bias", norm.bias);
  archive.field("epsilon", norm.epsilon);
  archive.field("alpha", norm.alpha);
};

constexpr auto mlp_fields = [](auto& archive, Mlp& mlp) {
  archive.part("gate", mlp.gate, linear_fields);
  archive.part("up", mlp.up, linear_fields);
  archive.part("down", mlp.down, linear_fields);
  choice(archive, "activation", mlp.activation, Activation::relu);
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
  choice(archive, "placement", block.placement, NormPlacement::post);
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

constexpr auto model_fields = [](auto& archive, Model& model) {
  choice(archive, "token_noise", model.input.kind, TokenNoise::swap);
  archive.field("token_noise_rate", model.input.rate);
  archive.field("token_noise_seed", model.input.seed);
  archive.field("embedding", model.embedding);
  archive.parts("blocks", model.blocks, block_fields);
  archive.part("final_norm", model.final_norm, norm_fields);
  archive.part("head", model.head.linear, linear_fields);
  archive.field("logit_scale", model.head.map.scale);
  archive.field("logit_bias", model.head.map.bias);
  archive.field("logit_a", model.head.map.a);
  archive.field("logit_b", model.head.map.b);
  archive.field("temperature", model.decoder.temperature);
};

}  // namespace

std::string structure(const Model& model) {
  Writer writer;
  Model copy = model;
  bool tied = model.tied();
  writer.field("version", kVersion);
  writer.field("tied", tied);
  model_fields(writer, copy);
  return writer.object.dump(1) + "\n";
}

Model from_structure(const std::string& text, const ModelConfig& config, const std::string& file) {
  try {
    const json object = json::parse(text);
    int version = 0;
    Reader reader(object);
    reader.field("version", version);
    if (version != kVersion) {
      throw ValueError(
          fmt::format("hemostat.Model.load: {} has version {}; this hemostat reads {}", file, version, kVersion));
    }
    Model model;
    model.config = config;
    model_fields(reader, model);
    if (object.at("tied").get<bool>()) {
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
