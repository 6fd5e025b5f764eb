// Room `ablate`: parts of a model left out.
#include <optional>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/ablate.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {

void register_ablate(py::module_& module) {
  using py::literals::operator""_a;
  py::module_ room = module.def_submodule("ablate", "Parts of a model left out. Model in, Model out.");
  room.def(
      "drop_layers",
      [](const Model& model, int64_t count, std::optional<std::vector<int64_t>> order) {
        return ablate::drop_layers(model, {.count = count, .order = std::move(order)});
      },
      "model"_a, py::kw_only(), "count"_a, "order"_a = std::optional<std::vector<int64_t>>(),
      py::call_guard<py::gil_scoped_release>(), R"(Leaves blocks out.

Without an order: from the second-last backwards (the last block stays), the order in which depth is least missed
(Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, section 4.4).

Args:
    model: The model.
    count: Blocks to drop, 0 … L − 1.
    order: Indices of blocks, the first ``count`` of which fall.

Returns:
    Model: Shares the remaining blocks' tensors.

Raises:
    ValueError: For a count or index out of range, or a repeated index.
)");
}

}  // namespace hemostat::bindings
