// Formats whose blocks share a scale: each has one number of bits, so its axis is a list of one.
#include <functional>
#include <string>

#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "on_linears.h"

namespace hemostat {
namespace {

// How a format rounds a weight.
struct Rounding {
  quantize::Format format;
  int64_t block_size;
  std::function<at::Tensor(const at::Tensor&)> round;
};

// Every chosen linear, rounded.
OnLinears rounded(const std::function<Rounding(const Options&)>& rounding) {
  return on_sites([rounding](const Site& site, const Options& options, double) {
    const Rounding own = rounding(options);
    const at::Tensor weight = own.round(site.linear->dense());
    return site.linear->with_weight(weight,
                                    quantize::block_bits_per_weight(own.format, weight.sizes(), own.block_size));
  });
}

Rounding nf4(const Options& options) {
  const auto nf4 = options_as<quantize::BlockOptions>(options);
  return {quantize::Format::nf4, nf4.block_size,
          [nf4](const at::Tensor& weight) { return quantize::nf4(weight, nf4); }};
}

Rounding fp4(const Options& options) {
  const auto fp4 = options_as<quantize::BlockOptions>(options);
  return {quantize::Format::fp4, fp4.block_size,
          [fp4](const at::Tensor& weight) { return quantize::fp4(weight, fp4); }};
}

Rounding fp8(const Options& options) {
  const auto fp8 = options_as<quantize::Fp8Options>(options);
  return {quantize::Format::fp8_e4m3, quantize::kPerRow,
          [fp8](const at::Tensor& weight) { return quantize::fp8(weight, fp8); }};
}

Rounding mxfp4(const Options&) {
  return {quantize::Format::mxfp4, 32, [](const at::Tensor& weight) { return quantize::mxfp4(weight); }};
}

Rounding nvfp4(const Options&) {
  return {quantize::Format::nvfp4, 16, [](const at::Tensor& weight) { return quantize::nvfp4(weight); }};
}

Rounding ternary(const Options& options) {
  const auto ternary = options_as<quantize::TernaryOptions>(options);
  return {quantize::Format::ternary, ternary.group_size,
          [ternary](const at::Tensor& weight) { return quantize::ternary(weight, ternary); }};
}

constexpr double kTernaryBits = 1.58;  // log2 3, as the format is called

// Blocks of a size that the format has.
FitCheck fixed_blocks(const std::string& method, int64_t block_size) {
  return [method, block_size](const Model& model, const Options& options) {
    check_divides(method, model, filter_of(options), "its block size", block_size);
  };
}

std::vector<OptionSpec> block_size() {
  std::vector<OptionSpec> result = declared<quantize::BlockOptions>();
  result.front().divides = true;
  return result;
}

Method row(const char* name, const char* description, double bits, std::vector<OptionSpec> options,
           const std::function<Rounding(const Options&)>& rounding, FitCheck check = nullptr) {
  return {.name = name,
          .kind = Kind::weights,
          .description = description,
          .axis = axes::bits_of_format(bits),
          .needs = {},
          .options = std::move(options),
          .change = rounded(rounding),
          .check = std::move(check)};
}

}  // namespace

std::vector<Method> block_float_methods() {
  return {
      row("nf4", "rounds weights to 16 quantiles of a normal distribution", 4, block_size(), nf4),
      row("fp4", "rounds weights to bitsandbytes' 4-bit float", 4, block_size(), fp4),
      row("fp8", "rounds weights to 8-bit floating point, scaled row by row", 8, declared<quantize::Fp8Options>(), fp8),
      row("mxfp4", "rounds weights to 4-bit floats, a power of two among 32 (OCP)", 4, {}, mxfp4,
          fixed_blocks("mxfp4", 32)),
      row("nvfp4", "rounds weights to 4-bit floats, an 8-bit scale among 16", 4, {}, nvfp4, fixed_blocks("nvfp4", 16)),
      row("ternary", "rounds weights to -1, 0 or 1 times their mean magnitude", kTernaryBits,
          declared<quantize::TernaryOptions>(), ternary),
  };
}

}  // namespace hemostat
