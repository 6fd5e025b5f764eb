#include "model/head_chunks.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <hemostat/interrupt.h>

namespace hemostat {
namespace {

constexpr int64_t kChunkBytes = 64 * 1024 * 1024;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Noise on the head's own input depends on the position in the window, so such a head takes whole windows.
bool reads_positions(const Model& model) { return model.head.linear.input.noise != 0; }

// logits = hidden · weightᵀ and nothing else
bool is_plain(const Model& model) {
  const Linear& linear = model.head.linear;
  const LogitMap& map = model.head.map;
  return linear.weight.defined() && !linear.bias.defined() && linear.input.neutral() && model.head.scale == 1 &&
         model.head.softcap == 0 && map.scale == 1 && !map.bias.defined() && !map.a.defined();
}

}  // namespace

int64_t vocabulary(const Model& model) {
  return model.foreign ? model.config.vocab_size : model.head.linear.out_features();
}

int64_t tokens_per_chunk(const Model& baseline, const Model& damaged, int64_t batch_tokens, int64_t window_tokens) {
  if (reads_positions(baseline) || reads_positions(damaged)) {
    return window_tokens;
  }
  const int64_t row_bytes = vocabulary(baseline) * static_cast<int64_t>(sizeof(float));
  const int64_t most = std::max<int64_t>(1, kChunkBytes / row_bytes);
  return ceil_div(batch_tokens, ceil_div(batch_tokens, most));
}

ChunkedHead::ChunkedHead(const Model& model) : model_(model), plain_(is_plain(model)) {}

at::Tensor ChunkedHead::operator()(const at::Tensor& hidden) {
  check_interrupt();
  const at::Tensor& weight = model_.head.linear.weight;
  if (!plain_ || weight.scalar_type() != hidden.scalar_type()) {
    return logits(model_, hidden.unsqueeze(0)).squeeze(0);
  }
  if (!buffer_.defined() || buffer_.size(0) < hidden.size(0)) {
    buffer_ = at::empty({hidden.size(0), weight.size(0)}, hidden.options());
  }
  at::Tensor out = buffer_.narrow(0, 0, hidden.size(0));
  at::mm_out(out, hidden, weight.t());
  return out;
}

}  // namespace hemostat
