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

// Every chosen linear, rounded. ValueError naming the first whose input features the block (0: any) does not divide.
Prepared rounded(const std::string& method, double bits, const char* block_name, int64_t block_size, const Model& model,
                 const Options& options, const Rounding& round) {
  check_divides(method, model, filter_of(options), block_name, block_size);
  return per_linear(
      method, axes::bits_of_format(bits), model, options,
      [round](const std::string&, const Linear& linear, double) { return linear.with_weight(round(linear.dense())); });
}

// An option that is a number of weights.
int64_t block_size_of(const std::string& method, const Options& options) {
  const auto block_size = option<int64_t>(options, "block_size");
  if (block_size < 1) {
    throw ValueError(
        fmt::format("hemostat.prepare({}): block_size must be a positive integer, got {}", method, block_size));
  }
  return block_size;
}

Prepared prepare_nf4(const Model& model, const Statistics*, const Options& options) {
  const quantize::BlockOptions nf4{.block_size = block_size_of("nf4", options)};
  return rounded("nf4", 4, "block_size", nf4.block_size, model, options,
                 [nf4](const at::Tensor& weight) { return quantize::nf4(weight, nf4); });
}

Prepared prepare_fp4(const Model& model, const Statistics*, const Options& options) {
  const quantize::BlockOptions fp4{.block_size = block_size_of("fp4", options)};
  return rounded("fp4", 4, "block_size", fp4.block_size, model, options,
                 [fp4](const at::Tensor& weight) { return quantize::fp4(weight, fp4); });
}

Prepared prepare_fp8(const Model& model, const Statistics*, const Options& options) {
  const quantize::Fp8Options fp8{.format = option<std::string>(options, "format") == "e4m3" ? quantize::Float8::e4m3
                                                                                            : quantize::Float8::e5m2};
  return rounded("fp8", 8, "block_size", 0, model, options,
                 [fp8](const at::Tensor& weight) { return quantize::fp8(weight, fp8); });
}

Prepared prepare_mxfp4(const Model& model, const Statistics*, const Options& options) {
  return rounded("mxfp4", 4, "its block size", 32, model, options,
                 [](const at::Tensor& weight) { return quantize::mxfp4(weight); });
}

Prepared prepare_nvfp4(const Model& model, const Statistics*, const Options& options) {
  return rounded("nvfp4", 4, "its block size", 16, model, options,
                 [](const at::Tensor& weight) { return quantize::nvfp4(weight); });
}

constexpr double kTernaryBits = 1.58;  // log2 3, as the format is called

Prepared prepare_ternary(const Model& model, const Statistics*, const Options& options) {
  const quantize::TernaryOptions ternary{.group_size =
                                             parse_group_size("ternary", option<std::string>(options, "group_size"))};
  return rounded("ternary", kTernaryBits, "group_size", ternary.group_size, model, options,
                 [ternary](const at::Tensor& weight) { return quantize::ternary(weight, ternary); });
}

Method row(const char* name, const char* description, double bits, std::vector<OptionSpec> options,
           std::function<Prepared(const Model&, const Statistics*, const Options&)> prepare) {
  return {.name = name,
          .kind = "weights",
          .description = description,
          .axis = axes::bits_of_format(bits),
          .needs = {},
          .options = with_filter(std::move(options)),
          .prepare = std::move(prepare)};
}

}  // namespace

std::vector<Method> block_format_methods() {
  const OptionSpec block_size{
      "block_size", int64_t{64}, "weights that share a scale; a number that divides the input features", {}};
  return {
      row("nf4", "rounds weights to 16 quantiles of a normal distribution (QLoRA)", 4, {block_size}, prepare_nf4),
      row("fp4", "rounds weights to bitsandbytes' 4-bit float", 4, {block_size}, prepare_fp4),
      row("fp8", "rounds weights to 8-bit floating point, scaled row by row", 8,
          {{"format", std::string("e4m3"), "bits of exponent and fraction: e4m3 or e5m2", {"e4m3", "e5m2"}}},
          prepare_fp8),
      row("mxfp4", "rounds weights to 4-bit floats that share a power of two among 32 (OCP MX)", 4, {}, prepare_mxfp4),
      row("nvfp4", "rounds weights to 4-bit floats that share an 8-bit scale among 16 (NVIDIA)", 4, {}, prepare_nvfp4),
      row("ternary", "rounds weights to -1, 0 or 1 times their mean magnitude (BitNet b1.58)", kTernaryBits,
          {{"group_size",
            std::string("tensor"),
            "weights that share a scale: tensor, row, or a number that divides the input features",
            {}}},
          prepare_ternary),
  };
}

}  // namespace hemostat
