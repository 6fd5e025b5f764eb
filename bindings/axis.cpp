// The severity axis of a method (room `threshold`).
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/axis.h>
#include <hemostat/error.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

const char* word(AxisKind kind) {
  switch (kind) {
    case AxisKind::integer:
      return "integer";
    case AxisKind::listed:
      return "listed";
    case AxisKind::continuous:
      break;
  }
  return "continuous";
}

const char* word(Measure measure) { return measure == Measure::generation ? "generation" : "teacher_forcing"; }

AxisKind kind_from(const std::string& text) {
  for (AxisKind kind : {AxisKind::continuous, AxisKind::integer, AxisKind::listed}) {
    if (text == word(kind)) {
      return kind;
    }
  }
  throw ValueError(fmt::format("hemostat.Axis: kind is '{}', but takes continuous, integer or listed", text));
}

Measure measure_from(const std::string& text) {
  for (Measure measure : {Measure::teacher_forcing, Measure::generation}) {
    if (text == word(measure)) {
      return measure;
    }
  }
  throw ValueError(fmt::format("hemostat.Axis: measured_by is '{}', but takes teacher_forcing or generation", text));
}

Axis make_axis(const std::string& name, const std::string& unit, double neutral, double minimum, double maximum,
               std::optional<double> farthest, const std::string& kind, double step, std::vector<double> default_grid,
               bool continuous_at_neutral, const std::string& measured_by) {
  Axis axis;
  axis.name = name;
  axis.unit = unit;
  axis.neutral = neutral;
  axis.minimum = minimum;
  axis.maximum = maximum;
  // Without a word about it, damage grows away from neutral to the farther end.
  axis.farthest = farthest ? *farthest : neutral - minimum > maximum - neutral ? minimum : maximum;
  axis.kind = kind_from(kind);
  axis.step = step;
  axis.continuous_at_neutral = continuous_at_neutral;
  axis.measured_by = measure_from(measured_by);
  if (name.empty()) {
    throw ValueError("hemostat.Axis: name is empty");
  }
  for (const auto& [end, value] : {std::pair("neutral", neutral), std::pair("minimum", minimum),
                                   std::pair("maximum", maximum), std::pair("step", step)}) {
    if (!std::isfinite(value)) {
      throw ValueError(fmt::format("hemostat.Axis: {} is {}, but takes a finite number", end, value));
    }
  }
  if (!(minimum < maximum)) {
    throw ValueError(fmt::format("hemostat.Axis: minimum is {}, but takes less than maximum, {}", minimum, maximum));
  }
  if (axis.farthest == neutral || !std::isfinite(axis.farthest - neutral)) {
    throw ValueError(fmt::format("hemostat.Axis: farthest is {}, but takes a finite value other than neutral, {}",
                                 axis.farthest, neutral));
  }
  if (!(step >= 0)) {
    throw ValueError(fmt::format("hemostat.Axis: step is {}, but takes 0 or more", step));
  }
  if (axis.kind == AxisKind::listed && default_grid.empty()) {
    throw ValueError("hemostat.Axis: a listed axis takes its severities as default_grid");
  }
  axis.default_grid = std::move(default_grid);
  for (double severity : axis.default_grid) {
    if (severity == neutral) {
      throw ValueError(fmt::format("hemostat.Axis: default_grid holds {}, which is neutral and so no trial", severity));
    }
    axis.checked(severity, "hemostat.Axis: default_grid");
  }
  std::sort(axis.default_grid.begin(), axis.default_grid.end(),
            [&axis](double left, double right) { return axis.distance(left) < axis.distance(right); });
  return axis;
}

py::dict to_dict(const Axis& axis) {
  return py::dict("name"_a = axis.name, "unit"_a = axis.unit, "neutral"_a = axis.neutral, "minimum"_a = axis.minimum,
                  "maximum"_a = axis.maximum, "farthest"_a = axis.farthest, "kind"_a = word(axis.kind),
                  "step"_a = axis.step, "default_grid"_a = axis.default_grid,
                  "continuous_at_neutral"_a = axis.continuous_at_neutral, "measured_by"_a = word(axis.measured_by));
}

}  // namespace

void register_axis(py::module_& module) {
  py::class_<Axis>(module, "Axis", R"(The severity axis of a method: what its points are measured along.

Args:
    name: What the severity is, ``"sparsity"``.
    unit: Its unit, ``"fraction"``.
    neutral: The severity at which the model comes back unchanged.
    minimum: Least severity that a method takes, beside neutral.
    maximum: Largest severity that a method takes, beside neutral.
    farthest: The severity at distance 1, which may lie beyond the range (0 bits). None: the end that is farther from
        neutral.
    kind: ``"continuous"``, ``"integer"`` or ``"listed"`` (only those in default_grid).
    step: Of a continuous axis: severities are rounded to neutral + k · step; 0: they are not.
    default_grid: Severities that a sweep measures unless told, without neutral.
    continuous_at_neutral: False: damage jumps there, and fits leave the neutral point out.
    measured_by: ``"teacher_forcing"`` or ``"generation"``.

Raises:
    ValueError: For a range that is empty, a severity outside it, or another word.

Example:
    >>> axis = hemostat.Axis(name="bits", unit="bits", neutral=16, minimum=2, maximum=16, default_grid=[8, 4, 3, 2])
)")
      .def(py::init(&make_axis), py::kw_only(), "name"_a, "unit"_a = "", "neutral"_a = 0.0, "minimum"_a = 0.0,
           "maximum"_a = 1.0, "farthest"_a = std::optional<double>(), "kind"_a = "continuous", "step"_a = 0.0,
           "default_grid"_a = std::vector<double>(), "continuous_at_neutral"_a = true,
           "measured_by"_a = "teacher_forcing")
      .def_readonly("name", &Axis::name, "What the severity is.")
      .def_readonly("unit", &Axis::unit, "Its unit.")
      .def_readonly("neutral", &Axis::neutral, "The severity at which the model comes back unchanged.")
      .def_readonly("minimum", &Axis::minimum, "Least severity, beside neutral.")
      .def_readonly("maximum", &Axis::maximum, "Largest severity, beside neutral.")
      .def_readonly("farthest", &Axis::farthest, "The severity at distance 1.")
      .def_property_readonly(
          "kind", [](const Axis& self) { return std::string(word(self.kind)); }, "'continuous', 'integer' or 'listed'.")
      .def_readonly("step", &Axis::step, "Severities are rounded to neutral + k · step; 0: they are not.")
      .def_readonly("default_grid", &Axis::default_grid, "Severities measured unless told, from mild to severe.")
      .def_readonly("continuous_at_neutral", &Axis::continuous_at_neutral, "False: damage jumps at neutral.")
      .def_property_readonly(
          "measured_by", [](const Axis& self) { return std::string(word(self.measured_by)); },
          "'teacher_forcing' or 'generation'.")
      .def_property_readonly("direction", &Axis::direction,
                             "1: damage grows as the severity rises; −1: as it falls (bits).")
      .def("distance", &Axis::distance, "severity"_a, R"(How far a severity is from neutral.

Args:
    severity: On this axis.

Returns:
    float: |severity − neutral| / |farthest − neutral|, 0 … 1.

Raises:
    ValueError: For NaN and infinities.
)")
      .def("severity_at", &Axis::severity_at, "distance"_a, R"(The inverse of :meth:`distance`.

Args:
    distance: 0 … 1.

Returns:
    float: The severity.

Raises:
    ValueError: For NaN and infinities.
)")
      .def("to_dict", &to_dict, R"(Every field, ready for JSON.

Returns:
    dict: What the constructor takes.
)")
      .def(
          "__eq__",
          [](const Axis& self, const py::object& other) {
            return py::isinstance<Axis>(other) && to_dict(self).equal(to_dict(other.cast<Axis>()));
          },
          py::is_operator())
      .def("__repr__",
           [](const Axis& self) {
             return fmt::format("Axis(name='{}', unit='{}', neutral={}, minimum={}, maximum={}, kind='{}')", self.name,
                                self.unit, self.neutral, self.minimum, self.maximum, word(self.kind));
           })
      .def(py::pickle([](const Axis& self) { return to_dict(self); },
                      [](const py::dict& state) { return py::type::of<Axis>()(**state).cast<Axis>(); }));
}

}  // namespace hemostat::bindings
