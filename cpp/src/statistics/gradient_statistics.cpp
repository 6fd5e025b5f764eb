#include <algorithm>
#include <iterator>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/statistics.h>

#include "common/arguments.h"

namespace hemostat {

GradientStatistics::GradientStatistics(int64_t out_features, int64_t in_features, c10::Device device,
                                       const std::set<Need>& needs, MemoryBudget& budget)
    : out_features_(out_features), in_features_(in_features) {
  if (out_features < 1 || in_features < 1) {
    throw ValueError(fmt::format("hemostat.GradientStatistics: the weight is [{}, {}], but takes at least [1, 1]",
                                 out_features, in_features));
  }
  const std::set<Need> known = gradient_needs();
  std::set_intersection(needs.begin(), needs.end(), known.begin(), known.end(), std::inserter(needs_, needs_.end()));
  const auto matrix = [&](Need need) {
    return has(need) ? budget.zeros({out_features, in_features}, at::kFloat, device) : at::Tensor();
  };
  sum_ = matrix(Need::gradient_mean);
  abs_sum_ = matrix(Need::gradient_absmean);
  sum_squares_ = matrix(Need::gradient_square);
  if (has(Need::row_fisher)) {
    row_squares_ = at::zeros({out_features}, at::TensorOptions().dtype(at::kDouble).device(device));
  }
}

void GradientStatistics::add_rows(const at::Tensor& gradient) {
  const bool collects = has(Need::row_fisher) || has(Need::token_fisher);
  if (!collects || gradient.size(-1) != out_features_) {
    throw ValueError(fmt::format("hemostat.GradientStatistics.add_rows: gradient has {} features, but {}",
                                 gradient.size(-1),
                                 collects ? fmt::format("the linear gives {}", out_features_)
                                          : std::string("neither row_fisher nor token_fisher is collected")));
  }
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  const at::Tensor squares = gradient.detach().reshape({-1, out_features_}).to(at::kFloat).square();
  if (row_squares_.defined()) {
    row_squares_.add_(squares.sum(0));
  }
  if (has(Need::token_fisher)) {
    token_squares_.push_back(squares.mean(1));
  }
}

void GradientStatistics::end_rows(int64_t tokens) {
  tokens_ += tokens;
  if (!sum_.defined() && !abs_sum_.defined() && !sum_squares_.defined()) {  // no gradient of a weight counts them
    ++count_;
  }
}

void GradientStatistics::add(const at::Tensor& gradient) {
  if (gradient.defined() && gradient.sizes() != at::IntArrayRef({out_features_, in_features_})) {
    throw ValueError(fmt::format("hemostat.GradientStatistics.add: gradient has shape [{}], but the weight is [{}, {}]",
                                 fmt::join(gradient.sizes(), ", "), out_features_, in_features_));
  }
  if (gradient.defined() && !at::isFloatingType(gradient.scalar_type())) {
    throw TypeError(fmt::format("hemostat.GradientStatistics.add: gradient is {}, but takes a floating dtype",
                                c10::toString(gradient.scalar_type())));
  }
  ++count_;
  if (!gradient.defined()) {
    return;
  }
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  const at::Tensor here = gradient.detach().to(at::kFloat);
  if (sum_.defined()) {  // maybe mapped to a file, while the gradient is on an accelerator
    sum_.add_(here.to(sum_.device()));
  }
  if (sum_squares_.defined()) {
    const at::Tensor there = here.to(sum_squares_.device());
    sum_squares_.addcmul_(there, there);
  }
  if (abs_sum_.defined()) {
    abs_sum_.add_(here.abs().to(abs_sum_.device()));
  }
}

bool GradientStatistics::mergeable(const GradientStatistics& other) const {
  return other.out_features_ == out_features_ && other.in_features_ == in_features_ && other.needs_ == needs_;
}

void GradientStatistics::merge(const GradientStatistics& other) {
  if (!mergeable(other)) {
    throw ValueError(fmt::format(
        "hemostat.GradientStatistics.merge: other is of a weight [{}, {}] with {} statistics, not of [{}, {}] with the "
        "same {}",
        other.out_features_, other.in_features_, other.needs_.size(), out_features_, in_features_, needs_.size()));
  }
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  const auto add = [](at::Tensor& sum, const at::Tensor& term) {
    if (sum.defined()) {
      sum.add_(term.to(sum.device()));
    }
  };
  add(sum_, other.sum_);
  add(abs_sum_, other.abs_sum_);
  add(sum_squares_, other.sum_squares_);
  add(row_squares_, other.row_squares_);
  token_squares_.insert(token_squares_.end(), other.token_squares_.begin(), other.token_squares_.end());
  tokens_ += other.tokens_;
  count_ += other.count_;
}

bool GradientStatistics::finite(Need need) const {
  if (!has(need)) {
    throw ValueError(fmt::format("hemostat.GradientStatistics: {} was not collected", name(need)));
  }
  if (need == Need::token_fisher) {
    return std::all_of(token_squares_.begin(), token_squares_.end(), arguments::all_finite);
  }
  return arguments::all_finite(need == Need::gradient_mean      ? sum_
                               : need == Need::gradient_absmean ? abs_sum_
                               : need == Need::row_fisher       ? row_squares_
                                                                : sum_squares_);
}

at::Tensor GradientStatistics::mean_of(const at::Tensor& sum, Need need) const {
  if (!has(need)) {
    throw ValueError(fmt::format("hemostat.GradientStatistics: {} was not collected", name(need)));
  }
  return sum / static_cast<double>(std::max<int64_t>(count_, 1));
}

at::Tensor GradientStatistics::mean() const { return mean_of(sum_, Need::gradient_mean); }

at::Tensor GradientStatistics::absmean() const { return mean_of(abs_sum_, Need::gradient_absmean); }

at::Tensor GradientStatistics::row_fisher() const {
  if (!has(Need::row_fisher)) {
    throw ValueError("hemostat.GradientStatistics: row_fisher was not collected");
  }
  return row_squares_.div(static_cast<double>(std::max<int64_t>(tokens_, 1))).to(at::kFloat);
}

at::Tensor GradientStatistics::token_fisher() const {
  if (!has(Need::token_fisher)) {
    throw ValueError("hemostat.GradientStatistics: token_fisher was not collected");
  }
  const auto other_length = [&](const at::Tensor& tokens) { return tokens.size(0) != token_squares_.front().size(0); };
  if (static_cast<int64_t>(token_squares_.size()) != count_ ||
      std::any_of(token_squares_.begin(), token_squares_.end(), other_length)) {
    throw ValueError(
        "hemostat.GradientStatistics: token_fisher is of windows of which the linear is given every token");
  }
  return token_squares_.empty() ? at::Tensor() : at::stack(token_squares_);
}

at::Tensor GradientStatistics::square() const { return mean_of(sum_squares_, Need::gradient_square); }

}  // namespace hemostat
