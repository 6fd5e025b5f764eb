#include "scan/surface.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "scan/additivity.h"
#include "threshold/edge.h"

namespace hemostat {
namespace {

constexpr const char* kSurface = "hemostat.surface";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The first method with a severity, then the second.
std::string joint_name(const MethodSpec& first, double severity, const MethodSpec& second) {
  return fmt::format("{}@{} > {}", first.text(), severity, second.text());
}

PlannedSurface checked(const Model& model, const MethodPair& methods, const Statistics* statistics,
                       const SurfaceOptions& options) {
  std::array<PlannedMethod, 2> planned;
  for (size_t i = 0; i < 2; ++i) {
    Axis axis = planned_axis(model, methods[i]);
    std::vector<double> severities =
        ordered_severities(axis, methods[i], options.severities[i].value_or(axis.default_grid), kSurface);
    check_needs(methods[i], statistics, kSurface);
    planned[i] = {methods[i], std::move(severities), std::move(axis)};
  }
  return with_neutral(std::move(planned));
}

std::vector<double> without_neutral(const std::vector<double>& severities) {
  return {severities.begin() + 1, severities.end()};
}

}  // namespace

PlannedSurface with_neutral(std::array<PlannedMethod, 2> methods) {
  for (PlannedMethod& method : methods) {
    if (method.severities.front() != method.axis.neutral) {
      method.severities.insert(method.severities.begin(), method.axis.neutral);
    }
  }
  return {std::move(methods)};
}

std::optional<TrialName> PlannedSurface::trial(size_t first, size_t second) const {
  const double severity_first = methods[0].severities.at(first), severity = methods[1].severities.at(second);
  if (first == 0 && second == 0) {
    return std::nullopt;
  }
  if (second == 0) {
    return TrialName{methods[0].method.text(), severity_first};
  }
  if (first == 0) {
    return TrialName{methods[1].method.text(), severity};
  }
  return TrialName{joint_name(methods[0].method, severity_first, methods[1].method), severity};
}

Surface run_surface(const BaselineEvaluation* baseline, const Damage& unchanged, const Model& model,
                    const PlannedSurface& planned, const Statistics* statistics, const TrialsOptions& options) {
  const auto& [first, second] = planned.methods;
  Surface surface;
  surface.methods = {first.method.text(), second.method.text()};
  surface.axes = {first.axis, second.axis};
  surface.severities = {first.severities, second.severities};
  surface.noise_floor = options.noise_floor;
  surface.damages.assign(first.severities.size(), {});
  surface.seconds.assign(first.severities.size(), {});
  const auto add = [&](size_t row, Damage damage, double seconds) {
    surface.damages[row].push_back(std::move(damage));
    surface.seconds[row].push_back(seconds);
  };
  const auto run = [&](Preparation& preparation, const PlannedMethod& method, const TrialsOptions& running) {
    const std::vector<double> severities = without_neutral(method.severities);
    SweepCurve curve = run_trials(baseline, preparation, method.axis, severities, running);
    surface.seconds_prepare += curve.seconds_prepare;
    return curve;
  };

  add(0, unchanged, 0);
  surface.damages[0][0].within_noise_floor = options.noise_floor && options.noise_floor->covers(unchanged);
  Preparation alone(model, first.method, statistics, options.propagation);
  SweepCurve column = run(alone, first, options);
  for (size_t i = 1; i < first.severities.size(); ++i) {
    add(i, std::move(column.damages[i - 1]), column.seconds[i - 1]);
  }
  for (size_t i = 0; i < first.severities.size(); ++i) {
    TrialsOptions running = options;
    running.generate |= i > 0 && first.axis.measured_by == Measure::generation;
    const double severity = first.severities[i];
    Preparation after([&] { return i == 0 ? model : alone.at(severity); }, second.method, statistics,
                      options.propagation,
                      i == 0 ? second.method.text() : joint_name(first.method, severity, second.method));
    SweepCurve row = run(after, second, running);
    for (size_t j = 0; j < row.damages.size(); ++j) {
      add(i, std::move(row.damages[j]), row.seconds[j]);
    }
  }
  return surface;
}

Surface surface(const BaselineEvaluation& baseline, const MethodPair& methods, const Statistics* statistics,
                const SurfaceOptions& options) {
  const PlannedSurface planned = checked(baseline.model(), methods, statistics, options);
  const Damage unchanged = baseline.unchanged();  // judged first
  const std::optional<NoiseFloor> floor = options.noise_floor ? options.noise_floor : measure_noise_floor(baseline);
  // Where both methods are one, the first's curve is the second's too.
  std::map<TrialName, Trial> finished;
  TrialsOptions running{.noise_floor = floor};
  running.known = [&](const TrialName& name) -> std::optional<Trial> {
    const auto found = finished.find(name);
    return found == finished.end() ? std::nullopt : std::optional(found->second);
  };
  running.on_trial = [&](const Trial& trial) {
    finished[{trial.method, trial.severity}] = trial;
    if (options.on_trial) {
      options.on_trial(trial);
    }
  };
  return run_surface(&baseline, unchanged, baseline.model(), planned, statistics, running);
}

Surface surface(const Model& model, const MethodPair& methods, const at::Tensor& tokens, const Statistics* statistics,
                const SurfaceOptions& options) {
  checked(model, methods, statistics, options);  // before the baseline is evaluated
  return surface(BaselineEvaluation(model, tokens, options.compare), methods, statistics, options);
}

namespace {

using Grid = std::vector<std::vector<double>>;

// How far the second method may go at each severity of the first, where `damage` says what both do.
std::vector<Edge> joint_edges(const Surface& surface, const Grid& damage, double tolerance) {
  const Axis& axis = surface.axes[1];
  std::vector<Edge> edges;
  std::vector<double> monotone(surface.severities[1].size(), -kInfinity);  // of the rows so far
  for (const std::vector<double>& row : damage) {
    for (size_t j = 0; j < row.size(); ++j) {
      monotone[j] = std::max(monotone[j], std::isnan(row[j]) ? kInfinity : row[j]);
      if (j > 0) {
        monotone[j] = std::max(monotone[j], monotone[j - 1]);
      }
    }
    Edge edge;
    if (monotone[0] <= tolerance) {
      edge = zone_edge(axis, without_neutral(surface.severities[1]), {monotone.begin() + 1, monotone.end()}, tolerance,
                       axis.continuous_at_neutral ? std::optional(monotone[0]) : std::nullopt);
      edge.severity = edge.severity.value_or(axis.neutral);
    }
    edges.push_back(edge);
  }
  return edges;
}

// The most that each point's damage may be; none where that is not known of one. The unchanged model does none.
std::optional<Grid> damages_at_most(const std::vector<std::vector<Damage>>& damages) {
  Grid grid;
  for (const std::vector<Damage>& row : damages) {
    std::vector<double>& entries = grid.emplace_back();
    for (const Damage& damage : row) {
      const bool unchanged = grid.size() == 1 && entries.empty();
      const std::optional<double> most = unchanged ? std::optional(0.0) : damage_at_most(damage, Criterion::delta_nll);
      if (!most) {
        return std::nullopt;
      }
      entries.push_back(*most);
    }
  }
  return grid;
}

}  // namespace

std::vector<Zone> Surface::zone(double tolerance) const {
  check_tolerance(tolerance, "hemostat.Surface.zone");
  Grid estimates;
  for (const std::vector<Damage>& row : damages) {
    std::vector<double>& entries = estimates.emplace_back();
    for (const Damage& damage : row) {
      entries.push_back(damage.delta_nll);
    }
  }
  std::vector<Zone> zones;
  for (const Edge& edge : joint_edges(*this, estimates, tolerance)) {
    zones.push_back({.tolerance = tolerance, .edge = edge.severity, .edge_censored = edge.censored});
  }
  if (const std::optional<Grid> most = damages_at_most(damages)) {
    const std::vector<Edge> shown = joint_edges(*this, *most, tolerance);
    for (size_t i = 0; i < zones.size(); ++i) {
      zones[i].severity = shown[i].severity;
      zones[i].censored = shown[i].censored;
    }
  }
  return zones;
}

std::vector<std::vector<std::optional<double>>> Surface::additivity() const {
  std::vector<std::vector<std::optional<double>>> result;
  for (size_t i = 0; i < damages.size(); ++i) {
    result.emplace_back(damages[i].size());
    for (size_t j = 1; i > 0 && j < damages[i].size(); ++j) {
      result[i][j] = hemostat::additivity(damages[i][0].delta_nll + damages[0][j].delta_nll, damages[i][j]);
    }
  }
  return result;
}

}  // namespace hemostat
