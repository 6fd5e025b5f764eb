#include "groups.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

namespace hemostat::quantize {

namespace {

constexpr const char* kKnownGroups = "a number of weights, -1 for whole rows or \"tensor\"";

// A few divisors of `number`, those nearest to `wanted`, in rising order.
std::vector<int64_t> nearest_divisors(int64_t number, int64_t wanted) {
  constexpr size_t kShown = 4;
  std::vector<int64_t> divisors;
  for (int64_t small = 1; small * small <= number; ++small) {
    if (number % small == 0) {
      divisors.push_back(small);
      if (small != number / small) {
        divisors.push_back(number / small);
      }
    }
  }
  std::sort(divisors.begin(), divisors.end(), [wanted](int64_t left, int64_t right) {
    const auto far = [wanted](int64_t divisor) { return std::abs(divisor - wanted); };
    return far(left) != far(right) ? far(left) < far(right) : left < right;
  });
  divisors.resize(std::min(divisors.size(), kShown));
  std::sort(divisors.begin(), divisors.end());
  return divisors;
}

}  // namespace

GroupSize GroupSize::from_text(std::string_view operation, std::string_view text) {
  if (text == "row" || text == "-1") {
    return kPerRow;
  }
  if (text == "tensor") {
    return kPerTensor;
  }
  int64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || size < 1) {
    throw ValueError(
        fmt::format("{}: group_size must be row, tensor or a positive integer, got '{}'", operation, text));
  }
  return size;
}

std::string GroupSize::text() const {
  return weights == kPerRow ? "row" : weights == kPerTensor ? "tensor" : std::to_string(weights);
}

int64_t checked_levels(std::string_view operation, double bits) {
  check_range(operation, "bits", bits, between(2, 8));
  return std::llround(std::exp2(bits));
}

int64_t levels(double bits) { return checked_levels("hemostat.quantize.levels", bits); }

int64_t checked_group_size(std::string_view operation, int64_t group_size, int64_t in_features) {
  if (group_size == kPerTensor) {
    return 0;
  }
  if (group_size == kPerRow) {
    return in_features;
  }
  if (group_size < 0) {
    throw ValueError(fmt::format("{}: group_size is {}, but must be {}", operation, group_size, kKnownGroups));
  }
  if (in_features % group_size != 0) {
    throw ValueError(fmt::format("{}: group_size is {}, which does not divide weight's {} input features; {} would",
                                 operation, group_size, in_features,
                                 fmt::join(nearest_divisors(in_features, group_size), ", ")));
  }
  return group_size;
}

void check_within_rows(std::string_view operation, int64_t group_size) {
  if (group_size == kPerTensor) {
    throw ValueError(
        fmt::format("{}: group_size is \"tensor\", but must be a number of weights, or -1 for whole rows", operation));
  }
}

}  // namespace hemostat::quantize
