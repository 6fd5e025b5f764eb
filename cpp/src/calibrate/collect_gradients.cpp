#include "calibrate/collect_gradients.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "common/token_hash.h"
#include "model/finite.h"
#include "model/head_chunks.h"
#include "model/heap_trimmer.h"
#include "model/linears.h"

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
    forget();
  }

  void forget() { weight.mutable_grad() = at::Tensor(); }
};

// The layer with its weight, multiplied out and dequantized, as a leaf.
Linear with_leaf(const Linear& linear, at::ScalarType dtype, GradientStatistics& statistics,
                 std::vector<Leaf>& leaves) {
  const at::Tensor weight = linear.dense().detach().to(dtype);
  leaves.push_back({&statistics, weight.requires_grad_(true)});
  return linear.with_weight(weight);
}

// Adds the squared gradients of what chosen linears give, as a backward pass comes by.
class RowTap : public HeapTrimmer {
 public:
  RowTap(const std::map<std::string, std::shared_ptr<GradientStatistics>>& gradients, bool taps,
         Observer* inner = nullptr)
      : gradients_(gradients), taps_(taps), inner_(inner) {}

  void linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) override {
    if (inner_ != nullptr) {
      const at::NoGradGuard no_grad;
      inner_->linear_input(block, names, x.detach());
    }
  }

  void linear_output(size_t, const std::string& name, const at::Tensor& y) override { tapped(name, y); }

  // What the head gives, before its family's scale and cap.
  const at::Tensor& of_head(const at::Tensor& y, const Model& model) {
    if (taps_ && (model.head.scale != 1 || model.head.softcap > 0 || model.head.map.scale != 1 ||
                  model.head.map.bias.defined() || model.head.map.a.defined())) {
      throw ValueError("hemostat.collect: row_fisher of a head whose logits are scaled, capped or mapped is not known");
    }
    tapped(model.config.names.head, y);
    return y;
  }

 private:
  void tapped(const std::string& name, const at::Tensor& y) {
    const auto found = gradients_.find(name);
    if (taps_ && found != gradients_.end() && y.requires_grad()) {
      y.register_hook([statistics = found->second](const at::Tensor& gradient) { statistics->add_rows(gradient); });
    }
  }

  const std::map<std::string, std::shared_ptr<GradientStatistics>>& gradients_;
  bool taps_;
  Observer* inner_;
};

// About what autograd keeps of one sequence in a block whose weights take no gradient: what enters its linears and what
// leaves them, and scores where attention is not fused.
double graph_bytes(const Model& model, size_t block, int64_t length) {
  int64_t features = 0;
  const Model alone = block_alone(model, block);
  for (const NamedLinear& named : linears(alone, {.include = {"*"}, .exclude = {}})) {
    features += named.linear->in_features() + named.linear->out_features();
  }
  const Attention& attention = model.blocks[block].attention;
  const bool fused = attention.softcap <= 0 && !attention.sink_logits.defined();
  const double scores = fused ? 0 : 4.0 * static_cast<double>(attention.heads * length);
  return static_cast<double>(length) * (static_cast<double>(features) + scores) *
         static_cast<double>(model.embedding.element_size());
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
    : model_(model),
      filter_(options.filter),
      first_(model.blocks.size()),
      labels_(options.labels),
      seed_(options.seed) {
  const size_t of_rows = needs.count(Need::row_fisher) + needs.count(Need::token_fisher);
  const bool rows = of_rows > 0;
  if (needs.size() > of_rows) {
    passes_.push_back(Of::weights);
  }
  if (rows) {
    passes_.push_back(Of::rows);
  }
  if (length < 2 && !model.foreign.has_loss()) {
    throw ValueError(fmt::format(
        "hemostat.collect: gradients take windows of at least 2 tokens, one to predict, but these have {}", length));
  }
  if (rows && model.foreign.has_loss()) {
    throw ValueError(
        "hemostat.collect: row_fisher is of tokens that a language model predicts, not of a module's loss");
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
    const Model alone = block_alone(model, block);
    if (!linears(alone, filter_).empty()) {
      first_ = block;
    }
  }
  graphed_ = model.blocks.size();
  while (rows && graphed_ > first_ && budget.take(graph_bytes(model, graphed_ - 1, length))) {
    --graphed_;
  }
  const int64_t kept = static_cast<int64_t>(only_rows() ? graphed_ : model.blocks.size()) + 1;
  const int64_t batch = std::min(options.batch, windows), width = model.embedding.size(1);
  states_ = budget.zeros({kept, batch, length, width}, model.dtype(), model.device());
  outgoing_ = at::zeros({batch, length, width}, model.embedding.options().requires_grad(false));
}

void GradientCollector::add(const at::Tensor& windows, int64_t before, Observer* observer) {
  {
    const at::NoGradGuard no_grad;
    at::Tensor last;
    if (model_.foreign) {
      last = hidden_states(model_, windows, {.observer = observer});
    } else {
      StateKeeper keeper(states_, observer);
      last = run_blocks(model_, embed(model_, windows), 0, static_cast<size_t>(states_.size(0)) - 1,
                        {.observer = &keeper});
    }
    if (model_.foreign || !only_rows()) {
      check_finite_values(model_, windows, last, kCollected, before);
    }
  }
  const at::AutoGradMode with_grad(true);
  for (const Of of : passes_) {
    if (model_.foreign) {
      whole_backward(of, windows, before);
    } else if (of == Of::rows) {
      last_blocks_backward(windows, before, only_rows() ? observer : nullptr);
    } else {
      for (int64_t window = 0; window < windows.size(0); ++window) {
        const at::Tensor x = entering(model_.blocks.size(), window);
        head_backward(of, windows[window], before + window, x);
        outgoing(window).copy_(x.grad());
      }
    }
    for (size_t block = of == Of::rows ? graphed_ : model_.blocks.size(); block-- > first_ && !model_.foreign;) {
      block_backward(of, block, windows.size(0));
    }
    if (of == Of::rows) {
      for (const auto& [name, statistics] : gradients) {
        for (int64_t window = 0; window < windows.size(0); ++window) {
          statistics->end_rows(windows.size(1) - (draws(of) ? 0 : 1));
        }
      }
    }
  }
}

at::Tensor GradientCollector::entering(size_t block, int64_t window) const {
  const at::Tensor state = states_.select(0, static_cast<int64_t>(block)).narrow(0, window, 1);
  return state.to(model_.device()).detach().requires_grad_(true);
}

at::Tensor GradientCollector::outgoing(int64_t window) const { return outgoing_.narrow(0, window, 1); }

at::Tensor GradientCollector::drawn(const at::Tensor& probabilities, int64_t window, int64_t start) const {
  const auto options = at::TensorOptions().dtype(at::kLong).device(probabilities.device());
  const at::Tensor positions = at::arange(start, start + probabilities.size(0), options);
  const at::Tensor u = unit_interval(hash(seed_, {at::full_like(positions, window), positions})).to(at::kFloat);
  const at::Tensor mass = probabilities.cumsum(-1);
  const at::Tensor at_least = (u.unsqueeze(-1) * mass.narrow(-1, mass.size(-1) - 1, 1)).contiguous();
  return at::searchsorted(mass, at_least, /*out_int32=*/false, /*right=*/true)
      .squeeze(-1)
      .clamp_max_(mass.size(-1) - 1);
}

at::Tensor GradientCollector::gradient_of_loss(Of of, const at::Tensor& logits, const at::Tensor& text, int64_t window,
                                               int64_t start) const {
  const at::NoGradGuard no_grad;
  at::Tensor probabilities = at::softmax(logits.detach(), -1);
  const at::Tensor labels = draws(of) ? drawn(probabilities, window, start) : text.to(logits.device());
  return probabilities.scatter_add_(-1, labels.unsqueeze(-1), at::full({labels.size(0), 1}, -1, logits.options()));
}

void GradientCollector::head_backward(Of of, const at::Tensor& window, int64_t position, const at::Tensor& x) {
  Model model = model_;
  std::vector<Leaf> leaves;
  const auto found = gradients.find(model.config.names.head);
  const bool head = found != gradients.end();
  if (head && of == Of::weights) {
    model.head.linear = with_leaf(model.head.linear, model.dtype(), *found->second, leaves);
  }
  const int64_t targets = window.size(0) - (draws(of) ? 0 : 1);
  const int64_t step = tokens_per_chunk(model, model, targets, targets);
  for (int64_t start = 0; start < targets; start += step) {
    check_interrupt();
    const int64_t count = std::min(step, targets - start);
    RowTap tap(gradients, head && of == Of::rows);
    const at::Tensor predicted =
        tap.of_head(logits(model, apply_norm(model.final_norm, x.narrow(1, start, count))), model)
            .squeeze(0)
            .to(at::kFloat);
    const at::Tensor text = draws(of) ? at::Tensor() : window.narrow(0, start + 1, count);
    const at::Tensor gradient = gradient_of_loss(of, predicted, text, position, start);
    backward(predicted, of == Of::rows ? gradient : gradient.div_(static_cast<double>(targets)), x, leaves);
  }
  for (Leaf& leaf : leaves) {
    leaf.take();
  }
}

void GradientCollector::last_blocks_backward(const at::Tensor& windows, int64_t before, Observer* observer) {
  RowTap tap(gradients, true, observer);
  for (int64_t window = 0; window < windows.size(0); ++window) {
    const at::Tensor x = entering(graphed_, window);
    const at::Tensor y = run_blocks(model_, x, graphed_, model_.blocks.size(), {.observer = &tap});
    const at::Tensor last = y.detach().requires_grad_(true);
    if (only_rows()) {
      const at::NoGradGuard no_grad;
      check_finite_values(model_, windows.narrow(0, window, 1), last.detach(), kCollected, before + window);
    }
    head_backward(Of::rows, windows[window], before + window, last);
    if (y.grad_fn()) {  // blocks may be skipped altogether
      backward(y, last.grad(), x, {});
      outgoing(window).copy_(x.grad());
    } else {
      outgoing(window).copy_(last.grad());
    }
    trim_heap(y);
  }
}

void GradientCollector::block_backward(Of of, size_t block, int64_t count) {
  Model single = block_alone(model_, block);
  std::vector<Leaf> leaves;
  if (of == Of::weights) {
    single = map_linears(single, filter_, [&](const std::string& name, const Linear& linear) {
      return with_leaf(linear, model_.dtype(), *gradients.at(name), leaves);
    });
  }
  RowTap tap(gradients, of == Of::rows);
  for (int64_t window = 0; window < count; ++window) {
    const at::Tensor x = entering(block, window);
    const at::Tensor y = run_blocks(single, x, 0, 1, {.observer = of == Of::rows ? &tap : nullptr});
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

void GradientCollector::whole_backward(Of of, const at::Tensor& windows, int64_t before) {
  std::vector<Leaf> leaves;  // of rows too, so that there is a graph of all linears
  const Model with_leaves = map_linears(model_, filter_, [&](const std::string& name, const Linear& linear) {
    return with_leaf(linear, model_.dtype(), *gradients.at(name), leaves);
  });
  std::vector<at::Tensor> inputs;
  for (const Leaf& leaf : leaves) {
    inputs.push_back(leaf.weight);
  }
  RowTap tap(gradients, of == Of::rows);
  for (int64_t window = 0; window < windows.size(0); ++window) {
    check_interrupt();
    const at::Tensor batch = windows.narrow(0, window, 1);
    const at::Tensor given = hidden_states(with_leaves, batch, {.observer = of == Of::rows ? &tap : nullptr});
    at::Tensor loss;
    if (model_.foreign.has_loss()) {
      loss = given.sum();
    } else {
      const int64_t targets = batch.size(1) - (draws(of) ? 0 : 1);
      const at::Tensor predicted = given[0].narrow(0, 0, targets).to(at::kFloat);
      const at::Tensor labels =
          draws(of) ? drawn(at::softmax(predicted.detach(), -1), before + window, 0) : batch[0].narrow(0, 1, targets);
      loss = at::cross_entropy_loss(predicted, labels, {}, of == Of::rows ? at::Reduction::Sum : at::Reduction::Mean);
    }
    if (loss.grad_fn()) {
      loss.backward({}, /*retain_graph=*/false, /*create_graph=*/false, inputs);
    }
    for (Leaf& leaf : leaves) {
      of == Of::weights ? leaf.take() : leaf.forget();
    }
    trim_heap(given);
  }
}

}  // namespace hemostat
