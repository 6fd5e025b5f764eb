// CUDA kernels of `gguf`. See hemostat/kernels.h for what they compute and gguf.h for how they are called.
#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/gguf/encode.h"

namespace hemostat::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// A thread a chunk.
template <BlockType type, class Type>
__global__ void decode_chunks(const uint8_t* data, int64_t chunks, typename Type::Storage* out) {
  constexpr int kChunks = weights_of<type>() / kChunk;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= chunks) return;
  const uint8_t* block = data + index / kChunks * bytes_of<type>();
  const int chunk = static_cast<int>(index % kChunks);
  int8_t codes[kChunk];
  unpack<type>(block, chunk, codes);
  const ChunkScale own = chunk_scale<type>(block, chunk);
  for (int i = 0; i < kChunk; ++i) {
    const float scaled = __fmul_rn(own.scale[i / 16], static_cast<float>(codes[i]));
    out[index * kChunk + i] = Type::store(__fsub_rn(scaled, own.minimum[i / 16]));
  }
}

constexpr int kSearchThreads = 64;

// A thread a group of blocks.
template <BlockType type, bool kWeighted>
__global__ void encode_groups(const float* values, const float* importance, int64_t groups, int64_t blocks_of_row,
                              uint8_t* data, int64_t* invalid) {
  constexpr int kWeights = weights_of<type>();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= groups) return;
  const int64_t groups_of_row = (blocks_of_row + kBlocksOfGroup<type> - 1) / kBlocksOfGroup<type>;
  const int64_t row = index / groups_of_row, first = (index - row * groups_of_row) * kBlocksOfGroup<type>;
  const int64_t left = blocks_of_row - first, block = row * blocks_of_row + first;
  const int blocks = left < kBlocksOfGroup<type> ? static_cast<int>(left) : kBlocksOfGroup<type>;
  const float* own = values + block * kWeights;
  int64_t bad = encode_group<type, kWeighted>(own, kWeighted ? importance + first * kWeights : nullptr, blocks,
                                              data + block * bytes_of<type>());
  for (int i = 0; i < blocks * kWeights; ++i) bad += !isfinite(own[i]);
  count_invalid(invalid, static_cast<int>(bad));
}

}  // namespace

Error gguf_quantize(const float* values, const float* importance, BlockType type, int64_t rows, int64_t columns,
                    uint8_t* data, int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  for_block_type(type, [&](auto tag) {
    constexpr BlockType kType = decltype(tag)::value;
    const int64_t blocks = columns / weights_of<kType>();
    const int64_t groups = rows * ceil_div(blocks, kBlocksOfGroup<kType>);
    const auto grid = static_cast<unsigned>(ceil_div(groups, kSearchThreads));
    if (importance != nullptr) {
      encode_groups<kType, true><<<grid, kSearchThreads, 0, queue>>>(values, importance, groups, blocks, data, invalid);
    } else {
      encode_groups<kType, false><<<grid, kSearchThreads, 0, queue>>>(values, nullptr, groups, blocks, data, invalid);
    }
  });
  return last_error();
}

Error gguf_dequantize(const uint8_t* data, BlockType type, int64_t blocks, Element element, void* out, void* stream) {
  for_block_type(type, [&](auto tag) {
    constexpr BlockType kType = decltype(tag)::value;
    const int64_t chunks = blocks * (weights_of<kType>() / kChunk);
    for_element(element, [&](auto of) {
      using Type = decltype(of);
      decode_chunks<kType, Type>
          <<<static_cast<unsigned>(ceil_div(chunks, kThreads)), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
              data, chunks, static_cast<typename Type::Storage*>(out));
    });
  });
  return last_error();
}

}  // namespace hemostat::kernels::cuda
