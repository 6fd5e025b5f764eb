// Room `model`: a torch module of any architecture as a model's forward.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/arange.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "arguments.h"
#include "callbacks.h"
#include "model/treated_input.h"
#include "model_arguments.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

Foreign foreign_of(const py::object& module);

// What differs from the module's own, by the linears' names: (weight or None, bias or None, LinearInput or None).
struct Change {
  const ForeignLinear* linear;
  at::Tensor weight;
};

std::vector<Change> changes_in(const Foreign& foreign) {
  std::vector<Change> changes;
  for (const ForeignLinear& entry : foreign.linears) {
    if (entry.changed()) {
      const bool own = entry.linear.weight.is_same(entry.own.weight);
      const at::ScalarType dtype = entry.own.weight.scalar_type();
      changes.push_back({&entry, own ? at::Tensor() : entry.linear.dense().to(dtype)});
    }
  }
  return changes;
}

py::dict as_dict(const std::vector<Change>& changes) {
  py::dict result;
  for (const Change& change : changes) {
    const Linear& linear = change.linear->linear;
    const bool own_bias = linear.bias.is_same(change.linear->own.bias);
    result[py::str(change.linear->name)] = py::make_tuple(
        if_defined(change.weight), own_bias ? std::nullopt : if_defined(linear.bias),
        linear.input.neutral() ? py::object(py::none()) : py::cast(linear.input, py::return_value_policy::copy));
  }
  return result;
}

// An instance of hemostat._foreign.Module.
class PythonModule : public ForeignModule {
 public:
  explicit PythonModule(py::object module)
      : name_(module.attr("name").cast<std::string>()),
        has_loss_(module.attr("has_loss").cast<bool>()),
        module_(std::move(module)) {}

  std::string name() const override { return name_; }
  bool has_loss() const override { return has_loss_; }

  at::Tensor run(const Foreign& foreign, const at::Tensor& batch, Observer* observer) const override {
    const std::vector<Change> changes = changes_in(foreign);
    const py::gil_scoped_acquire gil;
    check_signals();
    py::object on_input = py::none(), on_output = py::none();
    if (observer != nullptr) {
      on_input = py::cpp_function([observer](const std::string& name, const at::Tensor& x) {
        const py::gil_scoped_release release;
        observer->linear_input(0, {name}, x);
      });
      on_output = py::cpp_function([observer](const std::string& name, const at::Tensor& y) {
        const py::gil_scoped_release release;
        observer->linear_output(0, name, y);
      });
    }
    return method("run")(as_dict(changes), batch, on_input, on_output).cast<at::Tensor>();
  }

  Foreign converted(std::optional<at::ScalarType> dtype, std::optional<c10::Device> device) const override {
    const py::gil_scoped_acquire gil;
    try {
      return foreign_of(method("converted")(dtype, device));
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_ValueError)) {
        throw;
      }
      throw ValueError(py::str(error.value()).cast<std::string>());  // that a dtype is too narrow, a caller may catch
    }
  }

  std::string structure() const override {
    const py::gil_scoped_acquire gil;
    return method("structure")().cast<std::string>();
  }

  std::map<std::string, at::Tensor> tensors(const Foreign& foreign) const override {
    const std::vector<Change> changes = changes_in(foreign);
    const py::gil_scoped_acquire gil;
    return method("tensors")(as_dict(changes)).cast<std::map<std::string, at::Tensor>>();
  }

  void save(const Foreign& foreign, const std::string& directory) const override {
    const std::vector<Change> changes = changes_in(foreign);
    const py::gil_scoped_acquire gil;
    method("save")(as_dict(changes), file_name_to(directory));
  }

  // The caller holds the GIL.
  const py::object& module() const { return module_.object(); }

 private:
  py::object method(const char* name) const { return module_.object().attr(name); }

  std::string name_;
  bool has_loss_;
  Callable module_;
};

Foreign foreign_of(const py::object& module) {
  Foreign foreign;
  foreign.module = std::make_shared<PythonModule>(module);
  for (const py::handle& entry : module.attr("linears")()) {
    const auto [name, weight, bias, output] =
        entry.cast<std::tuple<std::string, at::Tensor, std::optional<at::Tensor>, bool>>();
    Linear linear;
    linear.weight = weight;
    linear.bias = bias.value_or(at::Tensor());
    foreign.linears.push_back({.name = name, .linear = linear, .own = linear, .output = output});
  }
  foreign.others = module.attr("others")().cast<std::map<std::string, at::Tensor>>();
  foreign.dtype = module.attr("dtype").cast<at::ScalarType>();
  foreign.device = module.attr("device").cast<at::Device>();
  return foreign;
}

Model model_of(const py::object& module, const std::string& family, int64_t vocab_size, int64_t hidden_size,
               int64_t context, const std::vector<int64_t>& eos_token_ids, std::optional<int64_t> bos_token_id,
               const std::string& json, const py::object& source) {
  Model model;
  model.config.family = family;
  model.config.vocab_size = vocab_size;
  model.config.hidden_size = hidden_size;
  model.config.context = context;
  model.config.eos_token_ids = eos_token_ids;
  model.config.bos_token_id = bos_token_id;
  model.config.json = json;
  model.foreign = foreign_of(module);
  model.source = file_name_from(source);
  return model;
}

}  // namespace

void register_foreign(py::module_& module) {
  module.def("_foreign_model", &model_of, "module"_a, py::kw_only(), "family"_a, "vocab_size"_a, "hidden_size"_a,
             "context"_a, "eos_token_ids"_a, "bos_token_id"_a, "json"_a, "source"_a,
             "A model whose forward is that of a hemostat._foreign.Module.");
  module.def(
      "_foreign_parts",
      [](const Model& model) -> py::object {
        const auto* foreign = dynamic_cast<const PythonModule*>(model.foreign.module.get());
        if (foreign == nullptr) {
          return py::none();
        }
        return py::make_tuple(foreign->module(), as_dict(changes_in(model.foreign)));
      },
      "model"_a, "The hemostat._foreign.Module of a model, and what differs from its own; None of a model of blocks.");
  module.def(
      "_treated_input",
      [](const LinearInput& input, const at::Tensor& x) {
        const py::gil_scoped_release release;
        const auto options = at::TensorOptions().dtype(at::kLong).device(x.device());
        return treated_input(input, x, at::arange(x.dim() > 1 ? x.size(-2) : 1, options));
      },
      "input"_a, "x"_a, "What a linear reads of x [..., in_features].");
}

}  // namespace hemostat::bindings
