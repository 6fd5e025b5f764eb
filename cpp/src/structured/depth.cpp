#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/ablate.h>
#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/structured.h>

#include "common/arguments.h"
#include "model/foreign.h"
#include "model/head_chunks.h"

namespace hemostat::structured {
namespace {

constexpr int64_t kWindowsAtOnce = 8;  // windows at a time

at::Tensor checked_windows(const char* operation, const Model& model, const at::Tensor& tokens) {
  check_has_blocks(model, operation);
  arguments::check_dense(operation, "tokens", tokens);
  return checked_tokens(model, tokens, operation);
}

void check_count(const char* operation, int64_t count, int64_t most) {
  if (count < 0 || count > most) {
    throw ValueError(fmt::format("{}: count is {}, but this model can lose 0 … {} blocks", operation, count, most));
  }
}

template <typename Function>
void for_each_batch(const at::Tensor& windows, const Function& function) {
  for (int64_t first = 0; first < windows.size(0); first += kWindowsAtOnce) {
    check_interrupt();
    function(windows.narrow(0, first, std::min(kWindowsAtOnce, windows.size(0) - first)));
  }
}

// Of what leaves the last block: the summed negative log-likelihood of each window's tokens but the first.
double nll(const Model& model, ChunkedHead& head, const at::Tensor& x, const at::Tensor& windows) {
  const int64_t predicted = windows.size(1) - 1;
  const at::Tensor hidden = apply_norm(model.final_norm, x).narrow(1, 0, predicted).reshape({-1, x.size(2)});
  const at::Tensor targets = windows.narrow(1, 1, predicted).reshape({-1});
  const int64_t step = tokens_per_chunk(model, model, hidden.size(0), predicted);
  double sum = 0;
  for (int64_t first = 0; first < hidden.size(0); first += step) {
    const int64_t count = std::min(step, hidden.size(0) - first);
    sum += at::cross_entropy_loss(head(hidden.narrow(0, first, count)).to(at::kFloat), targets.narrow(0, first, count),
                                  {}, at::Reduction::Sum)
               .item<double>();
  }
  return sum;
}

}  // namespace

std::vector<double> block_influence(const Model& model, const at::Tensor& tokens) {
  const at::Tensor windows = checked_windows("hemostat.structured.block_influence", model, tokens);
  const c10::InferenceMode inference;
  std::vector<double> similarity(model.blocks.size());
  for_each_batch(windows, [&](const at::Tensor& batch) {
    at::Tensor x = embed(model, batch);
    for (size_t block = 0; block < model.blocks.size(); ++block) {
      const at::Tensor after = run_blocks(model, x, block, block + 1);
      similarity[block] +=
          at::cosine_similarity(x.to(at::kFloat), after.to(at::kFloat), -1).sum(at::kDouble).item<double>();
      x = after;
    }
  });
  for (double& entry : similarity) {
    entry = 1 - entry / static_cast<double>(windows.numel());
  }
  return similarity;
}

std::vector<int64_t> order_by_influence(const Model& model, const at::Tensor& tokens) {
  const std::vector<double> influence = block_influence(model, tokens);
  std::vector<int64_t> order(influence.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return influence[a] < influence[b]; });
  return order;
}

Model shortgpt(const Model& model, const at::Tensor& tokens, const ShortGptOptions& options) {
  constexpr const char* kOperation = "hemostat.structured.shortgpt";
  checked_windows(kOperation, model, tokens);
  check_count(kOperation, options.count, static_cast<int64_t>(model.blocks.size()) - 1);
  return ablate::drop_layers(model, {.count = options.count, .order = order_by_influence(model, tokens)});
}

struct GreedyOrder::State {
  Model model;
  at::Tensor windows;
  SlebOptions options;
  std::mutex mutex;
  std::vector<int64_t> order;

  void fell_one() {
    std::vector<int64_t> alive;
    for (int64_t block = 0; block < static_cast<int64_t>(model.blocks.size()); ++block) {
      if (std::find(order.begin(), order.end(), block) == order.end()) {
        alive.push_back(block);
      }
    }
    Model left = model;
    left.blocks.clear();
    for (const int64_t block : alive) {
      left.blocks.push_back(model.blocks[block]);
    }
    const size_t begin = options.spare_first, end = alive.size() - options.spare_last;
    std::vector<double> losses(alive.size());
    ChunkedHead head(left);
    for_each_batch(windows, [&](const at::Tensor& batch) {
      at::Tensor x = embed(left, batch);
      for (size_t block = 0; block < end; ++block) {
        if (block >= begin) {
          losses[block] += nll(left, head, run_blocks(left, x, block + 1, alive.size()), batch);
        }
        x = run_blocks(left, x, block, block + 1);
      }
    });
    const auto best =
        std::min_element(losses.begin() + static_cast<int64_t>(begin), losses.begin() + static_cast<int64_t>(end));
    order.push_back(alive[best - losses.begin()]);
  }
};

GreedyOrder::GreedyOrder(const Model& model, const at::Tensor& tokens, const SlebOptions& options)
    : state_(std::make_shared<State>()) {
  constexpr const char* kOperation = "hemostat.structured.sleb";
  check_options(kOperation, options);
  const at::Tensor windows = checked_windows(kOperation, model, tokens);
  if (windows.size(1) < 2) {
    throw ValueError(
        fmt::format("{}: windows have {} token, but one is predicted from another", kOperation, windows.size(1)));
  }
  state_->model = model;
  state_->windows = options.windows > 0 ? windows.narrow(0, 0, std::min(options.windows, windows.size(0))) : windows;
  state_->options = options;
}

int64_t GreedyOrder::most() const {
  const auto blocks = static_cast<int64_t>(state_->model.blocks.size());
  return std::max<int64_t>(0, std::min(blocks - 1, blocks - state_->options.spare_first - state_->options.spare_last));
}

std::vector<int64_t> GreedyOrder::first(int64_t count) {
  check_count("hemostat.structured.sleb", count, most());
  const std::lock_guard lock(state_->mutex);
  const c10::InferenceMode inference;
  while (static_cast<int64_t>(state_->order.size()) < count) {
    state_->fell_one();
  }
  return {state_->order.begin(), state_->order.begin() + count};
}

Model sleb(const Model& model, const at::Tensor& tokens, const SlebOptions& options) {
  return ablate::drop_layers(
      model, {.count = options.count, .order = GreedyOrder(model, tokens, options).first(options.count)});
}

}  // namespace hemostat::structured
