// hemostat._C.noise
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>

#include <hemostat/noise.h>

#include "arguments.h"
#include "module.h"
#include "operators.h"

namespace hemostat::bindings {

namespace {

uint64_t seed_of(const char* operation, int64_t seed) {
  return Spelling<uint64_t>::value(fmt::format("hemostat.noise.{}", operation), "seed", seed);
}

void register_bit_faults(py::module_& room) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  def_operator(room, "bit_flip", &noise::bit_flip, {"weight"},
               R"doc(Invert every stored bit of a weight with a probability, independently, as faulty memory does.

Each bit has one uniform draw, a hash of seed and position, and flips where that is below the rate (the fault model of
Reagen et al. 2018, "Ares", DAC). What flips at a rate also flips at every higher one; what flips with ``bit=`` also flips
without. The result is the same for any number of threads and on any device, may hold NaN and infinities, as memory
does, and carries no gradient.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16 of any value, or uint8 codes
        (``GroupPacked.codes``).
{options}

Returns:
    The damaged weight, in weight's dtype; ``out`` where it was given.

Raises:
    ValueError: A shape, device, rate, seed, bit or bits that cannot be.
    TypeError: weight is not float32, bfloat16, float16 or uint8, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.ones(2, 3)
    >>> hemostat.noise.bit_flip(weight, rate=1.0, bit=31)  # the sign
    tensor([[-1., -1., -1.],
            [-1., -1., -1.]])
    >>> codes = torch.tensor([[0, 15]], dtype=torch.uint8)
    >>> hemostat.noise.bit_flip(codes, rate=1.0, bits=4)
    tensor([[15,  0]], dtype=torch.uint8)
)doc");

  room.def(
      "stuck_at",
      [](const at::Tensor& weight, double rate, int64_t value, int64_t seed, std::optional<int64_t> bit,
         std::optional<int64_t> bits, std::optional<at::Tensor> out) {
        return noise::stuck_at(
            weight, value,
            {.rate = rate, .seed = seed_of("stuck_at", seed), .bit = bit, .bits = bits, .out = std::move(out)});
      },
      py::arg("weight"), py::kw_only(), py::arg("rate"), py::arg("value") = 0, py::arg("seed") = 0,
      py::arg("bit") = py::none(), py::arg("bits") = py::none(), py::arg("out") = py::none(), release_gil(),
      R"doc(Bits of a weight that are stuck at 0 or at 1, whatever was written to them: permanent faults of memory.

The stuck bits are those that ``bit_flip`` inverts for the same seed and rate; about half of them hold that value anyway.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16 of any value, or uint8 codes
        (``GroupPacked.codes``).
    rate: Probability of each bit, 0 to 1.
    value: What a stuck bit reads: 0 or 1.
    seed: 0 or more.
    bit: Only this position is stuck: 0 is the least significant, the highest the sign. None: all.
    bits: Of codes, how many low bits each is stored in, 1 to 8. None: 8.
    out: Contiguous tensor like weight that receives the result; may be weight itself.

Returns:
    The damaged weight, in weight's dtype; ``out`` where it was given.

Raises:
    ValueError: A shape, device, rate, value, seed, bit or bits that cannot be.
    TypeError: weight is not float32, bfloat16, float16 or uint8, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[1.5, -2.0]])
    >>> hemostat.noise.stuck_at(weight, rate=1.0, bit=31)  # no sign is left
    tensor([[1.5000, 2.0000]])
    >>> hemostat.noise.stuck_at(weight, rate=1.0, value=1, bit=31)
    tensor([[-1.5000, -2.0000]])
)doc");
}

}  // namespace

void register_noise(py::module_& m) {
  auto room = m.def_submodule("noise", "Random damage to weights and to the inputs of linear layers.");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  def_operator(room, "gaussian", &noise::gaussian, {"weight"},
               R"doc(Add Gaussian noise relative to the weight's own spread: weight + sigma * std(weight) * z.

z is standard normal and depends on nothing but shape and seed (any number of threads, any device). std is that of the
whole tensor as a population (divided by n), so a constant tensor stays unchanged. Arithmetic is in float32. To autograd
the noise is a constant.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
{options}

Returns:
    The noisy weight, in weight's dtype; ``out`` where it was given.

Raises:
    ValueError: A shape, device, sigma or seed that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.ones(2, 3)
    >>> torch.equal(hemostat.noise.gaussian(weight, sigma=0.5), weight)
    True
)doc");

  def_operator(room, "isotropic", &noise::isotropic, {"weight"},
               R"doc(Add noise of a given Frobenius norm in no direction in particular: weight + norm * z / |z|.

z is that of ``gaussian``: standard normal, of shape and seed alone. What a change of that size would do if it pointed
nowhere: the control beside ``hemostat.localize``.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
{options}

Returns:
    The noisy weight, in weight's dtype.

Raises:
    ValueError: A shape, norm or seed that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> weight = torch.zeros(2, 3)
    >>> round(hemostat.noise.isotropic(weight, norm=2.0).norm().item(), 5)
    2.0
)doc");

  room.def(
      "direction",
      [](const std::vector<int64_t>& sizes, int64_t seed, const DeviceArgument& device) {
        return noise::direction(sizes, seed_of("direction", seed), device_from(device));
      },
      py::arg("sizes"), py::kw_only(), py::arg("seed") = 0, py::arg("device") = "cpu", release_gil(),
      R"doc(The z of ``gaussian``: standard normal numbers that depend on sizes and seed alone.

Args:
    sizes: The shape.
    seed: 0 or more.
    device: Where the result lies; the numbers are the same on all.

Returns:
    float32 tensor.

Raises:
    ValueError: A size or the seed is negative.

Example:
    >>> import torch, hemostat
    >>> first = hemostat.noise.direction([2, 3], seed=1)
    >>> torch.equal(first, hemostat.noise.direction([2, 3], seed=1))
    True
)doc");

  def_operator(room, "apply", &noise::apply, {"weight", "direction"},
               R"doc(weight + sigma * std(weight) * direction: ``gaussian`` along a direction of your own.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    direction: float32, weight's shape and device.
{options}

Returns:
    The moved weight, in weight's dtype; ``out`` where it was given.

Raises:
    ValueError: A shape, device or sigma that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16, or direction is not float32.

Example:
    >>> import torch, hemostat
    >>> hemostat.noise.apply(torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), sigma=0.5)
    tensor([[-0.5000,  1.0000]])
)doc");

  def_operator(room, "activation_noise", &noise::activation_noise, {"input"},
               R"doc(Add Gaussian noise to a linear layer's input, relative to each token's own spread.

input + sigma * std(token) * z. z is standard normal, a hash of seed, the token's position and the feature: the same for
every sequence, however tokens are batched. std is that of a token's features as a population, so a token without spread
stays unchanged. Arithmetic is in float32. To autograd the noise is a constant.

Args:
    input: ``[..., tokens, in_features]``, or ``[in_features]`` for a token at position 0; float32, bfloat16 or float16.
{options}

Returns:
    The noisy input, in input's dtype.

Raises:
    ValueError: A shape, sigma or seed that cannot be, or NaN or infinities in input.
    TypeError: input is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> noisy = hemostat.noise.activation_noise(torch.tensor([[1.0, 1.0], [1.0, 3.0]]), sigma=0.5)
    >>> (noisy == torch.tensor([[1.0, 1.0], [1.0, 3.0]])).tolist()  # the first token has no spread
    [[True, True], [False, False]]
)doc");

  register_bit_faults(room);
}

}  // namespace hemostat::bindings
