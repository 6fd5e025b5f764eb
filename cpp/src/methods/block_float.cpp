// Formats whose blocks share a scale: each has one number of bits, so its axis is a list of one.
#include <functional>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "group_size.h"
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
  const quantize::BlockOptions nf4{.block_size = option<int64_t>(options, "block_size")};
  return {quantize::Format::nf4, nf4.block_size,
          [nf4](const at::Tensor& weight) { return quantize::nf4(weight, nf4); }};
}

Rounding fp4(const Options& options) {
  const quantize::BlockOptions fp4{.block_size = option<int64_t>(options, "block_size")};
  return {quantize::Format::fp4, fp4.block_size,
          [fp4](const at::Tensor& weight) { return quantize::fp4(weight, fp4); }};
}

Rounding fp8(const Options& options) {
  const quantize::Fp8Options fp8{.format = option<std::string>(options, "format") == "e4m3" ? quantize::Float8::e4m3
                                                                                            : quantize::Float8::e5m2};
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
  const quantize::TernaryOptions ternary{.group_size = group_size_of("ternary", options)};
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

// Blocks of as many weights as the option says.
FitCheck chosen_blocks(const std::string& method) {
  return [method](const Model& model, const Options& options) {
    const auto block_size = option<int64_t>(options, "block_size");
    if (block_size < 1) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): block_size must be a positive integer, got {}", method, block_size));
    }
    check_divides(method, model, filter_of(options), "block_size", block_size);
  };
}

Method row(const char* name, const char* description, double bits, std::vector<OptionSpec> options,
           const std::function<Rounding(const Options&)>& rounding, FitCheck check) {
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
  const OptionSpec block_size{
      "block_size", int64_t{64}, "weights that share a scale; a number that divides the input features", {}};
  return {
      row("nf4", "rounds weights to 16 quantiles of a normal distribution", 4, {block_size}, nf4, chosen_blocks("nf4")),
      row("fp4", "rounds weights to bitsandbytes' 4-bit float", 4, {block_size}, fp4, chosen_blocks("fp4")),
      row("fp8", "rounds weights to 8-bit floating point, scaled row by row", 8,
          {{"format", std::string("e4m3"), "bits of exponent and fraction: e4m3 or e5m2", {"e4m3", "e5m2"}}}, fp8,
          nullptr),
      row("mxfp4", "rounds weights to 4-bit floats, a power of two among 32 (OCP)", 4, {}, mxfp4,
          fixed_blocks("mxfp4", 32)),
      row("nvfp4", "rounds weights to 4-bit floats, an 8-bit scale among 16", 4, {}, nvfp4, fixed_blocks("nvfp4", 16)),
      row("ternary", "rounds weights to -1, 0 or 1 times their mean magnitude", kTernaryBits,
          {{"group_size",
            std::string("tensor"),
            "weights that share a scale: tensor, row, or a number that divides the input features",
            {}}},
          ternary, group_check("ternary", /*whole=*/true)),
  };
}

}  // namespace hemostat
