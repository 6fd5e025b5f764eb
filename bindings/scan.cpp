// Room `scan`: one method over its severities, and methods × severities.
#include <cmath>
#include <functional>
#include <map>
#include <memory>
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

#include "callbacks.h"
#include "compare_options.h"
#include "damage_fields.h"
#include "module.h"
#include "surface.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;
using SpecArgument = std::variant<std::string, MethodSpec>;
using Severities = std::optional<std::map<std::string, std::vector<double>>>;

py::object finite(double value) {
  return std::isfinite(value) ? py::object(py::float_(value)) : py::object(py::none());
}

std::vector<double> distances(const SweepCurve& curve) {
  std::vector<double> result;
  for (double severity : curve.severities) {
    result.push_back(curve.axis.distance(severity));
  }
  return result;
}

py::dict to_dict(const NoiseFloor& floor) {
  return py::dict("against"_a = floor.against, "delta_nll"_a = finite(floor.delta_nll), "kl"_a = finite(floor.kl),
                  "top1_agreement"_a = finite(floor.top1_agreement));
}

py::object noise_floor_to_dict(const std::optional<NoiseFloor>& floor) {
  return floor ? py::object(to_dict(*floor)) : py::object(py::none());
}

py::dict to_dict(const SweepCurve& curve, bool windows) {
  py::list damages;
  for (const Damage& damage : curve.damages) {
    damages.append(damage_to_dict(damage, {.windows = windows, .finite = true}));
  }
  return py::dict("method"_a = curve.method, "axis"_a = py::cast(curve.axis).attr("to_dict")(),
                  "severities"_a = curve.severities, "distances"_a = distances(curve), "damages"_a = damages,
                  "noise_floor"_a = noise_floor_to_dict(curve.noise_floor), "seconds_prepare"_a = curve.seconds_prepare,
                  "seconds"_a = curve.seconds);
}

MethodSpec spec_from(const SpecArgument& method) {
  if (const auto* text = std::get_if<std::string>(&method)) {
    return MethodSpec::parse(*text);
  }
  return std::get<MethodSpec>(method);
}

std::vector<MethodSpec> specs_from(const std::vector<SpecArgument>& methods) {
  std::vector<MethodSpec> result;
  for (const SpecArgument& method : methods) {
    result.push_back(spec_from(method));
  }
  return result;
}

void register_results(py::module_& module) {
  py::class_<Trial>(module, "Trial", R"(One method at one severity, and what it did. Read-only.

Args:
    method: The method's canonical spec.
    severity: On its axis.
    damage: What was measured.
    seconds: What applying and evaluating took.
    seconds_prepare: What preparing the method took, where this trial was the first to need it.
)")
      .def(py::init([](const std::string& method, double severity, const Damage& damage, double seconds,
                       double seconds_prepare) {
             return Trial{.method = method,
                          .severity = severity,
                          .damage = damage,
                          .seconds = seconds,
                          .seconds_prepare = seconds_prepare};
           }),
           "method"_a, "severity"_a, "damage"_a, "seconds"_a = 0.0, "seconds_prepare"_a = 0.0)
      .def_readonly("method", &Trial::method, "The method's canonical spec.")
      .def_readonly("severity", &Trial::severity, "On the method's axis.")
      .def_readonly("damage", &Trial::damage, "What was measured.")
      .def_readonly("seconds", &Trial::seconds, "What applying and evaluating took.")
      .def_readonly("seconds_prepare", &Trial::seconds_prepare,
                    "What preparing the method took, where this trial was the first to need it.")
      .def("__repr__", [](const Trial& self) {
        return fmt::format("Trial('{}' at {}, ΔNLL {:.4g}, {:.2f} s)", self.method, self.severity,
                           self.damage.delta_nll, self.seconds);
      });

  py::class_<NoiseFloor>(module, "NoiseFloor", R"(The damage that numerics alone do. Read-only.

A float32 model against itself computed in bfloat16, half types against float32.

Args:
    against: The other compute type.
    delta_nll: abs(ΔNLL), nats per token.
    kl: Mean KL, nats per token.
    top1_agreement: Fraction of tokens.
)")
      .def(py::init([](const std::string& against, double delta_nll, double kl, double top1_agreement) {
             return NoiseFloor{.against = against, .delta_nll = delta_nll, .kl = kl, .top1_agreement = top1_agreement};
           }),
           "against"_a, "delta_nll"_a, "kl"_a, "top1_agreement"_a)
      .def_readonly("against", &NoiseFloor::against, "The other compute type.")
      .def_readonly("delta_nll", &NoiseFloor::delta_nll,
                    "Farther end of ΔNLL's interval, of one window abs(ΔNLL); nats per token.")
      .def_readonly("kl", &NoiseFloor::kl, "Mean KL, nats per token.")
      .def_readonly("top1_agreement", &NoiseFloor::top1_agreement, "Fraction of tokens with the same top-1 prediction.")
      .def(
          "to_dict", [](const NoiseFloor& self) { return to_dict(self); }, "Every field, ready for JSON.")
      .def("__repr__", [](const NoiseFloor& self) {
        return fmt::format("NoiseFloor(against {}, ΔNLL {:.3g}, KL {:.3g})", self.against, self.delta_nll, self.kl);
      });

  py::class_<SweepCurve>(module, "SweepCurve", R"(Damage along one method's axis. Read-only.

Args:
    method: The method's canonical spec.
    axis: Its axis for the model.
    severities: From mild to severe.
    damages: One for each severity.
    noise_floor: The damage that numerics alone do; None where it is unknown.
    seconds_prepare: What preparing took.
    seconds: What each trial took.

Raises:
    ValueError: Where damages and severities differ in number.
)")
      .def(py::init([](const std::string& method, const Axis& axis, const std::vector<double>& severities,
                       const std::vector<Damage>& damages, const std::optional<NoiseFloor>& noise_floor,
                       double seconds_prepare, const std::vector<double>& seconds) {
             if (severities.size() != damages.size()) {
               throw ValueError(fmt::format("hemostat.SweepCurve: damages has {} entries, but severities has {}",
                                            damages.size(), severities.size()));
             }
             return SweepCurve{.method = method,
                               .axis = axis,
                               .severities = severities,
                               .damages = damages,
                               .noise_floor = noise_floor,
                               .seconds_prepare = seconds_prepare,
                               .seconds = seconds};
           }),
           "method"_a, "axis"_a, "severities"_a, "damages"_a, "noise_floor"_a, "seconds_prepare"_a = 0.0,
           "seconds"_a = std::vector<double>())
      .def_readonly("method", &SweepCurve::method, "The method's canonical spec.")
      .def_readonly("axis", &SweepCurve::axis, "Its axis for the model.")
      .def_readonly("severities", &SweepCurve::severities, "From mild to severe.")
      .def_property_readonly("distances", &distances, "The severities' distances from neutral, 0 … 1.")
      .def_readonly("damages", &SweepCurve::damages, "What each severity did.")
      .def_readonly(
          "noise_floor", &SweepCurve::noise_floor,
          "The damage that numerics alone do. None: unknown, since the other compute type gives no finite numbers.")
      .def_readonly("seconds_prepare", &SweepCurve::seconds_prepare, "What preparing took.")
      .def_readonly("seconds", &SweepCurve::seconds, "What each trial took.")
      .def(
          "to_dict", [](const SweepCurve& self, bool windows) { return to_dict(self, windows); }, py::kw_only(),
          "windows"_a = false, R"(Every field, ready for JSON.

Args:
    windows: Whether damages include each window's NLL.

Returns:
    dict: ``axis``, ``noise_floor`` and each damage are dicts.
)")
      .def("__len__", [](const SweepCurve& self) { return self.severities.size(); })
      .def("__repr__", [](const SweepCurve& self) {
        return self.severities.empty()
                   ? fmt::format("SweepCurve('{}', no severities)", self.method)
                   : fmt::format("SweepCurve('{}', {} severities {} … {})", self.method, self.severities.size(),
                                 self.severities.front(), self.severities.back());
      });

  py::class_<PlannedMethod>(module, "PlannedMethod", "The severities that a scan gives a method. Read-only.")
      .def_property_readonly(
          "method", [](const PlannedMethod& self) { return self.method.text(); }, "The method's canonical spec.")
      .def_readonly("severities", &PlannedMethod::severities, "In the order of the scan.")
      .def_readonly("axis", &PlannedMethod::axis, "The method's axis for the model.")
      .def("__repr__", [](const PlannedMethod& self) {
        return fmt::format("PlannedMethod('{}', {} severities)", self.method.text(), self.severities.size());
      });
}

void register_sweep(py::module_& module) {
  module.def("measure_noise_floor", &measure_noise_floor, "baseline"_a, py::call_guard<py::gil_scoped_release>(),
             R"(The damage that numerics alone do.

Args:
    baseline: An evaluated baseline; it is evaluated again in another compute type.

Returns:
    NoiseFloor | None: A float32 model against itself in bfloat16, half types against float32. None where the other type
    cannot hold the weights, or gives no finite numbers: then it is unknown.

Raises:
    NumericalError: Where the baseline itself is not finite.
)");

  module.def(
      "sweep",
      [](const Model& model, const SpecArgument& method, const at::Tensor& tokens,
         const std::optional<Statistics>& statistics, std::optional<std::vector<double>> severities,
         const std::optional<at::Tensor>& unigram, std::optional<int64_t> byte_count, int64_t batch,
         double memory_budget, int64_t bootstrap_samples, int64_t seed, const GenerationArgument& generation,
         const std::optional<py::function>& on_trial, const ProgressFunction& progress,
         const std::optional<at::Tensor>& calibration, double correct, double correct_damp) {
        const MethodSpec spec = spec_from(method);
        SweepOptions sweep_options;
        if (calibration) {
          sweep_options.propagation = {
              .tokens = *calibration, .correct = correct, .correct_damp = correct_damp, .memory_budget = memory_budget};
        }
        sweep_options.severities = std::move(severities);
        sweep_options.compare =
            compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples, seed, generation, progress);
        sweep_options.on_trial = callback<const Trial&>(on_trial);
        py::gil_scoped_release release;
        return sweep(model, spec, tokens, statistics ? &*statistics : nullptr, sweep_options);
      },
      "model"_a, "method"_a, "tokens"_a, py::kw_only(), "statistics"_a = std::optional<Statistics>(),
      "severities"_a = std::optional<std::vector<double>>(), "unigram"_a = std::optional<at::Tensor>(),
      "byte_count"_a = std::optional<int64_t>(), "batch"_a = CompareOptions().batch,
      "memory_budget"_a = CompareOptions().memory_budget, "bootstrap_samples"_a = CompareOptions().bootstrap_samples,
      "seed"_a = 0, "generation"_a = GenerationArgument(false), "on_trial"_a = std::optional<py::function>(),
      "progress"_a = ProgressFunction(), "calibration"_a = std::optional<at::Tensor>(),
      "correct"_a = Propagation().correct, "correct_damp"_a = Propagation().correct_damp, "What hemostat.sweep calls.");
}

void register_scan_function(py::module_& module) {
  py::class_<ScanResult>(module, "ScanResult", "What a whole scan measured. Read-only.")
      .def_readonly("baseline", &ScanResult::baseline, "The baseline against itself: its perplexity.")
      .def_readonly("noise_floor", &ScanResult::noise_floor, "The damage that numerics alone do; None: unknown.")
      .def_readonly("curves", &ScanResult::curves, "One for each method.")
      .def_readonly("localizations", &ScanResult::localizations, "One for each method that was localized.")
      .def_readonly("surfaces", &ScanResult::surfaces, "One for each pair of methods.")
      .def("__repr__", [](const ScanResult& self) { return fmt::format("ScanResult({} curves)", self.curves.size()); });

  module.def(
      "plan",
      [](const Model& model, const std::vector<SpecArgument>& methods, const Severities& severities,
         std::optional<int64_t> points, const std::vector<MethodPair>& joint) {
        const std::vector<MethodSpec> specs = specs_from(methods);
        ScanOptions options;
        options.joint = joint;
        if (severities) {
          options.severities = *severities;
        }
        options.points = points;
        py::gil_scoped_release release;
        return plan(model, specs, options);
      },
      "model"_a, "methods"_a, py::kw_only(), "severities"_a = Severities(), "points"_a = std::optional<int64_t>(),
      "joint"_a = std::vector<MethodPair>(),
      R"(The severities that a scan gives each method.

Args:
    model: The baseline.
    methods: Names or specs.
    severities: By spec as given in ``methods`` or ``joint``; others take their axis's default grid.
    points: At most so many severities a method, spread over its grid.
    joint: Pairs of methods that are measured together; see :func:`plan_joint`.

Returns:
    list[PlannedMethod]: In the order of the methods.

Raises:
    ValueError: For an unknown method or option, or a severity out of range.
)");

  module.def(
      "scan",
      [](const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
         const std::vector<SpecArgument>& methods, const Severities& severities, std::optional<int64_t> points,
         const std::optional<at::Tensor>& unigram, std::optional<int64_t> byte_count, double memory_budget,
         int64_t seed, int64_t bootstrap_samples, int64_t batch, const GenerationArgument& generation,
         const std::optional<std::pair<Damage, std::optional<NoiseFloor>>>& baseline,
         const std::optional<py::function>& on_baseline, const std::optional<py::function>& known,
         const std::optional<py::function>& on_trial, int64_t localize_windows,
         const std::optional<py::function>& known_localization, const std::optional<py::function>& on_localization,
         const std::vector<MethodPair>& joint, const ProgressFunction& progress, bool propagate, double correct,
         double correct_damp) {
        const std::vector<MethodSpec> specs = specs_from(methods);
        ScanOptions options;
        options.joint = joint;
        options.propagate = propagate;
        options.correct = correct;
        options.correct_damp = correct_damp;
        if (severities) {
          options.severities = *severities;
        }
        options.points = points;
        options.compare =
            compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples, seed, generation);
        options.memory_budget = memory_budget;
        if (baseline) {
          options.baseline = {baseline->first, baseline->second};
        }
        options.on_baseline = [call = callback<const Damage&, const std::optional<NoiseFloor>&>(on_baseline)](
                                  const ScanBaseline& measured) { call(measured.damage, measured.noise_floor); };
        options.known = question<Trial, const std::string&, double>(known);
        options.on_trial = callback<const Trial&>(on_trial);
        options.localize_windows = localize_windows;
        options.known_localization = question<Localization, const std::string&, double>(known_localization);
        options.on_localization = callback<const Localization&>(on_localization);
        options.progress = callback<const std::string&, int64_t, int64_t>(progress);
        py::gil_scoped_release release;
        return scan(model, evaluation, calibration, specs, options);
      },
      "model"_a, "evaluation"_a, "calibration"_a, "methods"_a, py::kw_only(), "severities"_a = Severities(),
      "points"_a = std::optional<int64_t>(), "unigram"_a = std::optional<at::Tensor>(),
      "byte_count"_a = std::optional<int64_t>(), "memory_budget"_a = ScanOptions().memory_budget, "seed"_a = 0,
      "bootstrap_samples"_a = CompareOptions().bootstrap_samples, "batch"_a = CompareOptions().batch,
      "generation"_a = GenerationArgument(false),
      "baseline"_a = std::optional<std::pair<Damage, std::optional<NoiseFloor>>>(),
      "on_baseline"_a = std::optional<py::function>(), "known"_a = std::optional<py::function>(),
      "on_trial"_a = std::optional<py::function>(), "localize_windows"_a = ScanOptions().localize_windows,
      "known_localization"_a = std::optional<py::function>(), "on_localization"_a = std::optional<py::function>(),
      "joint"_a = std::vector<MethodPair>(), "progress"_a = ProgressFunction(), "propagate"_a = false,
      "correct"_a = Propagation().correct, "correct_damp"_a = Propagation().correct_damp,
      "What hemostat.scan calls. on_baseline: (damage, noise floor); known: (method, severity) → Trial or None; "
      "known_localization: (method, severity) → Localization or None; progress: (stage, done, total).");
}

}  // namespace

void register_scan(py::module_& module) {
  register_results(module);
  register_surface(module);
  register_sweep(module);
  register_scan_function(module);
}

}  // namespace hemostat::bindings
