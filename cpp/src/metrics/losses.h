// Damage to a foreign module that has a loss in the place of predictions of tokens.
#pragma once

#include <functional>
#include <vector>

#include <hemostat/metrics.h>

namespace hemostat {

// Of each sample of `batches`, so many at a time. `judge`, where it is given, sees each batch and its losses.
std::vector<double> losses_of(
    const Model& model, const at::Tensor& samples, const CompareOptions& options,
    const std::function<void(const at::Tensor& batch, const at::Tensor& losses, int64_t first)>& judge = nullptr);

Damage summarize_losses(const std::vector<double>& baseline, const std::vector<double>& damaged,
                        const CompareOptions& options);

}  // namespace hemostat
