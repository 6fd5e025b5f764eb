// Logits of a few tokens at a time.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

int64_t vocabulary(const Model& model);  // logits of a token

// How many tokens of a batch the head takes at a time, in parts of equal size. Baseline and damaged model take the
// same, because a GEMM may round differently in another shape.
int64_t tokens_per_chunk(const Model& baseline, const Model& damaged, int64_t batch_tokens, int64_t window_tokens);

// The head of a model, chunk by chunk. A plain head writes into one buffer that is used again, so
// that the pages of its logits are touched once.
class ChunkedHead {
 public:
  explicit ChunkedHead(const Model& model);

  // hidden [tokens, H], contiguous → [tokens, V], valid until the next call.
  at::Tensor operator()(const at::Tensor& hidden);

 private:
  const Model& model_;
  bool plain_;
  at::Tensor buffer_;
};

}  // namespace hemostat
