// Contract between the loops of `block_float` (block_float.simd.cpp, block_float.cu) and their registration, and the
// arithmetic that both devices share.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

#ifdef __CUDACC__
#define HEMOSTAT_UNROLL _Pragma("unroll")
#else
#define HEMOSTAT_UNROLL _Pragma("GCC unroll 16")
#endif

namespace hemostat::kernels {

enum class BlockElement : int32_t { nf4, fp4, e4m3, e5m2, mxfp4, nvfp4, ternary };

// value of a weight in a block = its element's value · unit
struct BlockScale {
  float unit;
  float inverse;  // element = round(weight · inverse); e4m3, e5m2 and ternary divide by unit instead
  uint8_t code;   // of the block's scale, in formats that store it in a byte
};

// What a block's scale depends on: its largest |weight|, as float32 bits, which order like the values, and Σ|weight|.
struct BlockStatistic {
  uint32_t largest;
  double sum;  // of ternary only
  int64_t invalid;
};

struct BlockGrid {
  BlockElement element;
  int64_t block_size;       // divides the columns
  float tensor_scale;       // of nvfp4
  const BlockScale* fixed;  // one scale for the whole tensor, or null
};

// Entries that share a byte of the packed codes.
static inline HEMOSTAT_BOTH int64_t codes_per_byte(BlockElement element) {
  switch (element) {
    case BlockElement::e4m3:
    case BlockElement::e5m2:
      return 1;
    case BlockElement::ternary:
      return 5;  // 3^5 = 243
    default:
      return 2;
  }
}

struct BlockFloatLoops {
  // Rows [begin, end); out has weight's element type. `buffer` has room for a block. Returns the NaN and Inf.
  int64_t (*round_rows)(const Matrix& weight, int64_t begin, int64_t end, const BlockGrid& grid, void* out,
                        float* buffer);
  // codes [rows, ceil(columns / codes_per_byte)]; scales float, or uint8_t of formats that store bytes,
  // [rows, blocks] (not written where the scale is fixed); `row_codes` has room for the columns.
  int64_t (*encode_rows)(const Matrix& weight, int64_t begin, int64_t end, const BlockGrid& grid, uint8_t* codes,
                         void* scales, uint8_t* row_codes, float* buffer);
  // statistics[row] of rows [begin, end); `buffer` has room for kBlockTile values.
  void (*measure_rows)(const Matrix& weight, int64_t begin, int64_t end, bool sum, BlockStatistic* statistics,
                       float* buffer);
  BlockScale (*scale)(BlockElement element, BlockStatistic statistic, int64_t entries, float tensor_scale);
};

inline constexpr int64_t kBlockTile = 4096;

HEMOSTAT_FOR_EACH_ISA(extern const BlockFloatLoops block_float_loops;)

namespace block_elements {

static inline HEMOSTAT_BOTH uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
static inline HEMOSTAT_BOTH float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

// A floating-point element with `kMantissa` fraction bits and an exponent bias, no infinities in use: rounded to
// nearest, halves to even, saturating. Codes are magnitudes; the sign stands above them.
template <int kMantissa, int kBias, int kLargestCode>
struct Minifloat {
  static constexpr int kShift = 23 - kMantissa;
  static constexpr int32_t kRebias = (127 - kBias) << kMantissa;
  static constexpr uint32_t kLeastNormal = static_cast<uint32_t>(128 - kBias) << 23;       // 2^(1 − bias)
  static constexpr uint32_t kStep = static_cast<uint32_t>(128 - kBias - kMantissa) << 23;  // of subnormals
  static constexpr uint32_t kAligner = static_cast<uint32_t>(127 + 24 - kBias - kMantissa)
                                       << 23;  // its last bit: kStep
  static constexpr uint32_t kLargest = static_cast<uint32_t>(kLargestCode + kRebias) << kShift;

  static inline HEMOSTAT_BOTH int32_t encode(float magnitude) {
    const float limited = magnitude > float_of(kLargest) ? float_of(kLargest) : magnitude;
    const uint32_t bits = bits_of(limited);
    const uint32_t rounded = (bits + ((1u << (kShift - 1)) - 1) + ((bits >> kShift) & 1)) >> kShift;
    const int32_t normal = static_cast<int32_t>(rounded) - kRebias;
    const int32_t subnormal = static_cast<int32_t>(bits_of(limited + float_of(kAligner)) - kAligner);
    return limited < float_of(kLeastNormal) ? subnormal : normal;
  }

  static inline HEMOSTAT_BOTH float decode(int32_t code) {
    const float normal = float_of(static_cast<uint32_t>(code + kRebias) << kShift);
    const float subnormal = static_cast<float>(code) * float_of(kStep);
    return code < (1 << kMantissa) ? subnormal : normal;
  }
};

using E4m3 = Minifloat<3, 7, 0x7e>;   // to 448
using E5m2 = Minifloat<2, 15, 0x7b>;  // to 57344
using E2m1 = Minifloat<1, 1, 7>;      // to 6

// Sixteen values in rising order, their codes, and the middles between them: a weight on a middle falls downwards.
struct Codebook {
  float values[16];
  int32_t codes[16];
  float middles[15];
};

constexpr HEMOSTAT_BOTH Codebook with_middles(Codebook book) {
  for (int i = 0; i < 15; ++i) book.middles[i] = (book.values[i] + book.values[i + 1]) / 2;
  return book;
}

// Dettmers et al. 2023, arXiv 2305.14314, appendix E.
constexpr HEMOSTAT_BOTH Codebook nf4_codebook() {
  return with_middles({{-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                        -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
                        0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                        0.7229568362236023f, 1.0f},
                       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                       {}});
}

// bitsandbytes' 4-bit float: 0, 1/16, 2, 3, 4, 6, 8, 12, in twelfths, its codes in an order of their own. Zero has
// two: what rounds to it from above has code 8, and what does from below, or is it, code 0.
constexpr HEMOSTAT_BOTH Codebook fp4_codebook() {
  constexpr float kMost = 12.0f;
  return with_middles({{-1.0f, -8 / kMost, -6 / kMost, -4 / kMost, -3 / kMost, -2 / kMost, -0.0625f / kMost, 0.0f, 0.0f,
                        0.0625f / kMost, 2 / kMost, 3 / kMost, 4 / kMost, 6 / kMost, 8 / kMost, 1.0f},
                       {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3},
                       {}});
}

struct Nf4 {
  static constexpr HEMOSTAT_BOTH Codebook book() { return nf4_codebook(); }
};
struct Fp4 {
  static constexpr HEMOSTAT_BOTH Codebook book() { return fp4_codebook(); }
};

// What rounds one weight of a block. `value` is the element's value before the unit, `code` what is stored of it.
template <class Book>
struct BookElement {
  static inline HEMOSTAT_BOTH float value(float weight, BlockScale scale) {
    constexpr Codebook book = Book::book();
    const float position = weight * scale.inverse;
    float found = book.values[0];
    HEMOSTAT_UNROLL
    for (int i = 0; i < 15; ++i) found = position > book.middles[i] ? book.values[i + 1] : found;
    return found;
  }
  static inline HEMOSTAT_BOTH int32_t code(float weight, BlockScale scale) {
    constexpr Codebook book = Book::book();
    const float position = weight * scale.inverse;
    int32_t found = book.codes[0];
    HEMOSTAT_UNROLL
    for (int i = 0; i < 15; ++i) found = position > book.middles[i] ? book.codes[i + 1] : found;
    return found;
  }
};

template <class Float, bool kDivides>
struct FloatElement {
  static inline HEMOSTAT_BOTH uint32_t scaled(float weight, BlockScale scale) {
    return bits_of(kDivides ? weight / scale.unit : weight * scale.inverse);
  }
  static inline HEMOSTAT_BOTH float value(float weight, BlockScale scale) {
    const uint32_t bits = scaled(weight, scale);
    const float magnitude = Float::decode(Float::encode(float_of(bits & 0x7fffffff)));
    return float_of(bits_of(magnitude) | (bits & 0x80000000));
  }
  template <int kSignBit>
  static inline HEMOSTAT_BOTH int32_t signed_code(float weight, BlockScale scale) {
    const uint32_t bits = scaled(weight, scale);
    return Float::encode(float_of(bits & 0x7fffffff)) | static_cast<int32_t>((bits >> 31) << kSignBit);
  }
  static inline HEMOSTAT_BOTH int32_t code(float weight, BlockScale scale) {
    return signed_code<kDivides ? 7 : 3>(weight, scale);
  }
};

// −1, 0, 1 as codes 0, 1, 2; a half rounds to the even 0.
struct TernaryElement {
  static inline HEMOSTAT_BOTH float value(float weight, BlockScale scale) {
    const float position = weight / scale.unit;
    return position > 0.5f ? 1.0f : position < -0.5f ? -1.0f : 0.0f;
  }
  static inline HEMOSTAT_BOTH int32_t code(float weight, BlockScale scale) {
    const float position = weight / scale.unit;
    return position > 0.5f ? 2 : position < -0.5f ? 0 : 1;
  }
};

// Calls visit(Element{}).
template <class Visit>
static inline void for_element(BlockElement element, const Visit& visit) {
  switch (element) {
    case BlockElement::nf4:
      return visit(BookElement<Nf4>{});
    case BlockElement::fp4:
      return visit(BookElement<Fp4>{});
    case BlockElement::e4m3:
      return visit(FloatElement<E4m3, true>{});
    case BlockElement::e5m2:
      return visit(FloatElement<E5m2, true>{});
    case BlockElement::mxfp4:
    case BlockElement::nvfp4:
      return visit(FloatElement<E2m1, false>{});
    case BlockElement::ternary:
      return visit(TernaryElement{});
  }
}

// The scale of a block, as the operator's documentation defines it. A block of zeros gets one that divides.
static inline HEMOSTAT_BOTH BlockScale scale_of(BlockElement element, float largest, float mean, float tensor_scale) {
  constexpr float kLeastAbsmax = 1e-38f;  // bitsandbytes'
  switch (element) {
    case BlockElement::nf4:
    case BlockElement::fp4:
      return {largest, 1.0f / (largest < kLeastAbsmax ? kLeastAbsmax : largest), 0};
    case BlockElement::e4m3:
    case BlockElement::e5m2: {
      const float most = element == BlockElement::e4m3 ? 448.0f : 57344.0f;
      float unit = largest / most;
      if (unit * most - unit * most != 0) unit = float_of(bits_of(unit) - 1);  // rounded up at the end of float32
      return {unit == 0 ? 1.0f : unit, 0, 0};
    }
    case BlockElement::mxfp4: {
      // 2^(floor(log2 largest) − 2) as a biased exponent; that of 2^−127, the least, is 0 and its float32 subnormal.
      const uint32_t exponent = bits_of(largest) >> 23;
      const uint32_t biased = exponent > 2 ? exponent - 2 : 0;
      const float unit = float_of(biased == 0 ? 0x00400000u : biased << 23);
      return {unit, float_of((254 - biased) << 23), static_cast<uint8_t>(biased)};
    }
    case BlockElement::nvfp4: {
      constexpr float kLeastScale = 0.015625f;  // e4m3's least normal
      const float wanted = largest / 6.0f / tensor_scale;
      const int32_t code = E4m3::encode(wanted < kLeastScale ? kLeastScale : wanted);
      const float scale = E4m3::decode(code);
      return {tensor_scale * scale, (1.0f / tensor_scale) / scale, static_cast<uint8_t>(code)};
    }
    case BlockElement::ternary:
      return {mean == 0 ? 1.0f : mean, 0, 0};
  }
  return {1, 1, 0};
}

// Byte `byte` of a row's packed codes. What is left of the last byte is filled up with the code of 0.
static inline HEMOSTAT_BOTH uint8_t packed_byte(BlockElement element, const uint8_t* codes, int64_t count,
                                                int64_t byte) {
  const int64_t i = byte * codes_per_byte(element);
  switch (element) {
    case BlockElement::nf4:
    case BlockElement::fp4:
      return static_cast<uint8_t>(codes[i] << 4 | (i + 1 < count                  ? codes[i + 1]
                                                   : element == BlockElement::nf4 ? 7
                                                                                  : 0));
    case BlockElement::mxfp4:
    case BlockElement::nvfp4:
      return static_cast<uint8_t>(codes[i] | (i + 1 < count ? codes[i + 1] : 0) << 4);
    case BlockElement::ternary: {
      int32_t value = 0;
      for (int64_t j = i + 4; j >= i; --j) value = 3 * value + (j < count ? codes[j] : 1);
      return static_cast<uint8_t>(value);
    }
    default:
      return codes[i];
  }
}

// nvfp4's scale of the tensor: the largest block scale becomes e4m3's largest. At least so large that the
// inverse of what a block of zeros gets, 2^−6 of it, is finite.
static inline HEMOSTAT_BOTH float tensor_scale_of(float largest) {
  constexpr float kLeast = 0x1p-121f;
  float scale = largest / (448.0f * 6.0f);
  if (scale * 448.0f * 6.0f - scale * 448.0f * 6.0f != 0) scale = float_of(bits_of(scale) - 1);  // as above
  return scale < kLeast ? kLeast : scale;
}

}  // namespace block_elements

namespace cuda {

// Where the result goes: values of weight's type (which may lie in its place), or else packed codes, by way of codes of
// a byte each [rows, columns], scales and the tensor's scale.
struct BlockRounded {
  void* values;
  uint8_t *codes, *packed;
  void* scales;
  float* tensor_scale;
};

// `scratch` has block_float_scratch(rows) bytes, aligned to 8.
int64_t block_float_scratch(int64_t rows);
Error block_float(const Matrix& weight, BlockElement element, int64_t block_size, BlockRounded out, void* scratch,
                  int64_t* invalid, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
