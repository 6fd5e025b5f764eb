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

// "n:m" as parse_pattern takes it; ValueError naming `operation`.
Pattern checked_pattern(std::string_view operation, std::string_view text);

// ValueError unless exactly one of the two is given.
void check_choice(std::string_view operation, const std::optional<double>& sparsity,
                  const std::optional<std::string>& pattern);

// ValueError unless it is a pattern whose m divides the columns of a matrix of this shape.
Pattern pattern_for(std::string_view operation, std::string_view text, at::IntArrayRef sizes, std::string_view name);

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

// The same and that of `out`: the checks that `select` begins with, for those that compute a score first.
Severity checked_choice(std::string_view operation, const at::Tensor& matrix, std::string_view name,
                        const std::optional<double>& sparsity, const std::optional<std::string>& pattern, Scope scope,
                        const std::optional<at::Tensor>& out);

// TypeError, ValueError unless `mask` is bool, of weight's shape and on its device.
void check_mask(std::string_view operation, const at::Tensor& mask, const at::Tensor& weight);

// Checks severity and `out`, selects, and looks at the count of NaN.
at::Tensor select(std::string_view operation, const Ranked& ranked, const std::optional<double>& sparsity,
                  const std::optional<std::string>& pattern, Scope scope, const std::optional<at::Tensor>& out,
                  bool check_finite);

}  // namespace hemostat::prune
