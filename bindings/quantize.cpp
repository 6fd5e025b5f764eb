// hemostat._C.quantize
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "arguments.h"
#include "group_size.h"
#include "module.h"
#include "operators.h"

namespace hemostat::bindings {

namespace {

std::string repr(const quantize::GroupPacked& packed) {
  const auto group_size =
      packed.group_size() == quantize::kPerTensor ? std::string("\"tensor\"") : std::to_string(packed.group_size());
  return fmt::format("GroupPacked(shape=[{}], bits={}, group_size={}, symmetric={}, bits_per_weight={:.4g})",
                     fmt::join(packed.sizes(), ", "), packed.bits(), group_size, packed.symmetric() ? "True" : "False",
                     packed.bits_per_weight());
}

at::Tensor gptq(const at::Tensor& weight, const GramOrFactor& gram, const quantize::GptqOptions& options) {
  return std::visit([&](const auto& given) { return quantize::gptq(weight, given, options); }, gram);
}

std::shared_ptr<quantize::GroupPacked> gptq_packed(const at::Tensor& weight, const GramOrFactor& gram,
                                                   const quantize::GptqOptions& options) {
  return std::visit([&](const auto& given) { return quantize::gptq_packed(weight, given, options); }, gram);
}

}  // namespace

void register_quantize(py::module_& m) {
  auto room = m.def_submodule("quantize", R"doc(Weights and activations on few levels.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16. With L = round(2**bits) levels, per group
of consecutive entries of a row:

- asymmetric: the range is [min(0, min w), max(0, max w)], scale = (max - min) / (L - 1), zero = round(-min / scale),
  code = clamp(round(w / scale) + zero, 0, L - 1);
- symmetric, as GPTQ (arXiv 2210.17323): scale = 2 max|w| / (L - 1), zero = L // 2, the same code; for an even L values
  reach from -max|w| L / (L - 1) to max|w| (L - 2) / (L - 1).

The value is (code - zero) * scale, in float32. Rounding is to nearest, halves to even; zeros stay zero. The formats
nf4, fp4, fp8, mxfp4, nvfp4 and ternary have elements of their own. Gradients pass straight through whatever rounds
(arXiv 1308.3432).
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
scale, and 16 for its zero point unless symmetric (there it is a constant); 32 for each feature's group where they have
an ``order``, and 16 for each feature's ``input_scale``. In memory codes are bytes and scales are float32.
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
      .def_property_readonly(
          "order", [](const quantize::GroupPacked& packed) { return if_defined(packed.order()); },
          "int64 ``[in_features]``: ``order[i]`` is the i-th of the features that are grouped one after the other; "
          "None where they are grouped as they are.")
      .def_property_readonly(
          "input_scale", [](const quantize::GroupPacked& packed) { return if_defined(packed.input_scale()); },
          "float32 ``[in_features]``: the codes are those of weight * input_scale; None where that is 1.")
      .def("__repr__", &repr);

  py::class_<quantize::GgufPacked, quantize::PackedWeight, std::shared_ptr<quantize::GgufPacked>>(
      room, "GgufPacked", R"doc(A weight in one of llama.cpp's block formats, bit for bit as GGUF files store it.

Args:
    data: uint8 ``[out_features, bytes per row]``.
    type: ``"Q8_0"``, ``"Q6_K"``, ``"Q5_K"``, ``"Q4_K"``, ``"Q3_K"``, ``"Q2_K"``, ``"Q5_0"``, ``"Q5_1"``, ``"Q4_0"``,
        ``"Q4_1"`` or ``"IQ4_NL"``.
    in_features: A multiple of 32, or of 256 for a K type.
    dtype: Of what ``dequantize`` returns: float32, bfloat16 or float16.
)doc")
      .def(py::init([](at::Tensor data, const std::string& type, int64_t in_features, at::ScalarType dtype) {
             return std::make_shared<quantize::GgufPacked>(std::move(data), quantize::gguf_type_from_name(type),
                                                           in_features, dtype);
           }),
           py::arg("data"), py::kw_only(), py::arg("type"), py::arg("in_features"), py::arg("dtype") = at::kFloat)
      .def_property_readonly("data", &quantize::GgufPacked::data, "uint8 ``[out_features, bytes per row]``")
      .def_property_readonly(
          "type", [](const quantize::GgufPacked& packed) { return quantize::gguf_name(packed.type()); },
          "The format's name, ``\"Q4_K\"``.")
      .def_property_readonly("dtype", &quantize::GgufPacked::dtype, "The dtype of what ``dequantize`` returns.")
      .def("__repr__", [](const quantize::GgufPacked& packed) {
        return fmt::format("GgufPacked(shape=[{}], type=\"{}\", bits_per_weight={})", fmt::join(packed.sizes(), ", "),
                           quantize::gguf_name(packed.type()), packed.bits_per_weight());
      });

  register_block_float(room);

  def_quantizer(room, "rtn", &quantize::rtn, &quantize::rtn_packed, {"weight"},
                R"doc(Round to nearest: every weight on the nearest of round(2**bits) levels of its group.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``GroupPacked``, whose
    ``dequantize()`` equals it.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
        weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.
    NumericalError: Finite entries would round beyond their dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.rtn(torch.tensor([[-1.0, 0.2, 0.9, 2.0]]), bits=2)
    tensor([[-1.,  0.,  1.,  2.]])
)doc");

  def_operator(room, "fake_quantize", &quantize::fake_quantize, {"weight"},
               R"doc(``rtn`` for training: the forward pass rounds, the gradient passes straight through.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight, exactly as ``rtn`` gives it, in weight's dtype.

Raises:
    ValueError: A shape or option that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.
    NumericalError: Finite entries would round beyond their dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]], requires_grad=True)
    >>> hemostat.quantize.fake_quantize(weight, bits=2).sum().backward()
    >>> weight.grad
    tensor([[1., 1., 1., 1.]])
)doc");

  def_quantizer(room, "gptq", &gptq, &gptq_packed, {"weight", "gram"},
                R"doc(GPTQ: rounds column by column, and the columns still to come take up each column's error.

Minimizes what rounding changes in the layer's output. A group's range is that of its weights when the block of columns
in which it begins comes; a whole row's, and with ``static_groups`` every group's, is that of the weight at first.
Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv
2210.17323, algorithm 1, with one Cholesky factorization and no inverse.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    gram: X^T X over the number of tokens, float32 ``[in_features, in_features]``; or a ``solve.GramFactor`` of it, made
        once for many calls, whose act_order, block_size and damp then count.
{options}

Returns:
    The rounded weight in weight's dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()`` equals it.

Raises:
    ValueError: A shape, device or option that cannot be, or NaN or infinities in weight or gram.
    TypeError: weight is not float32, bfloat16 or float16, or gram not float32.
    NumericalError: gram is not positive semidefinite, or entries would round beyond weight's dtype.

Example:
    >>> import torch, hemostat
    >>> gram = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> hemostat.quantize.gptq(torch.tensor([[-0.4, 1.0]]), gram, bits=2, group_size=None)
    tensor([[-0.4667,  0.9333]])
)doc");

  def_quantizer(room, "awq", &quantize::awq, &quantize::awq_packed, {"weight", "activation_absmean", "gram"},
                R"doc(Round weights whose salient input features were scaled up, and scale them back.

With Q of ``rtn``, the result is Q(weight * s) / s. Of s = max(activation_absmean ** a, 1e-4), over sqrt(max s * min s),
it takes the one of a = 0, 1/20, ..., 19/20 with the least output error tr(E gram E^T), where E is what the rounding
changes. a = 0 is ``rtn``, so that without ``search_clip`` the output error is never more than ``rtn``'s. At inference
1 / s goes into the operation before the layer; here it is multiplied back, and inputs stay as they are. Lin et al. 2024,
"AWQ: Activation-aware Weight Quantization", arXiv 2306.00978. Gradients pass straight through to weight.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    activation_absmean: ``[in_features]``, mean ``|x|`` of each input feature; finite, not negative.
    gram: ``[in_features, in_features]``, X^T X / tokens.
{options}

Returns:
    The rounded weight in its own basis and dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()``
    equals it.

Raises:
    ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
    TypeError: An argument is not float32, bfloat16 or float16.
    NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[1.0, 0.3], [-2.0, 0.1]])
    >>> absmean, gram = torch.tensor([1.0, 9.0]), torch.diag(torch.tensor([1.0, 81.0]))
    >>> hemostat.quantize.awq(weight, absmean, gram, bits=2, group_size=2)
    tensor([[ 0.8064,  0.3000],
            [-1.8709,  0.1160]])
)doc");

  room.def(
      "awq_scale",
      [](const std::vector<at::Tensor>& weights, const at::Tensor& activation_absmean, const at::Tensor& gram,
         double bits, const GroupSize& group_size, bool symmetric, bool check_finite) {
        return quantize::awq_scale(weights, activation_absmean, gram,
                                   {.bits = bits,
                                    .group_size = group_size_of("hemostat.quantize.awq_scale", group_size),
                                    .symmetric = symmetric,
                                    .check_finite = check_finite});
      },
      py::arg("weights"), py::arg("activation_absmean"), py::arg("gram"), py::kw_only(), py::arg("bits"),
      py::arg("group_size") = 128, py::arg("symmetric") = false, py::arg("check_finite") = true, release_gil(),
      R"doc(The scale s of ``awq`` that weights on one input have in common: least sum of their output errors.

Args:
    weights: Sequence of ``[out_features, in_features]``, at least one.
    activation_absmean: ``[in_features]``, mean ``|x|`` of each input feature; finite, not negative.
    gram: ``[in_features, in_features]``, X^T X / tokens.
    bits: 2 to 8, fractions allowed.
    group_size: None or -1 for whole rows, or a divisor of in_features.
    symmetric: The levels of ``rtn``.
    check_finite: False skips the look for NaN and infinities.

Returns:
    float32 ``[in_features]``.

Raises:
    ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
    TypeError: An argument is not float32, bfloat16 or float16.
    NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

Example:
    >>> import torch, hemostat
    >>> weights = [torch.tensor([[1.0, 0.3], [-2.0, 0.1]]), torch.tensor([[0.5, 0.2]])]
    >>> absmean, gram = torch.tensor([1.0, 4.0]), torch.diag(torch.tensor([1.0, 16.0]))
    >>> hemostat.quantize.awq_scale(weights, absmean, gram, bits=8, group_size=2).shape
    torch.Size([2])
)doc");

  def_quantizer(room, "awq_scaled", &quantize::awq_scaled, &quantize::awq_scaled_packed, {"weight", "scale", "gram"},
                R"doc(The second half of ``awq``: Q(weight * scale) / scale, with a scale at hand.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    scale: ``[in_features]``, positive and finite, as ``awq_scale`` gives it.
    gram: ``[in_features, in_features]``, X^T X / tokens; ``search_clip`` reads it.
{options}

Returns:
    The rounded weight in its own basis and dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()``
    equals it.

Raises:
    ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
    TypeError: An argument is not float32, bfloat16 or float16.
    NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]])
    >>> hemostat.quantize.awq_scaled(weight, torch.ones(4), torch.eye(4), bits=2, group_size=4)
    tensor([[-1.,  0.,  1.,  2.]])
)doc");

  def_operator(room, "activation", &quantize::activation, {"input"},
               R"doc(Dynamic fake quantization of a linear layer's input, each token with its own scale.

Args:
    input: ``[..., in_features]``, float32, bfloat16 or float16; every last-dimension row is one group.
{options}

Returns:
    The rounded input, in its dtype; ``out`` where it was given.

Raises:
    ValueError: A shape or option that cannot be, or NaN or infinities in input (then ``out``, unless it is input
        itself, is unspecified).
    TypeError: input is not float32, bfloat16 or float16, or out has another dtype.
    NumericalError: Finite entries would round beyond their dtype.

Example:
    >>> import torch, hemostat
    >>> hemostat.quantize.activation(torch.tensor([[3.0, 1.4], [0.0, -6.0]]), bits=2)
    tensor([[ 3.,  1.],
            [ 0., -6.]])
)doc");

  def_quantizer(room, "gguf", &quantize::gguf, &quantize::gguf_packed, {"weight"},
                R"doc(The weight on the values of one of llama.cpp's block formats.

Every weight is scale * code - minimum. A block of 32 (or, of a K type, 256) weights has a float16 scale and in some
types a float16 minimum; the sub-blocks of a K type multiply them by small integers. Q8_0, Q5_0, Q5_1, Q4_0 and Q4_1
are bit for bit llama.cpp's reference, which puts the largest magnitude (or the range) on the ends of the codes. K types,
IQ4_NL, and with ``importance`` all but Q8_0, are searched for the least sum of importance * error**2; llama.cpp's search
favours large weights, so its squared error is no lower.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

Returns:
    The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``GgufPacked``, whose
    ``dequantize()`` equals it. Gradients pass straight through.

Raises:
    ValueError: in_features is no multiple of the block size, another shape, device or type that cannot be, or NaN,
        infinities or scales beyond float16 (then ``out``, unless it is weight itself, is unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.linspace(-1, 1, 256).view(1, 256)
    >>> packed = hemostat.quantize.gguf(weight, type="Q4_K", packed=True)
    >>> packed.data.shape, packed.bits_per_weight
    (torch.Size([1, 144]), 4.5)
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
