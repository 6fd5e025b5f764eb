#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "catalogue.h"
#include "on_linears.h"

namespace hemostat {
namespace {

using quantize::GgufType;

// From mild to severe; the severity is the bits per weight.
std::vector<GgufType> types_of(const std::string& family) {
  if (family == "legacy") {
    return {GgufType::q8_0, GgufType::q5_0, GgufType::q4_1, GgufType::q4_0};
  }
  if (family == "iq") {
    return {GgufType::iq4_nl};
  }
  return {GgufType::q8_0, GgufType::q6_k, GgufType::q5_k, GgufType::q4_k, GgufType::q3_k, GgufType::q2_k};
}

// What llama.cpp takes where a row is no multiple of a K type's block (its tensor_type_fallback, of commit 0c1e57098).
GgufType fallback_of(GgufType type) {
  switch (type) {
    case GgufType::q6_k:
      return GgufType::q8_0;
    case GgufType::q5_k:
      return GgufType::q5_1;
    case GgufType::q4_k:
      return GgufType::q5_0;
    case GgufType::q3_k:
    case GgufType::q2_k:
      return GgufType::q4_0;
    default:
      return type;
  }
}

GgufType type_for(GgufType type, int64_t in_features) {
  return in_features % quantize::gguf_block_size(type) == 0 ? type : fallback_of(type);
}

Axis family_axis(const std::string& family) {
  Axis axis{.name = "bits", .unit = "bits per weight", .neutral = 16, .farthest = 0, .kind = AxisKind::listed};
  for (const GgufType type : types_of(family)) {
    axis.default_grid.push_back(quantize::gguf_bits_per_weight(type));
  }
  axis.minimum = axis.default_grid.back();
  axis.maximum = axis.neutral;
  return axis;
}

Axis gguf_axis(const Model&, const Options& options) { return family_axis(option<std::string>(options, "family")); }

GgufType type_at(const std::string& family, double bits) {
  const std::vector<GgufType> types = types_of(family);
  return *std::find_if(types.begin(), types.end(),
                       [&](GgufType type) { return quantize::gguf_bits_per_weight(type) == bits; });
}

// The mean squared input, undefined without `importance`.
at::Tensor importance_of(const SharedInput& sites, const Options& options, MemoryBudget&) {
  return option<bool>(options, "importance") ? sites.front().input->norm().square() : at::Tensor();
}

Linear gguf(const Site& site, const at::Tensor& importance, const Options& options, double severity) {
  const at::Tensor weight = site.linear->dense();
  quantize::GgufOptions gguf{
      .type = type_for(type_at(option<std::string>(options, "family"), severity), site.linear->in_features())};
  if (importance.defined()) {
    gguf.importance = importance.to(weight.device());
  }
  return site.linear->with_packed(quantize::gguf_packed(weight, gguf));
}

OnLinears packed() {
  OnLinears result = on_inputs(importance_of, gguf);
  result.packs = true;
  return result;
}

void check_blocks(const Model& model, const Options& options) {
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    if (named.linear->in_features() % 32 != 0) {
      throw ValueError(
          fmt::format("hemostat.prepare(gguf): '{}' has {} input features, but blocks take a multiple of 32",
                      named.name, named.linear->in_features()));
    }
  }
}

std::set<Need> gguf_needs(const Options& options) {
  return option<bool>(options, "importance") ? std::set<Need>{Need::column_norm} : std::set<Need>{};
}

}  // namespace

Method gguf_method() {
  return {.name = "gguf",
          .kind = Kind::weights,
          .description = "rounds weights to llama.cpp's block formats",
          .axis = family_axis("k"),
          .needs = {},
          .options = {{"family",
                       std::string("k"),
                       "formats of the axis: k Q8_0, Q6_K … Q2_K; legacy Q8_0, Q5_0, Q4_1, Q4_0; iq IQ4_NL",
                       {"k", "legacy", "iq"}},
                      {"importance", false, "weighs errors by the mean squared input", {}}},
          .change = packed(),
          .axis_for = gguf_axis,
          .needs_for = gguf_needs,
          .check = check_blocks};
}

}  // namespace hemostat
