// hemostat._C.decode
#include <torch/csrc/utils/pybind.h>

#include <hemostat/decode.h>

#include "module.h"

namespace hemostat::bindings {

void register_decode(py::module_& m) {
  auto room = m.def_submodule("decode", "What happens to logits before a token is chosen.");

  room.def("temperature", &decode::temperature, py::arg("logits"), py::arg("temperature"), py::kw_only(),
           py::arg("out") = py::none(), py::call_guard<py::gil_scoped_release>(),
           R"doc(Divide logits by a temperature: above 1 flattens the distribution, below 1 sharpens it.

Args:
    logits: ``[..., vocab]``, float32, bfloat16 or float16. -inf stays -inf.
    temperature: Positive and finite; 1 changes nothing.
    out: Contiguous tensor like logits that receives the result; may be logits itself.

Returns:
    logits / temperature, in the logits' dtype; ``out`` where it was given.

Raises:
    ValueError: temperature out of range, or an ``out`` of another shape or device.
    TypeError: logits are not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.decode.temperature(torch.tensor([[2.0, 1.0, 0.0]]), 2.0)
    tensor([[1.0000, 0.5000, 0.0000]])
)doc");
}

}  // namespace hemostat::bindings
