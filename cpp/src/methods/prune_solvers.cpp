#include <cstdint>
#include <map>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"
#include "pruning_axis.h"

namespace hemostat {
namespace {

// An n:m pattern that fits, and a count that is not negative.
FitCheck check_of(const std::string& method, const char* count) {
  return [method, count](const Model& model, const Options& options) {
    check_pattern(method, model, options);
    if (option<int64_t>(options, count) < 0) {
      throw ValueError(fmt::format("hemostat.prepare({}): {} is {}, but must be 0 or more", method, count,
                                   option<int64_t>(options, count)));
    }
  };
}

Prepared prepare_admm(const Model& model, const Statistics* statistics, const Options& options) {
  const LinearFilter filter = filter_of(options);
  check_statistics("admm", model, filter, *statistics, Need::gram);
  const int64_t iterations = option<int64_t>(options, "iterations");
  const prune::Scope scope = scope_of(options);

  MemoryBudget budget;
  std::map<std::string, prune::AdmmFactor> factors;
  for (const InputGroup& group : by_input(model, filter, *statistics)) {
    check_interrupt();
    auto factor = about("admm", group.linears, [&] {
      return prune::admm_factor(group.input->gram().to(model.device()), option<double>(options, "damp"));
    });
    factor.inverse = budget.hold(factor.inverse);
    for (const NamedLinear& named : group.linears) {
      factors[named.name] = factor;
    }
  }
  const auto change = [=, factors = std::move(factors)](const std::string& name, const Linear& linear,
                                                        double severity) {
    auto admm = pruned_at<prune::AdmmOptions>(options, severity);
    admm.scope = scope;
    admm.iterations = iterations;
    const at::Tensor weight = linear.dense();
    prune::AdmmFactor factor = factors.at(name);
    factor.inverse = factor.inverse.to(weight.device());  // from its file, where it had to be kept there
    return linear.with_weight(prune::admm(weight, factor, admm).weight);
  };
  return per_linear("admm", pruning_axis(model, options), model, options, change);
}

Prepared prepare_dsnot(const Model& model, const Statistics* statistics, const Options& options) {
  const LinearFilter filter = filter_of(options);
  check_statistics("dsnot", model, filter, *statistics, Need::column_norm);
  check_statistics("dsnot", model, filter, *statistics, Need::mean);
  const bool from_magnitude = option<std::string>(options, "initial") == "magnitude";
  const int64_t max_cycles = option<int64_t>(options, "max_cycles");

  struct Input {
    at::Tensor mean, norm;
  };
  std::map<std::string, Input> inputs;
  for (const NamedLinear& named : linears(model, filter)) {
    const InputStatistics& input = statistics->at(named.name);
    inputs[named.name] = {.mean = input.mean().to(model.device()), .norm = input.norm().to(model.device())};
  }
  const auto change = [=, inputs = std::move(inputs)](const std::string& name, const Linear& linear, double severity) {
    const at::Tensor weight = linear.dense();
    const auto& [mean, norm] = inputs.at(name);
    auto magnitude = pruned_at<prune::MagnitudeOptions>(options, severity);
    magnitude.scope = prune::Scope::row;
    const at::Tensor initial = from_magnitude
                                   ? prune::magnitude(weight, magnitude)
                                   : prune::wanda(weight, norm, pruned_at<prune::WandaOptions>(options, severity));
    const at::Tensor mask =
        prune::dsnot(weight, initial, mean, norm, {.pattern = magnitude.pattern, .max_cycles = max_cycles});
    return linear.with_weight(prune::apply(weight, mask));
  };
  return per_linear("dsnot", pruning_axis(model, options), model, options, change);
}

}  // namespace

std::vector<Method> prune_solver_methods() {
  return {
      {.name = "admm",
       .kind = "weights",
       .description = "removes weights, adjusts the others by alternating directions",
       .axis = axes::sparsity(),
       .needs = {Need::gram},
       .options = with_filter({pruning_scope("tensor"),
                               pattern_length(),
                               {"iterations", int64_t{20}, "how often weights and mask are adjusted, 0 or more", {}},
                               {"damp", 0.1, "added to the Gram matrix's diagonal, as a share of its mean", {}}}),
       .prepare = prepare_admm,
       .axis_for = pruning_axis,
       .check = check_of("admm", "iterations")},
      {.name = "dsnot",
       .kind = "weights",
       .description = "swaps kept and removed weights until output means are right",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm, Need::mean},
       .options = with_filter({{"initial", std::string("wanda"), "the mask it begins with", {"wanda", "magnitude"}},
                               pattern_length(),
                               {"max_cycles", int64_t{50}, "swaps in a row at most, 0 or more", {}}}),
       .prepare = prepare_dsnot,
       .axis_for = pruning_axis,
       .check = check_of("dsnot", "max_cycles")},
  };
}

}  // namespace hemostat
