// Contract between the loops of `gguf` (*.simd.cpp, gguf.cu) and their registration: llama.cpp's block formats.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

// The values are ggml's own numbers of these types, as GGUF files have them.
enum class BlockType : int32_t {
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

struct BlockLayout {
  BlockType type;
  const char* name;
  int32_t weights, bytes;  // of a block
};

inline constexpr BlockLayout kBlockLayouts[] = {
    {BlockType::q4_0, "Q4_0", 32, 18},   {BlockType::q4_1, "Q4_1", 32, 20},     {BlockType::q5_0, "Q5_0", 32, 22},
    {BlockType::q5_1, "Q5_1", 32, 24},   {BlockType::q8_0, "Q8_0", 32, 34},     {BlockType::q2_k, "Q2_K", 256, 84},
    {BlockType::q3_k, "Q3_K", 256, 110}, {BlockType::q4_k, "Q4_K", 256, 144},   {BlockType::q5_k, "Q5_K", 256, 176},
    {BlockType::q6_k, "Q6_K", 256, 210}, {BlockType::iq4_nl, "IQ4_NL", 32, 18},
};

// Null for another number.
inline constexpr const BlockLayout* find_layout(int64_t type) {
  for (const BlockLayout& layout : kBlockLayouts) {
    if (static_cast<int64_t>(layout.type) == type) return &layout;
  }
  return nullptr;
}

// `blocks` consecutive blocks as values of `element`, written to `out`.
using DecodeBlocks = void (*)(BlockType type, const uint8_t* data, int64_t blocks, Element element, void* out);

// `blocks` consecutive blocks of `values` (float32) as bytes. importance: one weight per value, or null. Returns how
// many values or scales cannot be stored: NaN, infinite, or beyond float16.
using EncodeBlocks = int64_t (*)(BlockType type, const float* values, const float* importance, int64_t blocks,
                                 uint8_t* data);

struct GgufLoops {
  DecodeBlocks decode;
  // Entries [0, columns) of a row as float32, in place where they already are, else in `buffer`.
  const float* (*row)(const Matrix& weight, int64_t row, float* buffer);
};

HEMOSTAT_FOR_EACH_ISA(extern const GgufLoops gguf_loops; extern const EncodeBlocks gguf_encode;)

namespace cuda {

// values float32 [rows, blocks of a row · weights of a block] without gaps; importance [columns] or null.
Error gguf_quantize(const float* values, const float* importance, BlockType type, int64_t rows, int64_t columns,
                    uint8_t* data, int64_t* invalid, void* stream);

// `blocks` consecutive blocks as values of `element`.
Error gguf_dequantize(const uint8_t* data, BlockType type, int64_t blocks, Element element, void* out, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
