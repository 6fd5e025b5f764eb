#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/model.h>

#include "interpreter.h"
#include "softcap.h"
#include "treated_input.h"

namespace hemostat {
namespace {

// Whether a result of these must stay as autograd saw it, so that nothing may be done to it in place.
template <typename... Tensors>
bool recorded(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (tensors.requires_grad() || ...);
}

at::Tensor activate(const Mlp& mlp, at::Tensor x) {
  switch (mlp.activation) {
    case Activation::silu:
      if (mlp.slope != 1) {
        return x * at::sigmoid(x * mlp.slope);
      }
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

}  // namespace

struct Interpreter::Sublayer {
  NormPlacement placement;
  const Norm &norm, &output_norm;
  bool residual;
  double scale;
  const at::Tensor& shortcut;

  static Sublayer attention(const Block& block) {
    return {block.placement,          block.attention_norm, block.attention_output_norm,
            block.attention_residual, block.residual_scale, block.attention_shortcut};
  }
  static Sublayer mlp(const Block& block) {
    return {block.placement,    block.mlp_norm,       block.mlp_output_norm,
            block.mlp_residual, block.residual_scale, block.mlp_shortcut};
  }

  at::Tensor input(const at::Tensor& x) const { return placement == NormPlacement::pre ? apply_norm(norm, x) : x; }
};

Interpreter::Interpreter(const Model& model, int64_t length, const ForwardOptions& options)
    : model_(model),
      cache_(options.cache),
      observer_(options.observer),
      length_(length),
      past_(cache_ != nullptr ? cache_->length() : 0) {
  positions_ = at::arange(past_, past_ + length_, at::TensorOptions().dtype(at::kLong).device(model.device()));
}

const Block& Interpreter::enter(size_t block) {
  block_ = block;
  prefix_ = model_.config.names.block + std::to_string(model_.blocks[block].origin) + ".";
  return model_.blocks[block];
}

at::Tensor Interpreter::run(at::Tensor x, size_t first, size_t last) {
  for (size_t index = first; index < last; ++index) {
    check_interrupt();
    if (observer_ != nullptr) {
      observer_->hidden_state(index, x);
    }
    x = run_block(index, std::move(x));
  }
  if (observer_ != nullptr) {
    observer_->hidden_state(last, x);
  }
  return x;
}

at::Tensor Interpreter::run_block(size_t index, at::Tensor x) {
  const Block& block = model_.blocks[index];
  const at::Tensor before = block.parallel ? x : at::Tensor();
  if (!block.skip_attention) {
    x = after_attention(index, x, attended(index, attention_input(index, x)));
  }
  if (!block.skip_mlp) {
    const at::Tensor input = mlp_input(index, block.parallel ? before : x);
    x = block.experts.mlps.empty() ? after_mlp(index, x, activated(index, input))
                                   : after_experts(index, x, routed(index, input));
  }
  return x;
}

at::Tensor Interpreter::attention_input(size_t block, const at::Tensor& x) {
  return Sublayer::attention(enter(block)).input(x);
}

at::Tensor Interpreter::after_attention(size_t block, const at::Tensor& x, const at::Tensor& attended) {
  const Block& here = enter(block);
  return add(Sublayer::attention(here), x, projected(here.attention.o, model_.config.names.o, attended, positions_));
}

at::Tensor Interpreter::mlp_input(size_t block, const at::Tensor& x) { return Sublayer::mlp(enter(block)).input(x); }

at::Tensor Interpreter::activated(size_t block, const at::Tensor& mlp_input) {
  return gated(enter(block).mlp, dense_names(), mlp_input, positions_);
}

at::Tensor Interpreter::after_mlp(size_t block, const at::Tensor& x, const at::Tensor& activated) {
  const Block& here = enter(block);
  return add(Sublayer::mlp(here), x, projected(here.mlp.down, model_.config.names.down, activated, positions_));
}

at::Tensor Interpreter::after_experts(size_t block, const at::Tensor& x, const at::Tensor& routed) {
  return add(Sublayer::mlp(enter(block)), x, routed);
}

// `given` is this sublayer's own, and may become the sum.
at::Tensor Interpreter::add(const Sublayer& sublayer, const at::Tensor& x, const at::Tensor& given) {
  at::Tensor y = apply_norm(sublayer.output_norm, given);
  if (sublayer.scale != 1) {
    y = recorded(y) ? y * sublayer.scale : y.mul_(sublayer.scale);
  }
  if (sublayer.residual) {
    const at::Tensor before = sublayer.shortcut.defined() ? at::matmul(x, sublayer.shortcut) : x;
    y = recorded(before, y) ? before + y : y.add_(before);
  }
  return sublayer.placement == NormPlacement::pre ? y : apply_norm(sublayer.norm, y);
}

template <size_t n>
std::array<at::Tensor, n> Interpreter::inputs(
    const std::array<std::pair<const Linear*, const std::string*>, n>& linears, const at::Tensor& x,
    const at::Tensor& positions) {
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

at::Tensor Interpreter::output(const Linear& linear, const std::string& name, const at::Tensor& x) {
  at::Tensor y = multiply(linear, x);
  if (observer_ != nullptr) {
    observer_->linear_output(block_, prefix_ + name, y);
  }
  return y;
}

at::Tensor Interpreter::heads(const Linear& linear, const std::string& name, const at::Tensor& x, int64_t count,
                              const Attention& attention, const Norm& norm) {
  const at::Tensor y = output(linear, name, x);
  const std::array<int64_t, 4> sizes{x.size(0), x.size(1), count, attention.head_dim};
  const bool over_all = attention.qk_norm_scope == NormScope::all;
  return (over_all ? apply_norm(norm, y).view(sizes) : apply_norm(norm, y.view(sizes))).transpose(1, 2);
}

at::Tensor Interpreter::attended(size_t block, const at::Tensor& x) {
  const Attention& attention = enter(block).attention;
  const Naming& names = model_.config.names;
  const auto [x_q, x_k, x_v] =
      inputs<3>({{{&attention.q, &names.q}, {&attention.k, &names.k}, {&attention.v, &names.v}}}, x, positions_);
  at::Tensor q =
      rotated(attention.rope, heads(attention.q, names.q, x_q, attention.heads, attention, attention.q_norm));
  at::Tensor k =
      rotated(attention.rope, heads(attention.k, names.k, x_k, attention.kv_heads, attention, attention.k_norm));
  at::Tensor v = heads(attention.v, names.v, x_v, attention.kv_heads, attention, Norm{});
  if (attention.cache.bits < 16) {
    std::tie(k, v) = quantized_cache(attention.cache, k, v);
  }
  if (cache_ != nullptr) {
    std::tie(k, v) = cache_->append(block_, k, v);
  }
  const double scale = attention.scale > 0 ? attention.scale : 1 / std::sqrt(static_cast<double>(attention.head_dim));
  const std::optional<at::Tensor> visible = mask(attention.window, attention.sinks);
  const bool observed = observer_ != nullptr && observer_->wants_attention();
  at::Tensor y;
  if (observed || attention.softcap > 0 || attention.sink_logits.defined()) {
    y = explicit_attention(attention, q, k, v, visible, scale);
  } else {
    y = at::scaled_dot_product_attention(q, k, v, visible, 0.0, !visible && length_ > 1, scale,
                                         attention.heads != attention.kv_heads);
  }
  return y.transpose(1, 2).reshape({x.size(0), x.size(1), attention.heads * attention.head_dim});
}

at::Tensor Interpreter::explicit_attention(const Attention& attention, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const std::optional<at::Tensor>& visible,
                                           double scale) {
  const int64_t repeats = q.size(1) / k.size(1);
  const at::Tensor keys = k.repeat_interleave(repeats, 1), values = v.repeat_interleave(repeats, 1);
  at::Tensor scores = at::matmul(q, keys.transpose(-1, -2)) * scale;
  if (attention.softcap > 0) {
    scores = softcapped(scores, attention.softcap);
  }
  const at::Tensor seen = visible ? *visible : positions_.unsqueeze(1).ge(positions_);
  scores = scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  if (attention.sink_logits.defined()) {
    const at::Tensor sinks = attention.sink_logits.view({1, -1, 1, 1}).expand({scores.size(0), -1, scores.size(2), 1});
    scores = at::cat({scores, sinks.to(scores.scalar_type())}, -1);
  }
  at::Tensor probabilities = at::softmax(scores, -1, at::kFloat).to(v.scalar_type());
  if (attention.sink_logits.defined()) {
    probabilities = probabilities.narrow(-1, 0, probabilities.size(-1) - 1);
  }
  if (observer_ != nullptr && observer_->wants_attention()) {
    observer_->attention(block_, probabilities);
  }
  return at::matmul(probabilities, values);
}

std::optional<at::Tensor> Interpreter::mask(int64_t window, int64_t sinks) {
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

at::Tensor Interpreter::rotated(const Rope& rope, const at::Tensor& x) {
  if (!rope.inverse_frequencies.defined()) {
    return x;
  }
  const auto& [cosine, sine] = rotation(rope, x.scalar_type());
  const int64_t half = rope.inverse_frequencies.size(0);
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  if (recorded(x) || 2 * half < x.size(-1)) {
    return at::cat(
        {first * cosine - second * sine, second * cosine + first * sine, x.narrow(-1, 2 * half, x.size(-1) - 2 * half)},
        -1);
  }
  at::Tensor y = at::empty_like(x);
  y.narrow(-1, 0, half).copy_(first).mul_(cosine).addcmul_(second, sine, -1);
  y.narrow(-1, half, half).copy_(second).mul_(cosine).addcmul_(first, sine);
  return y;
}

const std::pair<at::Tensor, at::Tensor>& Interpreter::rotation(const Rope& rope, at::ScalarType dtype) {
  const std::pair<const void*, double> key(rope.inverse_frequencies.unsafeGetTensorImpl(), rope.attention_scale);
  const auto found = rotations_.find(key);
  if (found != rotations_.end()) {
    return found->second;
  }
  const at::Tensor angles = at::outer(positions_.to(at::kFloat), frequencies(rope));
  return rotations_
      .emplace(key, std::pair((angles.cos() * rope.attention_scale).to(dtype),
                              (angles.sin() * rope.attention_scale).to(dtype)))
      .first->second;
}

at::Tensor Interpreter::frequencies(const Rope& rope) const {
  const int64_t seen = past_ + length_;
  if (rope.context == 0 || seen <= rope.context) {
    return rope.inverse_frequencies;
  }
  if (rope.long_inverse_frequencies.defined()) {
    return rope.long_inverse_frequencies;
  }
  if (rope.dynamic_factor <= 0) {
    return rope.inverse_frequencies;
  }
  const int64_t count = rope.inverse_frequencies.size(0);
  const double growth =
      rope.dynamic_factor * static_cast<double>(seen) / static_cast<double>(rope.context) - rope.dynamic_factor + 1;
  // base^(−2i/d) with the base multiplied by growth^(d/(d − 2))
  const double dimension = 2 * static_cast<double>(count);
  const at::Tensor exponents = at::arange(count, rope.inverse_frequencies.options()) * (-2 / (dimension - 2));
  return rope.inverse_frequencies * at::pow(growth, exponents);
}

Interpreter::MlpNames Interpreter::dense_names() const {
  const Naming& names = model_.config.names;
  return {names.gate, names.up, names.down};
}

Interpreter::MlpNames Interpreter::expert_names(int64_t expert) const {
  const Naming& names = model_.config.names;
  const std::string begin = names.expert + std::to_string(expert) + ".";
  return {begin + names.expert_gate, begin + names.expert_up, begin + names.expert_down};
}

at::Tensor Interpreter::gated(const Mlp& mlp, const MlpNames& names, const at::Tensor& x, const at::Tensor& positions) {
  const auto [x_gate, x_up] = inputs<2>({{{&mlp.gate, &names.gate}, {&mlp.up, &names.up}}}, x, positions);
  if (!mlp.gate.defined()) {
    return activate(mlp, output(mlp.up, names.up, x_up));
  }
  at::Tensor gate = output(mlp.gate, names.gate, x_gate);
  at::Tensor up = output(mlp.up, names.up, x_up);
  if (mlp.limit > 0) {
    gate = gate.clamp_max(mlp.limit);
    up = up.clamp(-mlp.limit, mlp.limit);
  }
  if (mlp.up_offset != 0) {
    up = up + mlp.up_offset;
  }
  const at::Tensor y = activate(mlp, gate);
  return recorded(y, up) ? y * up : y.mul_(up);
}

at::Tensor Interpreter::projected(const Linear& linear, const std::string& name, const at::Tensor& x,
                                  const at::Tensor& positions) {
  const auto [treated] = inputs<1>({{{&linear, &name}}}, x, positions);
  return output(linear, name, treated);
}

// Tokens are sorted by expert once, and each expert reads its own rows. Autograd gets one gather and one concatenation,
// whose gradients cost once; without it rows are gathered, and their results put into place, while they are in the
// cache.
at::Tensor Interpreter::routed(size_t block, const at::Tensor& x) {
  const Experts& experts = enter(block).experts;
  const Naming& names = model_.config.names;
  const at::Tensor tokens = x.reshape({-1, x.size(-1)});
  const at::Tensor positions = positions_.expand({x.size(0), x.size(1)}).reshape({-1});
  const at::Tensor scores =
      projected(experts.router, names.router, tokens, positions).to(at::kFloat) / experts.temperature;
  auto [weights, chosen] = at::topk(at::softmax(scores, -1), experts.top_k, -1);
  if (experts.normalize) {
    weights = weights / weights.sum(-1, true);
  }
  if (observer_ != nullptr) {
    observer_->routing(block_, chosen, weights);
  }

  const at::Tensor places = chosen.reshape(-1);  // of token t and choice c: t · top_k + c
  const at::Tensor order = std::get<1>(places.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
  const at::Tensor token = order.div(experts.top_k, "floor");
  const at::Tensor row_positions = positions.index_select(0, token);
  const bool recording = at::GradMode::is_enabled();
  const at::Tensor rows = recording ? tokens.index_select(0, token) : at::Tensor();
  at::Tensor by_choice = recording ? at::Tensor() : at::empty({order.size(0), x.size(-1)}, tokens.options());
  const at::Tensor counted =
      at::bincount(places, /*weights=*/{}, static_cast<int64_t>(experts.mlps.size())).to(at::kCPU);
  const auto counts = counted.accessor<int64_t, 1>();
  std::vector<at::Tensor> outputs;
  for (int64_t expert = 0, first = 0; expert < counts.size(0); first += counts[expert++]) {
    if (counts[expert] == 0) {
      continue;
    }
    const MlpNames own = expert_names(expert);
    const Mlp& mlp = experts.mlps[expert];
    const auto own_of = [first, count = counts[expert]](const at::Tensor& all) { return all.narrow(0, first, count); };
    const at::Tensor there = own_of(row_positions);
    const at::Tensor in = recording ? own_of(rows) : tokens.index_select(0, own_of(token));
    const at::Tensor out = projected(mlp.down, own.down, gated(mlp, own, in, there), there);
    if (recording) {
      outputs.push_back(out);
    } else {
      by_choice.index_copy_(0, own_of(order), out);
    }
  }
  if (recording) {
    const at::Tensor back = at::empty_like(order).scatter_(0, order, at::arange(order.size(0), order.options()));
    by_choice = at::cat(outputs).index_select(0, back);
  }
  by_choice = by_choice.view({tokens.size(0), experts.top_k, x.size(-1)});
  return at::bmm(weights.unsqueeze(1).to(by_choice.scalar_type()), by_choice).view_as(x);
}

}  // namespace hemostat
