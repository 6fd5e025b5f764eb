// hemostat._C.quantize
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "arguments.h"
#include "group_size.h"
#include "module.h"

namespace hemostat::bindings {

namespace {

std::string repr(const quantize::GroupPacked& packed) {
  const auto group_size =
      packed.group_size() == quantize::kPerTensor ? std::string("\"tensor\"") : std::to_string(packed.group_size());
  return fmt::format("GroupPacked(shape=[{}], bits={}, group_size={}, symmetric={}, bits_per_weight={:.4g})",
                     fmt::join(packed.sizes(), ", "), packed.bits(), group_size, packed.symmetric() ? "True" : "False",
                     packed.bits_per_weight());
}

}  // namespace

void register_quantize(py::module_& m) {
  auto room = m.def_submodule("quantize", R"doc(Weights and activations on few levels.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16. With L = round(2**bits) levels, per group
of consecutive entries of a row:

- asymmetric: the range is [min(0, min w), max(0, max w)], scale = (max - min) / (L - 1), zero = round(-min / scale),
  code = clamp(round(w / scale) + zero, 0, L - 1);
- symmetric, as GPTQ (arXiv 2210.17323): scale = 2 max|w| / (L - 1), zero = L // 2, the same code.

The value is (code - zero) * scale, in float32. The formats nf4, fp4, fp8, mxfp4, nvfp4 and ternary have elements of
their own. Rounding is to nearest, halves to even; zeros stay zero. Gradients pass
straight through (arXiv 1308.3432).
)doc");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  py::class_<quantize::PackedWeight, std::shared_ptr<quantize::PackedWeight>>(
      room, "PackedWeight", "A weight in a storage format. Immutable.")
      .def("dequantize", &quantize::PackedWeight::dequantize, release_gil(),
           "The weight, ``[out_features, in_features]``, in the dtype that was packed.")
      .def_property_readonly("bits_per_weight", &quantize::PackedWeight::bits_per_weight,
                             "What the format stores, in bits per weight, scales and zero points included.")
      .def_property_readonly(
          "shape", [](const quantize::PackedWeight& packed) { return py::tuple(py::cast(packed.sizes())); },
          "(out_features, in_features)")
      .def(
          "to",
          [](const quantize::PackedWeight& packed, const DeviceArgument& device) {
            return std::const_pointer_cast<quantize::PackedWeight>(packed.to(device_from(device)));
          },
          py::arg("device"), release_gil(), "The same weight on another device.");

  py::class_<quantize::GroupPacked, quantize::PackedWeight, std::shared_ptr<quantize::GroupPacked>>(
      room, "GroupPacked", R"doc(Integer codes with a scale and a zero point per group.

``bits_per_weight`` counts what the format takes when written: ceil(log2(levels)) bits per code, 16 per group for its
scale, and 16 for its zero point unless symmetric (there it is a constant). In memory codes are bytes and scales are
float32.
)doc")
      .def_property_readonly("codes", &quantize::GroupPacked::codes, "uint8 ``[out_features, in_features]``")
      .def_property_readonly("scale", &quantize::GroupPacked::scale,
                             "float32 ``[out_features, groups]``; ``[1, 1]`` for the whole tensor")
      .def_property_readonly("zero", &quantize::GroupPacked::zero,
                             "float32 ``[out_features, groups]``; ``[1, 1]`` for the whole tensor")
      .def_property_readonly(
          "group_size",
          [](const quantize::GroupPacked& packed) -> std::variant<int64_t, std::string> {
            if (packed.group_size() == quantize::kPerTensor) {
              return "tensor";
            }
            return packed.group_size();
          },
          "Weights per group, or ``\"tensor\"``.")
      .def_property_readonly("bits", &quantize::GroupPacked::bits, "log2 of the levels, as it was asked for.")
      .def_property_readonly("symmetric", &quantize::GroupPacked::symmetric, "Whether the range is symmetric.")
      .def_property_readonly("dtype", &quantize::GroupPacked::dtype, "The dtype of what ``dequantize`` returns.")
      .def("__repr__", &repr);

  register_block_formats(room);

  room.def(
      "rtn",
      [](const at::Tensor& weight, double bits, const GroupSize& group_size, bool symmetric, bool packed,
         std::optional<at::Tensor> out, bool check_finite,
         bool search_clip) -> std::variant<at::Tensor, std::shared_ptr<quantize::GroupPacked>> {
        const quantize::RtnOptions options{.bits = bits,
                                           .group_size = group_size_of("rtn", group_size),
                                           .symmetric = symmetric,
                                           .search_clip = search_clip,
                                           .out = std::move(out),
                                           .check_finite = check_finite};
        if (packed) {
          return quantize::rtn_packed(weight, options);
        }
        return quantize::rtn(weight, options);
      },
      py::arg("weight"), py::kw_only(), py::arg("bits"), py::arg("group_size") = py::none(),
      py::arg("symmetric") = false, py::arg("packed") = false, py::arg("out") = py::none(),
      py::arg("check_finite") = true, py::arg("search_clip") = false, release_gil(),
      R"doc(Round to nearest: every weight on the nearest of round(2**bits) levels of its group.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    bits: 2 to 8, fractions allowed (2.5 bits: 6 levels).
    group_size: Weights that share a scale: None or -1 for whole rows, ``"tensor"`` for the whole matrix, or a divisor
        of in_features.
    symmetric: The range is +-max|w| instead of [min, max] with 0.
    packed: Return the codes instead of the rounded weight.
    out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
    check_finite: False skips the look for NaN and infinities.
    search_clip: Shrink each group's range by the factor of 1, .99, ..., .21 with the least squared error.

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``GroupPacked``, whose
    ``dequantize()`` equals it.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.rtn(torch.tensor([[-1.0, 0.2, 0.9, 2.0]]), bits=2)
    tensor([[-1.,  0.,  1.,  2.]])
)doc");

  room.def(
      "fake_quantize",
      [](const at::Tensor& weight, double bits, const GroupSize& group_size, bool symmetric, bool check_finite) {
        return quantize::fake_quantize(weight, {.bits = bits,
                                                .group_size = group_size_of("fake_quantize", group_size),
                                                .symmetric = symmetric,
                                                .check_finite = check_finite});
      },
      py::arg("weight"), py::kw_only(), py::arg("bits"), py::arg("group_size") = py::none(),
      py::arg("symmetric") = false, py::arg("check_finite") = true, release_gil(),
      R"doc(``rtn`` for training: the forward pass rounds, the gradient passes straight through.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    bits: 2 to 8, fractions allowed.
    group_size: None or -1 for whole rows, ``"tensor"``, or a divisor of in_features.
    symmetric: The range is +-max|w| instead of [min, max] with 0.
    check_finite: False skips the look for NaN and infinities.

Returns:
    The rounded weight, exactly as ``rtn`` gives it, in weight's dtype.

Raises:
    ValueError: A shape or option that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]], requires_grad=True)
    >>> hemostat.quantize.fake_quantize(weight, bits=2).sum().backward()
    >>> weight.grad
    tensor([[1., 1., 1., 1.]])
)doc");

  room.def(
      "activation",
      [](const at::Tensor& input, double bits, bool symmetric, std::optional<at::Tensor> out, bool check_finite) {
        return quantize::activation(
            input, {.bits = bits, .symmetric = symmetric, .out = std::move(out), .check_finite = check_finite});
      },
      py::arg("input"), py::kw_only(), py::arg("bits"), py::arg("symmetric") = false, py::arg("out") = py::none(),
      py::arg("check_finite") = true, release_gil(),
      R"doc(Dynamic fake quantization of a linear layer's input, each token with its own scale.

Args:
    input: ``[..., in_features]``, float32, bfloat16 or float16; every last-dimension row is one group.
    bits: 2 to 8, fractions allowed.
    symmetric: The range is +-max|x| instead of [min, max] with 0.
    out: Contiguous tensor like input that receives the result; may be input itself.
    check_finite: False skips the look for NaN and infinities.

Returns:
    The rounded input, in its dtype; ``out`` where it was given.

Raises:
    ValueError: A shape or option that cannot be, or NaN or infinities in input (then ``out``, unless it is input
        itself, is unspecified).
    TypeError: input is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.activation(torch.tensor([[3.0, 1.4], [0.0, -6.0]]), bits=2)
    tensor([[ 3.,  1.],
            [ 0., -6.]])
)doc");

  room.def("levels", &quantize::levels, py::arg("bits"), R"doc(round(2**bits), the number of levels of 2 to 8 bits.

Args:
    bits: 2 to 8, fractions allowed.

Returns:
    4 to 256.

Raises:
    ValueError: bits out of range.

Example:
    >>> import hemostat
    >>> hemostat.quantize.levels(2.5)
    6
)doc");
}

}  // namespace hemostat::bindings
