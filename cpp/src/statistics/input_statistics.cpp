#include <algorithm>
#include <string>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/statistics.h>

#include "common/arguments.h"
#include "statistics/products.h"

namespace hemostat {
InputStatistics::InputStatistics(int64_t in_features, c10::Device device, const std::set<Need>& needs,
                                 MemoryBudget& budget)
    : in_features_(in_features), device_(device), needs_(needs) {
  if (in_features < 1) {
    throw ValueError(fmt::format("hemostat.InputStatistics: in_features is {}, but takes at least 1", in_features));
  }
  for (const Need need : needs) {
    if (every_need().count(need) == 0) {
      throw ValueError(fmt::format("hemostat.InputStatistics: {} is {}, not of an input", name(need),
                                   need == Need::tokens ? "the text" : "of gradients"));
    }
  }
  const c10::InferenceMode off(false);
  const auto vector = [&](Need need, at::ScalarType dtype) {
    return has(need) ? at::zeros({in_features}, at::TensorOptions().dtype(dtype).device(device)) : at::Tensor();
  };
  sum_squares_ = vector(Need::column_norm, at::kDouble);
  abs_sum_ = vector(Need::absmean, at::kDouble);
  sum_ = vector(Need::mean, at::kDouble);
  absmax_ = vector(Need::absmax, at::kFloat);
  if (has(Need::gram)) {
    gram_ = budget.zeros({in_features, in_features}, at::kFloat, device);
  }
}

void InputStatistics::add(const at::Tensor& x) {
  if (!x.defined() || x.dim() < 1 || x.size(-1) != in_features_) {
    throw ValueError(fmt::format("hemostat.InputStatistics.add: x has {} features, but takes {}",
                                 x.defined() && x.dim() > 0 ? x.size(-1) : 0, in_features_));
  }
  if (!at::isFloatingType(x.scalar_type())) {
    throw TypeError(fmt::format("hemostat.InputStatistics.add: x is {}, but takes a floating dtype",
                                c10::toString(x.scalar_type())));
  }
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  at::Tensor rows = x.detach().reshape({-1, in_features_});
  const int64_t tokens = rows.size(0);
  if (tokens == 0) {
    return;
  }
  if (rows.scalar_type() != at::kBFloat16 && rows.scalar_type() != at::kHalf) {
    rows = rows.to(at::kFloat);
  }

  if (sum_.defined()) {
    sum_.add_(rows.sum(0, /*keepdim=*/false, at::kFloat));
  }
  if (sum_squares_.defined() || abs_sum_.defined() || absmax_.defined()) {
    const kernels::ColumnMoments moments = kernels::column_moments(rows);
    if (sum_squares_.defined()) {
      sum_squares_.add_(moments.squares);
    }
    if (abs_sum_.defined()) {
      abs_sum_.add_(moments.magnitudes);
    }
    if (absmax_.defined()) {
      at::maximum_out(absmax_, absmax_, moments.largest);
    }
  }

  if (gram_.defined()) {
    add_gram(gram_, rows);
  }
  count_ += tokens;
}

bool InputStatistics::mergeable(const InputStatistics& other) const {
  return other.in_features_ == in_features_ && other.needs_ == needs_;
}

void InputStatistics::merge(const InputStatistics& other) {
  if (!mergeable(other)) {
    throw ValueError(fmt::format(
        "hemostat.InputStatistics.merge: other has {} features and {} statistics, which are not the same {} and {}",
        other.in_features_, other.needs_.size(), in_features_, needs_.size()));
  }
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  const auto add = [](at::Tensor& sum, const at::Tensor& term) {
    if (sum.defined()) {
      sum.add_(term.to(sum.device()));
    }
  };
  add(sum_squares_, other.sum_squares_);
  add(abs_sum_, other.abs_sum_);
  add(sum_, other.sum_);
  add(gram_, other.gram_);
  if (absmax_.defined()) {
    at::maximum_out(absmax_, absmax_, other.absmax_.to(absmax_.device()));
  }
  count_ += other.count_;
}

void InputStatistics::require(Need need) const {
  if (!has(need)) {
    throw ValueError(fmt::format("hemostat.InputStatistics: {} was not collected", hemostat::name(need)));
  }
}

bool InputStatistics::finite(Need need) const {
  require(need);
  switch (need) {
    case Need::column_norm:
      return arguments::all_finite(sum_squares_);
    case Need::absmax:
      return arguments::all_finite(absmax_);
    case Need::absmean:
      return arguments::all_finite(abs_sum_);
    case Need::gram:
      return arguments::all_finite(gram_);
    default:
      return arguments::all_finite(sum_);
  }
}

InputStatistics InputStatistics::alike() const {
  InputStatistics result = *this;
  result.alike_ = true;
  return result;
}

double InputStatistics::tokens() const { return static_cast<double>(std::max<int64_t>(count_, 1)); }

at::Tensor InputStatistics::all_equal(double value) const {
  return at::full({in_features_}, value, at::TensorOptions().dtype(at::kFloat).device(device_));
}

at::Tensor InputStatistics::norm() const {
  require(Need::column_norm);
  return alike_ ? all_equal(1) : (sum_squares_ / tokens()).sqrt_().to(at::kFloat);
}

at::Tensor InputStatistics::absmax() const {
  require(Need::absmax);
  return alike_ ? all_equal(1) : absmax_.clone();
}

at::Tensor InputStatistics::absmean() const {
  require(Need::absmean);
  return alike_ ? all_equal(1) : (abs_sum_ / tokens()).to(at::kFloat);
}

at::Tensor InputStatistics::mean() const {
  require(Need::mean);
  return (sum_ / tokens()).to(at::kFloat);
}

at::Tensor InputStatistics::gram() const {
  require(Need::gram);
  if (alike_) {
    return at::eye(in_features_, gram_.options());
  }
  constexpr int64_t kMirrored = 256;  // rows at a time
  at::Tensor result = gram_ / tokens();
  for (int64_t start = 0; start < in_features_; start += kMirrored) {
    const int64_t end = std::min(start + kMirrored, in_features_);
    const at::Tensor rows = result.narrow(0, start, end - start);
    at::Tensor diagonal = rows.narrow(1, start, end - start);
    diagonal.copy_(diagonal.tril() + diagonal.tril(-1).t());  // a GEMM need not be symmetric to the last bit
    result.narrow(0, 0, start).narrow(1, start, end - start).copy_(rows.narrow(1, 0, start).t());
  }
  return result;
}

}  // namespace hemostat
