// NaN and Inf in a model's tensors, and where they arise in a forward pass.
#pragma once

#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

struct Extent {
  int64_t nan = 0, infinite = 0;
  double largest = 0;  // magnitude, of the finite entries

  bool finite() const { return nan + infinite == 0; }
};
Extent extent_of(const at::Tensor& values);

// The largest finite number of a floating dtype.
double largest_of(at::ScalarType dtype);

// NumericalError with the first place where they arise, unless all of `values` [windows · n, …], which `model` gave of
// tokens [windows, length], are finite. The message begins with `subject`; its windows are counted from `first`.
void check_finite_values(const Model& model, const at::Tensor& tokens, const at::Tensor& values,
                         std::string_view subject, int64_t first = 0);

}  // namespace hemostat
