// Room `scan`: where a damaged model bleeds.
#include <algorithm>
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

#include "callbacks.h"
#include "compare_options.h"
#include "damage_fields.h"
#include "method_options.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;
using Number = std::optional<double>;

// Values for JSON: None for NaN and infinity, unless `complete` keeps them.
struct Values {
  bool complete;

  py::object operator()(double value) const {
    return complete || std::isfinite(value) ? py::object(py::float_(value)) : py::object(py::none());
  }
  py::object operator()(const Number& value) const { return value ? (*this)(*value) : py::object(py::none()); }
  py::object operator()(const std::optional<Interval>& interval) const {
    return interval ? (*this)(std::vector<double>{interval->low, interval->high}) : py::object(py::none());
  }
  py::object operator()(const std::vector<double>& values) const {
    py::list result;
    for (double value : values) {
      result.append((*this)(value));
    }
    return result;
  }
  py::object operator()(const std::optional<Damage>& damage) const {
    return damage ? py::object(damage_to_dict(*damage, {.windows = true, .finite = false})) : py::object(py::none());
  }
};

Number mean_kl(const std::optional<Damage>& damage) { return damage ? Number(damage->kl.mean) : std::nullopt; }

std::optional<Interval> interval(const std::optional<Damage>& damage) {
  return damage ? damage->delta_nll_interval : std::nullopt;
}

py::dict to_dict(const LocalizedSite& site, const Values& values) {
  py::dict result("name"_a = site.name, "block"_a = site.block, "linear"_a = site.linear,
                  "delta_nll"_a = values(site.delta_nll), "delta_nll_interval"_a = values(interval(site.damage)),
                  "kl"_a = values(mean_kl(site.damage)), "error"_a = values(site.error),
                  "cascade_gain"_a = values(site.cascade_gain), "noise_delta_nll"_a = values(site.noise_delta_nll),
                  "noise_kl"_a = values(mean_kl(site.control)));
  if (values.complete) {
    result["damage"] = values(site.damage);
    result["control"] = values(site.control);
  }
  return result;
}

py::dict to_dict(const Localization& localization, bool complete) {
  const Values values{complete};
  const bool of_method = !localization.method.empty();  // else two models were given
  const MethodSpec spec = of_method ? MethodSpec::parse(localization.method) : MethodSpec{};
  py::list sites;
  for (const LocalizedSite& site : localization.sites) {
    sites.append(to_dict(site, values));
  }
  py::dict result(
      "method"_a = spec.method, "options"_a = options_to_dict(spec), "severity"_a = values(localization.severity),
      "windows"_a = localization.whole ? py::object(py::int_(localization.whole->windows)) : py::object(py::none()),
      "delta_nll"_a = values(localization.delta_nll), "kl"_a = values(mean_kl(localization.whole)),
      "additivity"_a = values(localization.additivity), "additivity_kl"_a = values(localization.additivity_kl),
      "sites"_a = sites, "layer_error"_a = values(localization.layer_error),
      "cascade_gain"_a = values(localization.cascade_gain));
  if (complete) {
    result["spec"] = localization.method;
    result["whole"] = values(localization.whole);
    result["seconds"] = localization.seconds;
  }
  return result;
}

template <class Value>
Value field(const py::dict& fields, const char* name) {
  if (!fields.contains(name)) {
    throw ValueError(fmt::format("hemostat.Localization.from_dict: there is no field {}", name));
  }
  return fields[name].cast<Value>();
}

std::optional<Damage> damage_from(const py::dict& fields, const char* name) {
  const auto given = field<std::optional<py::dict>>(fields, name);
  return given ? std::optional(damage_from_dict(*given)) : std::nullopt;
}

Localization from_dict(const py::dict& fields) {
  Localization result;
  result.method = field<std::string>(fields, "spec");
  result.severity = field<double>(fields, "severity");
  result.delta_nll = field<double>(fields, "delta_nll");
  result.whole = damage_from(fields, "whole");
  result.additivity = field<Number>(fields, "additivity");
  result.additivity_kl = field<Number>(fields, "additivity_kl");
  result.layer_error = field<std::vector<double>>(fields, "layer_error");
  result.cascade_gain = field<std::vector<double>>(fields, "cascade_gain");
  result.seconds = field<double>(fields, "seconds");
  for (py::handle entry : field<py::list>(fields, "sites")) {
    const auto site = entry.cast<py::dict>();
    result.sites.push_back({.name = field<std::string>(site, "name"),
                            .block = field<std::optional<int64_t>>(site, "block"),
                            .linear = field<std::optional<std::string>>(site, "linear"),
                            .delta_nll = field<double>(site, "delta_nll"),
                            .damage = damage_from(site, "damage"),
                            .error = field<Number>(site, "error"),
                            .cascade_gain = field<Number>(site, "cascade_gain"),
                            .control = damage_from(site, "control"),
                            .noise_delta_nll = field<Number>(site, "noise_delta_nll")});
  }
  return result;
}

// Largest ΔNLL first; a site that collapsed (NaN) comes before all.
std::vector<LocalizedSite> worst(const Localization& localization, size_t count) {
  std::vector<LocalizedSite> sites = localization.sites;
  const auto damage = [](const LocalizedSite& site) {
    return std::isnan(site.delta_nll) ? std::numeric_limits<double>::infinity() : site.delta_nll;
  };
  std::stable_sort(sites.begin(), sites.end(),
                   [&](const LocalizedSite& a, const LocalizedSite& b) { return damage(a) > damage(b); });
  sites.resize(std::min(count, sites.size()));
  return sites;
}

void register_site(py::module_& module) {
  py::class_<LocalizedSite>(module, "Site", R"(A part of a model, and what damaging it alone does. Read-only.)")
      .def_readonly("name", &LocalizedSite::name, "As checkpoints spell it: 'model.layers.3', or a linear's full name.")
      .def_readonly("block", &LocalizedSite::block,
                    "Index of its block in the model; None: the embedding, final norm or head.")
      .def_readonly("linear", &LocalizedSite::linear,
                    "Of a linear, its name within the block: 'mlp.down_proj'; None: not a linear.")
      .def_readonly("damage", &LocalizedSite::damage, "What damaging it alone did; None: predicted.")
      .def_readonly("delta_nll", &LocalizedSite::delta_nll, "Of :attr:`damage`, or predicted; nats per token.")
      .def_property_readonly(
          "kl", [](const LocalizedSite& self) { return mean_kl(self.damage); },
          "Mean KL of :attr:`damage`, nats per token; None: predicted.")
      .def_readonly("error", &LocalizedSite::error, R"(Relative error of the residual stream right after the block.

‖h′ − h‖/‖h‖, Frobenius norms over all tokens; None for the final norm and the head, which change none, and where it is predicted.
)")
      .def_readonly("cascade_gain", &LocalizedSite::cascade_gain,
                    "Relative error after the last block, divided by :attr:`error`; None where that is 0 or None.")
      .def_readonly("control", &LocalizedSite::control, R"(What isotropic noise as large as the change does there.

None where no weight changed, no control was asked for, or it is predicted.
)")
      .def_readonly("noise_delta_nll", &LocalizedSite::noise_delta_nll,
                    "ΔNLL of :attr:`control`, or what is predicted of such noise; nats per token.")
      .def_property_readonly(
          "noise_kl", [](const LocalizedSite& self) { return mean_kl(self.control); },
          "Mean KL of :attr:`control`, nats per token.")
      .def("__repr__", [](const LocalizedSite& self) {
        return self.damage
                   ? fmt::format("Site('{}', ΔNLL {:.4g}, KL {:.4g})", self.name, self.delta_nll, self.damage->kl.mean)
                   : fmt::format("Site('{}', predicted ΔNLL {:.4g})", self.name, self.delta_nll);
      });
}

void register_localization(py::module_& module) {
  py::class_<Localization>(module, "Localization", R"(Where a damaged model bleeds. Read-only.

A sequence of its :attr:`sites`; ``print`` shows them as a table.
)")
      .def_readonly("method", &Localization::method, "The method's canonical spec; empty: two models were given.")
      .def_readonly("severity", &Localization::severity, "On the method's axis; NaN: two models were given.")
      .def_readonly("sites", &Localization::sites, "Each part damaged alone, in the model's order.")
      .def_readonly("whole", &Localization::whole,
                    "The damage of the model with all of its parts damaged; None: predicted.")
      .def_readonly("delta_nll", &Localization::delta_nll,
                    "Of :attr:`whole`, or predicted: the sum over the sites; nats per token.")
      .def_property_readonly(
          "predicted", [](const Localization& self) { return !self.whole; },
          "Whether it is predicted; then what was not measured is None, and lists are empty.")
      .def_readonly("additivity", &Localization::additivity, R"(Sum of the sites' ΔNLL, divided by the whole's.

1 where the parts add up, above 1 where they hide each other, below 1 where they make each other worse. None where the
whole's interval of ΔNLL holds 0, or a number is not finite.
)")
      .def_readonly("additivity_kl", &Localization::additivity_kl,
                    "The same of mean KL; None where the whole's is 0 or a number is not finite.")
      .def_readonly("layer_error", &Localization::layer_error,
                    R"(Relative error of the whole damaged model's residual stream.

L + 1 numbers: before each block and after the last.
)")
      .def_readonly("cascade_gain", &Localization::cascade_gain,
                    "Error out / error in of each block, L numbers; NaN where the error before it is 0.")
      .def_readonly("seconds", &Localization::seconds, "What it took.")
      .def("worst", &worst, "count"_a = 5, R"(The sites that do most damage.

Args:
    count: At most so many.

Returns:
    list[Site]: The largest ΔNLL first.
)")
      .def(
          "to_dict", [](const Localization& self, bool complete) { return to_dict(self, complete); }, py::kw_only(),
          "complete"_a = false, R"(What ``report.json`` holds of it: None stands for NaN and infinity.

Args:
    complete: Also each damage as a whole, and NaN as it is: what :meth:`from_dict` reads.

Returns:
    dict: ``sites`` is a list of dicts.
)")
      .def_static("from_dict", &from_dict, "fields"_a, R"(The inverse of :meth:`to_dict`.

Args:
    fields: What ``to_dict(complete=True)`` gave.

Returns:
    Localization: The same.

Raises:
    ValueError: For a field that is missing.
)")
      .def("__len__", [](const Localization& self) { return self.sites.size(); })
      .def(
          "__getitem__",
          [](const Localization& self, const std::variant<py::int_, py::slice>& index) -> py::object {
            const py::object sites = py::cast(self.sites);
            return std::visit([&](const auto& key) { return py::object(sites[key]); }, index);
          },
          "index"_a, "The site at an index, or a list of them.")
      .def("__iter__",
           [](const Localization& self) -> py::typing::Iterator<LocalizedSite> {
             return py::iter(py::cast(self.sites));
           })
      .def("__repr__",
           [](const Localization& self) {
             const std::string what =
                 self.method.empty() ? "two models" : fmt::format("'{}' at {}", self.method, self.severity);
             return fmt::format("Localization({}, {} sites, {}ΔNLL {:.4g} of the whole)", what, self.sites.size(),
                                self.whole ? "" : "predicted ", self.delta_nll);
           })
      .def(py::pickle([](const Localization& self) { return to_dict(self, /*complete=*/true); }, &from_dict));
}

}  // namespace

void register_localize(py::module_& module) {
  register_site(module);
  register_localization(module);
  module.def(
      "localize",
      [](const Model& model, const std::variant<MethodSpec, Model>& method, const at::Tensor& tokens, double severity,
         const std::optional<Statistics>& statistics, bool linears, bool control,
         const std::optional<at::Tensor>& unigram, std::optional<int64_t> byte_count, int64_t batch,
         double memory_budget, int64_t bootstrap_samples, int64_t seed, const ProgressFunction& progress) {
        LocalizeOptions options{.linears = linears, .control = control};
        options.compare = compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples, seed,
                                          /*generation=*/false, progress);
        py::gil_scoped_release release;
        if (const auto* damaged = std::get_if<Model>(&method)) {
          return localize(model, *damaged, tokens, options);
        }
        return localize(model, std::get<MethodSpec>(method), tokens, severity, statistics ? &*statistics : nullptr,
                        options);
      },
      "model"_a, "method"_a, "tokens"_a, py::kw_only(), "severity"_a = std::numeric_limits<double>::quiet_NaN(),
      "statistics"_a = std::optional<Statistics>(), "linears"_a = LocalizeOptions().linears,
      "control"_a = LocalizeOptions().control, "unigram"_a = std::optional<at::Tensor>(),
      "byte_count"_a = std::optional<int64_t>(), "batch"_a = CompareOptions().batch,
      "memory_budget"_a = CompareOptions().memory_budget, "bootstrap_samples"_a = CompareOptions().bootstrap_samples,
      "seed"_a = 0, "progress"_a = ProgressFunction(), "What hemostat.localize calls.");
  module.def(
      "localize_predicted",
      [](const Model& model, const std::variant<MethodSpec, Model>& method, double severity,
         const std::optional<Statistics>& statistics, const Statistics& judge, bool linears, bool control) {
        const LocalizePredictedOptions options{.linears = linears, .control = control};
        py::gil_scoped_release release;
        if (const auto* damaged = std::get_if<Model>(&method)) {
          return localize_predicted(model, *damaged, judge, options);
        }
        return localize_predicted(model, std::get<MethodSpec>(method), severity, statistics ? &*statistics : nullptr,
                                  judge, options);
      },
      "model"_a, "method"_a, py::kw_only(), "severity"_a, "statistics"_a, "judge"_a, "linears"_a, "control"_a,
      "What hemostat.localize calls.");
  module.def("isotropic_control", &isotropic_control, "baseline"_a, "damaged"_a, py::kw_only(), "seed"_a = 0,
             py::call_guard<py::gil_scoped_release>(), R"(The baseline with isotropic noise as large as each change.

Args:
    baseline: The unchanged model.
    damaged: The changed one, of the same linears.
    seed: Of the noise's directions.

Returns:
    Model | None: In place of each linear's change Gaussian noise of the same Frobenius norm; None where no weight
    changed.
)");
}

}  // namespace hemostat::bindings
