// CPU loops of `gguf_dequantize`. See gguf.h.
#include "kernels/gguf/gguf.h"

#include "kernels/elements.simd.h"
#include "kernels/gguf/blocks.h"

namespace hemostat::kernels {
namespace {

template <BlockType type, class Type>
void decode_blocks(const uint8_t* data, int64_t blocks, typename Type::Storage* __restrict out) {
  constexpr int kChunks = weights_of<type>() / kChunk;
  for (int64_t block = 0; block < blocks; ++block, data += bytes_of<type>()) {
    for (int chunk = 0; chunk < kChunks; ++chunk, out += kChunk) {
      int8_t codes[kChunk];
      unpack<type>(data, chunk, codes);
      const ChunkScale own = chunk_scale<type>(data, chunk);
      for (int half = 0; half < 2; ++half) {
        for (int i = 16 * half; i < 16 * half + 16; ++i) {
          out[i] = Type::store(own.scale[half] * static_cast<float>(codes[i]) - own.minimum[half]);
        }
      }
    }
  }
}

void decode(BlockType type, const uint8_t* data, int64_t blocks, Element element, void* out) {
  for_block_type(type, [&](auto tag) {
    constexpr BlockType kType = decltype(tag)::value;
    switch (element) {
      case Element::float32:
        return decode_blocks<kType, Float32>(data, blocks, static_cast<float*>(out));
      case Element::bfloat16:
        return decode_blocks<kType, Bfloat16>(data, blocks, static_cast<uint16_t*>(out));
      case Element::float16:
        return decode_blocks<kType, Float16>(data, blocks, static_cast<uint16_t*>(out));
    }
  });
}

const float* row(const Matrix& weight, int64_t row, float* buffer) {
  return row_floats(weight, row, 0, weight.columns, buffer);
}

}  // namespace

namespace HEMOSTAT_ISA {
const GgufLoops gguf_loops = {decode, row};
}

}  // namespace hemostat::kernels
