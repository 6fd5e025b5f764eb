// Room `threshold`: points on a damage curve.
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/scan.h>
#include <hemostat/threshold.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;
using Pair = std::pair<double, double>;

std::optional<Pair> pair(const std::optional<Interval>& interval) {
  return interval ? std::optional<Pair>({interval->low, interval->high}) : std::nullopt;
}

// A list, an array or a tensor. None is NaN.
using Numbers = std::variant<std::vector<std::optional<double>>, at::Tensor>;

std::vector<double> plain(const Numbers& numbers) {
  std::vector<double> result;
  if (const auto* tensor = std::get_if<at::Tensor>(&numbers)) {
    const at::Tensor flat = tensor->detach().to(at::kCPU, at::kDouble).contiguous();
    result.assign(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    return result;
  }
  for (const std::optional<double>& number : std::get<std::vector<std::optional<double>>>(numbers)) {
    result.push_back(number.value_or(std::numeric_limits<double>::quiet_NaN()));
  }
  return result;
}

std::string text(const std::optional<double>& value) { return value ? fmt::format("{:.4g}", *value) : "None"; }

std::string text(const std::optional<Interval>& interval) {
  return interval ? fmt::format("({:.4g}, {:.4g})", interval->low, interval->high) : "None";
}

py::dict to_dict(const Threshold& self, const std::vector<double>& tolerances) {
  py::dict zones;
  for (double tolerance : tolerances) {
    zones[py::str(py::float_(tolerance))] = self.zone(tolerance).severity;
  }
  py::object interval = py::none();
  if (self.interval) {
    py::list ends;
    ends.append(self.interval->low);
    ends.append(self.interval->high);
    interval = ends;
  }
  return py::dict("point"_a = self.point, "interval"_a = interval, "zone"_a = zones);
}

}  // namespace

void register_threshold(py::module_& module) {
  py::class_<Zone>(module, "Zone", "The robust zone at a tolerance: how far one can go. Read-only.")
      .def_readonly("tolerance", &Zone::tolerance, "Largest ΔNLL inside the zone, nats per token.")
      .def_readonly("severity", &Zone::severity,
                    "The zone's edge; None: even the mildest measured severity exceeds the tolerance.")
      .def_property_readonly(
          "interval", [](const Zone& self) { return pair(self.interval); },
          "(low, high) of the edge, 95 %, bootstrap over windows; None for plain arrays.")
      .def_readonly("censored", &Zone::censored,
                    "The tolerance is never exceeded: the edge is the farthest measured severity.")
      .def("__repr__", [](const Zone& self) {
        return fmt::format("Zone(tolerance={}, severity={}, interval={}{})", self.tolerance, text(self.severity),
                           text(self.interval), self.censored ? ", censored" : "");
      });

  py::class_<Threshold>(module, "Threshold", R"(Where a damage curve turns. Read-only.

Example:
    >>> threshold = hemostat.find_threshold(curve)
    >>> largest_safe_sparsity = threshold.zone(0.05)
)")
      .def_readonly("point", &Threshold::point, "The phase-transition point, a severity; None where none is fitted.")
      .def_property_readonly(
          "interval", [](const Threshold& self) { return pair(self.interval); }, "(low, high) of the point, or None.")
      .def(
          "zone", [](const Threshold& self, double tolerance) { return self.zone(tolerance).severity; }, "tolerance"_a,
          R"(The largest safe severity, seen from neutral.

Damage is made monotone (running maximum), then interpolated linearly in distance from neutral. Integer axes step back
to the last whole step within the tolerance.

Args:
    tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

Returns:
    float | None: The severity; the farthest measured one where none exceeds the tolerance (see :meth:`zone_details`);
    None where even the mildest one does.

Raises:
    ValueError: For a tolerance that is not above 0.
)")
      .def("zone_details", &Threshold::zone, "tolerance"_a, py::call_guard<py::gil_scoped_release>(),
           R"(The same with its interval, and whether it is censored.

Args:
    tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

Returns:
    Zone: The zone.
)")
      .def("to_dict", &to_dict, py::kw_only(), "tolerances"_a = std::vector<double>{0.02, 0.05, 0.1},
           R"(The threshold, ready for JSON.

Args:
    tolerances: Of the zones.

Returns:
    dict: ``point``, ``interval`` and ``zone``, whose keys are the tolerances as text.
)")
      .def("__repr__", [](const Threshold& self) {
        return fmt::format("Threshold(point={}, interval={})", text(self.point), text(self.interval));
      });
}

void register_find_threshold(py::module_& module) {
  module.def(
      "find_threshold", [](const SweepCurve& curve) { return find_threshold(curve); }, "curve"_a,
      py::call_guard<py::gil_scoped_release>(),
      R"(The phase-transition point of a sweep's curve, and its robust zones, with intervals from its windows.

Args:
    curve: What :func:`hemostat.sweep` gave.

Returns:
    Threshold: ``point`` (None: the data show no transition), ``interval``, ``zone(tolerance)``.
)");
  module.def(
      "find_threshold",
      [](const Numbers& severities, const Numbers& perplexities, std::optional<double> baseline, double neutral) {
        return find_threshold(plain(severities), plain(perplexities), baseline, neutral);
      },
      "severities"_a, "perplexities"_a, py::kw_only(), "baseline"_a = std::optional<double>(), "neutral"_a = 0.0,
      py::call_guard<py::gil_scoped_release>(),
      R"(The same on plain arrays.

Args:
    severities: On one side of neutral.
    perplexities: Above 0; NaN, infinity or None: collapsed, beyond every tolerance.
    baseline: The unchanged model's perplexity. None: the one at ``neutral`` among the severities, else the smallest.
    neutral: The severity at which the model is unchanged.

Returns:
    Threshold: Without intervals, which need a sweep's windows.

Raises:
    ValueError: For arrays of different lengths or severities on both sides of neutral.
)");
}

}  // namespace hemostat::bindings
