#include <memory>

#include <hemostat/mitigate.h>
#include <hemostat/prune.h>

#include "methods/axes.h"
#include "methods/catalogue.h"
#include "methods/declared.h"
#include "methods/on_linears.h"
#include "methods/pruning_axis.h"

namespace hemostat {
namespace {

using mitigate::GradientAwarePruning;

Held made_ready(const Model& model, const Statistics* statistics, const Options& options) {
  return std::make_shared<const GradientAwarePruning>(
      model, statistics->tokens, options_as<mitigate::GradientAwareOptions>(options), filter_of(options));
}

Model pruned(const Model&, const Held& held, const Options& options, double severity) {
  const auto& ready = *std::any_cast<const std::shared_ptr<const GradientAwarePruning>&>(held);
  const auto chosen = pruned_at<prune::MaskOptions>(options, severity);
  return ready.at(chosen.sparsity, chosen.pattern).model;
}

}  // namespace

std::vector<Method> mitigation_methods() {
  return {
      {.name = "gradient_aware",
       .kind = Kind::weights,
       .description = "prunes where predicted damage is least, to unchanged outputs",
       .axis = axes::sparsity(),
       .needs = {Need::tokens},
       .options = with_filter(declared<mitigate::GradientAwareOptions>() + pattern_length()),
       .change = OnModel{.hold = made_ready, .change = pruned},
       .axis_for = pruning_axis,
       .check = [](const Model& model,
                   const Options& options) { check_chosen("gradient_aware", model, filter_of(options)); }},
  };
}

}  // namespace hemostat
