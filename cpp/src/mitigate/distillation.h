// Training what a pruned model keeps towards the unchanged model's distribution.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat::mitigate {

struct DistillationOptions {
  LinearFilter filter = {};     // the linears that are trained
  double learning_rate = 2e-4;  // the largest: a tenth of the steps rises to it, then half a cosine falls to 0
  int64_t batch = 2;            // windows a step
  int64_t seed = 0;             // of their order
  double memory_budget = 1024.0 * 1024 * 1024;                          // bytes, of the optimizer's moments
  std::function<void(int64_t done, int64_t total)> progress = nullptr;  // steps; may throw Interrupted
};

// One pass over tokens int64 [windows, length]: Adam (β₁ .9, β₂ .95) on the mean over tokens of KL(teacher ‖ student)
// of the next token. Weights that are 0 stay 0. The backward pass goes block by block, each block's weights being
// changed as soon as their gradient is known: one block's graph and gradients are held at a time. Weights are summed in
// float32, whatever the model's dtype. NumericalError where a loss is not finite.
Model distilled(const Model& teacher, const Model& student, const at::Tensor& tokens,
                const DistillationOptions& options);

}  // namespace hemostat::mitigate
