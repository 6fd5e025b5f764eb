#include "calibrate/collect_gradients.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "model/finite.h"
#include "model/head_chunks.h"
#include "model/heap_trimmer.h"

namespace hemostat {
namespace {

// Keeps what enters each block, and what leaves the last.
class StateKeeper : public HeapTrimmer {
 public:
  StateKeeper(at::Tensor states, Observer* inner) : states_(std::move(states)), inner_(inner) {}

  void linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) override {
    if (inner_ != nullptr) {
      inner_->linear_input(block, names, x);
    }
  }

  void hidden_state(size_t index, const at::Tensor& x) override {
    states_.select(0, static_cast<int64_t>(index)).narrow(0, 0, x.size(0)).copy_(x);
    HeapTrimmer::hidden_state(index, x);
  }

 private:
  at::Tensor states_;
  Observer* inner_;
};

// A weight as autograd sees it, and where its gradient goes.
struct Leaf {
  GradientStatistics* statistics;
  at::Tensor weight;

  // Adds the gradient of one sequence, and forgets it.
  void take() {
    statistics->add(weight.grad());
    weight.mutable_grad() = at::Tensor();
  }
};

// The layer with its weight, multiplied out and dequantized, as a leaf.
Linear with_leaf(const Linear& linear, at::ScalarType dtype, GradientStatistics& statistics,
                 std::vector<Leaf>& leaves) {
  const at::Tensor weight = linear.dense().detach().to(dtype);
  leaves.push_back({&statistics, weight.requires_grad_(true)});
  return linear.with_weight(weight);
}

// Gradients of `inputs` alone: a model may share its tensors with a module in training.
void backward(const at::Tensor& y, const at::Tensor& gradient, const at::Tensor& x, const std::vector<Leaf>& leaves) {
  std::vector<at::Tensor> inputs{x};
  for (const Leaf& leaf : leaves) {
    inputs.push_back(leaf.weight);
  }
  y.backward(gradient, /*retain_graph=*/false, /*create_graph=*/false, inputs);
}

}  // namespace

GradientCollector::GradientCollector(const Model& model, const CollectOptions& options, const std::set<Need>& needs,
                                     int64_t windows, int64_t length, MemoryBudget& budget)
    : model_(model), filter_(options.filter), first_(model.blocks.size()) {
  if (length < 2 && !model.foreign.has_loss()) {
    throw ValueError(fmt::format(
        "hemostat.collect: gradients take windows of at least 2 tokens, one to predict, but these have {}", length));
  }
  for (const NamedLinear& named : linears(model, filter_)) {
    const Linear& linear = *named.linear;
    const bool added =
        gradients
            .emplace(named.name, std::make_shared<GradientStatistics>(linear.out_features(), linear.in_features(),
                                                                      model.device(), needs, budget))
            .second;
    if (!added) {
      throw ValueError(
          fmt::format("hemostat.collect: the model repeats the block of '{}', whose gradients are those of several "
                      "layers; collect them from the model before its blocks were repeated",
                      named.name));
    }
  }
  if (model.foreign) {
    return;
  }
  for (size_t block = model.blocks.size(); block-- > 0;) {
    Model single = model;
    single.blocks = {model.blocks[block]};
    single.head = Head{};
    if (!linears(single, filter_).empty()) {
      first_ = block;
    }
  }
  const int64_t blocks = static_cast<int64_t>(model.blocks.size());
  states_ = budget.zeros({blocks + 1, std::min(options.batch, windows), length, model.embedding.size(1)}, model.dtype(),
                         model.device());
}

void GradientCollector::add(const at::Tensor& windows, int64_t before, Observer* observer) {
  if (model_.foreign) {
    return whole_backward(windows, before, observer);
  }
  {
    const at::NoGradGuard no_grad;
    StateKeeper keeper(states_, observer);
    const at::Tensor last = run_blocks(model_, embed(model_, windows), 0, model_.blocks.size(), {.observer = &keeper});
    check_finite_values(model_, windows, last, kCollected, before);
  }
  const at::AutoGradMode with_grad(true);
  head_backward(windows);
  for (size_t block = model_.blocks.size(); block-- > first_;) {
    block_backward(block, windows.size(0));
  }
}

void GradientCollector::whole_backward(const at::Tensor& windows, int64_t before, Observer* observer) {
  {
    const at::NoGradGuard no_grad;
    check_finite_values(model_, windows, hidden_states(model_, windows, {.observer = observer}), kCollected, before);
  }
  const at::AutoGradMode with_grad(true);
  std::vector<Leaf> leaves;
  const Model with_leaves = map_linears(model_, filter_, [&](const std::string& name, const Linear& linear) {
    return with_leaf(linear, model_.dtype(), *gradients.at(name), leaves);
  });
  std::vector<at::Tensor> inputs;
  for (const Leaf& leaf : leaves) {
    inputs.push_back(leaf.weight);
  }
  for (int64_t window = 0; window < windows.size(0); ++window) {
    check_interrupt();
    const at::Tensor batch = windows.narrow(0, window, 1);
    const at::Tensor given = hidden_states(with_leaves, batch);
    const at::Tensor loss = model_.foreign.has_loss()
                                ? given.sum()
                                : at::cross_entropy_loss(given[0].narrow(0, 0, given.size(1) - 1).to(at::kFloat),
                                                         batch[0].narrow(0, 1, batch.size(1) - 1));
    if (loss.grad_fn()) {
      loss.backward({}, /*retain_graph=*/false, /*create_graph=*/false, inputs);
    }
    for (Leaf& leaf : leaves) {
      leaf.take();
    }
    trim_heap(given);
  }
}

at::Tensor GradientCollector::entering(size_t block, int64_t window) const {
  const at::Tensor state = states_.select(0, static_cast<int64_t>(block)).narrow(0, window, 1);
  return state.to(model_.device()).detach().requires_grad_(true);
}

at::Tensor GradientCollector::outgoing(int64_t window) const { return states_.select(0, -1).narrow(0, window, 1); }

void GradientCollector::head_backward(const at::Tensor& windows) {
  Model model = model_;
  std::vector<Leaf> leaves;
  const auto found = gradients.find(model.config.names.head);
  if (found != gradients.end()) {
    model.head.linear = with_leaf(model.head.linear, model.dtype(), *found->second, leaves);
  }
  const int64_t targets = windows.size(1) - 1;
  const int64_t step = tokens_per_chunk(model, model, targets, targets);
  for (int64_t window = 0; window < windows.size(0); ++window) {
    const at::Tensor x = entering(model.blocks.size(), window);
    for (int64_t start = 0; start < targets; start += step) {
      check_interrupt();
      const int64_t count = std::min(step, targets - start);
      const at::Tensor predicted = logits(model, apply_norm(model.final_norm, x.narrow(1, start, count)));
      const at::Tensor loss =
          at::cross_entropy_loss(predicted.squeeze(0).to(at::kFloat), windows[window].narrow(0, start + 1, count), {},
                                 at::Reduction::Sum) /
          static_cast<double>(targets);
      backward(loss, {}, x, leaves);
    }
    for (Leaf& leaf : leaves) {
      leaf.take();
    }
    outgoing(window).copy_(x.grad());
  }
}

void GradientCollector::block_backward(size_t block, int64_t count) {
  Model single = model_;
  single.blocks = {model_.blocks[block]};
  single.head = Head{};
  std::vector<Leaf> leaves;
  single = map_linears(single, filter_, [&](const std::string& name, const Linear& linear) {
    return with_leaf(linear, model_.dtype(), *gradients.at(name), leaves);
  });
  for (int64_t window = 0; window < count; ++window) {
    const at::Tensor x = entering(block, window);
    const at::Tensor y = run_blocks(single, x, 0, 1);
    if (y.grad_fn()) {  // a block may be skipped altogether
      backward(y, outgoing(window).to(y.device()), x, leaves);
      outgoing(window).copy_(x.grad());
    }
    for (Leaf& leaf : leaves) {
      leaf.take();
    }
    trim_heap(y);
  }
}

}  // namespace hemostat
