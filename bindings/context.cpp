// Room `context`: what the model reads is changed.
#include <torch/csrc/utils/pybind.h>

#include <hemostat/context.h>

#include "module.h"
#include "operators.h"

namespace hemostat::bindings {
void register_context(py::module_& module) {
  py::module_ room = module.def_submodule("context", "What the model reads is changed. Model in, Model out.");
  def_operator(room, "token_noise", &context::token_noise, {"model"},
               R"doc(A fraction of the tokens that the model reads is noise; the targets stay clean.

A hash of (seed, position, token, previous token) decides what happens to a token, so that batching and caching don't
alter it: ``replace`` puts a token drawn uniformly from the vocabulary in its place, ``drop`` makes its embedding zero,
``swap`` puts its predecessor in its place. With one seed, what falls at a rate also falls at every higher one.

Args:
    model: The model.
{options}

Returns:
    Model: With :attr:`Model.input` set; shares every tensor.

Raises:
    ValueError: For a rate out of range or another kind.
)doc");
  ;
}

}  // namespace hemostat::bindings
