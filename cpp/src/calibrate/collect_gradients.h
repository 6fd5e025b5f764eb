// Gradients of the chosen linears' weights, one block's graph at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/calibrate.h>

namespace hemostat {

constexpr const char* kCollected = "hemostat.collect: the model";  // what may turn out not to be finite

// For each batch of windows: forward, keeping what enters each block; then from the head down, window by window, each
// block is computed again with a graph, through which the gradient of its output goes back to its input and its
// weights. Of rows the last blocks, as many as the budget has room for, keep their graph from the forward pass.
class GradientCollector {
 public:
  // windows: how many there will be in all, of `length` tokens. Takes from the budget what the sums hold, and what
  // enters the blocks.
  GradientCollector(const Model& model, const CollectOptions& options, const std::set<Need>& needs, int64_t windows,
                    int64_t length, MemoryBudget& budget);

  // windows int64 [count, length], of which `before` came before; the observer, or null, sees the inputs of linears,
  // once. NumericalError, before any gradient is taken, where the model is not finite.
  void add(const at::Tensor& windows, int64_t before, Observer* observer);

  std::map<std::string, std::shared_ptr<GradientStatistics>> gradients;

 private:
  // Of weights: each window's mean negative log-likelihood of the text. Of rows: its sum, of the labels.
  enum class Of { weights, rows };

  // Of a foreign module, one graph of all of it a window.
  void whole_backward(Of of, const at::Tensor& windows, int64_t before);
  // Of rows, through the last blocks, with one graph of them all; the observer, or null, sees their linears' inputs.
  void last_blocks_backward(const at::Tensor& windows, int64_t before, Observer* observer);
  // What leaves the last block, a leaf [1, length, H], gets the gradient of the loss of `window`, of which `position`
  // windows came before.
  void head_backward(Of of, const at::Tensor& window, int64_t position, const at::Tensor& x);
  // From the gradient of the block's output to that of its input, in its place.
  void block_backward(Of of, size_t block, int64_t count);
  // probabilities float32 [tokens, V], of which positions are those of a window from `start` on → int64 [tokens].
  at::Tensor drawn(const at::Tensor& probabilities, int64_t window, int64_t start) const;
  // Of Σ NLL with respect to logits float32 [tokens, V]; `text`: the window's labels.
  at::Tensor gradient_of_loss(Of of, const at::Tensor& logits, const at::Tensor& text, int64_t window,
                              int64_t start) const;
  bool only_rows() const { return passes_ == std::vector<Of>{Of::rows}; }
  bool draws(Of of) const { return of == Of::rows && labels_ == Labels::model; }
  at::Tensor entering(size_t block, int64_t window) const;  // a leaf [1, length, H]
  at::Tensor outgoing(int64_t window) const;                // [1, length, H]: the gradient that goes down

  const Model& model_;
  LinearFilter filter_;
  size_t first_ = 0;    // block that has a chosen linear; those below take no gradient
  size_t graphed_ = 0;  // block from which on a pass of rows has one graph
  Labels labels_;
  int64_t seed_;
  std::vector<Of> passes_;
  at::Tensor states_;    // [blocks + 1, windows of a batch, length, H]; of rows alone, up to what enters the graph
  at::Tensor outgoing_;  // [windows of a batch, length, H]
};

}  // namespace hemostat
