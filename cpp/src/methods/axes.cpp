#include "axes.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace hemostat::axes {
namespace {

std::vector<double> tenths() { return {.1, .2, .3, .4, .5, .6, .7, .8, .9}; }

}  // namespace

Axis sparsity() { return {.name = "sparsity", .unit = "fraction removed", .default_grid = tenths()}; }

Axis kept_of(int64_t m) {
  Axis axis{.name = "n", .unit = fmt::format("kept of every {}", m)};
  axis.neutral = axis.maximum = static_cast<double>(m);
  axis.farthest = 0;
  axis.kind = AxisKind::integer;
  for (int64_t n = m - 1; n >= 1; --n) {
    axis.default_grid.push_back(static_cast<double>(n));
  }
  return axis;
}

Axis bits() {
  return {.name = "bits",
          .unit = "bits",
          .neutral = 16,
          .minimum = 2,
          .maximum = 8,
          .farthest = 0,
          .default_grid = {8, 7, 6, 5, 4, 3, 2}};
}

Axis bits_of_format(double bits) {
  Axis axis = axes::bits();
  axis.kind = AxisKind::listed;
  axis.minimum = bits;
  axis.maximum = axis.neutral;
  axis.default_grid = {bits};
  return axis;
}

Axis sigma() {
  return {.name = "sigma", .unit = "standard deviations of the weight", .default_grid = {.02, .05, .1, .2, .3, .5}};
}

Axis fraction(const std::string& name) { return {.name = name, .unit = "fraction", .default_grid = tenths()}; }

Axis fraction_of(const std::string& name, int64_t parts, int64_t most) {
  Axis axis = fraction(name);
  axis.step = 1.0 / static_cast<double>(parts);
  axis.maximum = static_cast<double>(most) / static_cast<double>(parts);
  axis.default_grid.clear();
  const int64_t half = std::min(std::max<int64_t>(parts / 2, 1), most), points = std::min<int64_t>(half, 8);
  for (int64_t i = 1; i <= points; ++i) {
    axis.default_grid.push_back(static_cast<double>((half * i + points - 1) / points) / static_cast<double>(parts));
  }
  return axis;
}

int64_t parts_at(double severity, int64_t parts) { return std::llround(severity * static_cast<double>(parts)); }

}  // namespace hemostat::axes
