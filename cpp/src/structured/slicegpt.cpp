#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/structured.h>

#include "common/arguments.h"
#include "model/foreign.h"
#include "model/interpreter.h"

namespace hemostat::structured {
namespace {

constexpr const char* kSliceGpt = "hemostat.structured.slicegpt";
constexpr int64_t kSliceBatch = 8;  // windows at a time

void check_sliceable(const Model& model) {
  check_has_blocks(model, kSliceGpt);
  const auto refuse = [](size_t block, const char* problem) {
    throw ValueError(
        fmt::format("{}: block {} {}, in which the residual stream cannot be turned", kSliceGpt, block, problem));
  };
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    const Block& block = model.blocks[i];
    if (!block.experts.mlps.empty()) {
      refuse(i, "is a mixture of experts");
    }
    if (block.parallel) {
      refuse(i, "computes attention and MLP in parallel");
    }
    if (block.placement != NormPlacement::pre || block.attention_output_norm.kind != NormKind::none ||
        block.mlp_output_norm.kind != NormKind::none) {
      refuse(i, "has a norm after a sublayer");
    }
    if (block.attention_norm.kind == NormKind::dynamic_tanh || block.mlp_norm.kind == NormKind::dynamic_tanh) {
      refuse(i, "has a dynamic tanh");
    }
    if (block.attention_shortcut.defined() || block.mlp_shortcut.defined()) {
      refuse(i, "has shortcut matrices already");
    }
    for (const Linear* linear :
         {&block.attention.q, &block.attention.k, &block.attention.v, &block.mlp.gate, &block.mlp.up}) {
      if (linear->input.scale.defined() || linear->input.rotation.defined()) {
        refuse(i, "scales or rotates what its linears read");
      }
    }
  }
  if (model.final_norm.kind == NormKind::dynamic_tanh) {
    throw ValueError(
        fmt::format("{}: the final norm is a dynamic tanh, in which the residual stream cannot be turned", kSliceGpt));
  }
}

at::Tensor precise(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

// The linear reading x @ basis in the place of x.
Linear reading(const Linear& linear, const at::Tensor& basis) {
  return linear.defined()
             ? linear.with_weight(at::matmul(precise(linear.dense()), basis).to(linear.dense().scalar_type()))
             : linear;
}

// The linear giving y @ basis in the place of y.
Linear giving(const Linear& linear, const at::Tensor& basis) {
  const at::Tensor weight = linear.dense();
  Linear result = linear.with_weight(at::matmul(basis.t(), precise(weight)).to(weight.scalar_type()));
  if (linear.bias.defined()) {
    result.bias = at::matmul(precise(linear.bias), basis).to(linear.bias.scalar_type());
  }
  return result;
}

// gain and bias of the norm become part of what reads it.
Linear taking_up(const Norm& norm, const Linear& linear) {
  if (!linear.defined() || norm.kind == NormKind::none) {
    return linear;
  }
  const at::Tensor weight = precise(linear.dense());
  Linear result = linear;
  if (norm.weight.defined()) {
    const at::Tensor gain = precise(norm.weight) + (norm.kind == NormKind::rms ? norm.offset : 0);
    result = linear.with_weight((weight * gain).to(linear.dense().scalar_type()));
  }
  if (norm.bias.defined() && norm.kind == NormKind::layer) {
    at::Tensor bias = at::matmul(weight, precise(norm.bias));
    if (linear.bias.defined()) {
      bias = bias + linear.bias;
    }
    result.bias = bias.to(result.weight.scalar_type());
  }
  return result;
}

// The RMS norm of a stream of `now` of what were `before` dimensions, the others 0.
Norm plain(const Norm& norm, int64_t before, int64_t now, const at::TensorOptions& options) {
  if (norm.kind == NormKind::none) {
    return norm;
  }
  Norm result{.kind = NormKind::rms, .weight = {}, .bias = {}, .epsilon = norm.epsilon};
  if (now < before) {
    const double ratio = static_cast<double>(before) / static_cast<double>(now);
    result.epsilon *= ratio;
    result.weight = at::full({now}, std::sqrt(ratio), options);
  }
  return result;
}

// The same model with norms that have no gain; of a layer norm the mean is taken from what writes the stream.
Model with_plain_norms(const Model& model) {
  Model result = model;
  const int64_t hidden = model.config.hidden_size;
  const auto is_layer = [](const Norm& norm) { return norm.kind == NormKind::layer; };
  bool centred = is_layer(model.final_norm);
  for (const Block& block : model.blocks) {
    centred = centred || is_layer(block.attention_norm) || is_layer(block.mlp_norm);
  }
  if (centred) {
    bool all = is_layer(model.final_norm);
    for (const Block& block : model.blocks) {
      all = all && is_layer(block.attention_norm) && is_layer(block.mlp_norm);
    }
    if (!all) {
      throw ValueError(
          fmt::format("{}: some of the model's norms are layer norms and some are not, so that the mean of "
                      "the residual stream cannot be left out",
                      kSliceGpt));
    }
    const auto without_mean = [](const at::Tensor& x) {
      return x.defined() ? (precise(x) - precise(x).mean(-1, true)).to(x.scalar_type()) : x;
    };
    result.embedding = without_mean(result.embedding);
    result.position_embedding = without_mean(result.position_embedding);
    for (Block& block : result.blocks) {
      for (Linear* linear : {&block.attention.o, &block.mlp.down}) {
        *linear = linear->with_weight(without_mean(linear->dense().t()).t().contiguous());
        linear->bias = without_mean(linear->bias);
      }
    }
  }
  for (Block& block : result.blocks) {
    for (Linear* linear : {&block.attention.q, &block.attention.k, &block.attention.v}) {
      *linear = taking_up(block.attention_norm, *linear);
    }
    for (Linear* linear : {&block.mlp.gate, &block.mlp.up}) {
      *linear = taking_up(block.mlp_norm, *linear);
    }
    block.attention_norm = plain(block.attention_norm, hidden, hidden, {});
    block.mlp_norm = plain(block.mlp_norm, hidden, hidden, {});
  }
  result.head.linear = taking_up(model.final_norm, model.head.linear);
  result.final_norm = plain(model.final_norm, hidden, hidden, {});
  return result;
}

// What reaches a place in the model on the calibration tokens, as the unsliced stream would have it.
class Stream {
 public:
  Stream(const Model& model, const at::Tensor& tokens) {
    for (int64_t first = 0; first < tokens.size(0); first += kSliceBatch) {
      check_interrupt();
      batches_.push_back(embed(model, tokens.narrow(0, first, std::min(kSliceBatch, tokens.size(0) - first))));
    }
  }

  void advance(const std::function<at::Tensor(const at::Tensor&)>& step) {
    for (at::Tensor& batch : batches_) {
      check_interrupt();
      batch = step(batch);
    }
  }

  // Its principal components in the columns, the largest first: float64 [H, count].
  at::Tensor basis(int64_t count) const {
    const int64_t hidden = batches_.front().size(-1);
    at::Tensor gram = at::zeros({hidden, hidden}, batches_.front().options().dtype(at::kDouble));
    for (const at::Tensor& batch : batches_) {
      check_interrupt();
      const at::Tensor x = batch.reshape({-1, hidden}).to(at::kFloat);
      gram += at::matmul(x.t(), x);
    }
    if (!gram.sum().isfinite().item<bool>()) {
      throw NumericalError(fmt::format("{}: the residual stream is not finite on the calibration tokens", kSliceGpt));
    }
    return std::get<1>(at::linalg_eigh(gram)).flip({1}).narrow(1, 0, count).contiguous();
  }

 private:
  std::vector<at::Tensor> batches_;
};

}  // namespace

Model slicegpt(const Model& model, const at::Tensor& tokens, const SliceGptOptions& options) {
  check_options(kSliceGpt, options);
  check_sliceable(model);
  arguments::check_dense(kSliceGpt, "tokens", tokens);
  const at::Tensor windows = checked_tokens(model, tokens, kSliceGpt);
  const int64_t hidden = model.config.hidden_size;
  const int64_t deleted =
      std::llround(options.sliced * static_cast<double>(hidden) / static_cast<double>(options.round_interval)) *
      options.round_interval;
  if (deleted >= hidden) {
    throw ValueError(
        fmt::format("{}: sliced is {}, which deletes {} of {} dimensions in steps of {}; one at least stays", kSliceGpt,
                    options.sliced, deleted, hidden, options.round_interval));
  }
  if (deleted == 0) {
    return model;
  }
  const at::NoGradGuard no_grad;
  const int64_t kept = hidden - deleted;
  const Model whole = with_plain_norms(model);
  const at::TensorOptions dense = model.embedding.options();
  const auto in_dtype = [&](const at::Tensor& x) { return x.to(dense.dtype()); };

  Model result = whole;
  result.config.hidden_size = kept;
  Stream stream(whole, windows);
  at::Tensor basis = stream.basis(kept);
  result.embedding = in_dtype(at::matmul(precise(whole.embedding), basis));
  if (whole.position_embedding.defined()) {
    result.position_embedding = in_dtype(at::matmul(precise(whole.position_embedding), basis));
  }
  const int64_t length = windows.size(1);
  for (size_t i = 0; i < result.blocks.size(); ++i) {
    const Block& before = whole.blocks[i];
    Block& block = result.blocks[i];
    if (!block.skip_attention) {
      for (Linear* linear : {&block.attention.q, &block.attention.k, &block.attention.v}) {
        *linear = reading(*linear, basis);
      }
      block.attention_norm = plain(before.attention_norm, hidden, kept, dense);
      Interpreter interpreter(result, length);
      const at::Tensor turn = in_dtype(basis), back = turn.t();
      stream.advance([&](const at::Tensor& x) {
        const at::Tensor sliced = at::matmul(x, turn);
        const at::Tensor attended = interpreter.attended(i, interpreter.attention_input(i, sliced));
        const at::Tensor y = apply_linear(before.attention.o, attended, {}) * before.residual_scale;
        return before.attention_residual ? at::matmul(sliced, back) + y : y;
      });
      const at::Tensor next = stream.basis(kept);
      block.attention_shortcut = in_dtype(at::matmul(basis.t(), next));
      block.attention.o = giving(before.attention.o, next);
      basis = next;
    }
    if (!block.skip_mlp) {
      for (Linear* linear : {&block.mlp.gate, &block.mlp.up}) {
        *linear = reading(*linear, basis);
      }
      block.mlp_norm = plain(before.mlp_norm, hidden, kept, dense);
      Interpreter interpreter(result, length);
      const at::Tensor turn = in_dtype(basis), back = turn.t();
      stream.advance([&](const at::Tensor& x) {
        const at::Tensor sliced = at::matmul(x, turn);
        const at::Tensor activated = interpreter.activated(i, interpreter.mlp_input(i, sliced));
        const at::Tensor y = apply_linear(before.mlp.down, activated, {}) * before.residual_scale;
        return before.mlp_residual ? at::matmul(sliced, back) + y : y;
      });
      const at::Tensor next = stream.basis(kept);
      block.mlp_shortcut = in_dtype(at::matmul(basis.t(), next));
      block.mlp.down = giving(before.mlp.down, next);
      basis = next;
    }
  }
  result.head.linear = reading(whole.head.linear, basis);
  result.final_norm = plain(whole.final_norm, hidden, kept, dense);
  return result;
}

}  // namespace hemostat::structured
