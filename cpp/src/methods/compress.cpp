#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "on_linears.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.compress";

struct Stage {
  const Method& method;
  Options options;
  double severity;
};

std::vector<Stage> checked_stages(const Model& model, const std::vector<MethodAtSeverity>& methods) {
  if (methods.empty()) {
    throw ValueError(fmt::format("{}: methods is empty", kOperation));
  }
  std::vector<Stage> stages;
  for (const MethodAtSeverity& given : methods) {
    const Method& method = find_method(given.method.method);
    const Axis axis = planned_axis(model, given.method);
    stages.push_back(
        {method, complete_options(method, given.method.options), axis.checked(given.severity, method.name)});
  }
  return stages;
}

// Of stages that follow one another and change linears, in one pass.
Model propagated(const Model& model, const std::vector<Stage>& stages, const Statistics& unchanged,
                 const Propagation& calibration) {
  std::vector<std::unique_ptr<LinearMethod>> methods;
  std::vector<LinearStep> steps;
  std::set<Need> needs;
  for (const Stage& stage : stages) {
    methods.push_back(std::make_unique<LinearMethod>(stage.method, stage.options, model, &unchanged));
    steps.push_back({methods.back().get(), stage.severity});
    needs.merge(needs_of_inputs(needs_with(stage.method, stage.options)));
  }
  return changed_blockwise(model, steps, needs, &unchanged, calibration);
}

}  // namespace

Model compress(const Model& model, const std::vector<MethodAtSeverity>& methods, const Propagation& calibration,
               bool propagate) {
  const std::vector<Stage> stages = checked_stages(model, methods);
  check_propagation(kOperation, model, calibration);
  std::vector<LinearFilter> filters;
  for (const Stage& stage : stages) {
    if (stage.method.on_linears()) {
      filters.push_back(filter_of(stage.options));
    }
  }
  const LinearFilter chosen = filters.empty() ? LinearFilter() : any_of(model, filters);
  if (!propagate) {
    if (calibration.correct != 0) {
      throw ValueError(
          fmt::format("{}: correct = {} aims at the unchanged model's outputs block by block, so it takes propagate",
                      kOperation, calibration.correct));
    }
    std::set<Need> needs;
    std::vector<MethodSpec> specs;
    std::vector<double> severities;
    for (const MethodAtSeverity& given : methods) {
      needs.merge(given.method.needs());
      specs.push_back(given.method);
      severities.push_back(given.severity);
    }
    const Statistics statistics = unchanged_statistics(model, needs, chosen, nullptr, calibration);
    return compose(model, specs, &statistics).at(severities);
  }
  std::set<Need> of_unchanged;
  for (const Stage& stage : stages) {
    of_unchanged.merge(needs_of_unchanged(stage.method, stage.options));
  }
  const Statistics unchanged = unchanged_statistics(model, of_unchanged, chosen, nullptr, calibration);
  Model result = model;
  std::vector<Stage> together;
  const auto run = [&] {
    if (!together.empty()) {
      result = propagated(result, together, unchanged, calibration);
      together.clear();
    }
  };
  for (const Stage& stage : stages) {
    if (stage.method.on_linears()) {
      together.push_back(stage);
      continue;
    }
    run();
    const Prepared prepared = prepare(result, stage.method.name, &unchanged, stage.options);
    result = prepared.at(std::clamp(stage.severity, std::min(prepared.axis.minimum, prepared.axis.neutral),
                                    std::max(prepared.axis.maximum, prepared.axis.neutral)));
  }
  run();
  return result;
}

}  // namespace hemostat
