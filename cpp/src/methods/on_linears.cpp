#include "on_linears.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <set>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "calibrate/blockwise.h"
#include "common/arguments.h"
#include "model/foreign.h"
#include "model/heap_trimmer.h"

namespace hemostat {
namespace {

std::string lacks(const std::string& method, Need need, const std::string& linear) {
  return fmt::format("hemostat.prepare({}): the statistics of '{}' have no {}; collect it", method, linear, name(need));
}

std::string not_finite(const std::string& method, Need need, const std::string& linear) {
  return fmt::format("hemostat.prepare({}): {} of '{}' has NaN or infinite entries; collect the statistics again",
                     method, name(need), linear);
}

void check_gradient(const std::string& method, const Site& site, Need need) {
  if (site.gradient == nullptr) {
    throw ValueError(fmt::format("hemostat.prepare({}): no gradients were collected for '{}'", method, site.name));
  }
  if (!site.gradient->has(need)) {
    throw ValueError(lacks(method, need, site.name));
  }
  const GradientStatistics& gradient = *site.gradient;
  const Linear& linear = *site.linear;
  if (gradient.out_features() != linear.out_features() || gradient.in_features() != linear.in_features()) {
    throw ValueError(fmt::format("hemostat.prepare({}): the gradients of '{}' are [{}, {}], but its weight is [{}, {}]",
                                 method, site.name, gradient.out_features(), gradient.in_features(),
                                 linear.out_features(), linear.in_features()));
  }
  if (!gradient.finite(need)) {
    throw ValueError(not_finite(method, need, site.name));
  }
}

void check_input(const std::string& method, const Site& site, Need need) {
  if (site.input == nullptr) {
    throw ValueError(fmt::format("hemostat.prepare({}): nothing was collected for '{}'", method, site.name));
  }
  if (!site.input->has(need)) {
    throw ValueError(lacks(method, need, site.name));
  }
  if (site.input->in_features() != site.linear->in_features()) {
    throw ValueError(
        fmt::format("hemostat.prepare({}): the statistics of '{}' are of {} features, but the layer takes {}", method,
                    site.name, site.input->in_features(), site.linear->in_features()));
  }
}

}  // namespace

void check_statistics(const std::string& method, const SharedInput& sites, Need need) {
  const InputStatistics* finite = nullptr;
  for (const Site& site : sites) {
    if (gradient_needs().count(need) > 0) {
      check_gradient(method, site, need);
      continue;
    }
    check_input(method, site, need);
    if (site.input != finite && !site.input->finite(need)) {
      throw ValueError(not_finite(method, need, site.name));
    }
    finite = site.input;
  }
}

namespace {

// The method that changes linears, by way of which another may.
struct Resolved {
  const Method& method;
  Options options;
};

Resolved resolved(const Method& method, const Options& options) {
  if (const auto* allocated = std::get_if<Allocated>(&method.change)) {
    const MethodSpec inner = allocated->inner(options);
    const Method& found = find_method(inner.method);
    return {found, complete_options(found, inner.options)};
  }
  return {method, options};
}

}  // namespace

std::vector<OptionSpec> with_filter(std::vector<OptionSpec> own) {
  own.push_back(
      {"include", std::vector<std::string>{}, "fnmatch patterns of linears to change; empty: all inside blocks", {}});
  own.push_back({"exclude", std::vector<std::string>{}, "fnmatch patterns of linears to leave", {}});
  return own;
}

LinearFilter filter_of(const Options& options) {
  return {option<std::vector<std::string>>(options, "include"), option<std::vector<std::string>>(options, "exclude")};
}

void check_chosen(const std::string& method, const Model& model, const LinearFilter& filter) {
  if (linears(model, filter).empty()) {
    throw ValueError(fmt::format("hemostat.prepare({}): include and exclude leave no linear layer to change", method));
  }
}

void check_divides(const std::string& method, const Model& model, const LinearFilter& filter, const std::string& option,
                   int64_t size) {
  const std::vector<NamedLinear> chosen = linears(model, filter);
  const auto misfit = std::find_if(chosen.begin(), chosen.end(), [&](const NamedLinear& named) {
    return size > 0 && named.linear->in_features() % size != 0;
  });
  if (misfit == chosen.end()) {
    return;
  }
  int64_t common = 0, fits = size;
  for (const NamedLinear& named : chosen) {
    common = std::gcd(common, named.linear->in_features());
  }
  while (common % fits != 0) {
    --fits;
  }
  throw ValueError(fmt::format("hemostat.prepare({}): {} = {} does not divide the {} input features of '{}'{}", method,
                               option, size, misfit->linear->in_features(), misfit->name,
                               fits > 1 ? fmt::format("; {} divides those of every layer", fits) : ""));
}

void rethrow_naming(const std::string& method, const SharedInput& sites, const std::exception_ptr& thrown) {
  const auto failed = [&](const std::string& linear, const std::string& why) {
    return fmt::format("hemostat.prepare({}): {}: {}", method, linear, why);
  };
  try {
    std::rethrow_exception(thrown);
  } catch (const arguments::InvalidEntries& error) {
    for (const Site& site : sites) {
      if (sites.size() > 1 && !arguments::all_finite(site.linear->dense())) {
        throw ValueError(failed(site.name, "weight has NaN or infinite entries"));
      }
    }
    throw ValueError(failed(sites.front().name, error.finding()));
  } catch (const NumericalError& error) {
    throw NumericalError(failed(sites.front().name, error.what()));
  }
}

double matrix_of_input(const SharedInput& sites, const Options&) {
  const auto features = static_cast<double>(sites.front().linear->in_features());
  return 4 * features * features;
}

double products_with_input(const SharedInput& sites, const Options&) {
  double products = 0;
  for (const Site& site : sites) {
    const auto features = static_cast<double>(site.linear->in_features());
    products += static_cast<double>(site.linear->out_features()) * features * features;
  }
  return products;
}

std::set<Need> needs_with(const Method& method, const Options& options) {
  return method.needs_for ? method.needs_for(options) : method.needs;
}

LinearMethod::LinearMethod(const Method& method, const Options& options, const Model& model,
                           const Statistics* statistics)
    : method_(resolved(method, options).method),
      options_(resolved(method, options).options),
      linears_(std::get<OnLinears>(method_.change)),
      needs_(needs_with(method_, options_)),
      filter_(filter_of(options)),
      neutral_(method.axis_for ? method.axis_for(model, options).neutral : method.axis.neutral) {
  check_chosen(method.name, model, filter_);
  for (const NamedLinear& named : linears(model, filter_)) {
    indices_.emplace(named.name, indices_.size());
    if (model.foreign && statistics != nullptr && !needs_of_inputs(needs_).empty()) {
      const auto found = statistics->inputs.find(named.name);
      if (found != statistics->inputs.end() && found->second->count() == 0) {
        never_called_.insert(named.name);
      }
    }
  }
  if (const auto* allocated = std::get_if<Allocated>(&method.change)) {
    allocated_ = allocated->severities(model, statistics, options);
  }
}

void LinearMethod::number(SharedInput& sites) const {
  for (Site& site : sites) {
    site.index = indices_.at(site.name);
  }
}

namespace {

std::vector<Linear> unchanged(const SharedInput& sites) {
  std::vector<Linear> linears;
  for (const Site& site : sites) {
    linears.push_back(*site.linear);
  }
  return linears;
}

// Where no token reached an input, sites have what stands for its statistics, for as long as this lives.
class WithoutTokens {
 public:
  explicit WithoutTokens(SharedInput& sites) {
    for (Site& site : sites) {
      if (site.input != nullptr && site.input->count() == 0) {
        stand_ins_.push_back(std::make_unique<InputStatistics>(site.input->alike()));
        site.input = stand_ins_.back().get();
      }
    }
  }

 private:
  std::vector<std::unique_ptr<InputStatistics>> stand_ins_;
};

}  // namespace

void LinearMethod::check(const SharedInput& sites) const {
  for (const Need need : needs_) {
    check_statistics(method_.name, sites, need);
  }
}

std::vector<Held> LinearMethod::hold(SharedInput sites, MemoryBudget& budget) const {
  if (is_left(sites)) {
    return {};
  }
  number(sites);
  const WithoutTokens without_tokens(sites);
  check_interrupt();
  std::vector<Held> held;
  if (linears_.hold_input) {
    held.push_back(about(method_.name, sites, [&] { return linears_.hold_input(sites, options_, budget); }));
  } else {
    for (const Site& site : sites) {
      held.push_back(linears_.hold_site
                         ? about(method_.name, {site}, [&] { return linears_.hold_site(site, options_, budget); })
                         : Held());
    }
  }
  trim_grown_heap();
  return held;
}

bool LinearMethod::is_left(const SharedInput& sites) const {
  return never_called_.count(sites.front().name) > 0;  // a foreign linear has an input of its own
}

double LinearMethod::severity_of(const Site& site, double severity) const {
  return allocated_ ? allocated_(severity).at(site.block.value()) : severity;
}

std::vector<Linear> LinearMethod::change(SharedInput sites, const std::vector<Held>& held, double severity) const {
  number(sites);
  if (holds()) {
    std::for_each(sites.begin(), sites.end(), [](Site& site) { site.input = nullptr, site.gradient = nullptr; });
  }
  const WithoutTokens without_tokens(sites);
  check_interrupt();
  const double own = severity_of(sites.front(), severity);
  if (own == neutral_ || is_left(sites)) {
    return unchanged(sites);
  }
  std::vector<Linear> linears;
  if (linears_.change_input) {
    linears = about(method_.name, sites, [&] { return linears_.change_input(sites, held.front(), options_, own); });
  } else {
    for (size_t i = 0; i < sites.size(); ++i) {
      const Held& here = held[linears_.hold_input ? 0 : i];
      linears.push_back(
          about(method_.name, {sites[i]}, [&] { return linears_.change_site(sites[i], here, options_, own); }));
    }
  }
  trim_grown_heap();
  return linears;
}

Model changed_blockwise(const Model& model, const std::vector<LinearStep>& steps, const std::set<Need>& needs,
                        const Statistics* gradients, const Propagation& propagation) {
  BlockwiseOptions options{.needs = needs,
                           .gradients = gradients,
                           .memory_budget = propagation.memory_budget,
                           .batch = propagation.batch,
                           .correct = propagation.correct,
                           .correct_damp = propagation.correct_damp,
                           .progress = propagation.progress};
  std::vector<LinearFilter> filters;
  std::transform(steps.begin(), steps.end(), std::back_inserter(filters),
                 [](const LinearStep& step) { return step.method->filter(); });
  options.filter = any_of(model, filters);
  return calibrate_blockwise(model, propagation.tokens, options, [&](const SharedInput& sites) {
    std::vector<Linear> linears = unchanged(sites);
    for (const LinearStep& step : steps) {
      SharedInput own;
      std::vector<size_t> places;
      for (size_t i = 0; i < sites.size(); ++i) {
        if (step.method->changes(sites[i].name)) {
          own.push_back(sites[i]);
          own.back().linear = &linears[i];
          places.push_back(i);
        }
      }
      if (own.empty()) {
        continue;
      }
      step.method->check(own);
      MemoryBudget budget(std::numeric_limits<double>::infinity());  // what is held is used at once
      std::vector<Linear> changed = step.method->change(own, step.method->hold(own, budget), step.severity);
      for (size_t i = 0; i < places.size(); ++i) {
        linears[places[i]] = std::move(changed[i]);
      }
    }
    return linears;
  });
}

std::set<Need> needs_of_inputs(const std::set<Need>& needs) {
  std::set<Need> result;
  const std::set<Need> gradients = gradient_needs();
  std::set_difference(needs.begin(), needs.end(), gradients.begin(), gradients.end(),
                      std::inserter(result, result.end()));
  return result;
}

std::set<Need> needs_of_unchanged(const Method& method, const Options& options) {
  const std::set<Need> needs = needs_with(method, options);
  if (std::holds_alternative<OnModel>(method.change)) {
    return needs;
  }
  const auto* allocated = std::get_if<Allocated>(&method.change);
  std::set<Need> result = allocated != nullptr ? allocated->needs : std::set<Need>();
  const std::set<Need> gradients = gradient_needs();
  std::set_intersection(needs.begin(), needs.end(), gradients.begin(), gradients.end(),
                        std::inserter(result, result.end()));
  return result;
}

LinearFilter any_of(const Model& model, const std::vector<LinearFilter>& filters) {
  if (filters.size() == 1) {
    return filters.front();
  }
  std::set<std::string> names;
  for (const LinearFilter& filter : filters) {
    for (const NamedLinear& named : linears(model, filter)) {
      names.insert(named.name);
    }
  }
  return {.include = {names.begin(), names.end()}, .exclude = {}};
}

void check_propagation(const std::string& operation, const Model& model, const Propagation& propagation) {
  check_has_blocks(model, operation + ": propagate");
  checked_tokens(model, propagation.tokens, operation.c_str());
  check_blockwise(operation, propagation.batch, propagation.correct, propagation.correct_damp);
}

Statistics unchanged_statistics(const Model& model, const std::set<Need>& needs, const LinearFilter& filter,
                                const Statistics* given, const Propagation& propagation) {
  const std::set<Need> have = given != nullptr ? given->needs() : std::set<Need>();
  if (std::includes(have.begin(), have.end(), needs.begin(), needs.end())) {
    return given != nullptr ? *given : Statistics();
  }
  CollectOptions options;
  options.needs = needs;
  options.memory_budget = propagation.memory_budget;
  options.batch = propagation.batch;
  options.filter = filter;
  return collect(model, propagation.tokens, options);
}

}  // namespace hemostat
