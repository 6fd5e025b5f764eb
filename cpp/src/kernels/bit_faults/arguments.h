// Arguments of `bit_faults`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"
#include "kernels/bit_faults/bit_faults.h"

namespace hemostat::kernels {

void check_bit_faults(const at::Tensor& values, double rate, const c10::SymInt& first_bit, const c10::SymInt& bits,
                      const c10::SymInt& fault);

// The draws of a rate and a seed, and the bits of a checked tensor that take them.
FaultRate fault_rate(double rate, int64_t seed);
FaultKind fault_kind(const at::Tensor& values, int64_t first_bit, int64_t bits, int64_t fault);

}  // namespace hemostat::kernels
