// Room `extend`: models made deeper.
#include <pybind11/pybind11.h>

#include <hemostat/extend.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {

void register_extend(py::module_& module) {
  using py::literals::operator""_a;
  py::module_ room = module.def_submodule("extend", "Models made deeper. Model in, Model out.");
  room.def(
      "duplicate_layers",
      [](const Model& model, int64_t count) { return extend::duplicate_layers(model, {.count = count}); }, "model"_a,
      py::kw_only(), "count"_a, py::call_guard<py::gil_scoped_release>(),
      R"(Repeats each of the ``count`` middle blocks in place (depth up-scaling, passthrough merging).

Kim et al., "SOLAR 10.7B", arXiv 2312.15166, repeats a middle span likewise.

Args:
    model: The model.
    count: Blocks to add, 0 … L.

Returns:
    Model: Repeated blocks share their tensors.

Raises:
    ValueError: For a count out of range.
)");
  room.def(
      "insert_identity",
      [](const Model& model, int64_t count) { return extend::insert_identity(model, {.count = count}); }, "model"_a,
      py::kw_only(), "count"_a, py::call_guard<py::gil_scoped_release>(),
      R"(Inserts copies of blocks, evenly spaced, with zero o and down projections: the function stays the same.

The control for :func:`duplicate_layers` (Wu et al., "LLaMA Pro", arXiv 2401.02415, section 3.2).

Args:
    model: The model.
    count: Blocks to add, 0 … L.

Returns:
    Model: Gives the same logits.

Raises:
    ValueError: For a count out of range, or blocks with norms after the residual or on a sublayer's output.
)");
}

}  // namespace hemostat::bindings
