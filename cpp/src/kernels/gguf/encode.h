// From values to blocks: what search.h finds, put where blocks.h reads it.
//
// Each function returns how many scales float16 cannot hold.
#pragma once

#include "kernels/gguf/search.h"

namespace hemostat::kernels {
namespace {

HEMOSTAT_BLOCKS bool is_finite_half(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }

// Rounded to float16 as it will be read; counts one that is infinite or NaN.
HEMOSTAT_BLOCKS float put_scale(uint8_t* bytes, float value, int64_t& invalid) {
  const uint16_t bits = to_half(value);
  put_half(bytes, bits);
  invalid += !is_finite_half(bits);
  return from_half(bits);
}

template <BlockType type>
constexpr bool kHasMinimum = codes_of<type>().minimum >= 0;

// Codes of a type as integers around 0, and how many there are.
template <BlockType type>
constexpr int kZero = codes_of<type>().zero;
template <BlockType type>
constexpr int kLast = (1 << (codes_of<type>().low_bits + codes_of<type>().high_bits)) - 1;

template <BlockType type>
struct CodeOf {
  using Type = Integer<-kZero<type>, kLast<type> - kZero<type>>;
};
template <>
struct CodeOf<BlockType::iq4_nl> {
  using Type = Nonlinear;
};

// Chosen for the least error per candidate on normal, heavy-tailed and positive weights: the few codes of Q2_K and Q3_K
// lie best near their range, more codes gain from a scale that cuts the largest off or leaves room, and with weights,
// which may not care for the largest value, from a wider grid.
template <BlockType type, bool kWeighted>
HEMOSTAT_BOTH constexpr Steps steps_of() {
  if (type == BlockType::iq4_nl) return {15, -21.0f, 3.0f, true};
  if (type == BlockType::q2_k) return {21, -1.0f, 0.1f, false};
  if (kHasMinimum<type>) return kWeighted ? Steps{51, -3.5f, 0.1f, false} : Steps{21, -2.0f, 0.2f, false};
  if (type == BlockType::q3_k && !kWeighted) return {19, -0.9f, 0.1f, false};
  if (kLast<type> < 16 || !kWeighted) return {19, -1.8f, 0.2f, false};
  return {31, -3.0f, 0.2f, false};
}

// The stored codes of 32 values, halves of which may have scales of their own.
template <BlockType type>
HEMOSTAT_BLOCKS void round_chunk(const float* __restrict values, const ChunkScale& own, uint8_t* __restrict codes) {
  for (int half = 0; half < 2; ++half) {
    const float scale = own.scale[half], minimum = own.minimum[half];
    const float inverse = scale < 1e-20f && scale > -1e-20f ? 0.0f : 1.0f / scale;
    for (int i = 16 * half; i < 16 * half + 16; ++i) {
      const float scaled = (values[i] + minimum) * inverse;
      if constexpr (type == BlockType::iq4_nl) {
        constexpr Codebook kBook = nonlinear_codebook();
        int code = 0;
        for (int j = 1; j < 16; ++j) code += scaled >= 0.5f * (kBook.value[j - 1] + kBook.value[j]);
        codes[i] = static_cast<uint8_t>(code);
      } else {
        constexpr float kShift = 12582912.0f;  // 1.5 · 2^23: the sum has no fraction bits left
        float code = scaled < -kZero<type> ? -kZero<type> : scaled;
        code = code > kLast<type> - kZero<type> ? kLast<type> - kZero<type> : code;
        codes[i] = static_cast<uint8_t>(static_cast<int>((code + kShift) - kShift) + kZero<type>);
      }
    }
  }
}

template <BlockType type>
HEMOSTAT_BLOCKS void put_codes(const float* values, uint8_t* block) {
  for (int chunk = 0; chunk < weights_of<type>() / kChunk; ++chunk) {
    uint8_t codes[kChunk];
    round_chunk<type>(values + chunk * kChunk, chunk_scale<type>(block, chunk), codes);
    pack<type>(block, chunk, codes);
  }
}

// Sub-blocks of a group and blocks that they make.
template <BlockType type>
constexpr int kSub = codes_of<type>().sub;
template <BlockType type>
constexpr int kBlocksOfGroup = kLanes * kSub<type> / weights_of<type>();

template <BlockType type, bool kWeighted>
HEMOSTAT_BLOCKS void fill_group(const float* values, const float* importance, int blocks, Group<kSub<type>>& group) {
  const int lanes = blocks * (weights_of<type>() / kSub<type>);
  transpose<kSub<type>>(values, lanes, group.value);
  if constexpr (kWeighted) {
    transpose<kSub<type>>(importance, lanes, group.weight);
    normalize_weights<kSub<type>>(group.weight);
  }
}

// Blocks of 32 with a scale, and perhaps a minimum, of their own.
template <BlockType type, bool kWeighted>
HEMOSTAT_BLOCKS int64_t encode_single(const float* values, const float* importance, int blocks, uint8_t* data) {
  constexpr BlockCodes kCodes = codes_of<type>();
  using Code = typename CodeOf<type>::Type;
  Group<32> group;
  fill_group<type, kWeighted>(values, importance, blocks, group);
  Factors searched;
  if constexpr (kHasMinimum<type>) {
    search_range<32, kLast<type>, false, kWeighted>(group, steps_of<type, kWeighted>(), searched.scale,
                                                    searched.minimum);
  } else {
    search_scale<32, Code, kWeighted>(group, steps_of<type, kWeighted>(), searched.scale);
  }
  int64_t invalid = 0;
  for (int i = 0; i < blocks; ++i) {
    uint8_t* block = data + i * bytes_of<type>();
    put_scale(block + kCodes.scale, searched.scale[i], invalid);
    if constexpr (kHasMinimum<type>) put_scale(block + kCodes.minimum, -searched.minimum[i], invalid);
    put_codes<type>(values + i * 32, block);
  }
  return invalid;
}

// Factors of a K type's scales: −n … n − 1 where they have a sign, else 0 … n − 1.
template <BlockType type>
HEMOSTAT_BOTH constexpr int factor_count() {
  if (type == BlockType::q2_k) return 16;
  if (type == BlockType::q3_k) return 32;
  if (type == BlockType::q6_k) return 128;
  return 64;
}

// Blocks of 256 in sub-blocks whose scales are factors of the block's.
template <BlockType type, bool kWeighted>
HEMOSTAT_BLOCKS int64_t encode_super(const float* values, const float* importance, int blocks, uint8_t* data) {
  constexpr BlockCodes kCodes = codes_of<type>();
  constexpr int kOfBlock = 256 / kSub<type>;  // sub-blocks
  constexpr float kMost = factor_count<type>() - 1, kSigned = kHasMinimum<type> ? 0 : factor_count<type>();
  using Code = typename CodeOf<type>::Type;
  Group<kSub<type>> group;
  fill_group<type, kWeighted>(values, importance, blocks, group);
  Factors searched, unit, chosen;
  if constexpr (kHasMinimum<type>) {
    search_range<kSub<type>, kLast<type>, true, kWeighted>(group, steps_of<type, kWeighted>(), searched.scale,
                                                           searched.minimum);
  } else {
    search_scale<kSub<type>, Code, kWeighted>(group, steps_of<type, kWeighted>(), searched.scale);
    for (int j = 0; j < kLanes; ++j) searched.minimum[j] = 0.0f;
  }

  int64_t invalid = 0;
  for (int i = 0; i < kBlocksOfGroup<type>; ++i) {
    // The largest scale, its sign included, on the farthest factor.
    float scale = 0.0f, minimum = 0.0f;
    for (int j = i * kOfBlock; j < (i + 1) * kOfBlock; ++j) {
      const float own = searched.scale[j];
      scale = (own < 0.0f ? -own : own) > (scale < 0.0f ? -scale : scale) ? own : scale;
      minimum = searched.minimum[j] > minimum ? searched.minimum[j] : minimum;
    }
    scale = kSigned > 0 ? scale / -kSigned : scale / kMost;
    minimum /= kMost;
    if (i < blocks) {
      uint8_t* block = data + i * bytes_of<type>();
      for (int byte = 0; byte < bytes_of<type>(); ++byte) block[byte] = 0;
      scale = put_scale(block + kCodes.scale, scale, invalid);
      if constexpr (kHasMinimum<type>) minimum = put_scale(block + kCodes.minimum, minimum, invalid);
    }
    for (int j = i * kOfBlock; j < (i + 1) * kOfBlock; ++j) {
      unit.scale[j] = scale;
      unit.minimum[j] = minimum;
    }
  }

  choose_factors<kSub<type>, Code, kHasMinimum<type>, kWeighted>(group, searched, unit, -kSigned, kMost, chosen);
  for (int i = 0; i < blocks; ++i) {
    uint8_t* block = data + i * bytes_of<type>();
    for (int j = 0; j < kOfBlock; ++j) {
      const int lane = i * kOfBlock + j;
      put_sub_scale<type>(block, j, static_cast<int>(chosen.scale[lane]), static_cast<int>(chosen.minimum[lane]));
    }
    put_codes<type>(values + i * 256, block);
  }
  return invalid;
}

// Of 32 values the least and the largest; without kRange `high` is instead the first of those that are largest in size.
template <bool kRange>
HEMOSTAT_BLOCKS void range_of(const float* values, float& low, float& high) {
  Lanes lows = load(values), highs = lows;
  for (int i = kWidth; i < 32; i += kWidth) {
    const Lanes own = load(values + i);
    lows = least(own, lows);
    highs = most(own, highs);
  }
  low = least_lane(lows);
  high = -least_lane(-highs);
  if constexpr (!kRange) {
    float peak = high > -low ? high : low;
    if (high == -low) {
      for (int i = 31; i >= 0; --i) peak = values[i] == high || values[i] == low ? values[i] : peak;
    }
    high = peak;
  }
}

// Blocks of a format that is not searched: the largest magnitude, or the range, on the ends of the codes. In float32,
// in the order in which llama.cpp's reference computes it, without contraction.
template <BlockType type>
HEMOSTAT_BLOCKS int64_t encode_plain(const float* __restrict values, int blocks, uint8_t* __restrict data) {
  constexpr BlockCodes kCodes = codes_of<type>();
  constexpr bool kBytes = type == BlockType::q8_0;
  float low[kLanes] = {}, high[kLanes] = {}, inverse[kLanes];
  uint16_t scales[kLanes], minima[kLanes];
  for (int i = 0; i < blocks; ++i) range_of<kHasMinimum<type> || kBytes>(values + i * 32, low[i], high[i]);
  int64_t invalid = 0;
  for (int i = 0; i < kLanes; ++i) {
    float scale;
    if constexpr (kBytes) {
      scale = (-low[i] > high[i] ? -low[i] : high[i]) / 127.0f + 0.0f;  // not the negative zero
    } else if constexpr (kHasMinimum<type>) {
      scale = (high[i] - low[i]) / static_cast<float>(kLast<type>);
    } else {
      scale = high[i] / static_cast<float>(-kZero<type>);
    }
    const float size = scale < 0.0f ? -scale : scale;
    inverse[i] = size < 1e-30f ? 0.0f : 1.0f / scale;
    scales[i] = to_half(scale);
    minima[i] = kHasMinimum<type> ? to_half(low[i] + 0.0f) : uint16_t{0};
    invalid += !is_finite_half(scales[i]) + !is_finite_half(minima[i]);
  }
  for (int j = 0; j < blocks; ++j, values += 32, data += bytes_of<type>()) {
    int32_t rounded[32];
    if constexpr (kBytes) {
      for (int i = 0; i < 32; i += kWidth) {  // halves away from zero
        const Lanes scaled = load(values + i) * inverse[j], size = magnitude(scaled), even = nearest(size);
        const Lanes whole = even > size ? even - 1.0f : even;
        const Lanes away = size - whole >= 0.5f ? whole + 1.0f : whole;
        store_codes(rounded + i, scaled < 0.0f ? -away : away);
      }
    } else {
      const float offset = kHasMinimum<type> ? low[j] : 0.0f, shift = static_cast<float>(kZero<type>) + 0.5f;
      const Lanes last = splat(kLast<type>);
      for (int i = 0; i < 32; i += kWidth) {
        store_codes(rounded + i, least((load(values + i) - offset) * inverse[j] + shift, last));
      }
    }
    uint8_t codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(rounded[i]);
    put_half(data + kCodes.scale, scales[j]);
    if constexpr (kHasMinimum<type>) put_half(data + kCodes.minimum, minima[j]);
    pack<type>(data, 0, codes);
  }
  return invalid;
}

// Up to kBlocksOfGroup<type> blocks.
template <BlockType type, bool kWeighted>
HEMOSTAT_BLOCKS int64_t encode_group(const float* values, const float* importance, int blocks, uint8_t* data) {
  if constexpr (weights_of<type>() == 256) {
    return encode_super<type, kWeighted>(values, importance, blocks, data);
  } else if constexpr (type == BlockType::iq4_nl || (kWeighted && type != BlockType::q8_0)) {
    return encode_single<type, kWeighted>(values, importance, blocks, data);
  } else {
    return encode_plain<type>(values, blocks, data);
  }
}

}  // namespace
}  // namespace hemostat::kernels
