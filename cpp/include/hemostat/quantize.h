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
// −max|w| · L/(L − 1).
//
// Errors: ValueError for a shape, device or option that cannot be (before any work) and for NaN or infinite entries,
// NumericalError where finite ones round beyond the input's dtype (both counted in the kernel's own pass, so `out`,
// unless it is the input, is then unspecified; check_finite = false skips the look); TypeError for a dtype.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <hemostat/options.h>
#include <hemostat/solve.h>

namespace hemostat::quantize {

// Values of group_size that are no number of entries.
inline constexpr int64_t kPerRow = -1;    // one scale for each output feature
inline constexpr int64_t kPerTensor = 0;  // one scale for the matrix

// Weights that share a scale: a number of them, kPerRow or kPerTensor.
struct GroupSize {
  int64_t weights;

  constexpr GroupSize(int64_t of) : weights(of) {}
  constexpr operator int64_t() const { return weights; }

  // "row" (or "-1"), "tensor", "128". ValueError naming `operation` for another text.
  static GroupSize from_text(std::string_view operation, std::string_view text);
  std::string text() const;
};

// Ranges of group sizes as fields declare them: within rows, or also the whole tensor.
inline constexpr Range kGroupsOfRows = at_least(1);
inline constexpr Range kGroupsOrTensor = at_least(0);

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

// Bits per weight of [out_features, in_features] integer codes in groups: ceil(log2(levels)) bits per code, 16 per
// group for its scale, and 16 for its zero point unless symmetric (there it is a constant); and so many for each
// feature.
double group_bits_per_weight(at::IntArrayRef sizes, int64_t group_size, double bits, bool symmetric,
                             double feature_bits = 0);

// Integer codes with a scale and a zero point per group.
class GroupPacked : public PackedWeight {
 public:
  //   codes        uint8 [out_features, in_features]
  //   scale, zero  float32 [out_features, groups], or [1, 1] for kPerTensor
  //   group_size   entries per group, or kPerTensor
  //   dtype        of what dequantize returns
  //   order        int64 [in_features]: order[i] is the i-th feature of those that are grouped, one after the other;
  //                undefined where they are grouped as they are
  //   input_scale  float32 [in_features]: the codes are those of weight · diag(input_scale); undefined where it is 1
  GroupPacked(at::Tensor codes, at::Tensor scale, at::Tensor zero, int64_t group_size, double bits, bool symmetric,
              at::ScalarType dtype, at::Tensor order = {}, at::Tensor input_scale = {});

  // (codes − zero) · scale / input_scale
  at::Tensor dequantize() const override;

  // group_bits_per_weight, with 32 for each feature's group where they have an order, and 16 for each feature's input
  // scale. This is what the format takes when written; in memory codes are bytes and scales are float32.
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
  const at::Tensor& order() const { return order_; }
  const at::Tensor& input_scale() const { return input_scale_; }

 private:
  at::Tensor codes_;
  at::Tensor scale_;
  at::Tensor zero_;
  at::Tensor order_;
  at::Tensor input_scale_;
  int64_t group_size_;
  double bits_;
  bool symmetric_;
  at::ScalarType dtype_;
};

// What several of the formats below take.
template <typename Options>
constexpr auto bits_field() {
  return Field{"bits", &Options::bits, "log2 of the number of levels, fractions allowed (2.5 bits: 6 levels)",
               between(2, 8), SetBy::severity};
}

template <typename Options>
constexpr auto group_size_field(const Range& groups) {
  return Field{"group_size", &Options::group_size, "weights that share a scale", groups};
}

template <typename Options>
constexpr auto symmetric_field() {
  return Field{"symmetric", &Options::symmetric,
               "codes symmetric about 0: scale = 2 max|w| / (levels - 1), instead of the range [min, max] with 0"};
}

struct RtnOptions {
  double bits = 4;
  GroupSize group_size = kPerRow;
  bool symmetric = false;
  bool search_clip = false;  // the grid of GPTQ's quantizer, with the plain mean squared error for its |error|^2.4
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{bits_field<RtnOptions>(),
                      group_size_field<RtnOptions>(kGroupsOrTensor),
                      symmetric_field<RtnOptions>(),
                      Field{"search_clip", &RtnOptions::search_clip,
                            "shrinks each group's range by the factor of 1, .99, … .21 with the least squared error"},
                      out_field<RtnOptions>(),
                      check_finite_field<RtnOptions>()};
  }
};

// Round to nearest: the weight on its levels, in its own dtype. Where the weight requires a gradient, it passes
// straight through (Bengio et al. 2013, arXiv 1308.3432).
at::Tensor rtn(const at::Tensor& weight, const RtnOptions& options = {});

// rtn under the name that training scripts know.
at::Tensor fake_quantize(const at::Tensor& weight, const RtnOptions& options = {});

// rtn as codes; ValueError where `out` is given, as in every packed form. rtn_packed(w, o)->dequantize() equals rtn(w,
// o).
std::shared_ptr<GroupPacked> rtn_packed(const at::Tensor& weight, const RtnOptions& options = {});

struct GptqOptions {
  double bits = 4;
  GroupSize group_size = 128;
  bool symmetric = false;
  bool act_order = false;
  bool static_groups = false;  // the packed form then needs no order
  int64_t block_size = 128;
  double damp = 0.01;  // see solve::GramFactorOptions
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{bits_field<GptqOptions>(),
                      group_size_field<GptqOptions>(kGroupsOfRows),
                      symmetric_field<GptqOptions>(),
                      Field{"act_order", &GptqOptions::act_order,
                            "takes the most active input features first; groups are of neighbours in that order"},
                      Field{"static_groups", &GptqOptions::static_groups,
                            "groups are of neighbours as they are, also with act_order, and their ranges those of the "
                            "weight at first, as in the authors' code (github.com/IST-DASLab/gptq)"},
                      Field{"block_size", &GptqOptions::block_size, "columns that are solved together", at_least(1)},
                      solve::damp_field<GptqOptions>(),
                      check_finite_field<GptqOptions>()};
  }
};

// GPTQ (Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
// arXiv 2210.17323, algorithm 1): column by column, every rounding error is taken up by the columns to come. A group's
// range is that of its weights when the block in which it begins comes; a whole row's, and with static_groups every
// group's, is that of the weight at first.
//   gram  XᵀX over the number of tokens, float32 [in_features, in_features]
// → the rounded weight, in weight's dtype. Not differentiable.
at::Tensor gptq(const at::Tensor& weight, const at::Tensor& gram, const GptqOptions& options = {});

// gptq as codes: gptq_packed(w, g, o)->dequantize() equals gptq(w, g, o).
std::shared_ptr<GroupPacked> gptq_packed(const at::Tensor& weight, const at::Tensor& gram,
                                         const GptqOptions& options = {});

// The same from a factor made once, whose act_order, block size and damp count instead of the options'.
at::Tensor gptq(const at::Tensor& weight, const solve::GramFactor& factor, const GptqOptions& options = {});
std::shared_ptr<GroupPacked> gptq_packed(const at::Tensor& weight, const solve::GramFactor& factor,
                                         const GptqOptions& options = {});

// llama.cpp's block formats, in which GGUF files store weights. The values are ggml's own numbers of these types.
// Every weight is scale · code − minimum, where each sub-block has a scale and, in some, a minimum:
//
//   type    bits     codes       blocks
//   Q8_0    8.5      −127 … 127  32 weights with a float16 scale
//   Q5_0    5.5      −16 … 15    32 weights with a float16 scale
//   Q5_1    6        0 … 31      32 weights with a float16 scale and a float16 minimum
//   Q4_0    4.5      −8 … 7      32 weights with a float16 scale
//   Q4_1    5        0 … 15      32 weights with a float16 scale and a float16 minimum
//   IQ4_NL  4.5      16 of −127 … 113, denser about 0; 32 weights with a float16 scale
//   Q6_K    6.5625   −32 … 31    256 weights with a float16 scale; each 16 an 8-bit factor of it
//   Q5_K    5.5      0 … 31      256 weights with float16 scale and minimum; each 32 a 6-bit factor of both
//   Q4_K    4.5      0 … 15      as Q5_K
//   Q3_K    3.4375   −4 … 3      256 weights with a float16 scale; each 16 a 6-bit factor of it
//   Q2_K    2.625    0 … 3       256 weights with float16 scale and minimum; each 16 a 4-bit factor of both
enum class GgufType : int32_t {
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
};

// All of them, by ggml's numbers.
std::vector<GgufType> gguf_types();

std::string gguf_name(GgufType type);                              // "Q4_K"
GgufType gguf_type_from_name(const std::string& name);             // ValueError, with the known names, for another
std::optional<GgufType> gguf_type_from_number(int64_t ggml_type);  // none for another
int64_t gguf_block_size(GgufType type);                            // weights of a block: 32 or 256
int64_t gguf_block_bytes(GgufType type);                           // bytes of a block
double gguf_bits_per_weight(GgufType type);

// A weight in one of these formats, bit for bit as llama.cpp stores it.
class GgufPacked : public PackedWeight {
 public:
  //   data         uint8 [out_features, bytes per row], e.g. of a file
  //   in_features  a multiple of the type's block size
  //   dtype        of what dequantize returns
  // ValueError, TypeError where these do not fit each other.
  GgufPacked(at::Tensor data, GgufType type, int64_t in_features, at::ScalarType dtype);

  at::Tensor dequantize() const override;
  double bits_per_weight() const override;
  std::vector<int64_t> sizes() const override;
  std::shared_ptr<const PackedWeight> to(c10::Device device) const override;

  const at::Tensor& data() const { return data_; }
  GgufType type() const { return type_; }
  at::ScalarType dtype() const { return dtype_; }

 private:
  at::Tensor data_;
  GgufType type_;
  int64_t in_features_;
  at::ScalarType dtype_;
};

struct GgufOptions {
  GgufType type = GgufType::q4_k;
  // float32 [in_features], finite and at least 0: what the squared error of each input feature counts for. llama.cpp's
  // importance matrix is the mean squared activation.
  std::optional<at::Tensor> importance = std::nullopt;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        Field{"type", &GgufOptions::type,
              "the format, with its bits per weight: Q8_0 8.5, Q6_K 6.5625, Q5_1 6, Q5_K and Q5_0 5.5, "
              "Q4_1 5, Q4_K, Q4_0 and IQ4_NL 4.5, Q3_K 3.4375, Q2_K 2.625"},
        Field{"importance",
              &GgufOptions::importance,
              "``[in_features]``, at least 0: what the squared error of each input feature counts for, as "
              "llama.cpp's importance matrix, the mean squared activation; None: all alike, as where all of "
              "a sub-block are 0",
              {},
              SetBy::call},
        out_field<GgufOptions>(), check_finite_field<GgufOptions>()};
  }
};

// The weight on the values of a block format, in its own dtype.
//
// Q8_0, Q5_0, Q5_1, Q4_0 and Q4_1 without importance are bit for bit what llama.cpp's reference gives: the scale puts
// the largest magnitude (its sign included; Q*_1: the range) at the end of the codes. Q8_0 takes no notice of
// importance. Everything else is searched: of a grid of scales per sub-block, each fitted by least squares to the codes
// that it rounds to, the one with the least sum of importance · error² is taken (1 · error² without importance);
// the factors are rounded to the block's scale, and again each sub-block takes the neighbouring factors of the least
// error. The search weighs errors as they are, where llama.cpp's favours large weights: its squared error is
// no larger. An importance that is 0 throughout a sub-block counts as 1 there.
//
// Errors: also ValueError where in_features is no multiple of the block size, or a scale does not fit float16 (counted
// as the entries that are not finite). Where the weight requires a gradient, it passes straight through.
at::Tensor gguf(const at::Tensor& weight, const GgufOptions& options = {});

// gguf as blocks. gguf_packed(w, o)->dequantize() equals gguf(w, o).
std::shared_ptr<GgufPacked> gguf_packed(const at::Tensor& weight, const GgufOptions& options = {});

// Formats whose elements are floating-point numbers, entries of a codebook, or −1, 0, 1; kernels.h has their formulas.
enum class Format { nf4, fp4, fp8_e4m3, fp8_e5m2, mxfp4, nvfp4, ternary };

// "nf4", "fp8_e4m3", …
std::string to_string(Format format);

// Bits per weight of an [out_features, in_features] matrix in the format, with block_size entries, kPerRow or
// kPerTensor to a scale: BlockPacked::bits_per_weight of it.
double block_bits_per_weight(Format format, at::IntArrayRef sizes, int64_t block_size);

// Elements of a few bits whose blocks share a scale.
class BlockPacked : public PackedWeight {
 public:
  //   codes         as the format lays them out (see dequantize), [out_features, …]
  //   scale         [out_features, blocks], or [1, 1] for kPerTensor
  //   tensor_scale  float32 scalar: nvfp4's, else undefined
  //   block_size    entries that share a scale, or kPerTensor
  //   dtype         of what dequantize returns
  BlockPacked(Format format, at::Tensor codes, at::Tensor scale, at::Tensor tensor_scale, int64_t in_features,
              int64_t block_size, at::ScalarType dtype);

  // element · scale (· tensor_scale).
  //   nf4, fp4      codes uint8 [out, ceil(in/2)], the first of two in the high half, as bitsandbytes; scale float32
  //   fp8           codes float8_e4m3fn or float8_e5m2 [out, in]; scale float32
  //   mxfp4, nvfp4  codes uint8 [out, ceil(in/2)], the first of two in the low half: the bits of float4_e2m1fn_x2;
  //                 scale float8_e8m0fnu, float8_e4m3fn
  //   ternary       codes uint8 [out, ceil(in/5)]: Σ (element_i + 1) · 3^i; scale float32
  at::Tensor dequantize() const override;

  // The bits of codes, scale and tensor_scale, as they are in memory.
  double bits_per_weight() const override;

  std::vector<int64_t> sizes() const override;
  std::shared_ptr<const PackedWeight> to(c10::Device device) const override;

  Format format() const { return format_; }
  const at::Tensor& codes() const { return codes_; }
  const at::Tensor& scale() const { return scale_; }
  const at::Tensor& tensor_scale() const { return tensor_scale_; }
  int64_t block_size() const { return block_size_; }
  at::ScalarType dtype() const { return dtype_; }

 private:
  Format format_;
  at::Tensor codes_;
  at::Tensor scale_;
  at::Tensor tensor_scale_;
  int64_t in_features_;
  int64_t block_size_;
  at::ScalarType dtype_;
};

// nf4, fp4: equal to bitsandbytes, whose blocks run over the flattened weight: the same where a block divides a row.
struct BlockOptions {
  int64_t block_size = 64;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{Field{"block_size", &BlockOptions::block_size,
                            "weights of a row that share a scale; a divisor of the input features", at_least(1)},
                      out_field<BlockOptions>(), check_finite_field<BlockOptions>()};
  }
};

// NormalFloat: the quantiles of a normal distribution, 0 among them (Dettmers et al. 2023, arXiv 2305.14314). A block's
// scale is max |w|, float32; an element is the nearest of 16 values in −1 … 1, of two equally near ones the lower.
at::Tensor nf4(const at::Tensor& weight, const BlockOptions& options = {});
std::shared_ptr<BlockPacked> nf4_packed(const at::Tensor& weight, const BlockOptions& options = {});

// bitsandbytes' 4-bit float: 0, ±1/192, ±1/6, ±1/4, ±1/3, ±1/2, ±2/3, ±1 of the block's max |w|.
at::Tensor fp4(const at::Tensor& weight, const BlockOptions& options = {});
std::shared_ptr<BlockPacked> fp4_packed(const at::Tensor& weight, const BlockOptions& options = {});

struct FormatOptions {
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() { return std::tuple{out_field<FormatOptions>(), check_finite_field<FormatOptions>()}; }
};

// OCP Microscaling Formats 1.0: blocks of 32 of a row share the scale 2^(floor(log2 max |w|) − 2); an element is the
// nearest of 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives, halves to even. ValueError where 32 does not divide
// in_features.
at::Tensor mxfp4(const at::Tensor& weight, const FormatOptions& options = {});
std::shared_ptr<BlockPacked> mxfp4_packed(const at::Tensor& weight, const FormatOptions& options = {});

// NVIDIA's: a float32 scale of the tensor, max |w|/(448 · 6), and a scale of each 16 entries of a row in float8_e4m3fn,
// max |w|/6 of what the first leaves, at least 2^−6; elements as mxfp4's. ValueError where 16 does not divide
// in_features.
at::Tensor nvfp4(const at::Tensor& weight, const FormatOptions& options = {});
std::shared_ptr<BlockPacked> nvfp4_packed(const at::Tensor& weight, const FormatOptions& options = {});

enum class Float8 { e4m3, e5m2 };  // largest 448, 57344

}  // namespace hemostat::quantize

namespace hemostat {

template <>
inline constexpr auto words<quantize::Float8> =
    std::array{Word{quantize::Float8::e4m3, "e4m3"}, Word{quantize::Float8::e5m2, "e5m2"}};

}  // namespace hemostat

namespace hemostat::quantize {

struct Fp8Options {
  Float8 format = Float8::e4m3;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{Field{"format", &Fp8Options::format, "bits of exponent and fraction"}, out_field<Fp8Options>(),
                      check_finite_field<Fp8Options>()};
  }
};

// Each row scaled so that its max |w| is the format's largest (Micikevicius et al. 2022, arXiv 2209.05433):
// scale = max |w|/448 or /57344, 1 for a row of zeros; an element is w/scale in float8, halves to even.
at::Tensor fp8(const at::Tensor& weight, const Fp8Options& options = {});
std::shared_ptr<BlockPacked> fp8_packed(const at::Tensor& weight, const Fp8Options& options = {});

struct TernaryOptions {
  GroupSize group_size = kPerTensor;             // the paper's
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{group_size_field<TernaryOptions>(kGroupsOrTensor), out_field<TernaryOptions>(),
                      check_finite_field<TernaryOptions>()};
  }
};

// BitNet b1.58's absmean quantizer (Ma et al. 2024, arXiv 2402.17764, equations 1–3): scale = mean |w|, element =
// clamp(round(w/scale), −1, 1). The paper's ε, which keeps it from dividing by 0, is a scale of 1 for zeros here.
at::Tensor ternary(const at::Tensor& weight, const TernaryOptions& options = {});
std::shared_ptr<BlockPacked> ternary_packed(const at::Tensor& weight, const TernaryOptions& options = {});

struct AwqOptions {
  double bits = 4;
  GroupSize group_size = 128;
  bool symmetric = false;
  bool search_clip = false;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{bits_field<AwqOptions>(), group_size_field<AwqOptions>(kGroupsOfRows),
                      symmetric_field<AwqOptions>(),
                      Field{"search_clip", &AwqOptions::search_clip,
                            "clips each group of the scaled weight at the factor of 1, .95, … .55 of its largest "
                            "magnitude that has the least error in the outputs which the group alone adds to"},
                      check_finite_field<AwqOptions>()};
  }
};

// AWQ's scale of the input features, common to every weight on one input (Lin et al. 2024, "AWQ: Activation-aware
// Weight Quantization", arXiv 2306.00978, section 3.2): of s = max(activation_absmean^α, 1e-4), over √(max s · min s),
// the one of α = 0, 1/20, … 19/20 with the least squared error of the outputs, Σ tr(E·gram·Eᵀ) over the weights, where
// E = Q(weight · diag s) · diag s⁻¹ − weight and Q is `rtn`.
//   weights             at least one, [out_features, in_features]
//   activation_absmean  [in_features]: mean |x| of each input feature; finite, not negative
//   gram                [in_features, in_features]: XᵀX / tokens. ValueError where it is not symmetric or has a
//   negative
//                       diagonal, NumericalError where it is not positive semidefinite, all but for rounding
//   → float32 [in_features]
at::Tensor awq_scale(at::TensorList weights, const at::Tensor& activation_absmean, const at::Tensor& gram,
                     const AwqOptions& options = {});

// Q(weight · diag s) · diag s⁻¹: the weight on the levels of its scaled self, in its own basis and dtype. At inference
// s⁻¹ goes into the operation before; here it is multiplied back, so that inputs stay as they are.
//   scale  [in_features], positive and finite, as awq_scale gives it
at::Tensor awq_scaled(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& gram,
                      const AwqOptions& options = {});
std::shared_ptr<GroupPacked> awq_scaled_packed(const at::Tensor& weight, const at::Tensor& scale,
                                               const at::Tensor& gram, const AwqOptions& options = {});

// Both, for one weight. With search_clip = false its output error is never more than rtn's.
at::Tensor awq(const at::Tensor& weight, const at::Tensor& activation_absmean, const at::Tensor& gram,
               const AwqOptions& options = {});
std::shared_ptr<GroupPacked> awq_packed(const at::Tensor& weight, const at::Tensor& activation_absmean,
                                        const at::Tensor& gram, const AwqOptions& options = {});

struct ActivationOptions {
  double bits = 8;
  bool symmetric = false;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        bits_field<ActivationOptions>(), symmetric_field<ActivationOptions>(),
        out_field<ActivationOptions>("contiguous tensor like input, which it may be, that receives the result"),
        check_finite_field<ActivationOptions>()};
  }
};

// Dynamic fake quantization of a linear layer's input: each token (last dimension) has its own scale.
//   input  [..., in_features]
// Gradients pass straight through.
at::Tensor activation(const at::Tensor& input, const ActivationOptions& options = {});

}  // namespace hemostat::quantize
