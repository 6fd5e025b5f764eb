// Room `calibrate`: passes over calibration tokens. `collect` gathers statistics of a model as it is;
// `calibrate_blockwise` changes the model on the way, so that each linear is calibrated on what reaches it in the
// changed model.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>
#include <hemostat/statistics.h>

namespace hemostat {

// Whose tokens the row Fisher asks the likelihood of: drawn from the model's own distribution (the Fisher information),
// or the text's (the empirical one).
enum class Labels { model, text };

struct CollectOptions {
  std::optional<std::set<Need>> needs = {};     // none: every one that takes no gradient, and the tokens
  Labels labels = Labels::model;                // of the row Fisher
  int64_t seed = 0;                             // of what is drawn
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes
  int64_t batch = 8;                            // windows at a time
  LinearFilter filter = {};
  std::function<void(int64_t done, int64_t total)> progress = nullptr;  // windows; may throw Interrupted
};

// One forward pass over tokens int64 [windows, length] on the model. Needs of gradients take a second one and a
// backward pass of each window's mean negative log-likelihood, block by block: no more than one block's graph and one
// window's gradients of its weights are held at a time, beside what enters the blocks in a batch and the sums
// themselves, both within the memory budget. The row Fisher takes such a backward pass of its own, of each window's
// summed negative log-likelihood and with no gradient of a weight. Gradients of factored and packed linears are those
// of the weight multiplied out. An expert's linear that no token reached has statistics of count 0, in whose place
// methods put InputStatistics::alike(). ValueError for gradients of windows of one token, or of a model that repeats
// blocks.
Statistics collect(const Model& model, const at::Tensor& tokens, const CollectOptions& options = {});

// A linear in its model, and what calibration knows of it: what a method on linears is a function of.
struct Site {
  std::string name;  // as checkpoints spell it
  Role role;
  int64_t input_id;             // sites with one share their input, and its statistics
  std::optional<size_t> block;  // its index in the model; none: the head
  size_t index;                 // of its name among those that are changed, from 0
  const Linear* linear;
  const InputStatistics* input = nullptr;        // null: nothing was collected
  const GradientStatistics* gradient = nullptr;  // null: nothing was collected
};

// Sites that share an input, in the model's order.
using SharedInput = std::vector<Site>;

// The chosen linears by their inputs, in the model's order, with what was collected of them; the pointers are into the
// model and the statistics.
std::vector<SharedInput> sites_of(const Model& model, const LinearFilter& filter,
                                  const Statistics* statistics = nullptr);

struct BlockwiseOptions {
  std::set<Need> needs = {};                    // of inputs
  const Statistics* gradients = nullptr;        // of the unchanged model, for methods that need them
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes, of activations and one block's statistics
  int64_t batch = 8;                            // windows at a time
  LinearFilter filter = {};
  double correct = 0;         // α, 0 … 1
  double correct_damp = 0.1;  // λ, more than 0
  // How much each token counts, by the name of the first of the linears that share an input: [windows, length], not
  // negative, mean 1. None: all alike. Experts' linears take none.
  std::map<std::string, at::Tensor> token_weights = {};
  // Forward passes (autocast) and sums of products multiply a float32 model's numbers in bfloat16, in half the time
  // where the processor has instructions for it. What is summed, residual streams and weights stay float32.
  bool bfloat16_products = false;
  std::function<void(int64_t done, int64_t total)> progress = nullptr;  // blocks; may throw Interrupted
};

// Block after block, and in a block stage after stage (q k v; o; gate up; down), collects the inputs of the chosen
// linears over tokens int64 [windows, length], has `change` give the linears in their place, and goes on with what
// those compute: as GPTQ's and SparseGPT's authors calibrate, but for their one stage a block. Each weight is
// multiplied once for each token; of experts three times, since a pass finds which tokens reach which.
//
// With correct = α the unchanged model runs beside it, and each linear that `change` sees is aimed at what the
// unchanged one gives: W + α·W·C·(H + λ·mean(diag H)·I)⁻¹, C = E[(x − x̂)x̂ᵀ], H = E[x̂x̂ᵀ], of the unchanged model's
// input x and the changed one's x̂ (the least-squares target at α = 1, λ = 0; Arai & Ichikawa 2025, "Quantization Error
// Propagation", arXiv 2504.09629). Experts' linears are left out: their tokens need not be the unchanged model's.
//
// The head, where the filter names it, comes last. ValueError for options out of range; NumericalError where what the
// changed model computes is not finite.
Model calibrate_blockwise(const Model& model, const at::Tensor& tokens, const BlockwiseOptions& options,
                          const std::function<std::vector<Linear>(const SharedInput& sites)>& change);

}  // namespace hemostat
