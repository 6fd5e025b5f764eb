#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/solve.h>

#include "common/arguments.h"
#include "gram.h"

namespace hemostat::solve {

namespace {

constexpr double kLeastDamp = 1e-6, kMostDamp = 1.0;

at::Tensor rows(const at::Tensor& matrix, int64_t begin, int64_t end, int64_t columns) {
  return matrix.narrow(0, begin, end - begin).narrow(1, 0, columns);
}

// U upper triangular with matrix = U·Uᵀ, of which the lower triangle counts; undefined where it is not positive
// definite.
at::Tensor upper_factor(const at::Tensor& matrix) {
  // In reverse, U is the lower factor of the matrix in reverse.
  const auto [lower, info] = at::linalg_cholesky_ex(matrix.flip({0, 1}).t());
  const bool done = info.item<int>() == 0 && at::isfinite(lower.diagonal()).all().item<bool>();
  return done ? lower.flip({0, 1}) : at::Tensor();
}

// Replaces a symmetric matrix, of which the lower triangle counts, by what GramFactor::matrix says. Blocks are factored
// from the last to the first: its columns above the diagonal are final then, and in its rows Uᵀ waits until all earlier
// rows of the panel have taken it up, and with its panel all before. False where it is not positive definite.
bool factor_in_place(const at::Tensor& matrix, int64_t block_size) {
  const int64_t features = matrix.size(0), panel = panel_size(block_size);
  const auto take_up = [&](int64_t begin, int64_t end, const at::Tensor& upper) {
    if (begin < end) {
      rows(matrix, begin, end, end).addmm_(upper.narrow(1, begin, end - begin).t(), upper.narrow(1, 0, end), 1, -1);
    }
  };
  for (int64_t begin = (features - 1) / block_size * block_size; begin >= 0; begin -= block_size) {
    const int64_t end = std::min(begin + block_size, features), panel_begin = begin / panel * panel;
    const at::Tensor block = matrix.narrow(0, begin, end - begin).narrow(1, begin, end - begin);
    const at::Tensor factor = upper_factor(block);
    if (!factor.defined()) {
      return false;
    }
    const at::Tensor inverse =
        at::linalg_solve_triangular(factor, at::eye(end - begin, block.options()), /*upper=*/true);
    const at::Tensor before = rows(matrix, begin, end, begin), upper = at::mm(inverse, before);
    at::Tensor above = matrix.narrow(0, 0, begin).narrow(1, begin, end - begin);
    at::mm_out(above, upper.t(), inverse);
    before.copy_(upper);
    block.copy_(inverse);
    take_up(panel_begin, begin, upper);
    if (begin == panel_begin) {
      const at::Tensor uppers = rows(matrix, begin, std::min(begin + panel, features), begin);
      for (int64_t earlier = 0; earlier < begin; earlier += panel) {
        take_up(earlier, earlier + panel, uppers);
      }
    }
  }
  return true;
}

}  // namespace

void check_gram(std::string_view operation, const at::Tensor& gram, const GramFactorOptions& options) {
  arguments::check_gram(operation, gram);
  if (gram.scalar_type() != at::kFloat) {
    throw TypeError(fmt::format("{}: gram is {}, but must be float32", operation, c10::toString(gram.scalar_type())));
  }
  check_options(operation, options);
}

GramFactor::GramFactor(const at::Tensor& gram, const GramFactorOptions& options, std::string_view operation)
    : block_size_(options.block_size) {
  check_gram(operation, gram, options);
  if (options.check_finite) {
    arguments::check_finite(operation, "gram", gram.detach());
  }
  const at::NoGradGuard no_grad;
  const int64_t features = gram.size(0);
  if (features == 0) {
    matrix_ = gram.detach().clone();
    return;
  }
  at::Tensor diagonal = gram.detach().diagonal().clone();
  if (options.check_finite && diagonal.lt(0).any().item<bool>()) {
    throw NumericalError(fmt::format("{}: gram is not positive semidefinite: its diagonal has {} negative entries",
                                     operation, diagonal.lt(0).sum().item<int64_t>()));
  }
  const at::Tensor never = diagonal == 0;
  if (never.any().item<bool>()) {
    dead_ = never;
    diagonal.masked_fill_(never, 1);
  }
  at::Tensor matrix = gram.detach();
  if (options.act_order) {
    order_ = diagonal.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
    diagonal = diagonal.index_select(0, order_);
    // The lower triangle is the one that counts, also where its rows and columns change places.
    matrix = (matrix.tril() + matrix.tril(-1).t()).index_select(0, order_).index_select(1, order_);
  }
  matrix_ = at::empty(matrix.sizes(), matrix.options());
  for (double damp = options.damp;; damp = std::min(std::max(damp * 10, kLeastDamp), kMostDamp)) {
    damp_ = damp;
    matrix_.copy_(matrix);
    matrix_.diagonal().copy_(diagonal + diagonal.mean(at::kDouble).mul_(damp).to(at::kFloat));
    if (!at::isfinite(matrix_.diagonal()).all().item<bool>()) {
      throw NumericalError(
          fmt::format("{}: gram is too large: its diagonal with damp = {} of its mean added would be beyond float32",
                      operation, damp));
    }
    if (factor_in_place(matrix_, block_size_)) {
      return;
    }
    if (damp >= kMostDamp) {
      throw NumericalError(
          fmt::format("{}: gram is not positive semidefinite: with {} of its mean diagonal entry added it still has no "
                      "Cholesky factorization",
                      operation, damp));
    }
  }
}

GramFactor GramFactor::to(c10::Device device) const {
  GramFactor result = *this;
  for (at::Tensor* tensor : {&result.matrix_, &result.order_, &result.dead_}) {
    if (tensor->defined()) {
      *tensor = tensor->to(device);
    }
  }
  return result;
}

GramFactor GramFactor::with_matrix(at::Tensor matrix) const {
  GramFactor result = *this;
  result.matrix_ = std::move(matrix);
  return result;
}

}  // namespace hemostat::solve
