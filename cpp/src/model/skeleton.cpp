#include "skeleton.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

namespace hemostat {

at::Tensor shape_only(at::IntArrayRef sizes) {
  int64_t extent = sizeof(double);
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) {
      throw ValueError(fmt::format("hemostat.Model.load: no tensor has the shape [{}]", fmt::join(sizes, ", ")));
    }
  }
  return at::empty(sizes, at::TensorOptions().dtype(at::kFloat).device(at::kMeta));
}

Model skeleton(const CheckpointConfig& config) {
  const int64_t hidden = config.model.hidden_size;
  const auto linear = [](int64_t out_features, int64_t in_features, bool bias) {
    Linear result;
    result.weight = shape_only({out_features, in_features});
    if (bias) {
      result.bias = shape_only({out_features});
    }
    return result;
  };
  const auto norm = [&] {
    return Norm{.kind = NormKind::rms, .weight = shape_only({hidden}), .bias = {}, .epsilon = config.norm_epsilon};
  };
  Model model;
  model.config = config.model;
  model.embedding = shape_only({config.model.vocab_size, hidden});
  for (int64_t i = 0; i < config.layers; ++i) {
    Block block;
    block.origin = i;
    block.attention_norm = norm();
    block.mlp_norm = norm();
    Attention& attention = block.attention;
    attention.heads = config.heads;
    attention.kv_heads = config.kv_heads;
    attention.head_dim = config.head_dim;
    attention.q = linear(config.heads * config.head_dim, hidden, config.qkv_bias);
    attention.k = linear(config.kv_heads * config.head_dim, hidden, config.qkv_bias);
    attention.v = linear(config.kv_heads * config.head_dim, hidden, config.qkv_bias);
    attention.o = linear(hidden, config.heads * config.head_dim, config.o_bias);
    attention.rope = config.rope;
    attention.window = config.windows[i];
    block.mlp.activation = config.activation;
    block.mlp.gate = linear(config.intermediate_size, hidden, config.mlp_bias);
    block.mlp.up = linear(config.intermediate_size, hidden, config.mlp_bias);
    block.mlp.down = linear(hidden, config.intermediate_size, config.mlp_bias);
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = norm();
  if (config.tied) {
    model.head.linear.weight = model.embedding;
  } else {
    model.head.linear = linear(config.model.vocab_size, hidden, false);
  }
  return model;
}

}  // namespace hemostat
