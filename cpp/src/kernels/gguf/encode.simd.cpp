// CPU loops of `gguf_quantize`. See gguf.h.
#include "kernels/gguf/gguf.h"

#include "kernels/gguf/encode.h"

namespace hemostat::kernels {
namespace {

int64_t count_not_finite(const float* values, int64_t count) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += (bit_cast<uint32_t>(values[i]) & 0x7fffffff) >= 0x7f800000;
  return found;
}

template <BlockType type, bool kWeighted>
int64_t encode_blocks(const float* values, const float* importance, int64_t blocks, uint8_t* data) {
  int64_t invalid = 0;
  for (int64_t block = 0; block < blocks; block += kBlocksOfGroup<type>) {
    const int64_t left = blocks - block;
    const int count = left < kBlocksOfGroup<type> ? static_cast<int>(left) : kBlocksOfGroup<type>;
    const int64_t weight = block * weights_of<type>();
    invalid += count_not_finite(values + weight, count * int64_t{weights_of<type>()});
    invalid += encode_group<type, kWeighted>(values + weight, kWeighted ? importance + weight : nullptr, count,
                                             data + block * bytes_of<type>());
  }
  return invalid;
}

int64_t encode(BlockType type, const float* values, const float* importance, int64_t blocks, uint8_t* data) {
  int64_t invalid = 0;
  for_block_type(type, [&](auto tag) {
    constexpr BlockType kType = decltype(tag)::value;
    invalid = importance != nullptr ? encode_blocks<kType, true>(values, importance, blocks, data)
                                    : encode_blocks<kType, false>(values, nullptr, blocks, data);
  });
  return invalid;
}

}  // namespace

namespace HEMOSTAT_ISA {
const EncodeBlocks gguf_encode = encode;
}

}  // namespace hemostat::kernels
