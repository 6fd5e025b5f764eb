#include "rope_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hemostat {
namespace {

using nlohmann::json;

// How one rotation is described: an object, or nothing, beside fields of the whole config.
struct RopeSource {
  ConfigFields& fields;  // of config.json
  const Family& family;
  std::string where;  // the object's name in messages
  int64_t head_dim, context;
};

void scale_linear(std::vector<float>& frequencies, double factor) {
  for (float& frequency : frequencies) {
    frequency /= static_cast<float>(factor);
  }
}

// Llama 3.1's: long waves are stretched, short ones kept, those between interpolated.
void scale_llama3(std::vector<float>& frequencies, ConfigFields& rope, double original) {
  const double factor = rope.positive("factor");
  const double low = rope.positive("low_freq_factor");
  const double high = rope.positive("high_freq_factor");
  for (float& frequency : frequencies) {
    const double wavelength = 2 * M_PI / frequency;
    if (wavelength > original / low) {
      frequency = static_cast<float>(frequency / factor);
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      frequency = static_cast<float>((1 - smooth) * frequency / factor + smooth * frequency);
    }
  }
}

// YaRN (arXiv 2309.00071), section 3.2: a ramp between the dimensions that turn beta_fast and beta_slow times in the
// original context. Returns the factor of cosine and sine.
double scale_yarn(std::vector<float>& frequencies, ConfigFields& rope, double theta, RopeScaling& scaling,
                  int64_t context) {
  const double original = scaling.original_context;
  const double factor = scaling.factor = rope.positive("factor", static_cast<double>(context) / original);
  const double fast = rope.positive("beta_fast", 32), slow = rope.positive("beta_slow", 1);
  const bool truncate = rope.boolean("truncate", true);
  const auto dimension_count = static_cast<double>(2 * frequencies.size());
  const auto dimension = [&](double rotations) {
    return dimension_count * std::log(original / (rotations * 2 * M_PI)) / (2 * std::log(theta));
  };
  double low = dimension(fast), high = dimension(slow);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dimension_count - 1);
  if (low == high) {
    high += 0.001;
  }
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    frequencies[i] = static_cast<float>(frequencies[i] / factor) * ramp + frequencies[i] * (1 - ramp);
  }
  const auto magnitude = [&](double scale) { return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1; };
  const double scale = rope.number("mscale", 0), of_all = rope.number("mscale_all_dim", 0);
  const double usual = scale != 0 && of_all != 0 ? magnitude(scale) / magnitude(of_all) : magnitude(1);
  return rope.positive("attention_factor", usual);
}

// LongRoPE (arXiv 2402.13753): a divisor for each frequency, others beyond the original context.
void scale_long(Rope& result, std::vector<float>& frequencies, ConfigFields& rope, double original, int64_t context) {
  const auto divided = [&](const char* name) {
    const std::vector<double> divisors = rope.numbers(name, frequencies.size());
    std::vector<float> scaled = frequencies;
    for (size_t i = 0; i < scaled.size(); ++i) {
      scaled[i] = 1.0f / (static_cast<float>(divisors[i]) * (1.0f / scaled[i]));
    }
    return scaled;
  };
  result.long_inverse_frequencies = at::tensor(divided("long_factor"));
  frequencies = divided("short_factor");
  result.context = static_cast<int64_t>(original);
  const double factor = rope.positive("factor", static_cast<double>(context) / original);
  const double usual = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  result.attention_scale = rope.positive("attention_factor", usual);
}

// What one spelling gives: rope_parameters, one of its objects, or rope_scaling.
Rope parse_one(const RopeSource& source, const json& given, double& theta, double partial, RopeScaling& scaling) {
  ConfigFields& fields = source.fields;
  if (!given.is_null() && !given.is_object()) {
    fields.fail(fmt::format("field '{}' is {}; it takes an object", source.where, ConfigFields::abbreviated(given)));
  }
  const json object = given.is_null() ? json::object() : given;
  ConfigFields rope(object, fmt::format("{}: {}", fields.file(), source.where));
  theta = rope.positive("rope_theta", theta);
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  scaling.type = type;
  partial = rope.positive("partial_rotary_factor", partial);
  const auto rotary_dim = static_cast<int64_t>(static_cast<double>(source.head_dim) * partial);
  if (partial > 1 || rotary_dim < 2 || rotary_dim % 2 != 0) {
    fields.fail(
        fmt::format("field 'partial_rotary_factor' is {}; it rotates {} of a head's {} features, but takes an "
                    "even number of them",
                    partial, rotary_dim, source.head_dim));
  }
  // The config's own comes before the object's.
  const auto original = [&] {
    const double within = rope.positive("original_max_position_embeddings", static_cast<double>(source.context));
    const int64_t usual = source.family.defaults.original_context;
    return fields.positive("original_max_position_embeddings", usual > 0 ? static_cast<double>(usual) : within);
  };
  const auto required_original = [&] {
    const bool outside = rope.take("original_max_position_embeddings").is_null();
    return (outside ? fields : rope).positive("original_max_position_embeddings");
  };

  Rope result;
  std::vector<float> frequencies = inverse_frequencies(theta, rotary_dim);
  std::vector<NeutralField> unused = {{"attention_factor", {1}}, {"max_position_embeddings", {}}};
  const bool longrope = type == "longrope" || type == "su" || (type == "yarn" && source.family.yarn_is_longrope);
  if (type == "llama3") {
    scale_llama3(frequencies, rope, required_original());
  } else if (longrope) {
    scale_long(result, frequencies, rope, original(), source.context);
  } else if (type == "yarn") {
    scaling.original_context = original();
    result.attention_scale = scale_yarn(frequencies, rope, theta, scaling, source.context);
    unused.push_back({"finetuned", {}});
  } else {
    for (const char* of_others : {"original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
                                  "beta_fast", "beta_slow", "finetuned"}) {
      unused.push_back({of_others, {}});
    }
    if (type == "linear") {
      scale_linear(frequencies, rope.positive("factor"));
    } else if (type == "dynamic") {
      result.dynamic_factor = rope.positive("factor");
      result.context = source.context;
    } else if (type == "default") {
      unused.push_back({"factor", {1}});
    } else {
      fields.fail(fmt::format(
          "field '{}' has rope_type '{}'; default, linear, dynamic, llama3, yarn and longrope are supported",
          source.where, type));
    }
  }
  rope.refuse_the_rest(unused);
  if (!std::all_of(frequencies.begin(), frequencies.end(), [](float f) { return std::isfinite(f); })) {
    fields.fail(fmt::format("fields 'rope_theta' and '{}' give rotations that are not finite", source.where));
  }
  result.inverse_frequencies = at::tensor(frequencies);
  return result;
}

bool equal(const Rope& x, const Rope& y) {
  const auto same = [](const at::Tensor& a, const at::Tensor& b) {
    return a.defined() == b.defined() && (!a.defined() || (a.sizes() == b.sizes() && at::equal(a, b)));
  };
  return same(x.inverse_frequencies, y.inverse_frequencies) &&
         same(x.long_inverse_frequencies, y.long_inverse_frequencies) && x.attention_scale == y.attention_scale &&
         x.dynamic_factor == y.dynamic_factor && x.context == y.context;
}

}  // namespace

std::vector<float> inverse_frequencies(double theta, int64_t rotary_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    frequencies.push_back(1.0f /
                          std::pow(static_cast<float>(theta), static_cast<float>(i) / static_cast<float>(rotary_dim)));
  }
  return frequencies;
}

RopeConfig parse_rope(ConfigFields& fields, const Family& family, int64_t head_dim, int64_t context) {
  const ConfigKeys& keys = family.keys;
  const ConfigDefaults& defaults = family.defaults;
  json parameters = fields.take("rope_parameters");
  const json& scaling = fields.take("rope_scaling");
  if (parameters.is_null() && scaling.is_null() && !defaults.rope_parameters.empty()) {
    parameters = json::parse(defaults.rope_parameters);
  }
  RopeConfig result{.theta = fields.positive(keys.rope_theta, defaults.rope_theta)};
  const double partial = fields.positive(keys.partial_rotary, defaults.partial_rotary);
  // Families with names of their own may have the usual ones beside them.
  for (const auto& [usual, value] :
       {std::pair("rope_theta", result.theta), std::pair("partial_rotary_factor", partial)}) {
    if (fields.positive(usual, value) != value) {
      fields.fail(fmt::format("field '{}' differs from '{}' of this family", usual,
                              usual == std::string("rope_theta") ? keys.rope_theta : keys.partial_rotary));
    }
  }
  fields.take("original_max_position_embeddings");
  RopeSource source{fields, family, "rope_parameters", head_dim, context};
  if (defaults.local_rope_theta > 0) {  // an object for each type of layer; the older spelling scales global ones
    result.local_theta = fields.positive(keys.local_rope_theta, defaults.local_rope_theta);
    if (!parameters.is_null() && !parameters.is_object()) {
      fields.fail(
          fmt::format("field 'rope_parameters' is {}; it takes an object", ConfigFields::abbreviated(parameters)));
    }
    ConfigFields by_type(parameters.is_null() ? (parameters = json::object()) : parameters,
                         fields.file() + ": rope_parameters");
    json global = by_type.take("full_attention");
    if (scaling.is_object() && !parameters.empty()) {
      fields.fail("fields 'rope_parameters' and 'rope_scaling' are both given; give one");
    }
    if (global.is_null()) {
      global = scaling;
      source.where = "rope_scaling";
    }
    result.rope = parse_one(source, global, result.theta, partial, result.scaling);
    source.where = "rope_parameters";
    RopeScaling local;
    result.local = parse_one(source, by_type.take("sliding_attention"), result.local_theta, partial, local);
    by_type.refuse_the_rest();
    return result;
  }
  double older_theta = result.theta;
  const bool newer = !parameters.is_null();
  source.where = newer ? "rope_parameters" : "rope_scaling";
  result.rope = parse_one(source, newer ? parameters : scaling, result.theta, partial, result.scaling);
  if (newer && !scaling.is_null()) {
    source.where = "rope_scaling";
    RopeScaling older;
    if (!equal(parse_one(source, scaling, older_theta, partial, older), result.rope)) {
      fields.fail("fields 'rope_parameters' and 'rope_scaling' differ; give one");
    }
  }
  result.local = result.rope;
  return result;
}

}  // namespace hemostat
