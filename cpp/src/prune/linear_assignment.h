// Linear sum assignment.
#pragma once

#include <cstdint>
#include <vector>

namespace hemostat::prune {

// value [n, n], row-major, finite → the column of each row, every column once, so that the sum of value[row][column] is
// the largest that can be. Shortest augmenting paths, at most of the order of n³ (Jonker and Volgenant 1987; Crouse
// 2016, "On implementing 2D rectangular assignment algorithms").
std::vector<int64_t> largest_assignment(const float* value, int64_t n);

}  // namespace hemostat::prune
