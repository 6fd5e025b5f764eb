// Room `normalize`: normalization changed.
#include <pybind11/pybind11.h>

#include <hemostat/normalize.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {

void register_normalize(py::module_& module) {
  using py::literals::operator""_a;
  py::module_ room = module.def_submodule("normalize", "Normalization changed. Model in, Model out.");
  room.def("norm_count", &normalize::norm_count, "model"_a, R"(The norms of the residual stream.

Args:
    model: The model.

Returns:
    int: Every block's and the final one.
)");
  room.def(
      "drop_norms", [](const Model& model, int64_t count) { return normalize::drop_norms(model, {.count = count}); },
      "model"_a, py::kw_only(), "count"_a, py::call_guard<py::gil_scoped_release>(),
      R"(Replaces norms by nothing, the deepest first, their weights included.

The final norm falls first, then the last block's, MLP before attention; what follows sees the residual stream itself.

Args:
    model: The model.
    count: Norms to drop, 0 … :func:`norm_count`.

Returns:
    Model: Shares every tensor that stays.

Raises:
    ValueError: For a count out of range.
)");
}

}  // namespace hemostat::bindings
