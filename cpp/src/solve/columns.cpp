#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/solve.h>

#include "common/arguments.h"
#include "common/integer_part.h"
#include "gram.h"

namespace hemostat::solve {

namespace {

// gram: the factor's matrix, or what it is to be made of.
void check(std::string_view operation, const at::Tensor& weight, const at::Tensor& gram, int64_t block_size,
           const SolveOptions& options) {
  arguments::check_matrix(operation, "weight", weight);
  const int64_t features = gram.size(0);
  if (weight.size(1) != features) {
    throw ValueError(
        fmt::format("{}: weight has {} input features, but gram has {}", operation, weight.size(1), features));
  }
  arguments::check_device(operation, "gram", gram, "weight", weight);
  if (options.pruning) {
    const auto& [sparsity, n, m] = *options.pruning;
    if (m == 0) {
      check_range(operation, "sparsity", sparsity, between(0, 1));
    }
    if (m < 0 || (m > 0 && (n < 0 || n > m))) {
      throw ValueError(fmt::format("{}: pattern is {}:{}, but must be n:m with 0 <= n <= m", operation, n, m));
    }
    if (m > 0 && features % m != 0) {
      throw ValueError(
          fmt::format("{}: pattern \"{}:{}\" needs rows of a multiple of {}, but weight has {} input "
                      "features",
                      operation, n, m, m, features));
    }
    if (m > 0 && block_size % m != 0) {
      throw ValueError(
          fmt::format("{}: pattern \"{}:{}\" needs blocks of a multiple of {} columns, but block_size is "
                      "{}",
                      operation, n, m, m, block_size));
    }
  }
  if (options.rounding) {
    const auto& [bits, group_size, symmetric, static_groups] = *options.rounding;
    check_range(operation, "bits", bits, between(2, 8));
    if (group_size != -1 && (group_size < 1 || features % group_size != 0)) {
      throw ValueError(fmt::format("{}: group_size is {}, which does not divide weight's {} input features", operation,
                                   group_size, features));
    }
  }
  if (options.check_finite) {
    arguments::check_finite(operation, "weight", weight.detach());
  }
}

// In which neighbours are grouped.
at::Tensor group_order(const GramFactor& factor, const SolveOptions& options) {
  return options.rounding && options.rounding->static_groups ? at::Tensor() : factor.order();
}

// One weight on its way through the columns, panel after panel. Everything but the weight that is given is in the
// factor's order.
class Solver {
 public:
  Solver(const at::Tensor& weight, const GramFactor& factor, const SolveOptions& options)
      : weight_(factor.order().defined() ? weight.index_select(1, factor.order()) : weight),
        factor_(factor),
        options_(options),
        features_(weight.size(1)),
        panel_(panel_size(factor.block_size())),
        solution_(weight_.clone()),
        error_(at::empty({weight.size(0), std::min(panel_, features_)}, weight.options())) {
    if (options.rounding) {
      levels_ = std::llround(std::exp2(options.rounding->bits));
      group_size_ = options.rounding->group_size == -1 ? features_ : options.rounding->group_size;
      scale_ = at::empty({weight.size(0), features_ / group_size_}, weight.options());
      zero_ = at::empty_like(scale_);
      ranges_taken_ = options.rounding->static_groups || group_size_ == features_;
      if (ranges_taken_) {
        take_range(0, weight);
      }
      if (options.rounding->static_groups && factor.order().defined()) {
        groups_ = factor.order().floor_divide(group_size_);
      }
    }
  }

  Solution solve() {
    for (begin_ = 0; begin_ < features_; begin_ += panel_) {
      const int64_t end = std::min(begin_ + panel_, features_);
      for (int64_t start = begin_; start < end; start += factor_.block_size()) {
        const int64_t stop = std::min(start + factor_.block_size(), end);
        at::Tensor block = columns(solution_, start, stop);
        take_up(start, start, stop, block);
        solve_block(start, stop, block);
      }
      at::Tensor later = columns(solution_, end, features_);
      take_up(end, end, features_, later);
    }
    const at::Tensor mask = options_.pruning ? at::cat(masks_, 1) : at::Tensor();
    return {.weight = solution_, .mask = mask, .scale = scale_, .zero = zero_, .order = group_order(factor_, options_)};
  }

 private:
  static at::Tensor columns(const at::Tensor& matrix, int64_t begin, int64_t end) {
    return matrix.narrow(1, begin, end - begin);
  }
  at::Tensor part(int64_t row, int64_t row_end, int64_t column, int64_t column_end) const {
    return columns(factor_.matrix().narrow(0, row, row_end - row), column, column_end);
  }

  // weights: of columns [first, last), which have taken up the errors of earlier panels; now they take up those of
  // the panel's columns before `start`.
  void take_up(int64_t start, int64_t first, int64_t last, at::Tensor& weights) const {
    if (start > begin_ && first < last) {
      weights.addmm_(columns(error_, 0, start - begin_), part(begin_, start, first, last));
    }
  }

  // current: the weights of columns [start, stop) when their turn comes; their solution takes the place.
  void solve_block(int64_t start, int64_t stop, at::Tensor& current) {
    kernels::ColumnArguments block{
        .current = current, .weight = columns(weight_, start, stop), .inverse = part(start, stop, start, stop)};
    if (options_.pruning) {
      at::Tensor mask = at::empty(current.sizes(), current.options().dtype(at::kBool));
      if (options_.pruning->m > 0) {
        block.n = options_.pruning->n;
        block.m = options_.pruning->m;
      } else {
        const int64_t removed = integer_part(options_.pruning->sparsity, static_cast<double>(current.numel()));
        kernels::mask_smallest(current, block.inverse.diagonal().reciprocal(), removed, kernels::Scope::tensor, true,
                               mask);
      }
      block.mask = mask;
      masks_.push_back(mask);
    }
    if (options_.rounding) {
      block.levels = levels_;
      take_ranges(start, stop, current);
      if (groups_.defined()) {  // a range for each column
        const at::Tensor groups = groups_.narrow(0, start, stop - start);
        block.scale = scale_.index_select(1, groups);
        block.zero = zero_.index_select(1, groups);
      } else {
        const int64_t group = start / group_size_;
        block.scale = columns(scale_, group, scale_.size(1));
        block.zero = columns(zero_, group, zero_.size(1));
        block.group_size = group_size_;
        block.first = start % group_size_;
      }
    }
    at::Tensor error = columns(error_, start - begin_, stop - begin_);
    kernels::solve_columns(block, current, error);
  }

  // Grids of the groups that begin in [start, stop), of the weights when `start` comes.
  void take_ranges(int64_t start, int64_t stop, const at::Tensor& current) {
    if (ranges_taken_) {
      return;
    }
    const int64_t first = (start + group_size_ - 1) / group_size_, end = (stop + group_size_ - 1) / group_size_;
    if (first == end) {
      return;
    }
    at::Tensor weights = current;
    if (end * group_size_ > stop) {
      weights = at::cat({current, after(start, stop, end * group_size_, current)}, 1);
    }
    take_range(first, columns(weights, first * group_size_ - start, end * group_size_ - start));
  }

  // Columns [stop, end) when `start` comes: those of the blocks before them must hand on what they took up of the
  // errors before `start`, as if they were kept as they are.
  at::Tensor after(int64_t start, int64_t stop, int64_t end, const at::Tensor& current) const {
    at::Tensor handed = columns(weight_, start, stop) - current;
    for (int64_t begin = stop; begin < end; begin += factor_.block_size()) {
      const int64_t next = std::min(begin + factor_.block_size(), features_);
      at::Tensor weights = columns(solution_, begin, next).clone();
      take_up(start, begin, next, weights);
      weights.addmm_(handed, part(start, begin, begin, next));
      handed = at::cat({handed, columns(weight_, begin, next) - weights}, 1);
    }
    return columns(weight_, stop, end) - columns(handed, stop - start, end - start);
  }

  void take_range(int64_t group, const at::Tensor& weights) {
    const auto quantized = kernels::quantize(weights, levels_, group_size_, options_.rounding->symmetric);
    const at::Tensor &scale = std::get<1>(quantized), &zero = std::get<2>(quantized);
    scale_.narrow(1, group, scale.size(1)).copy_(scale);
    zero_.narrow(1, group, zero.size(1)).copy_(zero);
  }

  at::Tensor weight_;
  const GramFactor& factor_;
  const SolveOptions& options_;
  int64_t features_, panel_;
  int64_t begin_ = 0;  // of the panel whose turn it is
  int64_t levels_ = 0, group_size_ = 1;
  bool ranges_taken_ = false;  // of all groups at first
  at::Tensor groups_;          // of each column, where those of a group are not neighbours
  at::Tensor solution_;        // before the panel solved, after it what all panels before left
  at::Tensor error_;           // of the panel's columns
  at::Tensor scale_, zero_;
  std::vector<at::Tensor> masks_;  // of one block after the other
};

}  // namespace

Solution columns(const at::Tensor& weight, const GramFactor& factor, const SolveOptions& options,
                 std::string_view operation) {
  check(operation, weight, factor.matrix(), factor.block_size(), options);
  const at::NoGradGuard no_grad;
  if (weight.numel() == 0) {
    const auto empty = [&](at::ScalarType dtype) { return at::zeros(weight.sizes(), weight.options().dtype(dtype)); };
    at::Tensor range;
    if (options.rounding) {
      const int64_t group_size = options.rounding->group_size;
      const int64_t groups = weight.size(1) == 0 ? 0 : group_size < 0 ? 1 : weight.size(1) / group_size;
      range = at::zeros({weight.size(0), groups}, weight.options().dtype(at::kFloat));
    }
    return {.weight = empty(at::kFloat),
            .mask = options.pruning ? empty(at::kBool) : at::Tensor(),
            .scale = range,
            .zero = range,
            .order = group_order(factor, options)};
  }
  at::Tensor matrix = weight.detach().to(at::kFloat);
  if (factor.dead().defined()) {
    matrix = matrix.masked_fill(factor.dead(), 0);
  }
  Solution solution = Solver(matrix.contiguous(), factor, options).solve();
  if (factor.order().defined()) {
    const at::Tensor back = factor.order().argsort();
    solution.weight = solution.weight.index_select(1, back);
    if (solution.mask.defined()) {
      solution.mask = solution.mask.index_select(1, back);
    }
  }
  if (options.check_finite) {
    arguments::check_result(operation, "weight", solution.weight.to(weight.scalar_type()));
  }
  return solution;
}

Solution columns(const at::Tensor& weight, const at::Tensor& gram, const GramFactorOptions& factor,
                 const SolveOptions& options, std::string_view operation) {
  check_gram(operation, gram, factor);
  check(operation, weight, gram, factor.block_size, options);
  return columns(weight, GramFactor(gram, factor, operation), options, operation);
}

}  // namespace hemostat::solve
