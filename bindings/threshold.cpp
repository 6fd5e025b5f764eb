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

#include <hemostat/error.h>
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

std::vector<double> as_vector(const Numbers& numbers) {
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

Criterion criterion_from(const std::string& text, const char* operation) {
  for (const Criterion by : {Criterion::delta_nll, Criterion::kl, Criterion::top1_agreement}) {
    if (text == word(by)) {
      return by;
    }
  }
  throw ValueError(fmt::format("{}: by is '{}', but takes delta_nll, kl or top1_agreement", operation, text));
}

Zone zone(const Threshold& self, double tolerance, const std::string& by) {
  return self.zone(tolerance, criterion_from(by, "hemostat.Threshold.zone"));
}

py::dict threshold_dict(const Threshold& self, const std::vector<double>& tolerances) {
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

void register_zone(py::module_& module) {
  py::class_<Zone>(module, "Zone", "The robust zone at a tolerance: how far one can go. Read-only.")
      .def_readonly("tolerance", &Zone::tolerance,
                    "Largest damage inside the zone: nats per token, or a share of tokens.")
      .def_property_readonly(
          "by", [](const Zone& self) { return word(self.by); }, "'delta_nll', 'kl' or 'top1_agreement'.")
      .def_readonly("severity", &Zone::severity, R"(How far safety is shown.

Where the interpolated upper end of damage's 95 % interval meets the tolerance. None: even the mildest measured severity
is not safe and damage jumps at neutral, or there is no interval (one window), or the baseline is no better than the
unigram. Neutral: nothing beyond the unchanged model is known to be safe.
)")
      .def_readonly("censored", &Zone::censored,
                    "Every measured severity is safe: the zone ends at the farthest of them.")
      .def_readonly("edge", &Zone::edge, "The estimate: where damage itself meets the tolerance, interpolated.")
      .def_property_readonly(
          "interval", [](const Zone& self) { return pair(self.interval); },
          "(low, high) of the edge, 95 %, bootstrap over windows; None for one window and for plain arrays.")
      .def_readonly("edge_censored", &Zone::edge_censored,
                    "The tolerance is never exceeded: the edge is the farthest measured severity.")
      .def("__repr__", [](const Zone& self) {
        return fmt::format("Zone(tolerance={}, severity={}{}, edge={}{}, interval={})", self.tolerance,
                           text(self.severity), self.censored ? " (censored)" : "", text(self.edge),
                           self.edge_censored ? " (censored)" : "", text(self.interval));
      });
}

void register_judge(py::module_& module) {
  module.def(
      "judge",
      [](const Damage& damage, double tolerance, const std::string& by) {
        return word(judge(damage, tolerance, criterion_from(by, "hemostat.judge")));
      },
      "damage"_a, "tolerance"_a, py::kw_only(), "by"_a = word(Criterion::delta_nll),
      R"(Whether damage is safe at a tolerance.

``"safe"``: the upper end of its 95 % interval is within the tolerance. ``"unsafe"``: the lower end is above it, or the
damage is not finite. ``"undecided"``: neither; or there is no interval (one window); or
the baseline is itself no better than the unigram (``damage.index`` is None), so that nothing is shown to be safe.

Args:
    damage: What :func:`compare` gave, or a sweep's.
    tolerance: Largest damage that is still safe, above 0.
    by: ``"delta_nll"`` or ``"kl"``, nats per token; ``"top1_agreement"``: the share of predictions that changed.

Returns:
    str: ``"safe"``, ``"unsafe"`` or ``"undecided"``.

Raises:
    ValueError: For a tolerance that is not above 0, or another word.
)");
  module.def(
      "difference_interval",
      [](const Damage& first, const Damage& second, int64_t bootstrap_samples, int64_t seed) {
        return pair(difference_interval(first, second, bootstrap_samples, seed));
      },
      "first"_a, "second"_a, py::kw_only(), "bootstrap_samples"_a = 2000, "seed"_a = 0,
      R"(The 95 % interval of one ΔNLL minus another, both measured on the same windows.

Args:
    first: Damage whose windows are known.
    second: Likewise, on the same windows.
    bootstrap_samples: Resamples of windows.
    seed: Of the resampling.

Returns:
    tuple[float, float] | None: (low, high), paired bootstrap over windows; None where windows are not known or there is
    one.

Raises:
    ValueError: For different numbers of windows.
)");
}

}  // namespace

void register_threshold(py::module_& module) {
  register_zone(module);
  register_judge(module);
  py::class_<Threshold>(module, "Threshold", R"(Where a damage curve turns. Read-only.

Example:
    >>> threshold = hemostat.find_threshold(curve)
    >>> largest_safe_sparsity = threshold.zone(0.05)
)")
      .def_readonly("point", &Threshold::point, "The phase-transition point, a severity; None where none is fitted.")
      .def_property_readonly(
          "interval", [](const Threshold& self) { return pair(self.interval); }, "(low, high) of the point, or None.")
      .def(
          "zone",
          [](const Threshold& self, double tolerance, const std::string& by) {
            return zone(self, tolerance, by).severity;
          },
          "tolerance"_a, py::kw_only(), "by"_a = word(Criterion::delta_nll),
          R"(The largest severity that is shown to be safe, seen from neutral.

Where the upper end of damage's 95 % interval meets the tolerance: made monotone (running maximum), then interpolated
linearly in distance from neutral. Integer axes step back to the last whole step within the tolerance. Of plain arrays,
whose numbers are taken as known, the same as :meth:`edge`.

Args:
    tolerance: Largest damage that is still safe, above 0.
    by: What the tolerance is about: ``"delta_nll"`` or ``"kl"`` (the mean), nats per token; ``"top1_agreement"``: the share
        of tokens whose prediction changed, 1 − agreement.

Returns:
    float | None: The severity; the farthest measured one where all are safe (see :meth:`zone_details`); None where even the
    mildest one is not, where there is one window and so no interval, and where the baseline is no better than the unigram.

Raises:
    ValueError: For a tolerance that is not above 0, or another word.
)")
      .def(
          "edge",
          [](const Threshold& self, double tolerance, const std::string& by) { return zone(self, tolerance, by).edge; },
          "tolerance"_a, py::kw_only(), "by"_a = word(Criterion::delta_nll),
          R"(The severity at which damage is estimated to reach a tolerance, interpolated as in :meth:`zone`.

Args:
    tolerance: Damage, above 0.
    by: As in :meth:`zone`.

Returns:
    float | None: The severity; the farthest measured one where none exceeds the tolerance; None where even the mildest one
    does.

Raises:
    ValueError: For a tolerance that is not above 0, or another word.
)")
      .def(
          "edge_interval",
          [](const Threshold& self, double tolerance, const std::string& by) {
            return pair(zone(self, tolerance, by).interval);
          },
          "tolerance"_a, py::kw_only(), "by"_a = word(Criterion::delta_nll),
          R"(The 95 % interval of :meth:`edge`, bootstrap over windows.

Args:
    tolerance: Damage, above 0.
    by: As in :meth:`zone`.

Returns:
    tuple[float, float] | None: (low, high); None for one window and for plain arrays.

Raises:
    ValueError: For a tolerance that is not above 0, or another word.
)")
      .def("zone_details", &zone, "tolerance"_a, py::kw_only(), "by"_a = word(Criterion::delta_nll),
           py::call_guard<py::gil_scoped_release>(),
           R"(Zone and edge with the edge's interval, and whether they are censored.

Args:
    tolerance: Largest damage that is still safe, above 0.
    by: As in :meth:`zone`.

Returns:
    Zone: The zone.
)")
      .def("to_dict", &threshold_dict, py::kw_only(), "tolerances"_a = std::vector<double>{0.02, 0.05, 0.1},
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
    Threshold: ``zone(tolerance)``, ``edge(tolerance)``, ``edge_interval(tolerance)``; ``point`` (None: the data show no
    transition), ``interval``.
)");
  module.def(
      "find_threshold",
      [](const Numbers& severities, const Numbers& perplexities, std::optional<double> baseline, double neutral) {
        return find_threshold(as_vector(severities), as_vector(perplexities), baseline, neutral);
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
