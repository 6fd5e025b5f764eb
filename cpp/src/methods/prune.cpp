#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

const OptionSpec kPatternLength{"m", int64_t{0}, "n:m pruning on an axis of n kept of every m; 0: unstructured", {}};

Axis pruning_axis(const Model&, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  if (m != 0 && (m < 2 || m > 1024)) {
    throw ValueError(fmt::format("hemostat.prepare: option m must be 0 or in 2 … 1024, got {}", m));
  }
  return m == 0 ? axes::sparsity() : axes::kept_of(m);
}

// Each severity selects anew: a mask costs little more than reading the weight, less than keeping an order would.
template <typename MaskOptions>
MaskOptions at_severity(const Options& options, double severity) {
  const int64_t m = option<int64_t>(options, "m");
  MaskOptions result;
  if (m == 0) {
    result.sparsity = severity;
  } else {
    result.pattern = fmt::format("{}:{}", static_cast<int64_t>(severity), m);
  }
  return result;
}

void check_pattern(const std::string& method, const Model& model, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    if (m > 0 && named.linear->in_features() % m != 0) {
      throw ValueError(fmt::format("hemostat.prepare({}): m = {} does not divide the {} input features of '{}'", method,
                                   m, named.linear->in_features(), named.name));
    }
  }
}

Prepared prepare_magnitude(const Model& model, const Statistics*, const Options& options) {
  check_pattern("magnitude", model, options);
  const auto change = [options](const std::string&, const Linear& linear, double severity) {
    auto mask_options = at_severity<prune::MagnitudeOptions>(options, severity);
    mask_options.scope = option<std::string>(options, "scope") == "row" ? prune::Scope::row : prune::Scope::tensor;
    const at::Tensor weight = linear.dense();
    return linear.with_weight(prune::apply(weight, prune::magnitude(weight, mask_options)));
  };
  return per_linear("magnitude", pruning_axis(model, options), model, options, change);
}

Prepared prepare_wanda(const Model& model, const Statistics* statistics, const Options& options) {
  check_pattern("wanda", model, options);
  check_statistics("wanda", model, filter_of(options), *statistics, Need::column_norm);
  std::map<std::string, at::Tensor> norms;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    norms[named.name] = statistics->at(named.name).norm().to(model.device());
  }
  const auto change = [options, norms](const std::string& name, const Linear& linear, double severity) {
    const at::Tensor weight = linear.dense();
    const at::Tensor mask = prune::wanda(weight, norms.at(name), at_severity<prune::WandaOptions>(options, severity));
    return linear.with_weight(prune::apply(weight, mask));
  };
  return per_linear("wanda", pruning_axis(model, options), model, options, change);
}

Prepared prepare_sparsegpt(const Model& model, const Statistics* statistics, const Options& options) {
  check_pattern("sparsegpt", model, options);
  const int64_t m = option<int64_t>(options, "m"), block_size = option<int64_t>(options, "block_size");
  const auto factors =
      gram_factors("sparsegpt", model, filter_of(options), *statistics,
                   {.damp = option<double>(options, "damp"),
                    .block_size = m > 0 && block_size > 0 ? prune::pattern_block_size(block_size, m) : block_size});
  const auto change = [options, factors](const std::string& name, const Linear& linear, double severity) {
    const auto pruned =
        prune::sparsegpt(linear.dense(), *factors.at(name), at_severity<prune::SparseGptOptions>(options, severity));
    return linear.with_weight(pruned.weight);
  };
  return per_linear("sparsegpt", pruning_axis(model, options), model, options, change);
}

}  // namespace

std::vector<Method> prune_methods() {
  return {
      {.name = "magnitude",
       .kind = "weights",
       .description = "removes the smallest weights of each matrix or row",
       .axis = axes::sparsity(),
       .needs = {},
       .options = with_filter(
           {{"scope", std::string("tensor"), "what the fraction counts over", {"tensor", "row"}}, kPatternLength}),
       .prepare = prepare_magnitude,
       .axis_for = pruning_axis},
      {.name = "wanda",
       .kind = "weights",
       .description = "removes the smallest |weight| · input norm of each row",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options = with_filter({kPatternLength}),
       .prepare = prepare_wanda,
       .axis_for = pruning_axis},
      {.name = "sparsegpt",
       .kind = "weights",
       .description = "removes weights column by column, those that are left make up for them",
       .axis = axes::sparsity(),
       .needs = {Need::gram},
       .options = with_filter({kPatternLength,
                               {"block_size", int64_t{128}, "columns whose mask is chosen together", {}},
                               {"damp", 0.01, "share of the mean diagonal entry added to the Gram matrix", {}}}),
       .prepare = prepare_sparsegpt,
       .axis_for = pruning_axis},
  };
}

}  // namespace hemostat
