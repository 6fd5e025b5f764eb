// Room `structured`: smaller models.
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/structured.h>

#include "module.h"
#include "operators.h"

namespace py = pybind11;

namespace hemostat::bindings {

void register_structured(py::module_& module) {
  using py::literals::operator""_a;
  py::module_ room = module.def_submodule(
      "structured", "Smaller models: heads, channels, blocks or dimensions taken out. Model in, Model out.");
  def_operator(room, "wanda_sp", &structured::wanda_sp, {"model", "statistics"},
               R"(Removes heads and channels by weight times activation norm (structured Wanda).

An input feature j of o or down scores mean_r \|W_rj\| · ‖x_j‖, a head the sum over its features (An et al. 2023, FLAP,
arXiv 2312.11983, section 4.1). Each block loses the same fraction: of its heads the floor, of its channels what remains.

Args:
    model: The model.
    statistics: Of its linears, with ``column_norm``.
{options}

Returns:
    Model: With fewer heads and channels.

Raises:
    ValueError: For statistics that lack something, or a sparsity that leaves no unit in some sublayer.
)");
  def_operator(room, "flap", &structured::flap, {"model", "statistics"},
               R"(Removes heads and channels whose features fluctuate least, and adds their mean to the bias (FLAP).

Scores of o are squared; where all blocks compete they are standardized in each layer, and units weigh by their
parameters (An et al. 2023, arXiv 2312.11983, equations 5 to 7, and the authors' code).

Args:
    model: The model.
    statistics: Of its linears, with ``column_norm`` and ``mean``.
{options}

Returns:
    Model: With fewer heads and channels.

Raises:
    ValueError: For statistics that lack something, or a sparsity that leaves no unit in some sublayer.
)");
  def_operator(room, "llm_pruner", &structured::llm_pruner, {"model", "statistics"},
               R"(Removes heads and channels, or dimensions of the residual stream, by a Taylor expansion of the loss.

All rows and columns that depend on each other count and fall together (Ma et al. 2023, LLM-Pruner, arXiv 2305.11627,
equations 3 to 6). The authors' fine-tuning is left out.

Args:
    model: The model.
    statistics: Of its linears, with ``gradient_mean``; for ``param_second`` and ``param_mix`` with ``gradient_square``.
{options}

Returns:
    Model: With fewer heads and channels, or a smaller hidden size.

Raises:
    ValueError: For statistics that lack something, or a sparsity that leaves no unit in some sublayer.
)");
  def_operator(room, "gradient_aware", &structured::gradient_aware, {"model", "statistics"},
               R"(Removes heads and channels by predicted damage; the weights that are kept make up for them.

To remove input features S of o or down, and to update the others optimally, costs ½ Σ_r f_r W_rS [(G⁻¹)_SS]⁻¹ W_rSᵀ nats
per token, with G the Gram matrix of the input and f the row Fisher. In each layer units fall greedily, and all layers
compete by cost per parameter.

Args:
    model: The model.
    statistics: Of its linears, with ``gram`` and ``row_fisher``.
{options}

Returns:
    Model: With fewer heads and channels.

Raises:
    ValueError: For statistics that lack something, or a sparsity that leaves no unit in some sublayer.
)");
  room.def("block_influence", &structured::block_influence, "model"_a, "tokens"_a,
           py::call_guard<py::gil_scoped_release>(), R"(How far each block turns the residual stream.

1 − E[cos(x_in, x_out)] over tokens (Men et al. 2024, ShortGPT, arXiv 2403.03853, equation 1).

Args:
    model: The model.
    tokens: int64 [windows, length].

Returns:
    list[float]: One a block, 0 … 2.

Raises:
    ValueError: For a model without blocks, or no tokens.
)");
  def_operator(room, "shortgpt", &structured::shortgpt, {"model", "tokens"},
               R"(Drops the blocks of the least influence.

See :func:`block_influence`.

Args:
    model: The model.
    tokens: int64 [windows, length], calibration text.
{options}

Returns:
    Model: Shares the remaining blocks' tensors.

Raises:
    ValueError: For a count out of range.
)");
  def_operator(room, "sleb", &structured::sleb, {"model", "tokens"},
               R"(Drops blocks one after the other, each time the one without which the rest predicts the text best.

Song et al. 2024, SLEB, arXiv 2402.09025, Algorithm 1: a pass over the text for each block that is left, half of it on
average.

Args:
    model: The model.
    tokens: int64 [windows, length], calibration text.
{options}

Returns:
    Model: Shares the remaining blocks' tensors.

Raises:
    ValueError: For a count out of range.
)");
  def_operator(room, "slicegpt", &structured::slicegpt, {"model", "tokens"},
               R"(Turns the residual stream to its principal components and deletes the last ones.

Norms become plain RMS norms, their gains part of the linears that follow, and a layer norm's mean is left out of what
writes the stream; the turns between the bases of sublayers are shortcut matrices of the blocks (Ashkboos et al. 2024,
SliceGPT, arXiv 2401.15024, section 3).

Args:
    model: The model.
    tokens: int64 [windows, length], calibration text.
{options}

Returns:
    Model: With a smaller hidden size.

Raises:
    ValueError: For mixtures of experts, parallel blocks, norms after a sublayer, and inputs that are scaled or rotated.
)");
}

}  // namespace hemostat::bindings
