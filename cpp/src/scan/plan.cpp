#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

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
  std::map<std::string, std::vector<double>> given;
  for (const auto& [text, severities] : options.severities) {
    const std::string canonical = MethodSpec::parse(text).text();
    if (listed.count(canonical) == 0) {
      throw ValueError(
          fmt::format("{}: severities are given for {}, which is not among the methods", kOperation, text));
    }
    given[canonical] = severities;
  }

  std::vector<PlannedMethod> planned;
  for (const MethodSpec& method : methods) {
    Axis axis = planned_axis(model, method);
    const auto own = given.find(method.text());
    std::vector<double> severities =
        own != given.end()
            ? own->second
            : thinned(axis.default_grid, options.points.value_or(static_cast<int64_t>(axis.default_grid.size())));
    severities = ordered_severities(axis, method, severities, kOperation);
    planned.push_back({method, std::move(severities), std::move(axis)});
  }
  return planned;
}

}  // namespace hemostat
