// Where llama.cpp's block formats keep codes and scales. Shared by the loops of both devices; everything has internal
// linkage, so that no copy compiled for one instruction set can stand in for another.
//
// Every weight of every format is scale · code − minimum, with a signed code. A block is read and written in chunks of
// 32 weights, of two halves whose scales may differ.
#pragma once

#include <cstdint>

#include "kernels/gguf/gguf.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#else
#include "kernels/elements.simd.h"
#endif

namespace hemostat::kernels {
namespace {

#ifdef __CUDACC__
#define HEMOSTAT_BLOCKS __device__ inline
HEMOSTAT_BLOCKS float from_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
HEMOSTAT_BLOCKS uint16_t to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
#else
#define HEMOSTAT_BLOCKS inline
HEMOSTAT_BLOCKS float from_half(uint16_t bits) { return Float16::load(bits); }
HEMOSTAT_BLOCKS uint16_t to_half(float value) { return Float16::store(value); }
#endif

// Blocks have an even number of bytes but may start anywhere in a file.
HEMOSTAT_BLOCKS float half_at(const uint8_t* bytes) {
  return from_half(static_cast<uint16_t>(bytes[0] | (bytes[1] << 8)));
}
HEMOSTAT_BLOCKS void put_half(uint8_t* bytes, uint16_t bits) {
  bytes[0] = static_cast<uint8_t>(bits);
  bytes[1] = static_cast<uint8_t>(bits >> 8);
}

constexpr int kChunk = 32;

// 32 nibbles, less `zero` where they are read: i and i + 16 share a byte, i the low half of it. Whole vectors: a load
// that spans two stores would wait for both.
#ifdef __CUDACC__
HEMOSTAT_BLOCKS void split_nibbles(const uint8_t* __restrict from, uint8_t zero, int8_t* __restrict to) {
  for (int i = 0; i < 16; ++i) {
    to[i] = static_cast<int8_t>((from[i] & 15) - zero);
    to[i + 16] = static_cast<int8_t>((from[i] >> 4) - zero);
  }
}
HEMOSTAT_BLOCKS void join_nibbles(const uint8_t* __restrict from, uint8_t* __restrict to) {
  for (int i = 0; i < 16; ++i) to[i] = static_cast<uint8_t>((from[i] & 15) | (from[i + 16] << 4));
}
#else
typedef uint8_t Bytes __attribute__((vector_size(16)));
inline void split_nibbles(const uint8_t* from, uint8_t zero, int8_t* to) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, 16);
  const Bytes first = (bytes & 15) - zero, second = (bytes >> 4) - zero;
  __builtin_memcpy(to, &first, 16);
  __builtin_memcpy(to + 16, &second, 16);
}
inline void join_nibbles(const uint8_t* from, uint8_t* to) {
  Bytes first, second;
  __builtin_memcpy(&first, from, 16);
  __builtin_memcpy(&second, from + 16, 16);
  const Bytes bytes = (first & 15) | (second << 4);
  __builtin_memcpy(to, &bytes, 16);
}
#endif

// What differs from format to format. Offsets are in bytes from the start of a block.
//   low_bits   of a code, at `low`; `high_bits` more, at `high`
//   zero       subtracted from the stored code
//   scale      of the block, float16; `minimum` (−1: none): of the block's minimum
//   subscales  where the scales of sub-blocks are (−1: none), of `sub` weights each
struct BlockCodes {
  int low_bits, low, high_bits, high, zero, scale, minimum, subscales, sub;
};

template <BlockType type>
HEMOSTAT_BOTH constexpr BlockCodes codes_of() {
  switch (type) {
    case BlockType::q4_0:
      return {4, 2, 0, 0, 8, 0, -1, -1, 32};
    case BlockType::q4_1:
      return {4, 4, 0, 0, 0, 0, 2, -1, 32};
    case BlockType::q5_0:
      return {4, 6, 1, 2, 16, 0, -1, -1, 32};
    case BlockType::q5_1:
      return {4, 8, 1, 4, 0, 0, 2, -1, 32};
    case BlockType::q8_0:
      return {8, 2, 0, 0, 0, 0, -1, -1, 32};
    case BlockType::q2_k:
      return {2, 16, 0, 0, 0, 80, 82, 0, 16};
    case BlockType::q3_k:
      return {2, 32, 1, 0, 4, 108, -1, 96, 16};
    case BlockType::q4_k:
      return {4, 16, 0, 0, 0, 0, 2, 4, 32};
    case BlockType::q5_k:
      return {4, 48, 1, 16, 0, 0, 2, 4, 32};
    case BlockType::q6_k:
      return {4, 0, 2, 128, 32, 208, -1, 192, 16};
    case BlockType::iq4_nl:
      break;
  }
  return {4, 2, 0, 0, 0, 0, -1, -1, 32};
}

// The values of IQ4_NL's 16 codes.
struct Codebook {
  int8_t value[16];
};
HEMOSTAT_BOTH constexpr Codebook nonlinear_codebook() {
  return {{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
}

// The low bits of a K format's chunk: 32 bytes hold 8 / low_bits chunks, each `low_bits` higher than the one before;
// Q6_K's instead hold the first four chunks in 64 bytes, low nibbles first.
template <BlockType type>
HEMOSTAT_BOTH constexpr int low_offset(int chunk) {
  if (type == BlockType::q6_k) return chunk / 4 * 64 + chunk % 2 * 32;
  return codes_of<type>().low + chunk / (8 / codes_of<type>().low_bits) * 32;
}
template <BlockType type>
HEMOSTAT_BOTH constexpr int low_shift(int chunk) {
  if (type == BlockType::q6_k) return chunk % 4 / 2 * 4;
  return chunk % (8 / codes_of<type>().low_bits) * codes_of<type>().low_bits;
}
template <BlockType type>
HEMOSTAT_BOTH constexpr int high_offset(int chunk) {
  return codes_of<type>().high + (type == BlockType::q6_k ? chunk / 4 * 32 : 0);
}
template <BlockType type>
HEMOSTAT_BOTH constexpr int high_shift(int chunk) {
  return type == BlockType::q6_k ? chunk % 4 * 2 : chunk;
}

// The 32 signed codes of a chunk.
template <BlockType type>
HEMOSTAT_BLOCKS void unpack(const uint8_t* __restrict block, int chunk, int8_t* __restrict codes) {
  constexpr BlockCodes kCodes = codes_of<type>();
  if constexpr (type == BlockType::q8_0) {
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(block[kCodes.low + i]);
  } else if constexpr (kCodes.subscales < 0) {  // 32 weights: code i and code i + 16 share a byte
    split_nibbles(block + kCodes.low, kCodes.zero, codes);
    if constexpr (kCodes.high_bits > 0) {
      uint32_t high;
      __builtin_memcpy(&high, block + kCodes.high, 4);
      for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(codes[i] + static_cast<int>((high >> i & 1) << 4));
    }
    if constexpr (type == BlockType::iq4_nl) {
      constexpr Codebook kBook = nonlinear_codebook();
      for (int i = 0; i < 32; ++i) codes[i] = kBook.value[codes[i]];
    }
  } else {
    const uint8_t* low = block + low_offset<type>(chunk);
    const uint8_t* high = block + high_offset<type>(chunk);
    const int shift = low_shift<type>(chunk), high_by = high_shift<type>(chunk);
    for (int i = 0; i < 32; ++i) {
      int code = (low[i] >> shift) & ((1 << kCodes.low_bits) - 1);
      if constexpr (kCodes.high_bits > 0) {
        code |= ((high[i] >> high_by) & ((1 << kCodes.high_bits) - 1)) << kCodes.low_bits;
      }
      codes[i] = static_cast<int8_t>(code - kCodes.zero);
    }
  }
}

// Scales of sub-block j, as integers: Q4_K and Q5_K keep eight pairs of 6 bits in 12 bytes, Q3_K sixteen of 6 bits.
struct SubScale {
  int scale, minimum;
};

template <BlockType type>
HEMOSTAT_BLOCKS SubScale sub_scale(const uint8_t* block, int j) {
  const uint8_t* at = block + codes_of<type>().subscales;
  if constexpr (type == BlockType::q2_k) {
    return {at[j] & 15, at[j] >> 4};
  } else if constexpr (type == BlockType::q3_k) {
    const int low = (at[j % 8] >> (j / 8 * 4)) & 15, high = (at[8 + j % 4] >> (j / 4 * 2)) & 3;
    return {(low | (high << 4)) - 32, 0};
  } else if constexpr (type == BlockType::q6_k) {
    return {static_cast<int8_t>(at[j]), 0};
  } else {
    static_assert(type == BlockType::q4_k || type == BlockType::q5_k);
    if (j < 4) return {at[j] & 63, at[j + 4] & 63};
    return {(at[j + 4] & 15) | (at[j - 4] >> 6 << 4), (at[j + 4] >> 4) | (at[j] >> 6 << 4)};
  }
}

// Puts a sub-block's factors where sub_scale reads them; the bytes are 0 before.
template <BlockType type>
HEMOSTAT_BLOCKS void put_sub_scale(uint8_t* block, int j, int scale, int minimum) {
  uint8_t* at = block + codes_of<type>().subscales;
  const auto put = [](uint8_t& byte, int bits) { byte = static_cast<uint8_t>(byte | bits); };
  if constexpr (type == BlockType::q2_k) {
    put(at[j], scale | (minimum << 4));
  } else if constexpr (type == BlockType::q3_k) {
    put(at[j % 8], ((scale + 32) & 15) << (j / 8 * 4));
    put(at[8 + j % 4], ((scale + 32) >> 4) << (j / 4 * 2));
  } else if constexpr (type == BlockType::q6_k) {
    at[j] = static_cast<uint8_t>(scale);
  } else {
    static_assert(type == BlockType::q4_k || type == BlockType::q5_k);
    if (j < 4) {
      put(at[j], scale);
      put(at[j + 4], minimum);
    } else {
      put(at[j + 4], (scale & 15) | ((minimum & 15) << 4));
      put(at[j - 4], scale >> 4 << 6);
      put(at[j], minimum >> 4 << 6);
    }
  }
}

// Puts a chunk's 32 codes, as stored, where unpack reads them; the bytes are 0 before.
template <BlockType type>
HEMOSTAT_BLOCKS void pack(uint8_t* __restrict block, int chunk, const uint8_t* __restrict codes) {
  constexpr BlockCodes kCodes = codes_of<type>();
  if constexpr (type == BlockType::q8_0) {
    for (int i = 0; i < 32; ++i) block[kCodes.low + i] = codes[i];
  } else if constexpr (kCodes.subscales < 0) {
    join_nibbles(codes, block + kCodes.low);
    if constexpr (kCodes.high_bits > 0) {
      uint32_t high = 0;
      for (int i = 0; i < 32; ++i) high |= static_cast<uint32_t>(codes[i] >> 4) << i;
      __builtin_memcpy(block + kCodes.high, &high, 4);
    }
  } else {
    uint8_t* low = block + low_offset<type>(chunk);
    uint8_t* high = block + high_offset<type>(chunk);
    const int shift = low_shift<type>(chunk), high_by = high_shift<type>(chunk);
    for (int i = 0; i < 32; ++i) {
      low[i] = static_cast<uint8_t>(low[i] | ((codes[i] & ((1 << kCodes.low_bits) - 1)) << shift));
    }
    if constexpr (kCodes.high_bits > 0) {
      for (int i = 0; i < 32; ++i) {
        high[i] = static_cast<uint8_t>(high[i] | ((codes[i] >> kCodes.low_bits) << high_by));
      }
    }
  }
}

// The factor and the minimum of both halves of a chunk.
struct ChunkScale {
  float scale[2], minimum[2];
};

template <BlockType type>
HEMOSTAT_BLOCKS ChunkScale chunk_scale(const uint8_t* block, int chunk) {
  constexpr BlockCodes kCodes = codes_of<type>();
  const float scale = half_at(block + kCodes.scale);
  const float minimum = kCodes.minimum < 0 ? 0.0f : half_at(block + (kCodes.minimum < 0 ? 0 : kCodes.minimum));
  if constexpr (kCodes.subscales < 0) {  // their minimum is added, not subtracted
    const float subtracted = kCodes.minimum < 0 ? 0.0f : -minimum;
    return {{scale, scale}, {subtracted, subtracted}};
  } else {
    ChunkScale result;
    for (int half = 0; half < 2; ++half) {
      const SubScale own = sub_scale<type>(block, kCodes.sub == 16 ? 2 * chunk + half : chunk);
      result.scale[half] = scale * static_cast<float>(own.scale);
      result.minimum[half] = minimum * static_cast<float>(own.minimum);
    }
    return result;
  }
}

// Calls visit(tag), whose decltype(tag)::value is the type.
template <BlockType type>
struct BlockTag {
  static constexpr BlockType value = type;
};

template <class Visit>
HEMOSTAT_BOTH inline void for_block_type(BlockType type, const Visit& visit) {
  switch (type) {
    case BlockType::q4_0:
      return visit(BlockTag<BlockType::q4_0>{});
    case BlockType::q4_1:
      return visit(BlockTag<BlockType::q4_1>{});
    case BlockType::q5_0:
      return visit(BlockTag<BlockType::q5_0>{});
    case BlockType::q5_1:
      return visit(BlockTag<BlockType::q5_1>{});
    case BlockType::q8_0:
      return visit(BlockTag<BlockType::q8_0>{});
    case BlockType::q2_k:
      return visit(BlockTag<BlockType::q2_k>{});
    case BlockType::q3_k:
      return visit(BlockTag<BlockType::q3_k>{});
    case BlockType::q4_k:
      return visit(BlockTag<BlockType::q4_k>{});
    case BlockType::q5_k:
      return visit(BlockTag<BlockType::q5_k>{});
    case BlockType::q6_k:
      return visit(BlockTag<BlockType::q6_k>{});
    case BlockType::iq4_nl:
      return visit(BlockTag<BlockType::iq4_nl>{});
  }
}

template <BlockType type>
HEMOSTAT_BOTH constexpr int weights_of() {
  return find_layout(static_cast<int64_t>(type))->weights;
}
template <BlockType type>
HEMOSTAT_BOTH constexpr int bytes_of() {
  return find_layout(static_cast<int64_t>(type))->bytes;
}

}  // namespace
}  // namespace hemostat::kernels
