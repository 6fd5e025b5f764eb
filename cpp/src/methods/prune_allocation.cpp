#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "on_linears.h"

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
  if (method.axis.name != "sparsity" || !std::holds_alternative<OnLinears>(method.change)) {
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
}

MethodSpec inner_spec(const Options& options) {
  const Inner inner = inner_of(options);
  return {inner.spec.method, inner_options(inner, options)};
}

std::function<std::vector<double>(double)> sparsities(const Model& model, const Statistics* statistics,
                                                      const Options& options) {
  const double threshold = option<double>(options, "outlier_threshold"), lamda = option<double>(options, "lamda");
  std::vector<SharedInput> by_block(model.blocks.size());
  for (const SharedInput& sites : sites_of(model, filter_of(options), statistics)) {
    if (!sites.front().block) {
      throw ValueError(fmt::format(
          "hemostat.prepare(owl): include matches {}, which is outside blocks, but sparsity is shared by blocks",
          sites.front().name));
    }
    check_statistics("owl", sites, Need::column_norm);
    SharedInput& block = by_block[*sites.front().block];
    block.insert(block.end(), sites.begin(), sites.end());
  }
  std::vector<double> ratios;
  std::vector<size_t> blocks;
  for (size_t index = 0; index < by_block.size(); ++index) {
    const SharedInput& sites = by_block[index];
    check_interrupt();
    std::vector<at::Tensor> weights, norms;
    for (const Site& site : sites) {
      weights.push_back(site.linear->dense());
      norms.push_back(site.input->norm().to(weights.back().device()));
    }
    if (!sites.empty()) {
      ratios.push_back(about("owl", sites, [&] { return prune::outlier_ratio(weights, norms, threshold); }));
      blocks.push_back(index);
    }
  }
  return [=, count = model.blocks.size()](double severity) {
    const std::vector<double> shares = prune::owl(ratios, {.sparsity = severity, .lamda = lamda});
    std::vector<double> result(count);
    for (size_t i = 0; i < blocks.size(); ++i) {
      result[blocks[i]] = shares[i];
    }
    return result;
  };
}

}  // namespace

std::vector<Method> prune_allocation_methods() {
  return {
      {.name = "owl",
       .kind = Kind::weights,
       .description = "prunes by another method, less in blocks with more outliers",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options =
           std::vector<OptionSpec>{
               {"inner", std::string("wanda"), "what removes them: a method, or its spec with one option", {}},
               {.name = "outlier_threshold",
                .default_value = 5.0,
                .description = "an outlier exceeds so many times the block's mean score, 0 or more",
                .choices = {},
                .range = at_least(0)}} +
           declared<prune::OwlOptions>(),
       .change = Allocated{.needs = {Need::column_norm}, .inner = inner_spec, .severities = sparsities},
       .needs_for = owl_needs,
       .check = check_owl},
  };
}

}  // namespace hemostat
