// Room `statistics`: what a calibration pass collects.
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/statistics.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

std::set<std::string> names(const std::set<Need>& needs) {
  std::set<std::string> result;
  for (Need need : needs) {
    result.insert(name(need));
  }
  return result;
}

std::vector<std::string> linears_of(const Statistics& statistics) {
  std::vector<std::string> result;
  for (const auto& [linear, input] : statistics.inputs) {
    result.push_back(linear);
  }
  return result;
}

}  // namespace

void register_statistics(py::module_& module) {
  using py::literals::operator""_a;

  py::class_<InputStatistics, std::shared_ptr<InputStatistics>>(
      module, "InputStatistics",
      "Statistics of the input of a linear layer; linears that share an input share them. Read-only.")
      .def_property_readonly("count", &InputStatistics::count, "Tokens that were seen.")
      .def_property_readonly("in_features", &InputStatistics::in_features, "Features of the input.")
      .def_property_readonly(
          "needs", [](const InputStatistics& self) { return names(self.needs()); },
          "What was collected: 'column_norm', 'absmax', 'absmean', 'gram', 'mean'.")
      .def_property_readonly("norm", &InputStatistics::norm,
                             "float32 [in_features]: root mean square of each feature. ValueError if not collected.")
      .def_property_readonly("absmax", &InputStatistics::absmax,
                             "float32 [in_features]: largest |x|. ValueError if not collected.")
      .def_property_readonly("absmean", &InputStatistics::absmean,
                             "float32 [in_features]: mean |x|. ValueError if not collected.")
      .def_property_readonly("mean", &InputStatistics::mean,
                             "float32 [in_features]: mean of x, with its sign. ValueError if not collected.")
      .def_property_readonly(
          "gram",
          [](const InputStatistics& self) {
            py::gil_scoped_release release;
            return self.gram();
          },
          "float32 [in_features, in_features]: XᵀX / count. ValueError if not collected.")
      .def("__repr__", [](const InputStatistics& self) {
        return fmt::format("InputStatistics({} features, {} tokens: {})", self.in_features(), self.count(),
                           fmt::join(names(self.needs()), ", "));
      });

  py::class_<Statistics>(module, "Statistics", R"(What :func:`hemostat.collect` gathered, by the names of linears.

Example:
    >>> norm = statistics["model.layers.0.self_attn.q_proj"].norm
)")
      .def("__len__", [](const Statistics& self) { return self.inputs.size(); })
      .def("__contains__", &Statistics::contains, "linear"_a)
      .def(
          "__getitem__",
          [](const Statistics& self, const std::string& linear) {
            auto found = self.inputs.find(linear);
            if (found == self.inputs.end()) {
              throw py::key_error(linear);
            }
            return found->second;
          },
          "linear"_a)
      .def("__iter__",
           [](const Statistics& self) -> py::typing::Iterator<std::string> {
             return py::iter(py::cast(linears_of(self)));
           })
      .def("keys", linears_of, "The linears' names, sorted.")
      .def(
          "values",
          [](const Statistics& self) {
            std::vector<std::shared_ptr<InputStatistics>> result;
            for (const auto& [linear, input] : self.inputs) {
              result.push_back(input);
            }
            return result;
          },
          "The statistics, in the order of the names.")
      .def(
          "items",
          [](const Statistics& self) {
            std::vector<std::pair<std::string, std::shared_ptr<InputStatistics>>> result(self.inputs.begin(),
                                                                                         self.inputs.end());
            return result;
          },
          "Pairs of name and statistics.")
      .def_property_readonly(
          "needs", [](const Statistics& self) { return names(self.needs()); },
          "What every input has: 'column_norm', 'absmax', 'absmean', 'gram', 'mean'.")
      .def(
          "merge",
          [](Statistics& self, const Statistics& other) -> Statistics& {
            py::gil_scoped_release release;
            self.merge(other);
            return self;
          },
          "other"_a, py::return_value_policy::reference_internal,
          R"(Adds what another pass gathered, as if one pass had seen both texts.

Args:
    other: Statistics of the same linears and the same kinds.

Returns:
    Statistics: This object.

Raises:
    ValueError: Where names, sizes or kinds differ.
)")
      .def("__repr__", [](const Statistics& self) {
        const int64_t tokens = self.inputs.empty() ? 0 : self.inputs.begin()->second->count();
        return fmt::format("Statistics({} linears, {} tokens: {})", self.inputs.size(), tokens,
                           fmt::join(names(self.needs()), ", "));
      });

  module.def("every_need", [] { return names(every_need()); }, "Names of every statistic that needs no gradient.");
}

}  // namespace hemostat::bindings
