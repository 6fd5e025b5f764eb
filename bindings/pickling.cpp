// Pickling and copying: a model in its parts, the weights in it, and a sentence for what cannot be pickled.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/model.h>
#include <hemostat/quantize.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using Packed = std::shared_ptr<quantize::PackedWeight>;

// torch cannot pickle float8 tensors: they travel as their bytes, beside their dtype.
py::object tensor_state(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return py::none();
  }
  if (at::isFloat8Type(tensor.scalar_type())) {
    return py::make_tuple(tensor.view(at::kByte), tensor.scalar_type());
  }
  return py::cast(tensor);
}

at::Tensor tensor_from(const py::object& state) {
  if (state.is_none()) {
    return {};
  }
  if (py::isinstance<py::tuple>(state)) {
    const auto [bytes, dtype] = state.cast<std::pair<at::Tensor, at::ScalarType>>();
    return bytes.view(dtype);
  }
  return state.cast<at::Tensor>();
}

// What `self` is made of: a tuple that packed_from() takes.
py::tuple packed_state(const quantize::PackedWeight& self) {
  if (const auto* group = dynamic_cast<const quantize::GroupPacked*>(&self)) {
    return py::make_tuple("group", group->codes(), group->scale(), group->zero(), group->group_size(), group->bits(),
                          group->symmetric(), group->dtype(), tensor_state(group->order()),
                          tensor_state(group->input_scale()));
  }
  if (const auto* blocks = dynamic_cast<const quantize::GgufPacked*>(&self)) {
    return py::make_tuple("gguf", blocks->data(), static_cast<int64_t>(blocks->type()), self.sizes()[1],
                          blocks->dtype());
  }
  const auto& block = dynamic_cast<const quantize::BlockPacked&>(self);
  return py::make_tuple("block", static_cast<int64_t>(block.format()), tensor_state(block.codes()),
                        tensor_state(block.scale()), tensor_state(block.tensor_scale()), self.sizes()[1],
                        block.block_size(), block.dtype());
}

Packed packed_from(const py::tuple& state) {
  const auto tensor = [&](size_t i) { return tensor_from(state[i]); };
  const auto integer = [&](size_t i) { return state[i].cast<int64_t>(); };
  const auto dtype = [&](size_t i) { return state[i].cast<at::ScalarType>(); };
  const auto kind = state[0].cast<std::string>();
  if (kind == "group") {
    return std::make_shared<quantize::GroupPacked>(tensor(1), tensor(2), tensor(3), integer(4), state[5].cast<double>(),
                                                   state[6].cast<bool>(), dtype(7), tensor(8), tensor(9));
  }
  if (kind == "gguf") {
    return std::make_shared<quantize::GgufPacked>(tensor(1), static_cast<quantize::GgufType>(integer(2)), integer(3),
                                                  dtype(4));
  }
  return std::make_shared<quantize::BlockPacked>(static_cast<quantize::Format>(integer(1)), tensor(2), tensor(3),
                                                 tensor(4), integer(5), integer(6), dtype(7));
}

py::dict model_state(const Model& self) {
  const ModelState state = self.state();
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : state.tensors) {  // torch copies and sends leaves only
    tensors[name] = tensor.is_leaf() ? tensor : tensor.detach().requires_grad_();
  }
  std::map<std::string, Packed> packed;
  for (const auto& [name, weight] : state.packed) {
    packed[name] = std::const_pointer_cast<quantize::PackedWeight>(weight);
  }
  py::dict result;
  result["config"] = state.config.json;
  result["context"] = state.config.context;
  result["bos_token_id"] = state.config.bos_token_id;
  result["eos_token_ids"] = state.config.eos_token_ids;
  result["structure"] = state.structure;
  result["tensors"] = tensors;
  result["packed"] = packed;
  result["origins"] = state.origins;
  result["source"] = py::bytes(state.source);
  return result;
}

Model model_from(const py::dict& state) {
  ModelState parts;
  parts.config.json = state["config"].cast<std::string>();
  parts.config.context = state["context"].cast<int64_t>();
  parts.config.bos_token_id = state["bos_token_id"].cast<std::optional<int64_t>>();
  parts.config.eos_token_ids = state["eos_token_ids"].cast<std::vector<int64_t>>();
  parts.structure = state["structure"].cast<std::string>();
  parts.tensors = state["tensors"].cast<std::map<std::string, at::Tensor>>();
  for (const auto& [name, weight] : state["packed"].cast<std::map<std::string, Packed>>()) {
    parts.packed[name] = weight;
  }
  parts.origins = state["origins"].cast<std::vector<int64_t>>();
  parts.source = state["source"].cast<std::string>();
  return Model::from_state(parts);
}

// What to do instead, by class; others are results of a function that can be called again.
std::string instead(const std::string& name) {
  static const std::map<std::string, std::string> kAdvice = {
      {"Linears", "pickle the model"},
      {"Prepared", "prepare again from the model and the statistics"},
      {"Statistics", "collect again from the model and the tokens"},
  };
  const auto found = kAdvice.find(name);
  return found == kAdvice.end() ? "pickle the model, or the numbers that are needed of it" : found->second;
}

void refuse_pickling(const py::type& type) {
  const auto name = type.attr("__name__").cast<std::string>();
  type.attr("__reduce__") = py::cpp_function(
      [name](const py::object&) -> py::object {
        throw py::type_error(fmt::format("hemostat.{} cannot be pickled or copied; {}", name, instead(name)));
      },
      py::name("__reduce__"), py::is_method(type));
}

}  // namespace

void register_pickling(py::module_& module) {
  module.def("_restored_model", &model_from, py::arg("state"), "A model of what pickling keeps of one.");
  module.def("_restored_packed_weight", &packed_from, py::arg("state"),
             "A packed weight of what pickling keeps of one.");

  const py::type model = py::type::of<Model>();
  const py::object restored_model = module.attr("_restored_model");
  model.attr("__reduce__") = py::cpp_function(
      [restored_model](const Model& self) -> py::tuple {
        return py::make_tuple(restored_model, py::make_tuple(model_state(self)));
      },
      py::name("__reduce__"), py::is_method(model));
  model.attr("__copy__") = py::cpp_function([](const py::object& self) { return self; },  // a value: nothing changes it
                                            py::name("__copy__"), py::is_method(model));

  const py::type packed = py::type::of<quantize::PackedWeight>();
  const py::object restored_weight = module.attr("_restored_packed_weight");
  packed.attr("__reduce__") = py::cpp_function(
      [restored_weight](const quantize::PackedWeight& self) -> py::tuple {
        return py::make_tuple(restored_weight, py::make_tuple(packed_state(self)));
      },
      py::name("__reduce__"), py::is_method(packed));

  const py::object base = py::module_::import("builtins").attr("object").attr("__reduce__");
  for (const auto& [name, value] : module.attr("__dict__").cast<py::dict>()) {
    const bool exception = PyType_Check(value.ptr()) && PyExceptionClass_Check(value.ptr());
    if (PyType_Check(value.ptr()) && !exception && py::object(value.attr("__reduce__")).is(base) &&
        !py::hasattr(value, "__setstate__")) {  // py::pickle gives that
      refuse_pickling(py::reinterpret_borrow<py::type>(value));
    }
  }
}

}  // namespace hemostat::bindings
