#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "model/linears.h"
#include "needs.h"
#include "on_linears.h"

namespace hemostat {
namespace {

// A method on linears made ready on statistics of the unchanged model.
struct Ready {
  Model model;  // what the sites point into
  Statistics statistics;
  LinearMethod method;
  std::vector<SharedInput> inputs = {};
  std::vector<std::vector<Held>> held = {};

  Ready(const Method& found, const Options& options, const Model& given, const Statistics* collected)
      : model(given),
        statistics(collected != nullptr ? *collected : Statistics()),
        method(found, options, model, &statistics) {
    MemoryBudget budget;
    inputs = sites_of(model, method.filter(), &statistics);
    std::for_each(inputs.begin(), inputs.end(), [&](const SharedInput& sites) { method.check(sites); });
    for (const SharedInput& sites : inputs) {
      held.push_back(method.hold(sites, budget));
    }
    if (method.holds() || needs_with(found, options).empty()) {
      statistics = Statistics();
      for (SharedInput& sites : inputs) {
        std::for_each(sites.begin(), sites.end(), [](Site& site) { site.input = nullptr, site.gradient = nullptr; });
      }
    }
  }

  Model at(double severity) const {
    const at::NoGradGuard no_grad;
    std::vector<Linear> changed;
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (Linear& linear : method.change(inputs[i], held[i], severity)) {
        changed.push_back(std::move(linear));
      }
    }
    Model result = model;
    size_t next = 0;
    for_each_chosen(result, method.filter(),
                    [&](const NamedLinear&, Linear& linear) { linear = std::move(changed[next++]); });
    return result;
  }
};

std::function<Model(double)> on_statistics(const Method& method, const Options& options, const Model& model,
                                           const Statistics* statistics) {
  const at::NoGradGuard no_grad;
  const auto ready = std::make_shared<const Ready>(method, options, model, statistics);
  return [ready](double severity) { return ready->at(severity); };
}

std::function<Model(double)> blockwise(const Method& method, const Options& options, const Model& model,
                                       const Statistics* statistics, const Propagation& propagation) {
  const std::set<Need> unchanged = needs_of_unchanged(method, options);
  const auto collected = std::make_shared<const Statistics>(
      unchanged_statistics(model, unchanged, filter_of(options), statistics, propagation));
  if (propagation.correct == 0 && needs_with(method, options) == unchanged) {  // nothing that a pass would give
    return on_statistics(method, options, model, collected.get());
  }
  const auto ready = std::make_shared<const LinearMethod>(method, options, model, collected.get());
  const std::set<Need> needs = needs_of_inputs(needs_with(method, options));
  return [=](double severity) {
    return changed_blockwise(model, {{ready.get(), severity}}, needs, collected.get(), propagation);
  };
}

std::function<Model(double)> on_model(const OnModel& method, const Options& options, const Model& model,
                                      const Statistics* statistics) {
  Held held = method.hold ? method.hold(model, statistics, options) : Held();
  return [=, change = method.change](double severity) { return change(model, held, options, severity); };
}

void check_statistics_given(const std::string& method, const std::set<Need>& needs, const Statistics* statistics) {
  std::vector<std::string> names;
  for (const Need need : needs) {
    names.push_back(name(need));
  }
  if (!needs.empty() && statistics == nullptr) {
    throw ValueError(fmt::format("hemostat.prepare({}): the method needs statistics ({}); collect them first", method,
                                 fmt::join(names, ", ")));
  }
}

// The sites of a method on linears, and what it makes of them; none of another.
template <typename Estimate>
double sum_over_inputs(const Model& model, const MethodSpec& spec, const Estimate& estimate) {
  const Method& method = find_method(spec.method);
  const Options options = complete_options(method, spec.options);
  const auto* allocated = std::get_if<Allocated>(&method.change);
  if (allocated != nullptr) {
    return sum_over_inputs(model, allocated->inner(options), estimate);
  }
  const auto* linears = std::get_if<OnLinears>(&method.change);
  double sum = 0;
  if (linears != nullptr) {
    for (const SharedInput& sites : sites_of(model, filter_of(options))) {
      sum += estimate(*linears, sites, options);
    }
  }
  return sum;
}

}  // namespace

Prepared::Prepared(std::string method, Axis given, std::function<Model(double)> apply, Model neutral)
    : axis(std::move(given)), method_(std::move(method)), apply_(std::move(apply)), neutral_(std::move(neutral)) {}

Model Prepared::at(double severity) const {
  const double checked = axis.checked(severity, method_);
  return checked == axis.neutral ? neutral_ : apply_(checked);
}

Prepared prepare(const Model& model, const std::string& name, const Statistics* statistics, const Options& given,
                 const Propagation* propagation) {
  const Method& method = find_method(name);
  const Options options = complete_options(method, given);
  if (propagation == nullptr) {
    check_statistics_given(name, needs_with(method, options), statistics);
  } else {
    if (!method.on_linears()) {
      throw ValueError(fmt::format(
          "hemostat.prepare({}): propagate calibrates linears block by block, but {} changes the model as a whole",
          name, name));
    }
    check_propagation(fmt::format("hemostat.prepare({})", name), model, *propagation);
  }
  const Axis axis = planned_axis(model, {name, options});
  if (const auto* whole = std::get_if<OnModel>(&method.change)) {
    return Prepared(name, axis, on_model(*whole, options, model, statistics), model);
  }
  return Prepared(name, axis,
                  propagation != nullptr ? blockwise(method, options, model, statistics, *propagation)
                                         : on_statistics(method, options, model, statistics),
                  model);
}

double held_bytes(const Model& model, const MethodSpec& method) {
  return sum_over_inputs(model, method, [](const OnLinears& linears, const SharedInput& sites, const Options& options) {
    return linears.holds ? linears.holds(sites, options) : 0;
  });
}

double estimated_work(const Model& model, const MethodSpec& method) {
  return sum_over_inputs(model, method, [](const OnLinears& linears, const SharedInput& sites, const Options& options) {
    if (linears.costs) {
      return linears.costs(sites, options);
    }
    double entries = 0;
    for (const Site& site : sites) {
      entries += static_cast<double>(site.linear->out_features()) * static_cast<double>(site.linear->in_features());
    }
    return entries;
  });
}

}  // namespace hemostat
