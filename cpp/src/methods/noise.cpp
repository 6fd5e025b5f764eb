#include <memory>
#include <optional>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/noise.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

// Layers have draws of their own.
uint64_t seed_of(const Options& options, uint64_t layer) {
  return static_cast<uint64_t>(option<int64_t>(options, "seed")) * 0x9e3779b97f4a7c15ULL + layer;
}

Prepared prepare_gaussian(const Model& model, const Statistics*, const Options& options) {
  MemoryBudget budget;
  std::map<std::string, at::Tensor> directions;  // one for all severities
  uint64_t index = 0;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    check_interrupt();
    const auto& linear = *named.linear;
    directions.emplace(named.name, budget.hold(noise::direction({linear.out_features(), linear.in_features()},
                                                                seed_of(options, index++), model.device())));
  }
  const auto change = [directions = std::move(directions)](const std::string& name, const Linear& linear,
                                                           double severity) {
    const at::Tensor weight = linear.dense();
    return linear.with_weight(noise::apply(weight, directions.at(name).to(weight.device()), {.sigma = severity}));
  };
  return per_linear("gaussian", axes::sigma(), model, options, change);
}

// What memory holds of a weight, and which of its bits are faulty.
struct Faults {
  int64_t bits;  // 0: the weight itself; else its codes
  std::optional<int64_t> bit;
  std::optional<int64_t> stuck_at;  // none: bits flip
};

Faults faults_of(const std::string& method, const Model& model, const Options& options,
                 std::optional<int64_t> stuck_at) {
  Faults faults{option<int64_t>(options, "bits"), std::nullopt, stuck_at};
  if (stuck_at && *stuck_at != 0 && *stuck_at != 1) {
    throw ValueError(fmt::format("hemostat.prepare({}): option value must be 0 or 1, got {}", method, *stuck_at));
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
  if (bit >= 0) {
    faults.bit = bit;
  }
  return faults;
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

Prepared prepare_faults(const std::string& method, const Model& model, const Options& options,
                        std::optional<int64_t> stuck_at) {
  const Faults faults = faults_of(method, model, options, stuck_at);
  MemoryBudget budget;
  std::map<std::string, uint64_t> seeds;
  std::map<std::string, std::shared_ptr<quantize::GroupPacked>> packed;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    check_interrupt();
    seeds.emplace(named.name, seed_of(options, seeds.size()));
    if (faults.bits > 0) {
      const auto whole = about(method, {named}, [&] {
        return quantize::rtn_packed(named.linear->dense(), {.bits = static_cast<double>(faults.bits)});
      });
      packed.emplace(named.name, with_codes(*whole, budget.hold(whole->codes())));
    }
  }
  const auto change = [faults, seeds = std::move(seeds), packed = std::move(packed)](
                          const std::string& name, const Linear& linear, double severity) {
    if (faults.bits == 0) {
      return linear.with_weight(damaged(linear.dense(), faults, severity, seeds.at(name)));
    }
    const quantize::GroupPacked& whole = *packed.at(name);
    const at::Tensor codes = whole.codes().to(whole.scale().device());
    return linear.with_weight(with_codes(whole, damaged(codes, faults, severity, seeds.at(name)))->dequantize());
  };
  return per_linear(method, rate_axis(faults), model, options, change);
}

Prepared prepare_bit_flip(const Model& model, const Statistics*, const Options& options) {
  return prepare_faults("bit_flip", model, options, std::nullopt);
}

Prepared prepare_stuck_at(const Model& model, const Statistics*, const Options& options) {
  return prepare_faults("stuck_at", model, options, option<int64_t>(options, "value"));
}

std::vector<OptionSpec> fault_options(std::vector<OptionSpec> own = {}) {
  own.push_back({"bits",
                 int64_t{0},
                 "faults in codes of so many bits (2 … 8, as rtn's, one scale a row); 0: in the "
                 "weights as they are stored",
                 {}});
  own.push_back({"bit", int64_t{-1}, "only that position, 0 the least significant; -1: all", {}});
  own.push_back({"seed", int64_t{0}, "of the hash that chooses the bits", {}});
  return with_filter(std::move(own));
}

Axis activation_sigma() {
  Axis axis = axes::sigma();
  axis.unit = "standard deviations of a token's input";
  return axis;
}

// Linears that share an input share its noise, so they have one seed.
std::map<std::string, int64_t> seeds_of_inputs(const Model& model, const Options& options) {
  std::map<const Linear*, int64_t> input_of;
  int64_t inputs = 0;
  const auto share = [&](std::initializer_list<const Linear*> layers) {
    for (const Linear* layer : layers) {
      input_of[layer] = inputs;
    }
    ++inputs;
  };
  for (const Block& block : model.blocks) {
    share({&block.attention.q, &block.attention.k, &block.attention.v});
    share({&block.attention.o});
    share({&block.mlp.gate, &block.mlp.up});
    share({&block.mlp.down});
    share({&block.experts.router});
    for (const Mlp& expert : block.experts.mlps) {
      share({&expert.gate, &expert.up});
      share({&expert.down});
    }
  }
  std::map<std::string, int64_t> seeds;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    const auto found = input_of.find(named.linear);
    const uint64_t input = static_cast<uint64_t>(found == input_of.end() ? inputs : found->second);  // the head's
    seeds[named.name] = static_cast<int64_t>(seed_of(options, input));
  }
  return seeds;
}

Prepared prepare_activation_noise(const Model& model, const Statistics*, const Options& options) {
  const auto change = [seeds = seeds_of_inputs(model, options)](const std::string& name, const Linear& linear,
                                                                double severity) {
    Linear result = linear;
    result.input.noise = severity;
    result.input.noise_seed = seeds.at(name);
    return result;
  };
  return per_linear("activation_noise", activation_sigma(), model, options, change);
}

}  // namespace

std::vector<Method> noise_methods() {
  return {
      {.name = "gaussian",
       .kind = "weights",
       .description = "adds Gaussian noise of σ standard deviations of the matrix",
       .axis = axes::sigma(),
       .needs = {},
       .options = with_filter({{"seed", int64_t{0}, "of the noise's direction", {}}}),
       .prepare = prepare_gaussian},
      {.name = "bit_flip",
       .kind = "weights",
       .description = "inverts stored bits of weights, as faulty memory does",
       .axis = rate_axis({.bits = 0, .bit = std::nullopt, .stuck_at = std::nullopt}),
       .needs = {},
       .options = fault_options(),
       .prepare = prepare_bit_flip,
       .axis_for =
           [](const Model& model, const Options& options) {
             return rate_axis(faults_of("bit_flip", model, options, std::nullopt));
           }},
      {.name = "stuck_at",
       .kind = "weights",
       .description = "stored bits of weights read 0, or 1, whatever was written",
       .axis = rate_axis({.bits = 0, .bit = std::nullopt, .stuck_at = 0}),
       .needs = {},
       .options = fault_options({{"value", int64_t{0}, "what a stuck bit reads, 0 or 1", {}}}),
       .prepare = prepare_stuck_at,
       .axis_for =
           [](const Model& model, const Options& options) {
             return rate_axis(faults_of("stuck_at", model, options, option<int64_t>(options, "value")));
           }},
      {.name = "activation_noise",
       .kind = "activations",
       .description = "adds Gaussian noise to the inputs of linear layers",
       .axis = activation_sigma(),
       .needs = {},
       .options = with_filter({{"seed", int64_t{0}, "of the noise's direction", {}}}),
       .prepare = prepare_activation_noise},
  };
}

}  // namespace hemostat
