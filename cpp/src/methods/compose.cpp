#include <mutex>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

#include "needs.h"

namespace hemostat {
namespace {

constexpr const char* kCompose = "hemostat.compose";

std::vector<Axis> checked_axes(const Model& model, const std::vector<MethodSpec>& methods,
                               const Statistics* statistics) {
  if (methods.empty()) {
    throw ValueError(fmt::format("{}: methods is empty", kCompose));
  }
  std::vector<Axis> axes;
  for (const MethodSpec& method : methods) {
    axes.push_back(planned_axis(model, method));
    check_needs(method, statistics, kCompose);
  }
  return axes;
}

}  // namespace

struct Composition::Stages {
  // A method made ready for the model that the severities before it give.
  struct Stage {
    MethodSpec method;
    std::vector<double> before = {};
    std::optional<Prepared> prepared = std::nullopt;
  };

  Model model;
  std::optional<Statistics> statistics;  // shares what they hold
  std::vector<Stage> stages = {};
  std::mutex mutex = {};

  const Prepared& prepared(size_t index, const Model& given, const std::vector<double>& severities) {
    Stage& stage = stages[index];
    const std::vector<double> before(severities.begin(), severities.begin() + static_cast<int64_t>(index));
    if (!stage.prepared || stage.before != before) {
      stage.prepared.reset();  // first, so that there are never two
      stage.prepared.emplace(
          prepare(given, stage.method.method, statistics ? &*statistics : nullptr, stage.method.options));
      stage.before = before;
    }
    return *stage.prepared;
  }
};

Composition::Composition(const Model& model, const std::vector<MethodSpec>& methods, const Statistics* statistics)
    : axes(checked_axes(model, methods, statistics)), stages_(std::make_shared<Stages>()) {
  stages_->model = model;
  if (statistics != nullptr) {
    stages_->statistics = *statistics;
  }
  for (const MethodSpec& method : methods) {
    stages_->stages.push_back({.method = method});
  }
  stages_->prepared(0, model, {});
}

Model Composition::at(const std::vector<double>& severities) const {
  if (severities.size() != axes.size()) {
    throw ValueError(fmt::format("hemostat.Composition.at: got {} severities, but there are {} methods",
                                 severities.size(), axes.size()));
  }
  std::vector<double> checked;
  for (size_t i = 0; i < axes.size(); ++i) {
    checked.push_back(axes[i].checked(severities[i], stages_->stages[i].method.method));
  }
  const std::lock_guard lock(stages_->mutex);
  Model result = stages_->model;
  for (size_t i = 0; i < axes.size(); ++i) {
    if (checked[i] != axes[i].neutral) {
      result = stages_->prepared(i, result, checked).at(checked[i]);
    }
  }
  return result;
}

Composition compose(const Model& model, const std::vector<MethodSpec>& methods, const Statistics* statistics) {
  return Composition(model, methods, statistics);
}

}  // namespace hemostat
