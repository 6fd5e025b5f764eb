// Room `mitigate`.
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/mitigate.h>

#include "arguments.h"
#include "callbacks.h"
#include "module.h"

namespace py = pybind11;
using namespace py::literals;

namespace hemostat::bindings {

void register_mitigate(py::module_& module) {
  using mitigate::Treatment;
  py::class_<Treatment>(module, "Treatment",
                        R"(A treated model, and what it costs on text that the treatment did not see.

Without ``evaluation`` there is only the model: the rest is None.
)")
      .def_readonly("model", &Treatment::model, "The treated model.")
      .def_readonly("untreated", &Treatment::untreated, "Damage of the untreated model at the same severity.")
      .def_readonly("treated", &Treatment::treated, "Damage of the treated model.")
      .def_readonly("recovery", &Treatment::recovery,
                    "1 - treated / untreated, of the mean increase of the negative log-likelihood; None where the "
                    "untreated model's is not above 0.")
      .def_property_readonly(
          "recovery_interval",
          [](const Treatment& self) {
            return self.recovery_interval
                       ? std::optional(std::pair(self.recovery_interval->low, self.recovery_interval->high))
                       : std::nullopt;
          },
          "(low, high), 95 %, by a paired bootstrap over windows; None for one window.")
      .def_readonly("settings", &Treatment::settings, "What the treatment chose on held-out calibration windows.")
      .def_readonly("severities", &Treatment::severities, "The severity of each linear, by name.")
      .def("__repr__", [](const Treatment& self) {
        if (!self.treated) {
          return std::string("Treatment(not judged)");
        }
        return fmt::format("Treatment(ΔNLL {:.4f} instead of {:.4f}{})", self.treated->delta_nll,
                           self.untreated->delta_nll,
                           self.recovery ? fmt::format(", recovery {:.1f} %", 100 * *self.recovery) : "");
      });

  module.def(
      "gradient_aware_pruning",
      [](const Model& model, const at::Tensor& calibration, std::optional<double> sparsity,
         std::optional<std::string> pattern, const std::optional<at::Tensor>& evaluation, bool allocation, double width,
         bool propagate, const std::string& gram, bool refine, int64_t iterations, const std::string& untreated,
         const Patterns& include, const Patterns& exclude, double memory_budget, const ProgressFunction& progress) {
        const auto report = callback<const std::string&, int64_t, int64_t>(progress);
        const LinearFilter filter = linear_filter(include, exclude);
        py::gil_scoped_release release;
        return mitigate::gradient_aware_pruning(
            model, calibration,
            {.sparsity = sparsity,
             .pattern = std::move(pattern),
             .evaluation = evaluation,
             .treatment = {.allocation = allocation,
                           .width = width,
                           .propagate = propagate,
                           .gram =
                               value_of_word<mitigate::Gram>("hemostat.mitigate.gradient_aware_pruning", "gram", gram),
                           .refine = refine,
                           .iterations = iterations},
             .untreated = MethodSpec::parse(untreated),
             .filter = filter,
             .memory_budget = memory_budget,
             .progress = report});
      },
      "model"_a, "calibration"_a, py::kw_only(), "sparsity"_a, "pattern"_a, "evaluation"_a, "allocation"_a, "width"_a,
      "propagate"_a, "gram"_a, "refine"_a, "iterations"_a, "untreated"_a, "include"_a, "exclude"_a, "memory_budget"_a,
      "progress"_a, "What hemostat.mitigate.gradient_aware_pruning calls.");
}

}  // namespace hemostat::bindings
