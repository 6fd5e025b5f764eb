#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/solve.h>

#include "arguments.h"
#include "gram.h"
#include "huge_pages.h"

namespace hemostat::solve {

namespace {

constexpr std::string_view kOperation = "hemostat.solve.GramFactor";
constexpr double kLeastDamp = 1e-6, kMostDamp = 1.0;

// Entries copied at a time, so that what lies between is still in cache.
constexpr int64_t kTogether = 256 * 1024;

// to = from with its rows and columns in reverse.
void copy_reversed(const at::Tensor& from, const at::Tensor& to) {
  const int64_t rows = from.size(0), step = std::max<int64_t>(1, kTogether / std::max<int64_t>(1, from.size(1)));
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    to.narrow(0, rows - row - count, count).copy_(from.narrow(0, row, count).flip({0, 1}));
  }
}

// Lᵀ with matrix = L·Lᵀ after damp · mean(diagonal) was added; undefined where that is not positive definite.
at::Tensor cholesky(const at::Tensor& matrix, const at::Tensor& diagonal, double damp) {
  matrix.diagonal().copy_(diagonal + diagonal.mean() * damp);
  auto [upper, info] = at::linalg_cholesky_ex(matrix, /*upper=*/true);
  const bool done = info.item<int>() == 0 && at::isfinite(upper.diagonal()).all().item<bool>();
  return done ? upper : at::Tensor();
}

}  // namespace

void check_gram(std::string_view operation, const at::Tensor& gram, const GramFactorOptions& options) {
  arguments::check_gram(operation, gram);
  if (gram.scalar_type() != at::kFloat) {
    throw TypeError(fmt::format("{}: gram is {}, but must be float32", operation, c10::toString(gram.scalar_type())));
  }
  if (!(options.damp >= 0) || !std::isfinite(options.damp)) {
    throw ValueError(fmt::format("{}: damp is {}, but must be 0 or more", operation, options.damp));
  }
  if (options.block_size < 1) {
    throw ValueError(fmt::format("{}: block_size is {}, but must be 1 or more", operation, options.block_size));
  }
}

GramFactor::GramFactor(const at::Tensor& gram, const GramFactorOptions& options) : block_size_(options.block_size) {
  check_gram(kOperation, gram, options);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "gram", gram.detach());
  }
  const at::NoGradGuard no_grad;
  const int64_t features = gram.size(0);
  if (features == 0) {
    matrix_ = gram.detach().clone();
    return;
  }
  at::Tensor diagonal = gram.detach().diagonal().clone();
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
  diagonal = diagonal.flip(0);

  // U upper with H = U·Uᵀ is, in reverse, the lower factor L of H in reverse. LAPACK's columns are our rows: Lᵀ as it
  // leaves it is L as we read it.
  matrix_ = empty_in_huge_pages(matrix.sizes(), matrix.options());
  copy_reversed(matrix, matrix_);
  at::Tensor lower;
  for (double damp = options.damp; !lower.defined(); damp = std::min(std::max(damp * 10, kLeastDamp), kMostDamp)) {
    damp_ = damp;
    const at::Tensor upper = cholesky(matrix_, diagonal, damp);
    if (upper.defined()) {
      lower = upper.t();
    } else if (damp >= kMostDamp) {
      throw NumericalError(
          fmt::format("{}: gram is not positive semidefinite: with {} of its mean diagonal entry added it still has no "
                      "Cholesky factorization",
                      kOperation, damp));
    }
  }

  for (int64_t begin = 0; begin < features; begin += block_size_) {
    const int64_t count = std::min(block_size_, features - begin), end = begin + count;
    const at::Tensor columns = lower.narrow(1, features - end, count);
    const at::Tensor block = columns.narrow(0, features - end, count);
    const at::Tensor inverse = at::linalg_solve_triangular(block, at::eye(count, block.options()), /*upper=*/false);
    const at::Tensor into = matrix_.narrow(1, begin, count);
    copy_reversed(inverse, into.narrow(0, begin, count));
    copy_reversed(at::mm(columns.narrow(0, features - begin, begin), inverse), into.narrow(0, 0, begin));
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
