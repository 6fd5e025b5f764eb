// What the options of group quantization mean for one matrix: checked once, in one place.
#pragma once

#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/quantize.h>

namespace hemostat::quantize {

// round(2^bits); ValueError outside 2 … 8.
int64_t checked_levels(std::string_view operation, double bits);

// Entries per group as kernels take it (0: the whole tensor). ValueError, with sizes that would do, where it does not
// divide in_features.
int64_t checked_group_size(std::string_view operation, int64_t group_size, int64_t in_features);

// ValueError where it is kPerTensor: for what takes groups of a row only.
void check_within_rows(std::string_view operation, int64_t group_size);

}  // namespace hemostat::quantize
