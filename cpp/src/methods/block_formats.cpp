// Formats whose blocks share a scale: each has one number of bits, so its axis is a list of one.
#include <functional>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "group_size.h"
#include "per_linear.h"

namespace hemostat {
namespace {

using Rounding = std::function<at::Tensor(const at::Tensor&)>;

// Every chosen linear, rounded.
Prepared rounded(const std::string& method, double bits, quantize::Format format, int64_t block_size,
                 const Model& model, const Options& options, const Rounding& round) {
  return per_linear(
      method, axes::bits_of_format(bits), model, options, [=](const std::string&, const Linear& linear, double) {
        const at::Tensor weight = round(linear.dense());
        return linear.with_weight(weight, quantize::block_bits_per_weight(format, weight.sizes(), block_size));
      });
}

Prepared prepare_nf4(const Model& model, const Statistics*, const Options& options) {
  const quantize::BlockOptions nf4{.block_size = option<int64_t>(options, "block_size")};
  return rounded("nf4", 4, quantize::Format::nf4, nf4.block_size, model, options,
                 [nf4](const at::Tensor& weight) { return quantize::nf4(weight, nf4); });
}

Prepared prepare_fp4(const Model& model, const Statistics*, const Options& options) {
  const quantize::BlockOptions fp4{.block_size = option<int64_t>(options, "block_size")};
  return rounded("fp4", 4, quantize::Format::fp4, fp4.block_size, model, options,
                 [fp4](const at::Tensor& weight) { return quantize::fp4(weight, fp4); });
}

Prepared prepare_fp8(const Model& model, const Statistics*, const Options& options) {
  const quantize::Fp8Options fp8{.format = option<std::string>(options, "format") == "e4m3" ? quantize::Float8::e4m3
                                                                                            : quantize::Float8::e5m2};
  return rounded("fp8", 8, quantize::Format::fp8_e4m3, quantize::kPerRow, model, options,
                 [fp8](const at::Tensor& weight) { return quantize::fp8(weight, fp8); });
}

Prepared prepare_mxfp4(const Model& model, const Statistics*, const Options& options) {
  return rounded("mxfp4", 4, quantize::Format::mxfp4, 32, model, options,
                 [](const at::Tensor& weight) { return quantize::mxfp4(weight); });
}

Prepared prepare_nvfp4(const Model& model, const Statistics*, const Options& options) {
  return rounded("nvfp4", 4, quantize::Format::nvfp4, 16, model, options,
                 [](const at::Tensor& weight) { return quantize::nvfp4(weight); });
}

constexpr double kTernaryBits = 1.58;  // log2 3, as the format is called

Prepared prepare_ternary(const Model& model, const Statistics*, const Options& options) {
  const quantize::TernaryOptions ternary{.group_size = group_size_of("ternary", options)};
  return rounded("ternary", kTernaryBits, quantize::Format::ternary, ternary.group_size, model, options,
                 [ternary](const at::Tensor& weight) { return quantize::ternary(weight, ternary); });
}

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
           std::function<Prepared(const Model&, const Statistics*, const Options&)> prepare, FitCheck check) {
  return {.name = name,
          .kind = "weights",
          .description = description,
          .axis = axes::bits_of_format(bits),
          .needs = {},
          .options = with_filter(std::move(options)),
          .prepare = std::move(prepare),
          .check = std::move(check)};
}

}  // namespace

std::vector<Method> block_format_methods() {
  const OptionSpec block_size{
      "block_size", int64_t{64}, "weights that share a scale; a number that divides the input features", {}};
  return {
      row("nf4", "rounds weights to 16 quantiles of a normal distribution", 4, {block_size}, prepare_nf4,
          chosen_blocks("nf4")),
      row("fp4", "rounds weights to bitsandbytes' 4-bit float", 4, {block_size}, prepare_fp4, chosen_blocks("fp4")),
      row("fp8", "rounds weights to 8-bit floating point, scaled row by row", 8,
          {{"format", std::string("e4m3"), "bits of exponent and fraction: e4m3 or e5m2", {"e4m3", "e5m2"}}},
          prepare_fp8, nullptr),
      row("mxfp4", "rounds weights to 4-bit floats, a power of two among 32 (OCP)", 4, {}, prepare_mxfp4,
          fixed_blocks("mxfp4", 32)),
      row("nvfp4", "rounds weights to 4-bit floats, an 8-bit scale among 16", 4, {}, prepare_nvfp4,
          fixed_blocks("nvfp4", 16)),
      row("ternary", "rounds weights to -1, 0 or 1 times their mean magnitude", kTernaryBits,
          {{"group_size",
            std::string("tensor"),
            "weights that share a scale: tensor, row, or a number that divides the input features",
            {}}},
          prepare_ternary, group_check("ternary", /*whole=*/true)),
  };
}

}  // namespace hemostat
