#include <memory>
#include <optional>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/noise.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "on_linears.h"

namespace hemostat {
namespace {

double entries(const SharedInput& sites) {
  double sum = 0;
  for (const Site& site : sites) {
    sum += static_cast<double>(site.linear->out_features()) * static_cast<double>(site.linear->in_features());
  }
  return sum;
}

// Layers have draws of their own.
uint64_t seed_of(const Options& options, uint64_t layer) {
  return static_cast<uint64_t>(option<int64_t>(options, "seed")) * 0x9e3779b97f4a7c15ULL + layer;
}

at::Tensor direction(const Site& site, const Options& options, MemoryBudget& budget) {
  const at::Tensor weight = site.linear->dense();
  return budget.hold(noise::direction(weight.sizes(), seed_of(options, site.index), weight.device()));
}

Linear gaussian(const Site& site, const at::Tensor& direction, const Options&, double severity) {
  const at::Tensor weight = site.linear->dense();
  return site.linear->with_weight(noise::apply(weight, direction.to(weight.device()), {.sigma = severity}));
}

OnLinears along_directions() {
  OnLinears result = on_sites(direction, gaussian);
  result.holds = [](const SharedInput& sites, const Options&) { return 4 * entries(sites); };
  return result;
}

// What memory holds of a weight, and which of its bits are faulty.
struct Faults {
  int64_t bits;  // 0: the weight itself; else its codes
  std::optional<int64_t> bit;
  std::optional<int64_t> stuck_at;  // none: bits flip
};

// The value that a stuck bit reads, of the method that has it.
std::optional<int64_t> stuck_value(const Options& options) {
  return options.count("value") > 0 ? std::optional(option<int64_t>(options, "value")) : std::nullopt;
}

Faults faults_of(const Options& options) {
  const int64_t bit = option<int64_t>(options, "bit");
  return {option<int64_t>(options, "bits"), bit >= 0 ? std::optional(bit) : std::nullopt, stuck_value(options)};
}

FitCheck fault_check(const std::string& method) {
  return [method](const Model& model, const Options& options) {
    const Faults faults = faults_of(options);
    if (faults.stuck_at && *faults.stuck_at != 0 && *faults.stuck_at != 1) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): option value must be 0 or 1, got {}", method, *faults.stuck_at));
    }
    if (faults.bits != 0 && (faults.bits < 2 || faults.bits > 8)) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): option bits must be 0 or in 2 … 8, got {}", method, faults.bits));
    }
    const auto width = faults.bits > 0 ? faults.bits : static_cast<int64_t>(8 * c10::elementSize(model.dtype()));
    const int64_t bit = option<int64_t>(options, "bit");
    if (bit < -1 || bit >= width) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): option bit must be in -1 … {}, got {}", method, width - 1, bit));
    }
  };
}

// The grid goes as far as a curve is worth drawing: one bit of an exponent can end a model, while codes and zeros do
// harm by number.
Axis rate_axis(const Faults& faults) {
  Axis axis{.name = "rate", .unit = "probability of a bit"};
  if (faults.bit) {
    axis.default_grid = {.001, .01, .1, .3, 1};
  } else if (faults.bits > 0 || faults.stuck_at == 0) {
    axis.default_grid = {3e-4, 1e-3, 3e-3, .01, .03, .1};
  } else {
    axis.default_grid = {1e-8, 1e-7, 1e-6, 1e-5, 1e-4};
  }
  axis.farthest = axis.default_grid.back();
  axis.continuous_at_neutral = faults.bits == 0;  // rounding to codes is damage of its own
  return axis;
}

at::Tensor damaged(const at::Tensor& values, const Faults& faults, double rate, uint64_t seed) {
  noise::BitFaultOptions options{.rate = rate, .seed = seed, .bit = faults.bit};
  if (faults.bits > 0) {
    options.bits = faults.bits;
  }
  return faults.stuck_at ? noise::stuck_at(values, *faults.stuck_at, options) : noise::bit_flip(values, options);
}

// The same ranges with other codes.
std::shared_ptr<quantize::GroupPacked> with_codes(const quantize::GroupPacked& packed, at::Tensor codes) {
  return std::make_shared<quantize::GroupPacked>(std::move(codes), packed.scale(), packed.zero(), packed.group_size(),
                                                 packed.bits(), packed.symmetric(), packed.dtype());
}

// The codes that memory holds; none where it holds the weight itself.
using Codes = std::shared_ptr<quantize::GroupPacked>;

Codes codes_of(const Site& site, const Options& options, MemoryBudget& budget) {
  const int64_t bits = faults_of(options).bits;
  if (bits == 0) {
    return nullptr;
  }
  const auto whole = quantize::rtn_packed(site.linear->dense(), {.bits = static_cast<double>(bits)});
  return with_codes(*whole, budget.hold(whole->codes()));
}

Linear faulty(const Site& site, const Codes& whole, const Options& options, double severity) {
  const Faults faults = faults_of(options);
  const uint64_t seed = seed_of(options, site.index);
  if (!whole) {
    return site.linear->with_weight(damaged(site.linear->dense(), faults, severity, seed));
  }
  const at::Tensor codes = whole->codes().to(whole->scale().device());
  return site.linear->with_weight(with_codes(*whole, damaged(codes, faults, severity, seed))->dequantize());
}

OnLinears with_faults() {
  OnLinears result = on_sites(codes_of, faulty);
  result.holds = [](const SharedInput& sites, const Options& options) {  // a byte a code
    return faults_of(options).bits > 0 ? entries(sites) : 0;
  };
  return result;
}

Axis fault_axis(const Model&, const Options& options) { return rate_axis(faults_of(options)); }

std::vector<OptionSpec> fault_options(std::vector<OptionSpec> own = {}) {
  own.push_back({"bits",
                 int64_t{0},
                 "faults in codes of so many bits (2 … 8, as rtn's, one scale a row); 0: in the "
                 "weights as they are stored",
                 {}});
  own.push_back({"bit", int64_t{-1}, "only that position, 0 the least significant; -1: all", {}});
  return std::move(own) + declared<noise::BitFaultOptions>();
}

Axis activation_sigma() {
  Axis axis = axes::sigma();
  axis.unit = "standard deviations of a token's input";
  return axis;
}

Linear activation_noise(const Site& site, const Options& options, double severity) {
  Linear result = *site.linear;
  result.input.noise = severity;
  result.input.noise_seed = static_cast<int64_t>(seed_of(options, static_cast<uint64_t>(site.input_id)));
  return result;
}

}  // namespace

std::vector<Method> noise_methods() {
  return {
      {.name = "gaussian",
       .kind = Kind::weights,
       .description = "adds Gaussian noise of σ standard deviations of the matrix",
       .axis = axes::sigma(),
       .needs = {},
       .options = declared<noise::GaussianOptions>(),
       .change = along_directions()},
      {.name = "bit_flip",
       .kind = Kind::weights,
       .description = "inverts stored bits of weights, as faulty memory does",
       .axis = rate_axis({.bits = 0, .bit = std::nullopt, .stuck_at = std::nullopt}),
       .needs = {},
       .options = fault_options(),
       .change = with_faults(),
       .axis_for = fault_axis,
       .check = fault_check("bit_flip")},
      {.name = "stuck_at",
       .kind = Kind::weights,
       .description = "stored bits of weights read 0, or 1, whatever was written",
       .axis = rate_axis({.bits = 0, .bit = std::nullopt, .stuck_at = 0}),
       .needs = {},
       .options = fault_options({{"value", int64_t{0}, "what a stuck bit reads, 0 or 1", {}}}),
       .change = with_faults(),
       .axis_for = fault_axis,
       .check = fault_check("stuck_at")},
      {.name = "activation_noise",
       .kind = Kind::activations,
       .description = "adds Gaussian noise to the inputs of linear layers",
       .axis = activation_sigma(),
       .needs = {},
       .options = declared<noise::ActivationNoiseOptions>(),
       .change = on_sites(activation_noise)},
  };
}

}  // namespace hemostat
