#include "scan/trials.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "model/foreign.h"

namespace hemostat {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<double> ordered_severities(const Axis& axis, const MethodSpec& method,
                                       const std::vector<double>& severities, const char* operation) {
  if (severities.empty()) {
    throw ValueError(fmt::format("{}: {} has no severities", operation, method.text()));
  }
  std::vector<double> ordered;
  for (const double severity : severities) {
    ordered.push_back(axis.checked(severity, method.method));
  }
  std::sort(ordered.begin(), ordered.end(), [&](double a, double b) { return axis.distance(a) < axis.distance(b); });
  ordered.erase(std::unique(ordered.begin(), ordered.end()), ordered.end());
  return ordered;
}

void check_measurable(const Model& model, const MethodSpec& method, const Axis& axis, const char* operation) {
  if (axis.measured_by == Measure::generation) {
    check_has_blocks(model, fmt::format("{}: {} is measured by generation", operation, method.method));
  }
}

void Preparation::prepare() {
  if (!prepared_) {
    const auto start = std::chrono::steady_clock::now();
    prepared_.emplace(hemostat::prepare(model_(), method_.method, statistics_, method_.options, propagation_));
    seconds_ = seconds_since(start);
  }
}

Model Preparation::at(double severity) {
  prepare();
  return prepared_->at(severity);
}

SweepCurve run_trials(const BaselineEvaluation* baseline, Preparation& preparation, const Axis& axis,
                      const std::vector<double>& severities, const TrialsOptions& options) {
  SweepCurve curve;
  curve.method = preparation.name();
  curve.axis = axis;
  curve.noise_floor = options.noise_floor;
  for (const double severity : severities) {
    std::optional<Trial> known = options.known ? options.known({curve.method, severity}) : std::nullopt;
    const bool runs = !known.has_value();
    Trial trial = runs ? Trial{.method = curve.method, .severity = severity, .damage = {}} : *std::move(known);
    if (runs) {
      const double before = preparation.seconds();
      preparation.prepare();
      trial.seconds_prepare = preparation.seconds() - before;
      const auto start = std::chrono::steady_clock::now();
      const Model damaged = preparation.at(severity);
      trial.damage = baseline->compare(damaged);
      if (axis.measured_by == Measure::generation || options.generate || baseline->options().generate) {
        trial.damage.generation = baseline->compare_generation(damaged);
      }
      trial.seconds = seconds_since(start);
    }
    trial.damage.within_noise_floor = options.noise_floor && options.noise_floor->covers(trial.damage);
    if (runs && options.on_trial) {
      options.on_trial(trial);
    }
    curve.severities.push_back(severity);
    curve.seconds.push_back(trial.seconds);
    curve.seconds_prepare += trial.seconds_prepare;
    curve.damages.push_back(std::move(trial.damage));
  }
  return curve;
}

}  // namespace hemostat
