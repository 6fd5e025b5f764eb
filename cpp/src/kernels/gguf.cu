// CUDA kernels of `gguf`. See hemostat/kernels.h for what they compute and launchers.h for how they are called.
#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/gguf_blocks.h"
#include "kernels/launchers.h"

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

}  // namespace

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
