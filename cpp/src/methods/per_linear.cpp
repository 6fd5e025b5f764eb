#include "per_linear.h"

#include <set>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "arguments.h"

namespace hemostat {
namespace {

void check_gradient(const std::string& method, const NamedLinear& named, const GradientStatistics& gradient,
                    Need need) {
  if (!gradient.has(need)) {
    throw ValueError(fmt::format("hemostat.prepare({}): the statistics of '{}' have no {}; collect it", method,
                                 named.name, name(need)));
  }
  const Linear& linear = *named.linear;
  if (gradient.out_features() != linear.out_features() || gradient.in_features() != linear.in_features()) {
    throw ValueError(fmt::format("hemostat.prepare({}): the gradients of '{}' are [{}, {}], but its weight is [{}, {}]",
                                 method, named.name, gradient.out_features(), gradient.in_features(),
                                 linear.out_features(), linear.in_features()));
  }
}

std::string not_finite(const std::string& method, Need need, const std::string& linear) {
  return fmt::format("hemostat.prepare({}): {} of '{}' has NaN or infinite entries; collect the statistics again",
                     method, name(need), linear);
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

void rethrow_naming(const std::string& method, const std::vector<NamedLinear>& linears,
                    const std::exception_ptr& thrown) {
  const auto failed = [&](const std::string& linear, const std::string& why) {
    return fmt::format("hemostat.prepare({}): {}: {}", method, linear, why);
  };
  try {
    std::rethrow_exception(thrown);
  } catch (const arguments::InvalidEntries& error) {
    for (const NamedLinear& named : linears) {
      if (linears.size() > 1 && !arguments::all_finite(named.linear->dense())) {
        throw ValueError(failed(named.name, "weight has NaN or infinite entries"));
      }
    }
    throw ValueError(failed(linears.front().name, error.finding()));
  } catch (const NumericalError& error) {
    throw NumericalError(failed(linears.front().name, error.what()));
  }
}

Prepared per_linear(const std::string& method, Axis axis, const Model& model, const Options& options,
                    LinearChange change) {
  const LinearFilter filter = filter_of(options);
  check_chosen(method, model, filter);
  const auto apply = [method, model, filter, change = std::move(change)](double severity) {
    at::NoGradGuard no_grad;
    return map_linears(model, filter, [&](const std::string& name, const Linear& linear) {
      return about(method, {{name, &linear}}, [&] { return change(name, linear, severity); });
    });
  };
  return Prepared(method, std::move(axis), apply, model);
}

void check_statistics(const std::string& method, const Model& model, const LinearFilter& filter,
                      const Statistics& statistics, Need need) {
  std::set<const InputStatistics*> seen;  // linears that share an input share its statistics
  for (const NamedLinear& named : linears(model, filter)) {
    if (gradient_needs().count(need) > 0) {
      check_gradient(method, named, statistics.gradient(named.name), need);
      if (!statistics.gradient(named.name).finite(need)) {
        throw ValueError(not_finite(method, need, named.name));
      }
      continue;
    }
    const InputStatistics& input = statistics.at(named.name);
    if (!input.has(need)) {
      throw ValueError(fmt::format("hemostat.prepare({}): the statistics of '{}' have no {}; collect it", method,
                                   named.name, name(need)));
    }
    if (input.in_features() != named.linear->in_features()) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): the statistics of '{}' are of {} features, but the layer takes {}", method,
                      named.name, input.in_features(), named.linear->in_features()));
    }
    if (seen.insert(&input).second && !input.finite(need)) {
      throw ValueError(not_finite(method, need, named.name));
    }
  }
}

void check_divides(const std::string& method, const Model& model, const LinearFilter& filter, const std::string& option,
                   int64_t size) {
  for (const NamedLinear& named : linears(model, filter)) {
    if (size > 0 && named.linear->in_features() % size != 0) {
      throw ValueError(fmt::format("hemostat.prepare({}): {} = {} does not divide the {} input features of '{}'",
                                   method, option, size, named.linear->in_features(), named.name));
    }
  }
}

GramFactors gram_factors(const std::string& method, const Model& model, const LinearFilter& filter,
                         const Statistics& statistics, const solve::GramFactorOptions& options) {
  check_statistics(method, model, filter, statistics, Need::gram);
  MemoryBudget budget;
  GramFactors factors;
  for (const InputGroup& group : by_input(model, filter, statistics)) {
    check_interrupt();
    const solve::GramFactor made = about(
        method, group.linears, [&] { return solve::GramFactor(group.input->gram().to(model.device()), options); });
    const solve::GramFactor factor = made.with_matrix(budget.hold(made.matrix()));
    for (const NamedLinear& named : group.linears) {
      factors.emplace(named.name, factor);
    }
  }
  return factors;
}

std::vector<InputGroup> by_input(const Model& model, const LinearFilter& filter, const Statistics& statistics) {
  std::vector<InputGroup> groups;
  std::map<const InputStatistics*, size_t> places;
  for (const NamedLinear& named : linears(model, filter)) {
    const InputStatistics* input = &statistics.at(named.name);
    const auto [place, added] = places.emplace(input, groups.size());
    if (added) {
      groups.push_back({.input = input, .linears = {}});
    }
    groups[place->second].linears.push_back(named);
  }
  return groups;
}

}  // namespace hemostat
