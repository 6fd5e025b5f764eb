// The formats of hemostat._C.quantize whose blocks share a scale.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/quantize.h>

#include "arguments.h"
#include "module.h"
#include "operators.h"

namespace hemostat::bindings {

namespace {

std::string describe(const quantize::BlockPacked& packed) {
  const auto block_size =
      packed.block_size() == quantize::kPerTensor ? std::string("\"tensor\"") : std::to_string(packed.block_size());
  return fmt::format("BlockPacked(shape=[{}], format=\"{}\", block_size={}, bits_per_weight={:.4g})",
                     fmt::join(packed.sizes(), ", "), to_string(packed.format()), block_size, packed.bits_per_weight());
}

}  // namespace

void register_block_float(py::module_& room) {
  py::class_<quantize::BlockPacked, quantize::PackedWeight, std::shared_ptr<quantize::BlockPacked>>(
      room, "BlockPacked",
      R"doc(Elements of a few bits whose blocks share a scale: nf4, fp4, fp8, mxfp4, nvfp4, ternary.

``bits_per_weight`` counts the bits of codes and scales as they are in memory.
)doc")
      .def_property_readonly(
          "format", [](const quantize::BlockPacked& packed) { return to_string(packed.format()); },
          "nf4, fp4, fp8_e4m3, fp8_e5m2, mxfp4, nvfp4 or ternary")
      .def_property_readonly("codes", &quantize::BlockPacked::codes, R"doc(The elements.

- nf4, fp4: uint8 ``[out_features, ceil(in_features / 2)]``, the first of two in the high half, as bitsandbytes.
- fp8: float8_e4m3fn or float8_e5m2 ``[out_features, in_features]``.
- mxfp4, nvfp4: uint8 ``[out_features, ceil(in_features / 2)]``, the first of two in the low half: the bits of
  float4_e2m1fn_x2.
- ternary: uint8 ``[out_features, ceil(in_features / 5)]``, the sum of (element + 1) * 3**i.
)doc")
      .def_property_readonly("scale", &quantize::BlockPacked::scale,
                             "``[out_features, blocks]``, ``[1, 1]`` for the whole tensor: float32; float8_e8m0fnu of "
                             "mxfp4, float8_e4m3fn of nvfp4")
      .def_property_readonly(
          "tensor_scale", [](const quantize::BlockPacked& packed) { return if_defined(packed.tensor_scale()); },
          "nvfp4's scale of the whole tensor, float32; None of other formats")
      .def_property_readonly(
          "block_size",
          [](const quantize::BlockPacked& packed) -> std::variant<int64_t, std::string> {
            if (packed.block_size() == quantize::kPerTensor) {
              return "tensor";
            }
            return packed.block_size();
          },
          "Weights that share a scale, or ``\"tensor\"``.")
      .def_property_readonly("dtype", &quantize::BlockPacked::dtype, "The dtype of what ``dequantize`` returns.")
      .def("__repr__", &describe);

  def_quantizer(room, "nf4", &quantize::nf4, &quantize::nf4_packed, {"weight"},
                R"doc(NormalFloat in 4 bits: 16 quantiles of a normal distribution, scaled to each block's max|w|.

The scale of a block is max|w| in float32; an element is the nearest of 16 values from -1 to 1, of two equally near
ones the lower (Dettmers et al. 2023, arXiv 2305.14314). Equal to bitsandbytes, whose blocks run over the flattened
weight, where a block divides a row.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it. The gradient passes straight through.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.nf4(torch.tensor([[-2.0, 0.1, 0.6, 1.0]]), block_size=4)
    tensor([[-2.0000,  0.1592,  0.6758,  0.8814]])
)doc");

  def_quantizer(
      room, "fp4", &quantize::fp4, &quantize::fp4_packed, {"weight"},
      R"doc(bitsandbytes' 4-bit float: 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1 and their negatives, times a block's max|w|.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it. The gradient passes straight through.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.fp4(torch.tensor([[-3.0, 0.1, 0.6, 1.0]]), block_size=4)
    tensor([[-3.0000,  0.0156,  0.5000,  1.0000]])
)doc");

  def_quantizer(room, "fp8", &quantize::fp8, &quantize::fp8_packed, {"weight"},
                R"doc(8-bit floating point, each row scaled so that its max|w| is the format's largest number.

scale = max|w| / 448 (e4m3) or / 57344 (e5m2), 1 for a row of zeros; an element is w / scale in float8, halves to even
(Micikevicius et al. 2022, arXiv 2209.05433).

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it, with codes in float8_e4m3fn or float8_e5m2 and scale float32 ``[out_features, 1]``.
    The gradient passes straight through.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.fp8(torch.tensor([[-448.0, 0.1, 33.3, 1.0]]))
    tensor([[-4.4800e+02,  1.0156e-01,  3.2000e+01,  1.0000e+00]])
)doc");

  def_quantizer(room, "mxfp4", &quantize::mxfp4, &quantize::mxfp4_packed, {"weight"},
                R"doc(OCP Microscaling in 4 bits: blocks of 32 share a power of two.

The scale of a block is 2**(floor(log2 max|w|) - 2), an element the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their
negatives to w / scale, halves to even, saturating (OCP Microscaling Formats 1.0, section 6.3).

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides; 32 divides in_features.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it, with scale in float8_e8m0fnu. The gradient passes straight through.

Raises:
    ValueError: A shape or device that cannot be, or NaN or infinities in weight (then ``out``, unless it is weight
        itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.mxfp4(torch.tensor([[-7.0, 0.3, 2.4, 1.0] * 8]))[:, :4]
    tensor([[-6.0000,  0.5000,  2.0000,  1.0000]])
)doc");

  def_quantizer(room, "nvfp4", &quantize::nvfp4, &quantize::nvfp4_packed, {"weight"},
                R"doc(NVIDIA's 4-bit float: blocks of 16 share an 8-bit scale, and all of them a float32 one.

tensor_scale = max|w| / (448 * 6) of the whole weight; the scale of a block is max|w| / 6 / tensor_scale in
float8_e4m3fn, at least 2**-6; an element is the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, halves to
even, saturating.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides; 16 divides in_features.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it, with scale in float8_e4m3fn. The gradient passes straight through.

Raises:
    ValueError: A shape or device that cannot be, or NaN or infinities in weight (then ``out``, unless it is weight
        itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.nvfp4(torch.tensor([[-6.0, 0.3, 2.4, 1.0] * 4]))[:, :4]
    tensor([[-6.0000,  0.5000,  2.0000,  1.0000]])
)doc");

  def_quantizer(room, "ternary", &quantize::ternary, &quantize::ternary_packed, {"weight"},
                R"doc(BitNet b1.58's absmean quantizer: every weight is -1, 0 or 1 times mean|w|.

An element is clamp(round(w / mean|w|), -1, 1), halves to 0 (Ma et al. 2024, arXiv 2402.17764, equations 1 to 3). Where
all weights are 0 the scale is 1, for the epsilon of the paper.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
    ``dequantize()`` equals it. The gradient passes straight through.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.ternary(torch.tensor([[-2.0, 0.25, 0.75, 1.0]]))
    tensor([[-1.,  0.,  1.,  1.]])
)doc");
}

}  // namespace hemostat::bindings
