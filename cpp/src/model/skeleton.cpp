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

namespace {

Linear linear(int64_t out_features, int64_t in_features, bool bias) {
  Linear result;
  result.weight = shape_only({out_features, in_features});
  if (bias) {
    result.bias = shape_only({out_features});
  }
  return result;
}

// The shapes of one model's parts.
class Shapes {
 public:
  explicit Shapes(const CheckpointConfig& config) : config_(config), shape_(config.shape) {}

  Block block(const LayerConfig& layer, int64_t index) const {
    Block block = config_.block;
    block.origin = index;
    const int64_t hidden = config_.model.hidden_size;
    if (shape_.input_norms) {
      block.attention_norm = norm(hidden);
      block.mlp_norm = norm(hidden);
    }
    if (shape_.output_norms) {
      block.attention_output_norm = norm(hidden);
      block.mlp_output_norm = norm(hidden);
    }
    fill(block.attention, layer);
    if (layer.experts) {
      const Mlp expert = mlp(block.mlp, config_.expert_size);
      block.experts.mlps.assign(config_.experts, expert);
      block.experts.router = linear(config_.experts, hidden, shape_.router_bias);
      block.mlp = {};
    } else {
      block.mlp = mlp(block.mlp, config_.intermediate_size);
      block.experts = {};
    }
    return block;
  }

  Norm norm(int64_t features) const {
    Norm norm{.kind = shape_.norm, .weight = {}, .bias = {}, .epsilon = config_.norm_epsilon};
    norm.offset = shape_.norm_offset;
    if (shape_.norm_weight) {
      norm.weight = shape_only({features});
    }
    if (shape_.norm_bias) {
      norm.bias = shape_only({features});
    }
    return norm;
  }

 private:
  void fill(Attention& attention, const LayerConfig& layer) const {
    const int64_t hidden = config_.model.hidden_size;
    const int64_t queries = config_.heads * config_.head_dim, keys = config_.kv_heads * config_.head_dim;
    attention.heads = config_.heads;
    attention.kv_heads = config_.kv_heads;
    attention.head_dim = config_.head_dim;
    attention.q = linear(queries, hidden, shape_.qkv_bias);
    attention.k = linear(keys, hidden, shape_.qkv_bias);
    attention.v = linear(keys, hidden, shape_.qkv_bias);
    attention.o = linear(hidden, queries, shape_.o_bias);
    if (shape_.qk_norms) {
      const bool over_all = attention.qk_norm_scope == NormScope::all;
      attention.q_norm = norm(over_all ? queries : config_.head_dim);
      attention.k_norm = norm(over_all ? keys : config_.head_dim);
    }
    if (shape_.sink_logits) {
      attention.sink_logits = shape_only({config_.heads});
    }
    attention.rope = layer.rope;
    attention.window = layer.window;
    if (layer.attention_scale != 0) {
      attention.scale = layer.attention_scale;
    }
  }

  Mlp mlp(Mlp mlp, int64_t width) const {
    const int64_t hidden = config_.model.hidden_size;
    if (shape_.gate) {
      mlp.gate = linear(width, hidden, shape_.mlp_bias);
    }
    mlp.up = linear(width, hidden, shape_.mlp_bias);
    mlp.down = linear(hidden, width, shape_.mlp_bias);
    return mlp;
  }

  const CheckpointConfig& config_;
  const Shape& shape_;
};

}  // namespace

Model skeleton(const CheckpointConfig& config) {
  const int64_t hidden = config.model.hidden_size;
  const Shapes shapes(config);
  Model model;
  model.config = config.model;
  model.embedding = shape_only({config.model.vocab_size, hidden});
  model.embedding_scale = config.embedding_scale;
  if (!config.shape.rotary) {
    model.position_embedding = shape_only({config.model.context + config.position_offset, hidden});
    model.position_offset = config.position_offset;
  }
  for (const LayerConfig& layer : config.layers) {
    model.blocks.push_back(shapes.block(layer, static_cast<int64_t>(model.blocks.size())));
  }
  if (config.shape.final_norm) {
    model.final_norm = shapes.norm(hidden);
  }
  model.head = config.head;
  model.head.linear = config.tied ? Linear{} : linear(config.model.vocab_size, hidden, false);
  if (config.tied) {
    model.head.linear.weight = model.embedding;
  }
  return model;
}

}  // namespace hemostat
