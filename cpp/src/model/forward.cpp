#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/model.h>

#include "token_hash.h"
#include "treated_input.h"

namespace hemostat {
namespace {

// Whether a result of these must stay as autograd saw it, so that nothing may be done to it in place.
template <typename... Tensors>
bool recorded(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (tensors.requires_grad() || ...);
}

at::Tensor activated(Activation activation, at::Tensor x) {
  switch (activation) {
    case Activation::silu:
      return recorded(x) ? at::silu(x) : at::silu_(x);
    case Activation::gelu:
      return at::gelu(x);
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::relu:
      return at::relu(x);
  }
  return x;
}

// glibc's heap does not fill the holes that aligned tensors leave behind, and would grow to several times what a pass
// over many tokens holds.
void release_holes(const at::Tensor& x) {
#ifdef __GLIBC__
  if (x.is_cpu() && x.nbytes() > size_t{1} << 20) {
    ::malloc_trim(0);
  }
#endif
}

// One pass over blocks.
class Interpreter {
 public:
  Interpreter(const Model& model, int64_t length, const ForwardOptions& options)
      : model_(model),
        cache_(options.cache),
        observer_(options.observer),
        length_(length),
        past_(cache_ != nullptr ? cache_->length() : 0) {
    positions_ = at::arange(past_, past_ + length_, at::TensorOptions().dtype(at::kLong).device(model.device()));
  }

  at::Tensor run(at::Tensor x, size_t first, size_t last) {
    for (size_t index = first; index < last; ++index) {
      check_interrupt();
      block_ = index;
      if (observer_ != nullptr) {
        observer_->hidden_state(index, x);
      }
      x = run_block(model_.blocks[index], std::move(x));
      if (index % 8 == 0) {  // not after each: pages that were given back cost time when they are touched again
        release_holes(x);
      }
    }
    if (observer_ != nullptr) {
      observer_->hidden_state(last, x);
    }
    return x;
  }

 private:
  at::Tensor run_block(const Block& block, at::Tensor x) {
    prefix_ = model_.config.names.block + std::to_string(block.origin) + ".";
    if (!block.skip_attention) {
      x = sublayer(block.placement, block.attention_norm, block.attention_output_norm, block.attention_residual,
                   std::move(x), [&](const at::Tensor& input) { return attend(block.attention, input); });
    }
    if (!block.skip_mlp) {
      x = sublayer(block.placement, block.mlp_norm, block.mlp_output_norm, block.mlp_residual, std::move(x),
                   [&](const at::Tensor& input) {
                     return block.experts.mlps.empty()
                                ? feed_forward(block.mlp, model_.config.names.gate, model_.config.names.up,
                                               model_.config.names.down, input, positions_)
                                : route(block.experts, input);
                   });
    }
    return x;
  }

  template <typename Function>
  at::Tensor sublayer(NormPlacement placement, const Norm& norm, const Norm& output_norm, bool residual, at::Tensor x,
                      const Function& function) {
    const bool before = placement == NormPlacement::pre;
    at::Tensor y = apply_norm(output_norm, function(before ? apply_norm(norm, x) : x));
    if (residual) {
      y = recorded(x, y) ? x + y : y.add_(x);
    }
    return before ? y : apply_norm(norm, y);
  }

  // The inputs of linears that share x, each treated as its layer says; equal treatments are computed once.
  template <size_t n>
  std::array<at::Tensor, n> inputs(const std::array<std::pair<const Linear*, const std::string*>, n>& linears,
                                   const at::Tensor& x, const at::Tensor& positions) {
    if (observer_ != nullptr) {
      std::vector<std::string> names;
      for (const auto& [linear, name] : linears) {
        if (linear->defined()) {
          names.push_back(prefix_ + *name);
        }
      }
      observer_->linear_input(block_, names, x);
    }
    std::array<at::Tensor, n> result;
    for (size_t i = 0; i < n; ++i) {
      const LinearInput& input = linears[i].first->input;
      result[i] = input.neutral()                                               ? x
                  : i > 0 && same_treatment(input, linears[i - 1].first->input) ? result[i - 1]
                                                                                : treated_input(input, x, positions);
    }
    return result;
  }

  // linear · x, where `x` is treated already.
  at::Tensor output(const Linear& linear, const std::string& name, const at::Tensor& x) {
    at::Tensor y = multiply(linear, x);
    if (observer_ != nullptr) {
      observer_->linear_output(block_, prefix_ + name, y);
    }
    return y;
  }

  at::Tensor heads(const Linear& linear, const std::string& name, const at::Tensor& x, int64_t count, int64_t head_dim,
                   const Norm& norm) {
    at::Tensor y = output(linear, name, x).view({x.size(0), x.size(1), count, head_dim});
    return apply_norm(norm, y).transpose(1, 2);
  }

  at::Tensor attend(const Attention& attention, const at::Tensor& x) {
    const Naming& names = model_.config.names;
    const auto [x_q, x_k, x_v] =
        inputs<3>({{{&attention.q, &names.q}, {&attention.k, &names.k}, {&attention.v, &names.v}}}, x, positions_);
    at::Tensor q = rotated(attention.rope,
                           heads(attention.q, names.q, x_q, attention.heads, attention.head_dim, attention.q_norm));
    at::Tensor k = rotated(attention.rope,
                           heads(attention.k, names.k, x_k, attention.kv_heads, attention.head_dim, attention.k_norm));
    at::Tensor v = heads(attention.v, names.v, x_v, attention.kv_heads, attention.head_dim, Norm{});
    if (attention.cache.bits < 16) {
      std::tie(k, v) = quantized_cache(attention.cache, k, v);
    }
    if (cache_ != nullptr) {
      std::tie(k, v) = cache_->append(block_, k, v);
    }
    const double scale = attention.scale > 0 ? attention.scale : 1 / std::sqrt(static_cast<double>(attention.head_dim));
    const std::optional<at::Tensor> visible = mask(attention.window, attention.sinks);
    at::Tensor y;
    if (observer_ != nullptr && observer_->wants_attention()) {
      y = explicit_attention(q, k, v, visible, scale);
    } else {
      y = at::scaled_dot_product_attention(q, k, v, visible, 0.0, !visible && length_ > 1, scale,
                                           attention.heads != attention.kv_heads);
    }
    y = y.transpose(1, 2).reshape({x.size(0), x.size(1), attention.heads * attention.head_dim});
    const auto [x_o] = inputs<1>({{{&attention.o, &names.o}}}, y, positions_);
    return output(attention.o, names.o, x_o);
  }

  at::Tensor explicit_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const std::optional<at::Tensor>& visible, double scale) {
    const int64_t repeats = q.size(1) / k.size(1);
    const at::Tensor keys = k.repeat_interleave(repeats, 1), values = v.repeat_interleave(repeats, 1);
    at::Tensor scores = at::matmul(q, keys.transpose(-1, -2)) * scale;
    const at::Tensor seen = visible ? *visible : positions_.unsqueeze(1).ge(positions_);
    scores = scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    const at::Tensor probabilities = at::softmax(scores, -1, at::kFloat).to(v.scalar_type());
    observer_->attention(block_, probabilities);
    return at::matmul(probabilities, values);
  }

  // bool [T, S], true = visible; none where plain causal attention over this call's tokens says the same.
  std::optional<at::Tensor> mask(int64_t window, int64_t sinks) {
    const int64_t seen = past_ + length_;
    if (window > 0 && window >= seen) {
      window = 0;
    }
    if (window == 0 && (past_ == 0 || length_ == 1)) {
      return std::nullopt;
    }
    const auto key = std::pair(window, sinks);
    const auto found = masks_.find(key);
    if (found != masks_.end()) {
      return found->second;
    }
    const at::Tensor rows = positions_.unsqueeze(1), columns = at::arange(seen, positions_.options());
    at::Tensor visible = columns.le(rows);
    if (window > 0) {
      at::Tensor near = columns.gt(rows - window);
      if (sinks > 0) {
        near = near.logical_or(columns.lt(sinks));
      }
      visible = visible.logical_and(near);
    }
    return masks_.emplace(key, visible).first->second;
  }

  at::Tensor rotated(const Rope& rope, const at::Tensor& x) {
    if (!rope.inverse_frequencies.defined()) {
      return x;
    }
    const auto& [cosine, sine] = rotation(rope, x.scalar_type());
    const int64_t half = rope.inverse_frequencies.size(0);
    const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
    if (recorded(x) || 2 * half < x.size(-1)) {
      return at::cat({first * cosine - second * sine, second * cosine + first * sine,
                      x.narrow(-1, 2 * half, x.size(-1) - 2 * half)},
                     -1);
    }
    at::Tensor y = at::empty_like(x);
    y.narrow(-1, 0, half).copy_(first).mul_(cosine).addcmul_(second, sine, -1);
    y.narrow(-1, half, half).copy_(second).mul_(cosine).addcmul_(first, sine);
    return y;
  }

  // cos and sin [T, frequencies] of this call's positions, computed in float32 as transformers does.
  const std::pair<at::Tensor, at::Tensor>& rotation(const Rope& rope, at::ScalarType dtype) {
    const auto key = rope.inverse_frequencies.unsafeGetTensorImpl();
    const auto found = rotations_.find(key);
    if (found != rotations_.end()) {
      return found->second;
    }
    const at::Tensor angles = at::outer(positions_.to(at::kFloat), rope.inverse_frequencies);
    return rotations_
        .emplace(key, std::pair((angles.cos() * rope.attention_scale).to(dtype),
                                (angles.sin() * rope.attention_scale).to(dtype)))
        .first->second;
  }

  std::pair<at::Tensor, at::Tensor> quantized_cache(const CacheQuantization& cache, const at::Tensor& k,
                                                    const at::Tensor& v) {
    const auto per_token = [&](const at::Tensor& x) {
      return quantize::activation(x, {.bits = cache.bits, .check_finite = false});
    };
    if (!cache.key_min.defined()) {
      return {per_token(k), per_token(v)};
    }
    const double steps = std::round(std::exp2(cache.bits)) - 1;
    const at::Tensor low = cache.key_min.clamp_max(0).unsqueeze(1), high = cache.key_max.clamp_min(0).unsqueeze(1);
    const at::Tensor scale = ((high - low) / steps).clamp_min(1e-12);
    const at::Tensor zero = (-low / scale).round();
    const at::Tensor codes = ((k.to(at::kFloat) / scale).round() + zero).clamp(0, steps);
    return {((codes - zero) * scale).to(k.scalar_type()), per_token(v)};
  }

  at::Tensor feed_forward(const Mlp& mlp, const std::string& gate_name, const std::string& up_name,
                          const std::string& down_name, const at::Tensor& x, const at::Tensor& positions) {
    const auto [x_gate, x_up] = inputs<2>({{{&mlp.gate, &gate_name}, {&mlp.up, &up_name}}}, x, positions);
    at::Tensor y;
    if (mlp.gate.defined()) {
      y = activated(mlp.activation, output(mlp.gate, gate_name, x_gate));
      const at::Tensor up = output(mlp.up, up_name, x_up);
      y = recorded(y, up) ? y * up : y.mul_(up);
    } else {
      y = activated(mlp.activation, output(mlp.up, up_name, x_up));
    }
    const auto [x_down] = inputs<1>({{{&mlp.down, &down_name}}}, y, positions);
    return output(mlp.down, down_name, x_down);
  }

  at::Tensor route(const Experts& experts, const at::Tensor& x) {
    const Naming& names = model_.config.names;
    const at::Tensor tokens = x.reshape({-1, x.size(-1)});
    const at::Tensor positions = positions_.expand({x.size(0), x.size(1)}).reshape({-1});
    const auto [x_router] = inputs<1>({{{&experts.router, &names.router}}}, tokens, positions);
    const at::Tensor scores = output(experts.router, names.router, x_router).to(at::kFloat) / experts.temperature;
    auto [weights, chosen] = at::topk(at::softmax(scores, -1), experts.top_k, -1);
    if (experts.normalize) {
      weights = weights / weights.sum(-1, true);
    }
    if (observer_ != nullptr) {
      observer_->routing(block_, chosen, weights);
    }
    at::Tensor y = at::zeros_like(tokens);
    for (size_t expert = 0; expert < experts.mlps.size(); ++expert) {
      const std::vector<at::Tensor> at_expert = at::where(chosen.eq(static_cast<int64_t>(expert)));
      if (at_expert[0].numel() == 0) {
        continue;
      }
      const std::string name = names.expert + std::to_string(expert) + ".";
      const at::Tensor output =
          feed_forward(experts.mlps[expert], name + "gate_proj", name + "up_proj", name + "down_proj",
                       tokens.index_select(0, at_expert[0]), positions.index_select(0, at_expert[0]));
      const at::Tensor weight = weights.index({at_expert[0], at_expert[1]}).unsqueeze(-1).to(output.scalar_type());
      y = y.index_add(0, at_expert[0], output * weight);
    }
    return y.view_as(x);
  }

  const Model& model_;
  KvCache* cache_;
  Observer* observer_;
  int64_t length_, past_;
  size_t block_ = 0;
  std::string prefix_;
  at::Tensor positions_;
  std::map<std::pair<int64_t, int64_t>, at::Tensor> masks_;
  std::map<const void*, std::pair<at::Tensor, at::Tensor>> rotations_;
};

// The tokens as the model reads them, and which of their embeddings are zero (undefined: none).
std::pair<at::Tensor, at::Tensor> perturbed_tokens(const Model& model, const at::Tensor& tokens, KvCache* cache) {
  const InputPerturbation& input = model.input;
  if (input.kind == TokenNoise::none || input.rate <= 0) {
    return {tokens, {}};
  }
  const int64_t past = cache != nullptr ? cache->length() : 0;
  const at::Tensor positions = at::arange(past, past + tokens.size(1), tokens.options());
  const at::Tensor before = past > 0 ? cache->last_token() : tokens.narrow(1, 0, 1);  // the first token precedes itself
  const at::Tensor previous = at::cat({before, tokens.narrow(1, 0, tokens.size(1) - 1)}, 1);
  const at::Tensor hashed = hash(input.seed, {positions, tokens, previous});
  const at::Tensor falls = unit_interval(hashed).lt(input.rate);
  switch (input.kind) {
    case TokenNoise::replace:
      return {at::where(falls, below(hash(input.seed + 1, {hashed}), model.config.vocab_size), tokens), {}};
    case TokenNoise::swap:
      return {at::where(falls, previous, tokens), {}};
    default:
      return {tokens, falls};
  }
}

}  // namespace

at::Tensor checked_tokens(const Model& model, const at::Tensor& tokens, const char* operation) {
  if (!tokens.defined() || !c10::isIntegralType(tokens.scalar_type(), /*includeBool=*/false)) {
    throw TypeError(fmt::format("{}: tokens must be an integer tensor, got {}", operation,
                                tokens.defined() ? c10::toString(tokens.scalar_type()) : "none"));
  }
  if (tokens.dim() < 1 || tokens.dim() > 2 || tokens.numel() == 0) {
    throw ValueError(fmt::format("{}: tokens must be [windows, length] with at least one token, got shape [{}]",
                                 operation, fmt::join(tokens.sizes(), ", ")));
  }
  if (tokens.device() != model.device()) {
    throw ValueError(fmt::format("{}: tokens are on {}, but the model is on {}", operation, tokens.device().str(),
                                 model.device().str()));
  }
  const int64_t low = tokens.min().item<int64_t>(), high = tokens.max().item<int64_t>();
  if (low < 0 || high >= model.config.vocab_size) {
    throw ValueError(fmt::format("{}: tokens have the ID {}, but the vocabulary takes 0 … {}", operation,
                                 low < 0 ? low : high, model.config.vocab_size - 1));
  }
  const at::Tensor result = tokens.to(at::kLong);
  return result.dim() == 1 ? result.unsqueeze(0) : result;
}

at::Tensor embed(const Model& model, const at::Tensor& tokens, KvCache* cache) {
  const auto [read, dropped] = perturbed_tokens(model, tokens, cache);
  at::Tensor x = at::embedding(model.embedding, read);
  return dropped.defined() ? x.masked_fill(dropped.unsqueeze(-1), 0) : x;
}

at::Tensor run_blocks(const Model& model, const at::Tensor& x, size_t first, size_t last,
                      const ForwardOptions& options) {
  if (first > last || last > model.blocks.size()) {
    throw ValueError(
        fmt::format("hemostat.run_blocks: blocks are {} … {}, but the model has {}", first, last, model.blocks.size()));
  }
  return Interpreter(model, x.size(1), options).run(x, first, last);
}

at::Tensor hidden_states(const Model& model, const at::Tensor& tokens, const ForwardOptions& options) {
  const at::Tensor checked = checked_tokens(model, tokens, "hemostat.Model.forward");
  const at::Tensor x = run_blocks(model, embed(model, checked, options.cache), 0, model.blocks.size(), options);
  if (options.cache != nullptr) {
    options.cache->advance(checked);
  }
  return apply_norm(model.final_norm, x);
}

at::Tensor logits(const Model& model, const at::Tensor& hidden) {
  const at::Tensor positions =
      at::arange(hidden.size(-2), at::TensorOptions().dtype(at::kLong).device(hidden.device()));
  at::Tensor y = apply_linear(model.head.linear, hidden, positions);
  const LogitMap& map = model.head.map;
  if (map.a.defined()) {
    const at::Tensor low_rank = at::matmul(at::matmul(y, map.b.t()), map.a.t());
    y = (map.scale == 1 ? y : y * map.scale) + low_rank;
  } else if (map.scale != 1) {
    y = y * map.scale;
  }
  return map.bias.defined() ? y + map.bias : y;
}

at::Tensor Model::forward(const at::Tensor& tokens, const ForwardOptions& options) const {
  return logits(*this, hidden_states(*this, tokens, options));
}

}  // namespace hemostat
