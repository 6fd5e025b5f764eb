// Room `statistics`: what a calibration pass collects.
#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/statistics.h>

#include "arguments.h"
#include "module.h"
#include "needs.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

// A getter that computes, without the interpreter's lock.
template <typename Collected>
auto released(at::Tensor (Collected::*getter)() const) {
  return [getter](const Collected& self) {
    py::gil_scoped_release release;
    return (self.*getter)();
  };
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
      R"(Statistics of the input of a linear layer; linears that share an input share them.

:func:`hemostat.collect` makes them for a model; made by hand they take the inputs of any layer.

Args:
    in_features: Features of the input.
    needs: What to collect: 'column_norm', 'absmax', 'absmean', 'gram', 'mean'. None: all.
    device: Where the sums lie.
    memory_budget: Bytes; a Gram matrix beyond it lies in a mapped temporary file.

Raises:
    ValueError: in_features is less than 1, or there is no such statistic of an input.

Example:
    >>> import torch, hemostat
    >>> statistics = hemostat.InputStatistics(2, needs=["absmean"])
    >>> statistics.add(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    >>> statistics.absmean
    tensor([2., 1.])
)")
      .def(py::init([](int64_t in_features, const std::optional<std::vector<std::string>>& needs,
                       const DeviceArgument& device, double memory_budget) {
             std::set<Need> chosen = needs ? std::set<Need>() : every_need();
             for (const std::string& need : needs.value_or(std::vector<std::string>())) {
               chosen.insert(need_from_name(need));
             }
             MemoryBudget budget(memory_budget);
             return std::make_shared<InputStatistics>(in_features, device_from(device), chosen, budget);
           }),
           "in_features"_a, py::kw_only(), "needs"_a = py::none(), "device"_a = "cpu",
           "memory_budget"_a = 1024.0 * 1024 * 1024)
      .def("add", &InputStatistics::add, "x"_a, py::call_guard<py::gil_scoped_release>(),
           R"(Adds the tokens of a batch.

Args:
    x: ``[..., in_features]``, any floating dtype. NaN and infinities are summed as they are.

Raises:
    ValueError: x has other features.
    TypeError: x is not floating.
)")
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
      .def_property_readonly("mean", released(&InputStatistics::mean),
                             "float32 [in_features]: mean of x, with its sign. ValueError if not collected.")
      .def_property_readonly("gram", released(&InputStatistics::gram),
                             "float32 [in_features, in_features]: XᵀX / count. ValueError if not collected.")
      .def("__repr__", [](const InputStatistics& self) {
        return fmt::format("InputStatistics({} features, {} tokens: {})", self.in_features(), self.count(),
                           fmt::join(names(self.needs()), ", "));
      });

  py::class_<GradientStatistics, std::shared_ptr<GradientStatistics>>(
      module, "GradientStatistics",
      "Statistics of the gradients of a linear layer's weight, each of one window's mean negative log-likelihood. "
      "Read-only.")
      .def_property_readonly("count", &GradientStatistics::count, "Windows that were seen.")
      .def_property_readonly("out_features", &GradientStatistics::out_features, "Rows of the weight.")
      .def_property_readonly("in_features", &GradientStatistics::in_features, "Columns of the weight.")
      .def_property_readonly(
          "needs", [](const GradientStatistics& self) { return names(self.needs()); },
          "What was collected: 'gradient_mean', 'gradient_absmean', 'gradient_square', 'row_fisher'; and 'tokens' "
          "where the text was kept.")
      .def_property_readonly("mean", released(&GradientStatistics::mean),
                             "float32 [out_features, in_features]: mean gradient. ValueError if not collected.")
      .def_property_readonly("absmean", released(&GradientStatistics::absmean),
                             "float32 [out_features, in_features]: mean |gradient|. ValueError if not collected.")
      .def_property_readonly(
          "square", released(&GradientStatistics::square),
          "float32 [out_features, in_features]: mean squared gradient, the diagonal of the empirical "
          "Fisher information. ValueError if not collected.")
      .def_property_readonly(
          "token_fisher", released(&GradientStatistics::token_fisher),
          "float32 [windows, length]: of each token, the mean over rows of the squared gradient of the summed negative "
          "log-likelihood with respect to what the linear gives.")
      .def_property_readonly("row_fisher", released(&GradientStatistics::row_fisher),
                             "float32 [out_features]: mean over tokens of the squared gradient of a window's summed "
                             "negative log-likelihood "
                             "with respect to what each row gives. ValueError if not collected.")
      .def("__repr__", [](const GradientStatistics& self) {
        return fmt::format("GradientStatistics([{}, {}], {} windows: {})", self.out_features(), self.in_features(),
                           self.count(), fmt::join(names(self.needs()), ", "));
      });

  py::class_<Statistics>(module, "Statistics", R"(What :func:`hemostat.collect` gathered, by the names of linears.

Of the inputs: a mapping. Of the gradients, where these were collected: :attr:`gradients`.

Example:
    >>> statistics = hemostat.collect(model, calibration, needs=["column_norm", "gradient_square"])
    >>> norm = statistics["model.layers.0.self_attn.q_proj"].norm
    >>> fisher = statistics.gradients["model.layers.0.self_attn.q_proj"].square
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
      .def_readonly("gradients", &Statistics::gradients, "Statistics of the gradients, by the linears' names.")
      .def_property_readonly(
          "tokens",
          [](const Statistics& self) { return self.tokens.defined() ? std::optional(self.tokens) : std::nullopt; },
          "int64 [windows, length]: the calibration text itself, for methods that run the model; None: not kept.")
      .def_property_readonly(
          "needs", [](const Statistics& self) { return names(self.needs()); },
          "What every input and every weight has: 'column_norm', 'absmax', 'absmean', 'gram', 'mean', 'gradient_mean', "
          "'gradient_absmean', 'gradient_square', 'row_fisher'; and 'tokens' where the text was kept.")
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
        const bool of_inputs = !self.inputs.empty() || self.gradients.empty();
        const int64_t tokens = !self.inputs.empty()    ? self.inputs.begin()->second->count()
                               : self.tokens.defined() ? self.tokens.numel()
                                                       : 0;
        return fmt::format("Statistics({} linears, {} {}: {})", std::max(self.inputs.size(), self.gradients.size()),
                           of_inputs ? tokens : self.gradients.begin()->second->count(),
                           of_inputs ? "tokens" : "windows", fmt::join(names(self.needs()), ", "));
      });

  module.def("every_need", [] { return names(every_need()); }, "Names of every statistic that needs no gradient.");
  module.def("gradient_needs", [] { return names(gradient_needs()); }, "Names of every statistic of gradients.");
}

}  // namespace hemostat::bindings
