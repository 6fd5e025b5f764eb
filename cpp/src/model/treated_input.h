// A linear layer in its two steps, so that layers that treat one input alike treat it once.
#pragma once

#include <hemostat/model.h>

namespace hemostat {

bool same_treatment(const LinearInput& x, const LinearInput& y);
at::Tensor treated_input(const LinearInput& input, at::Tensor x, const at::Tensor& positions);
at::Tensor multiply(const Linear& linear, const at::Tensor& x);

}  // namespace hemostat
