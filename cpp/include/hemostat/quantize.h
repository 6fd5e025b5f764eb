// Room `quantize`: weights and activations on few levels. Tensors in, tensors out.
//
// A weight is [out_features, in_features] in float32, bfloat16 or float16, on any device, of any strides. Arithmetic is
// in float32; results have the input's dtype and are the same for any number of threads.
//
// With L = round(2^bits) levels, per group of consecutive entries of a row:
//   asymmetric  range [min(0, min w), max(0, max w)], scale = (max − min)/(L − 1), zero = round(−min/scale),
//               code = clamp(round(w/scale) + zero, 0, L − 1)
//   symmetric   as GPTQ (Frantar et al. 2023, arXiv 2210.17323): scale = 2 · max|w| / (L − 1), zero = floor(L/2),
//               the same code; with whole bits these are the integers −2^(bits−1) … 2^(bits−1) − 1
//   value       (code − zero) · scale
// round is to nearest, halves to even; zeros stay zero. The lowest level may lie below −max|w|, at most at
// −max|w| · L/(L − 1); where that leaves the dtype's range the value is −Inf.
//
// Errors: ValueError for a shape, device or option that cannot be (before any work) and for NaN or infinite entries
// (counted in the kernel's own pass, so `out`, unless it is the input, is then unspecified; check_finite = false skips
// the look); TypeError for a dtype.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hemostat::quantize {

// Values of group_size that are no number of entries.
inline constexpr int64_t kPerRow = -1;    // one scale for each output feature
inline constexpr int64_t kPerTensor = 0;  // one scale for the matrix

// round(2^bits); bits 2 … 8, fractions allowed (2.5 bits: 6 levels).
int64_t levels(double bits);

// A weight in a storage format; a model's linear layer holds any of them. Immutable.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;

  // → [out_features, in_features], in the dtype of the weight that was packed
  virtual at::Tensor dequantize() const = 0;

  // What the format stores, in bits per weight, scales and zero points included.
  virtual double bits_per_weight() const = 0;

  // [out_features, in_features]
  virtual std::vector<int64_t> sizes() const = 0;

  virtual std::shared_ptr<const PackedWeight> to(c10::Device device) const = 0;
};

// Integer codes with a scale and a zero point per group.
class GroupPacked : public PackedWeight {
 public:
  //   codes        uint8 [out_features, in_features]
  //   scale, zero  float32 [out_features, groups], or [1, 1] for kPerTensor
  //   group_size   entries per group, or kPerTensor
  //   dtype        of what dequantize returns
  GroupPacked(at::Tensor codes, at::Tensor scale, at::Tensor zero, int64_t group_size, double bits, bool symmetric,
              at::ScalarType dtype);

  // (codes − zero) · scale
  at::Tensor dequantize() const override;

  // ceil(log2(levels)) bits per code, 16 per group for its scale, and 16 for its zero point unless symmetric (there it
  // is a constant). This is what the format takes when written; in memory codes are bytes and scales are float32.
  double bits_per_weight() const override;

  std::vector<int64_t> sizes() const override;
  std::shared_ptr<const PackedWeight> to(c10::Device device) const override;

  const at::Tensor& codes() const { return codes_; }
  const at::Tensor& scale() const { return scale_; }
  const at::Tensor& zero() const { return zero_; }
  int64_t group_size() const { return group_size_; }
  double bits() const { return bits_; }
  bool symmetric() const { return symmetric_; }
  at::ScalarType dtype() const { return dtype_; }

 private:
  at::Tensor codes_;
  at::Tensor scale_;
  at::Tensor zero_;
  int64_t group_size_;
  double bits_;
  bool symmetric_;
  at::ScalarType dtype_;
};

struct RtnOptions {
  double bits = 4;               // 2 … 8
  int64_t group_size = kPerRow;  // kPerRow, kPerTensor, or a divisor of in_features
  bool symmetric = false;
  // Shrinks each group's range by the factor of 1, .99, … .21 that has the least squared error (the grid of GPTQ's
  // quantizer, with the plain mean squared error for its |error|^2.4).
  bool search_clip = false;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;
};

// Round to nearest: the weight on its levels, in its own dtype. Where the weight requires a gradient, it passes
// straight through (Bengio et al. 2013, arXiv 1308.3432).
at::Tensor rtn(const at::Tensor& weight, const RtnOptions& options = {});

// rtn under the name that training scripts know.
at::Tensor fake_quantize(const at::Tensor& weight, const RtnOptions& options = {});

// rtn as codes; `out` is not used. rtn_packed(w, o)->dequantize() equals rtn(w, o).
std::shared_ptr<GroupPacked> rtn_packed(const at::Tensor& weight, const RtnOptions& options = {});

struct AwqOptions {
  double bits = 4;           // 2 … 8
  int64_t group_size = 128;  // kPerRow, or a divisor of in_features
  bool symmetric = false;    // the levels of `rtn`
  bool search_clip = false;  // clips each group of the scaled weight at the factor of 1, .95, … .55 of its largest
                             // magnitude that has the least error in the outputs which the group alone adds to
  bool check_finite = true;
};

// AWQ's scale of the input features, common to every weight on one input (Lin et al. 2024, "AWQ: Activation-aware
// Weight Quantization", arXiv 2306.00978, section 3.2): of s = max(activation_absmean^α, 1e-4), over √(max s · min s),
// the one of α = 0, 1/20, … 19/20 with the least squared error of the outputs, Σ tr(E·gram·Eᵀ) over the weights, where
// E = Q(weight · diag s) · diag s⁻¹ − weight and Q is `rtn`.
//   weights             at least one, [out_features, in_features]
//   activation_absmean  [in_features]: mean |x| of each input feature; finite, not negative
//   gram                [in_features, in_features]: XᵀX / tokens, finite
//   → float32 [in_features]
at::Tensor awq_scale(at::TensorList weights, const at::Tensor& activation_absmean, const at::Tensor& gram,
                     const AwqOptions& options = {});

// Q(weight · diag s) · diag s⁻¹: the weight on the levels of its scaled self, in its own basis and dtype. At inference
// s⁻¹ goes into the operation before; here it is multiplied back, so that inputs stay as they are.
//   scale  [in_features], positive and finite, as awq_scale gives it
at::Tensor awq_scaled(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& gram,
                      const AwqOptions& options = {});

// Both, for one weight. With search_clip = false its output error is never more than rtn's.
at::Tensor awq(const at::Tensor& weight, const at::Tensor& activation_absmean, const at::Tensor& gram,
               const AwqOptions& options = {});

struct ActivationOptions {
  double bits = 8;  // 2 … 8
  bool symmetric = false;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;
};

// Dynamic fake quantization of a linear layer's input: each token (last dimension) has its own scale.
//   input  [..., in_features]
// Gradients pass straight through.
at::Tensor activation(const at::Tensor& input, const ActivationOptions& options = {});

}  // namespace hemostat::quantize
