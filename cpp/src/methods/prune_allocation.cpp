#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

// The method that removes weights, at the sparsity that each block is given.
struct Inner {
  MethodSpec spec;
  const Method& method;
};

Inner inner_of(const Options& options) {
  const MethodSpec spec = MethodSpec::parse(option<std::string>(options, "inner"));
  const Method& method = find_method(spec.method);
  std::set<std::string> names;
  for (const OptionSpec& known : method.options) {
    names.insert(known.name);
  }
  if (spec.method == "owl" || method.axis.name != "sparsity" || names.count("include") == 0) {
    throw ValueError(
        fmt::format("hemostat.prepare(owl): inner is '{}', but must be one that removes single weights, as wanda does",
                    spec.method));
  }
  return {.spec = spec, .method = method};
}

std::set<Need> owl_needs(const Options& options) {
  std::set<Need> needs = inner_of(options).spec.needs();
  needs.insert(Need::column_norm);  // outliers are weighed by it
  return needs;
}

// The model with one of its blocks alone, so that only its linears are found.
Model alone(const Model& model, const Block& block) {
  Model result = model;
  result.blocks = {block};
  result.head.linear = Linear();
  return result;
}

// The inner method's options, with owl's filter.
Options inner_options(const Inner& inner, const Options& options) {
  Options own = inner.spec.options;
  if (own.count("include") + own.count("exclude") > 0) {
    throw ValueError(fmt::format("hemostat.prepare(owl): inner is '{}', but include and exclude are owl's own options",
                                 inner.spec.text()));
  }
  own["include"] = option<std::vector<std::string>>(options, "include");
  own["exclude"] = option<std::vector<std::string>>(options, "exclude");
  return own;
}

void check_owl(const Model& model, const Options& options) {
  check_chosen("owl", model, filter_of(options));
  const Inner inner = inner_of(options);
  const MethodSpec spec{inner.spec.method, inner_options(inner, options)};
  const Axis axis = planned_axis(model, spec);
  if (axis.name != "sparsity") {
    throw ValueError(fmt::format("hemostat.prepare(owl): inner is '{}', whose axis is {} instead of sparsity",
                                 inner.spec.text(), axis.name));
  }
  prune::owl({}, {.lamda = option<double>(options, "lamda")});
}

Prepared prepare_owl(const Model& model, const Statistics* statistics, const Options& options) {
  const LinearFilter filter = filter_of(options);
  check_statistics("owl", model, filter, *statistics, Need::column_norm);
  const Inner inner = inner_of(options);
  const Options own = inner_options(inner, options);
  const double threshold = option<double>(options, "outlier_threshold"), lamda = option<double>(options, "lamda");

  std::vector<double> ratios;
  std::vector<std::pair<size_t, Prepared>> blocks;
  size_t chosen = 0;
  for (size_t index = 0; index < model.blocks.size(); ++index) {
    check_interrupt();
    const Model block = alone(model, model.blocks[index]);
    std::vector<at::Tensor> weights, norms;
    const std::vector<NamedLinear> inside = linears(block, filter);
    for (const NamedLinear& named : inside) {
      weights.push_back(named.linear->dense());
      norms.push_back(statistics->at(named.name).norm().to(model.device()));
    }
    if (weights.empty()) {
      continue;
    }
    chosen += weights.size();
    ratios.push_back(about("owl", inside, [&] { return prune::outlier_ratio(weights, norms, threshold); }));
    blocks.emplace_back(index, prepare(block, inner.spec.method, statistics, own));
  }
  if (chosen < linears(model, filter).size()) {
    throw ValueError(
        "hemostat.prepare(owl): include matches a linear outside blocks, but sparsity is shared by blocks");
  }
  const auto apply = [=](double severity) {
    const std::vector<double> sparsities = prune::owl(ratios, {.sparsity = severity, .lamda = lamda});
    Model result = model;
    for (size_t i = 0; i < blocks.size(); ++i) {
      check_interrupt();
      const auto& [index, prepared] = blocks[i];
      result.blocks[index] = prepared.at(sparsities[i]).blocks.front();
    }
    return result;
  };
  return Prepared("owl", axes::sparsity(), apply, model);
}

}  // namespace

std::vector<Method> prune_allocation_methods() {
  return {
      {.name = "owl",
       .kind = "weights",
       .description = "prunes by another method, less in blocks with more outliers",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options = with_filter(
           {{"inner", std::string("wanda"), "what removes them: a method, or its spec with one option", {}},
            {"outlier_threshold", 5.0, "an outlier exceeds so many times the block's mean score, 0 or more", {}},
            {"lamda", 0.08, "half of what the blocks' sparsities span, 0 or more", {}}}),
       .prepare = prepare_owl,
       .needs_for = owl_needs,
       .check = check_owl},
  };
}

}  // namespace hemostat
