#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/lowrank.h>

#include "common/arguments.h"
#include "truncation.h"

namespace hemostat::lowrank {

namespace {

constexpr double kAsvdFloor = 1e-6;  // of a scale, as the paper's code adds it

// The projection on the leading eigenvectors of weight · gram · weightᵀ, where times_gram(x) is x · gram in float64.
template <typename TimesGram>
Decomposition projected(std::string_view operation, const at::Tensor& weight, const TimesGram& times_gram) {
  const int64_t rank = checked_rank(operation, 0.0, weight.size(0), weight.size(1));
  if (rank == 0) {
    return of_nothing(weight);
  }
  at::Tensor q, core = weight.detach().to(at::kDouble);
  try {
    if (weight.size(0) > weight.size(1)) {
      std::tie(q, core) = at::linalg_qr(core);
    }
    const at::Tensor energy = at::matmul(times_gram(core), core.t());
    if (!at::isfinite(energy).all().item<bool>()) {  // LAPACK may loop on it, or return anything
      throw NumericalError(fmt::format("{}: the outputs' second moments are not finite", operation));
    }
    const at::Tensor vectors = std::get<1>(at::linalg_eigh(energy));  // from the least eigenvalue to the largest
    const at::Tensor u = vectors.narrow(1, vectors.size(1) - rank, rank).flip(1);
    const auto part = [](const at::Tensor& factor) { return factor.to(at::kFloat).contiguous(); };
    const at::Tensor vh = part(at::matmul(u.t(), core));
    arguments::check_result(operation, "weight", vh);
    return {.us = part(q.defined() ? at::matmul(q, u) : u), .vh = vh, .dtype = weight.scalar_type()};
  } catch (const c10::LinAlgError& error) {
    throw NumericalError(fmt::format("{}: {}", operation, error.what_without_backtrace()));
  }
}

Decomposition checked_asvd(std::string_view operation, const at::Tensor& weight, const at::Tensor& activation_absmean,
                           double alpha, bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  check_range(operation, "alpha", alpha, at_least(0));
  const at::Tensor absmean =
      arguments::checked_features(operation, "activation_absmean", activation_absmean, weight).to(at::kDouble);
  if (check_finite) {
    arguments::check_finite(operation, "weight", weight.detach());
    arguments::check_not_negative(operation, "activation_absmean", absmean);
  }
  const at::Tensor energy = absmean.pow(alpha).add_(kAsvdFloor).square_();
  return projected(operation, weight, [&](const at::Tensor& x) { return x * energy; });
}

Decomposition checked_svd_llm(std::string_view operation, const at::Tensor& weight, const at::Tensor& gram, double damp,
                              bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  arguments::check_floating(operation, "gram", gram);
  check_range(operation, "damp", damp, at_least(0));
  const int64_t features = weight.size(1);
  if (gram.dim() != 2 || gram.size(0) != features || gram.size(1) != features) {
    throw ValueError(fmt::format("{}: gram has shape {}, but must be [{}, {}] for weight's input features", operation,
                                 arguments::shape(gram.sizes()), features, features));
  }
  arguments::check_device(operation, "gram", gram, "weight", weight);
  if (check_finite) {
    arguments::check_finite(operation, "weight", weight.detach());
    arguments::check_gram_values(operation, gram.detach());
  }
  const auto times_gram = [&](const at::Tensor& x) {
    const at::Tensor moments = gram.detach().to(at::kDouble);
    const at::Tensor diagonal = moments.diagonal();
    const double rounding = std::numeric_limits<float>::epsilon() * diagonal.max().item<double>();
    const double growth = std::max(damp * diagonal.mean().item<double>(), rounding);
    return at::add(at::matmul(x, moments), x, growth == 0.0 ? 1.0 : growth);
  };
  return projected(operation, weight, times_gram);
}

}  // namespace

Factors asvd(const at::Tensor& weight, const at::Tensor& activation_absmean, const AsvdOptions& options) {
  constexpr std::string_view kOperation = "hemostat.lowrank.asvd";
  arguments::check_matrix(kOperation, "weight", weight);
  const int64_t rank = checked_rank(kOperation, options.removed, weight.size(0), weight.size(1));
  return leading(kOperation, checked_asvd(kOperation, weight, activation_absmean, options.alpha, options.check_finite),
                 rank);
}

Decomposition decompose_asvd(const at::Tensor& weight, const at::Tensor& activation_absmean, double alpha,
                             bool check_finite) {
  return checked_asvd("hemostat.lowrank.decompose_asvd", weight, activation_absmean, alpha, check_finite);
}

Factors svd_llm(const at::Tensor& weight, const at::Tensor& gram, const SvdLlmOptions& options) {
  constexpr std::string_view kOperation = "hemostat.lowrank.svd_llm";
  arguments::check_matrix(kOperation, "weight", weight);
  const int64_t rank = checked_rank(kOperation, options.removed, weight.size(0), weight.size(1));
  return leading(kOperation, checked_svd_llm(kOperation, weight, gram, options.damp, options.check_finite), rank);
}

Decomposition decompose_svd_llm(const at::Tensor& weight, const at::Tensor& gram, double damp, bool check_finite) {
  return checked_svd_llm("hemostat.lowrank.decompose_svd_llm", weight, gram, damp, check_finite);
}

}  // namespace hemostat::lowrank
