// From a ranked matrix to a mask: what every scoring operator ends with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/prune.h>

namespace hemostat::prune {

// A score that need not be stored: |score| · column_scale.
struct Ranked {
  at::Tensor score;                                       // a checked matrix
  std::optional<at::Tensor> column_scale = std::nullopt;  // float32 [in_features]
  bool absolute = false;
  std::string_view name;  // the argument that messages name
};

// A severity in counts: `removed` of every scope or, where groups.m is not 0, all but n of every m.
struct Severity {
  int64_t removed = 0;
  Pattern groups{.n = 0, .m = 0};
};

// ValueError unless exactly one of both is given, in range, and fits a matrix of this shape.
//   name  the argument that messages name
Severity checked_severity(std::string_view operation, std::string_view name, at::IntArrayRef sizes,
                          const std::optional<double>& sparsity, const std::optional<std::string>& pattern,
                          Scope scope);

// Checks severity and `out`, selects, and looks at the count of NaN.
at::Tensor select(std::string_view operation, const Ranked& ranked, const std::optional<double>& sparsity,
                  const std::optional<std::string>& pattern, Scope scope, const std::optional<at::Tensor>& out,
                  bool check_finite);

}  // namespace hemostat::prune
