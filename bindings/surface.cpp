// Room `scan`: two methods in order over a grid of both severities.
#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

#include "callbacks.h"
#include "compare_options.h"
#include "damage_fields.h"
#include "surface.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;
using Grids = std::array<std::optional<std::vector<double>>, 2>;

std::array<std::vector<double>, 2> distances_of_both(const Surface& surface) {
  std::array<std::vector<double>, 2> result;
  for (size_t i = 0; i < 2; ++i) {
    for (const double severity : surface.severities[i]) {
      result[i].push_back(surface.axes[i].distance(severity));
    }
  }
  return result;
}

std::vector<std::optional<double>> edges(const Surface& surface, double tolerance) {
  std::vector<std::optional<double>> result;
  for (const Zone& zone : surface.zone(tolerance)) {
    result.push_back(zone.severity);
  }
  return result;
}

py::list to_list(const std::vector<std::vector<Damage>>& damages, bool windows) {
  py::list rows;
  for (const std::vector<Damage>& row : damages) {
    py::list cells;
    for (const Damage& damage : row) {
      cells.append(damage_to_dict(damage, {.windows = windows, .finite = true}));
    }
    rows.append(cells);
  }
  return rows;
}

py::dict to_dict(const Surface& surface, bool windows) {
  py::list axes;
  for (const Axis& axis : surface.axes) {
    axes.append(py::cast(axis).attr("to_dict")());
  }
  return py::dict("methods"_a = surface.methods, "axes"_a = axes, "severities"_a = surface.severities,
                  "distances"_a = distances_of_both(surface), "damages"_a = to_list(surface.damages, windows),
                  "additivity"_a = surface.additivity(),
                  "noise_floor"_a = surface.noise_floor ? py::cast(*surface.noise_floor).attr("to_dict")() : py::none(),
                  "seconds_prepare"_a = surface.seconds_prepare, "seconds"_a = surface.seconds);
}

Surface checked_surface(Surface surface) {
  const size_t rows = surface.severities[0].size(), columns = surface.severities[1].size();
  bool fits = surface.damages.size() == rows && rows > 0 && columns > 0;
  for (const std::vector<Damage>& row : surface.damages) {
    fits = fits && row.size() == columns;
  }
  if (!fits) {
    throw ValueError(
        fmt::format("hemostat.Surface: damages must be a grid of {} × {}, as severities says, and not be "
                    "empty",
                    rows, columns));
  }
  for (size_t i = 0; i < 2; ++i) {
    if (surface.severities[i].front() != surface.axes[i].neutral) {
      throw ValueError(fmt::format("hemostat.Surface: the severities of {} begin with {}, but must with the neutral {}",
                                   surface.methods[i], surface.severities[i].front(), surface.axes[i].neutral));
    }
  }
  return surface;
}

void register_value(py::module_& module) {
  py::class_<Surface>(module, "Surface",
                      R"(What two methods in order do together, over a grid of both severities. Read-only.

The first row of the grid is the second method alone, the first column the first method alone.

Args:
    methods: Both canonical specs, in the order in which they are applied.
    axes: Their axes for the unchanged model.
    severities: Of each, from mild to severe; the first of each is neutral.
    damages: A list for each severity of the first, with one for each severity of the second.
    noise_floor: The damage that numerics alone do; None where it is unknown.
    seconds_prepare: What preparing took.
    seconds: What each trial took, as ``damages``.

Raises:
    ValueError: Where damages are not such a grid, or severities don't begin with neutral.

Example:
    >>> surface = hemostat.surface(model, ("wanda", "rtn"), evaluation, statistics=statistics)
    >>> fewest_bits = dict(zip(surface.severities[0], surface.zone(0.05)))
)")
      .def(py::init([](std::array<std::string, 2> methods, const std::array<Axis, 2>& axes,
                       std::array<std::vector<double>, 2> severities, std::vector<std::vector<Damage>> damages,
                       const std::optional<NoiseFloor>& noise_floor, double seconds_prepare,
                       std::vector<std::vector<double>> seconds) {
             return checked_surface({.methods = std::move(methods),
                                     .axes = axes,
                                     .severities = std::move(severities),
                                     .damages = std::move(damages),
                                     .noise_floor = noise_floor,
                                     .seconds_prepare = seconds_prepare,
                                     .seconds = std::move(seconds)});
           }),
           "methods"_a, "axes"_a, "severities"_a, "damages"_a, "noise_floor"_a, "seconds_prepare"_a = 0.0,
           "seconds"_a = std::vector<std::vector<double>>())
      .def_readonly("methods", &Surface::methods, "Both canonical specs, in the order in which they are applied.")
      .def_readonly("axes", &Surface::axes, "Their axes for the unchanged model.")
      .def_readonly("severities", &Surface::severities, "Of each, from mild to severe; the first of each is neutral.")
      .def_property_readonly("distances", &distances_of_both, "The severities' distances from neutral, 0 … 1.")
      .def_readonly("damages", &Surface::damages,
                    "What each point did: ``damages[i][j]``, i of the first, j of the second.")
      .def_readonly("noise_floor", &Surface::noise_floor, "The damage that numerics alone do; None: unknown.")
      .def_readonly("seconds_prepare", &Surface::seconds_prepare, "What preparing took.")
      .def_readonly("seconds", &Surface::seconds, "What each trial took, as :attr:`damages`.")
      .def_property_readonly("additivity", &Surface::additivity,
                             "Of each point: the sum of what both cost alone / what they cost together, ΔNLL. 1 where "
                             "they add up, below 1 where they make each other worse. None where one is neutral, or "
                             "where the damage of both is not told from none.")
      .def("zone", &edges, "tolerance"_a,
           R"(The joint zone: how far the second method may go, for each severity of the first.

The upper end of damage's interval is made monotone along both axes, then interpolated linearly along the second's, from
what the first alone does.

Args:
    tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

Returns:
    list[float | None]: One for each severity of the first: the largest safe severity of the second; None where the
    first alone is not safe, and everywhere with one window, which has no interval.

Raises:
    ValueError: For a tolerance that is not above 0.
)")
      .def("zone_details", &Surface::zone, "tolerance"_a, R"(The same with whether it is censored.

Args:
    tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

Returns:
    list[Zone]: Without intervals.
)")
      .def(
          "to_dict", [](const Surface& self, bool windows) { return to_dict(self, windows); }, py::kw_only(),
          "windows"_a = false, R"(Every field, ready for JSON.

Args:
    windows: Whether damages include each window's NLL.

Returns:
    dict: ``axes``, ``noise_floor`` and each damage are dicts.
)")
      .def("__repr__", [](const Surface& self) {
        return fmt::format("Surface('{}' then '{}', {} × {} severities)", self.methods[0], self.methods[1],
                           self.severities[0].size(), self.severities[1].size());
      });
}

void register_functions(py::module_& module) {
  module.def(
      "surface",
      [](const Model& model, const MethodPair& methods, const at::Tensor& tokens,
         const std::optional<Statistics>& statistics, Grids severities, const std::optional<at::Tensor>& unigram,
         std::optional<int64_t> byte_count, int64_t batch, double memory_budget, int64_t bootstrap_samples,
         int64_t seed, const GenerationArgument& generation, const std::optional<py::function>& on_trial) {
        SurfaceOptions options;
        options.severities = std::move(severities);
        options.compare =
            compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples, seed, generation);
        options.on_trial = callback<const Trial&>(on_trial);
        py::gil_scoped_release release;
        return surface(model, methods, tokens, statistics ? &*statistics : nullptr, options);
      },
      "model"_a, "methods"_a, "tokens"_a, py::kw_only(), "statistics"_a = std::optional<Statistics>(),
      "severities"_a = Grids(), "unigram"_a = std::optional<at::Tensor>(), "byte_count"_a = std::optional<int64_t>(),
      "batch"_a = CompareOptions().batch, "memory_budget"_a = CompareOptions().memory_budget,
      "bootstrap_samples"_a = CompareOptions().bootstrap_samples, "seed"_a = 0,
      "generation"_a = GenerationArgument(false), "on_trial"_a = std::optional<py::function>(),
      "What hemostat.surface calls.");
}

void register_plan(py::module_& module) {
  py::class_<PlannedSurface>(module, "PlannedSurface", "The grid that a scan gives two methods. Read-only.")
      .def_readonly("methods", &PlannedSurface::methods, "Both, in order; severities of each begin with neutral.")
      .def(
          "trial",
          [](const PlannedSurface& self, size_t first, size_t second) {
            const std::optional<TrialName> name = self.trial(first, second);
            return name ? std::optional(std::pair(name->method, name->severity)) : std::nullopt;
          },
          "first"_a, "second"_a, R"(The method and the severity under which a point's trial is kept.

Args:
    first: Index of the first method's severity.
    second: Index of the second's.

Returns:
    tuple[str, float] | None: None of the unchanged model, which is no trial.
)")
      .def("__repr__", [](const PlannedSurface& self) {
        return fmt::format("PlannedSurface('{}' then '{}', {} × {} severities)", self.methods[0].method.text(),
                           self.methods[1].method.text(), self.methods[0].severities.size(),
                           self.methods[1].severities.size());
      });

  module.def(
      "plan_joint",
      [](const Model& model, const std::vector<MethodPair>& joint,
         const std::map<std::string, std::vector<double>>& severities, std::optional<int64_t> points) {
        ScanOptions options;
        options.joint = joint;
        options.severities = severities;
        options.points = points;
        py::gil_scoped_release release;
        return plan_joint(model, options);
      },
      "model"_a, "joint"_a, py::kw_only(), "severities"_a = std::map<std::string, std::vector<double>>(),
      "points"_a = std::optional<int64_t>(), R"(The grids that a scan gives to pairs of methods.

Args:
    model: The baseline.
    joint: Pairs of methods, the second of which changes what the first gave.
    severities: By spec; others take their axis's default grid.
    points: At most so many severities a method, spread over its grid.

Returns:
    list[PlannedSurface]: In the order of the pairs.

Raises:
    ValueError: For a severity out of range, or a pair that is given twice.
)");
}

}  // namespace

void register_surface(py::module_& module) {
  register_value(module);
  register_functions(module);
  register_plan(module);
}

}  // namespace hemostat::bindings
