#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

#include "scan/surface.h"
#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.scan";

// At most `points` of the grid, its ends among them.
std::vector<double> thinned(const std::vector<double>& grid, int64_t points) {
  const auto size = static_cast<int64_t>(grid.size());
  if (size <= points) {
    return grid;
  }
  if (points == 1) {
    return {grid[size / 2]};
  }
  std::vector<double> chosen;
  for (int64_t i = 0; i < points; ++i) {
    chosen.push_back(grid[std::llround(static_cast<double>(i * (size - 1)) / static_cast<double>(points - 1))]);
  }
  return chosen;
}

using Grids = std::map<std::string, std::vector<double>>;

Grids canonical_severities(const ScanOptions& options) {
  Grids given;
  for (const auto& [text, severities] : options.severities) {
    given[MethodSpec::parse(text).text()] = severities;
  }
  return given;
}

PlannedMethod planned(const Model& model, const MethodSpec& method, const Grids& given, std::optional<int64_t> points) {
  Axis axis = planned_axis(model, method);
  check_measurable(model, method, axis, kOperation);
  const auto own = given.find(method.text());
  std::vector<double> severities =
      own != given.end() ? own->second
                         : thinned(axis.default_grid, points.value_or(static_cast<int64_t>(axis.default_grid.size())));
  severities = ordered_severities(axis, method, severities, kOperation);
  return {method, std::move(severities), std::move(axis)};
}

}  // namespace

std::vector<PlannedMethod> plan(const Model& model, const std::vector<MethodSpec>& methods,
                                const ScanOptions& options) {
  if (methods.empty()) {
    throw ValueError(fmt::format("{}: methods is empty", kOperation));
  }
  if (options.points && *options.points < 1) {
    throw ValueError(fmt::format("{}: points is {}, but takes at least 1", kOperation, *options.points));
  }
  std::set<std::string> listed;
  for (const MethodSpec& method : methods) {
    if (!listed.insert(method.text()).second) {
      throw ValueError(fmt::format("{}: methods has {} twice", kOperation, method.text()));
    }
  }
  for (const MethodPair& pair : options.joint) {
    listed.insert({pair[0].text(), pair[1].text()});
  }
  for (const auto& [text, severities] : options.severities) {
    if (listed.count(MethodSpec::parse(text).text()) == 0) {
      throw ValueError(
          fmt::format("{}: severities are given for {}, which is not among the methods", kOperation, text));
    }
  }

  const Grids given = canonical_severities(options);
  std::vector<PlannedMethod> all;
  for (const MethodSpec& method : methods) {
    all.push_back(planned(model, method, given, options.points));
  }
  return all;
}

std::vector<PlannedSurface> plan_joint(const Model& model, const ScanOptions& options) {
  const Grids given = canonical_severities(options);
  std::set<std::array<std::string, 2>> listed;
  std::vector<PlannedSurface> all;
  for (const MethodPair& pair : options.joint) {
    if (!listed.insert({pair[0].text(), pair[1].text()}).second) {
      throw ValueError(fmt::format("{}: joint has {}, {} twice", kOperation, pair[0].text(), pair[1].text()));
    }
    all.push_back(with_neutral({planned(model, pair[0], given, options.points),  //
                                planned(model, pair[1], given, options.points)}));
  }
  return all;
}

}  // namespace hemostat
