#include "model/gguf/rope.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "model/rope_config.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;

constexpr const char* kDivisors = "rope_freqs.weight";  // [rotary_dim / 2]
constexpr const char* kLongDivisors = "rope_factors_long.weight";
constexpr const char* kShortDivisors = "rope_factors_short.weight";

// What YaRN multiplies cosine and sine by, unless it is told otherwise.
double yarn_scale(double factor) { return factor > 1 ? 1 + 0.1 * std::log(factor) : 1; }

const TensorInfo* find(const File& file, const char* name) {
  const auto found = file.tensors().find(std::string_view(name));
  return found == file.tensors().end() ? nullptr : &found->second;
}

at::Tensor divisors(const File& file, const char* name, int64_t frequencies) {
  const TensorInfo& info = *find(file, name);
  if (info.type->in_blocks() || info.shape != std::vector<int64_t>{frequencies}) {
    file.fail(fmt::format("has in tensor '{}' not one divisor for each of {} frequencies", name, frequencies));
  }
  const at::Tensor values = file.view(info).to(at::kFloat);
  if (!at::isfinite(values.reciprocal()).all().item<bool>()) {
    file.fail(fmt::format("has in tensor '{}' divisors that give rotations that are not finite", name));
  }
  return values;
}

std::vector<double> numbers(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

json longrope(Hyperparameters& parameters, int64_t frequencies) {
  const File& file = parameters.file();
  return {{"rope_type", "longrope"},
          {"long_factor", numbers(divisors(file, kLongDivisors, frequencies))},
          {"short_factor", numbers(divisors(file, kShortDivisors, frequencies))},
          {"attention_factor", parameters.number("rope.scaling.attn_factor").value_or(1)}};
}

json yarn(Hyperparameters& parameters, const Family& family, double factor) {
  json scaling = {{"rope_type", "yarn"}, {"factor", factor}};
  const double attention = parameters.number("rope.scaling.attn_factor").value_or(1);
  if (attention != 1) {
    scaling["attention_factor"] = attention * yarn_scale(factor);
  }
  const json usual = json::parse(family.defaults.rope_parameters.empty() ? "{}" : family.defaults.rope_parameters);
  if (usual.contains("truncate")) {
    scaling["truncate"] = usual["truncate"];
  }
  return scaling;
}

json scaling(Hyperparameters& parameters, const Family& family, int64_t frequencies) {
  const File& file = parameters.file();
  const auto type = parameters.text("rope.scaling.type");
  const double older = parameters.number("rope.scale_linear").value_or(0);
  const double factor = parameters.number("rope.scaling.factor").value_or(older);
  const bool both = find(file, kLongDivisors) != nullptr && find(file, kShortDivisors) != nullptr;
  json result;
  if (family.gguf.long_divisors && both && type.value_or("longrope") == "longrope") {
    result = longrope(parameters, frequencies);
  } else if (type && *type != "none" && *type != "linear" && (*type != "yarn" || family.yarn_is_longrope)) {
    file.fail(fmt::format("has rope.scaling.type '{}'{}; none, linear and yarn are supported", *type,
                          *type == "longrope" ? " without its tensors" : ""));
  } else if (factor != 0 && factor != 1 && type != "none") {
    result = type == "yarn" ? yarn(parameters, family, factor) : json{{"rope_type", "linear"}, {"factor", factor}};
  }
  const auto original = parameters.integer("rope.scaling.original_context_length");
  if (original && !result.is_null() && result["rope_type"] != "linear") {
    result["original_max_position_embeddings"] = *original;
  }
  parameters.harmless("rope.scaling.finetuned");
  for (const auto& [name, neutral] :
       {std::pair("attn_factor", 1.0), std::pair("yarn_ext_factor", 1.0), std::pair("yarn_attn_factor", 1.0),
        std::pair("yarn_beta_fast", 32.0), std::pair("yarn_beta_slow", 1.0), std::pair("alpha", 0.0)}) {
    parameters.only_number(std::string("rope.scaling.") + name, neutral);
  }
  return result;
}

// A rotation of the model that tells of the others: of a layer without a window, where there is one.
const Rope* global_rope(const Model& model) {
  const Rope* found = nullptr;
  for (const Block& block : model.blocks) {
    if (block.attention.rope.inverse_frequencies.defined() && (found == nullptr || block.attention.window == 0)) {
      found = &block.attention.rope;
      if (block.attention.window == 0) {
        break;
      }
    }
  }
  return found;
}

}  // namespace

void read_rope(Hyperparameters& parameters, const Family& family, int64_t head_dim, json& config) {
  if (!family.shape.rotary) {
    return;
  }
  const File& file = parameters.file();
  const ConfigKeys& keys = family.keys;
  const double theta = parameters.number("rope.freq_base").value_or(10000);
  config[keys.rope_theta] = theta;
  if (!keys.local_rope_theta.empty()) {
    config[keys.local_rope_theta] = parameters.number("rope.freq_base_swa").value_or(10000);
  } else if (family.gguf.windows) {
    parameters.only_number("rope.freq_base_swa", theta);
  }
  const int64_t rotated = parameters.integer("rope.dimension_count").value_or(head_dim);
  if (rotated != head_dim && head_dim > 0 && !family.gguf.partial_rotation) {
    file.fail(fmt::format("rotates {} of a head's {} features; partial rotation is not supported", rotated, head_dim));
  }
  if (family.gguf.partial_rotation) {
    const auto whole = static_cast<double>(head_dim);
    double part = static_cast<double>(rotated) / whole;
    while (part < 1 && whole * part < static_cast<double>(rotated)) {
      part = std::nextafter(part, 1);
    }
    config[keys.partial_rotary] = part;
  }
  const json scaled = scaling(parameters, family, rotated / 2);
  if (!scaled.is_null()) {
    config["rope_scaling"] = scaled;
  } else if (!family.defaults.rope_parameters.empty()) {
    config["rope_scaling"] = {{"rope_type", "default"}};
  }
  if (family.defaults.original_context > 0 && scaled.contains("original_max_position_embeddings")) {
    config["original_max_position_embeddings"] = scaled["original_max_position_embeddings"];
  }
}

Rope divided(const File& file, const Family& family, const Rope& rope) {
  if (!family.gguf.rope_divisors || find(file, kDivisors) == nullptr || !rope.inverse_frequencies.defined()) {
    return rope;
  }
  Rope result = rope;
  result.inverse_frequencies =
      rope.inverse_frequencies.div(divisors(file, kDivisors, rope.inverse_frequencies.size(0)));
  return result;
}

bool is_rope_tensor(const Family& family, const std::string& name) {
  return (family.gguf.rope_divisors && name == kDivisors) ||
         (family.gguf.long_divisors && (name == kLongDivisors || name == kShortDivisors));
}

bool add_rope(Writer& writer, const Model& model, const CheckpointConfig& config) {
  const Family& family = family_of(model.config);
  if (!family.shape.rotary) {
    return false;
  }
  const auto key = [&](const char* name) { return fmt::format("{}.rope.{}", family.gguf.name, name); };
  const Rope* found = global_rope(model);
  const at::Tensor frequencies = found != nullptr ? found->inverse_frequencies.to(at::kCPU)
                                                  : at::tensor(inverse_frequencies(config.rope_theta, config.head_dim));
  const Rope rope = found != nullptr ? *found : Rope{};
  const at::Tensor plain = at::tensor(inverse_frequencies(config.rope_theta, 2 * frequencies.size(0)));
  writer.add(key("dimension_count"), static_cast<uint32_t>(2 * frequencies.size(0)));
  writer.add(key("freq_base"), static_cast<float>(config.rope_theta));
  if (!family.keys.local_rope_theta.empty()) {
    writer.add(key("freq_base_swa"), static_cast<float>(config.local_rope_theta));
  }
  const float linear = plain[0].item<float>() / frequencies[0].item<float>();
  if (rope.long_inverse_frequencies.defined()) {
    writer.add(key("scaling.type"), "longrope");
    writer.add(key("scaling.attn_factor"), static_cast<float>(rope.attention_scale));
    writer.add(key("scaling.original_context_length"), static_cast<uint32_t>(rope.context));
    writer.add(kLongDivisors, plain.div(rope.long_inverse_frequencies.to(at::kCPU)));
    writer.add(kShortDivisors, plain.div(frequencies));
  } else if (config.rope_scaling.type == "yarn") {
    const double factor = config.rope_scaling.factor;
    writer.add(key("scaling.type"), "yarn");
    writer.add(key("scaling.factor"), static_cast<float>(factor));
    writer.add(key("scaling.original_context_length"), static_cast<uint32_t>(config.rope_scaling.original_context));
    if (std::abs(rope.attention_scale / yarn_scale(factor) - 1) > 1e-6) {
      writer.add(key("scaling.attn_factor"), static_cast<float>(rope.attention_scale / yarn_scale(factor)));
    }
  } else if (at::equal(frequencies, plain)) {
    return false;
  } else if (at::equal(plain.div(linear), frequencies)) {
    writer.add(key("scaling.type"), "linear");
    writer.add(key("scaling.factor"), linear);
  } else if (family.gguf.rope_divisors) {
    writer.add(kDivisors, plain.div(frequencies));
  }
  return true;
}

}  // namespace hemostat::gguf
