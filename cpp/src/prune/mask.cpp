#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "common/arguments.h"
#include "common/integer_part.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

// Largest scope whose ranks float32 tells apart.
constexpr int64_t kFloatRanks = int64_t{1} << 24;

int64_t checked_removed_count(std::string_view operation, double sparsity, int64_t entries) {
  check_range(operation, "sparsity", sparsity, between(0, 1));
  return integer_part(sparsity, static_cast<double>(entries));
}

int64_t scope_entries(at::IntArrayRef sizes, Scope scope) {
  return scope == Scope::row ? sizes[1] : sizes[0] * sizes[1];
}

}  // namespace

Pattern checked_pattern(std::string_view operation, std::string_view text) {
  const auto number = [](std::string_view digits, int64_t& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  const auto colon = text.find(':');
  Pattern pattern{};
  if (colon == std::string_view::npos || !number(text.substr(0, colon), pattern.n) ||
      !number(text.substr(colon + 1), pattern.m) || pattern.n < 0 || pattern.m < 1 || pattern.n > pattern.m ||
      pattern.m > 1024) {
    throw ValueError(fmt::format(
        "{}: pattern is \"{}\", but must be \"n:m\" (keep n of every m), with 0 <= n <= m and 1 <= m <= 1024",
        operation, text));
  }
  return pattern;
}

void check_choice(std::string_view operation, const std::optional<double>& sparsity,
                  const std::optional<std::string>& pattern) {
  if (sparsity.has_value() == pattern.has_value()) {
    throw ValueError(
        fmt::format("{}: give sparsity or pattern, {}", operation, sparsity ? "not both" : "neither was given"));
  }
}

int64_t removed_count(double sparsity, int64_t entries) {
  check_range("hemostat.prune.removed_count", "entries", entries, at_least(0));
  return checked_removed_count("hemostat.prune.removed_count", sparsity, entries);
}

Pattern parse_pattern(std::string_view text) { return checked_pattern("hemostat.prune.parse_pattern", text); }

Pattern pattern_for(std::string_view operation, std::string_view text, at::IntArrayRef sizes, std::string_view name) {
  const Pattern pattern = checked_pattern(operation, text);
  if (sizes[1] % pattern.m != 0) {
    throw ValueError(fmt::format("{}: pattern \"{}\" needs rows of a multiple of {}, but {} has {} input features",
                                 operation, text, pattern.m, name, sizes[1]));
  }
  return pattern;
}

Severity checked_severity(std::string_view operation, std::string_view name, at::IntArrayRef sizes,
                          const std::optional<double>& sparsity, const std::optional<std::string>& pattern,
                          Scope scope) {
  check_choice(operation, sparsity, pattern);
  if (sparsity) {
    return {.removed = checked_removed_count(operation, *sparsity, scope_entries(sizes, scope))};
  }
  return {.groups = pattern_for(operation, *pattern, sizes, name)};
}

Severity checked_choice(std::string_view operation, const at::Tensor& matrix, std::string_view name,
                        const std::optional<double>& sparsity, const std::optional<std::string>& pattern, Scope scope,
                        const std::optional<at::Tensor>& out) {
  const Severity severity = checked_severity(operation, name, matrix.sizes(), sparsity, pattern, scope);
  if (out) {
    arguments::check_out(operation, *out, matrix.sizes(), at::kBool, matrix.device());
  }
  return severity;
}

at::Tensor select(std::string_view operation, const Ranked& ranked, const std::optional<double>& sparsity,
                  const std::optional<std::string>& pattern, Scope scope, const std::optional<at::Tensor>& out,
                  bool check_finite) {
  const auto& score = ranked.score;
  const auto [removed, groups] = checked_choice(operation, score, ranked.name, sparsity, pattern, scope, out);

  at::Tensor mask = out ? *out : at::empty(score.sizes(), score.options().dtype(at::kBool));
  if (score.numel() == 0) {
    return mask;
  }
  const at::Tensor invalid =
      sparsity ? kernels::mask_smallest(score.detach(), ranked.column_scale, removed, scope, ranked.absolute, mask)
               : kernels::mask_pattern(score.detach(), ranked.column_scale, groups.n, groups.m, ranked.absolute, mask);
  if (check_finite) {
    arguments::check_invalid(operation, ranked.name, invalid, "NaN");
  }
  return mask;
}

at::Tensor mask(const at::Tensor& score, const MaskOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.mask";
  arguments::check_matrix(kOperation, "score", score);
  return select(kOperation, {.score = score, .name = "score"}, options.sparsity, options.pattern, options.scope,
                options.out, options.check_finite);
}

at::Tensor kept_until(const at::Tensor& score, const KeptUntilOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.kept_until";
  arguments::check_matrix(kOperation, "score", score);
  const auto dtype = scope_entries(score.sizes(), options.scope) > kFloatRanks ? at::kDouble : at::kFloat;
  if (options.out) {
    const bool wider = options.out->defined() && options.out->scalar_type() == at::kDouble;
    arguments::check_out(kOperation, *options.out, score.sizes(), wider ? at::kDouble : dtype, score.device());
  }
  at::Tensor out = options.out ? *options.out : at::empty(score.sizes(), score.options().dtype(dtype));
  if (score.numel() == 0) {
    return out;
  }
  const at::Tensor invalid = kernels::kept_until(score.detach(), std::nullopt, options.scope, false, out);
  if (options.check_finite) {
    arguments::check_invalid(kOperation, "score", invalid, "NaN");
  }
  return out;
}

at::Tensor mask_at(const at::Tensor& kept_until, double sparsity, Scope scope, const std::optional<at::Tensor>& out,
                   bool check_finite) {
  constexpr std::string_view kOperation = "hemostat.prune.mask_at";
  arguments::check_dense(kOperation, "kept_until", kept_until);
  const auto dtype = kept_until.scalar_type();
  if (dtype != at::kFloat && dtype != at::kDouble) {
    throw TypeError(
        fmt::format("{}: kept_until is {}, but must be float32 or float64, as hemostat.prune.kept_until returns it",
                    kOperation, arguments::dtype_name(dtype)));
  }
  if (kept_until.dim() != 2) {
    throw ValueError(fmt::format("{}: kept_until has shape {}, but must be [out_features, in_features]", kOperation,
                                 arguments::shape(kept_until.sizes())));
  }
  const int64_t entries = scope_entries(kept_until.sizes(), scope);
  const bool wide = entries > kFloatRanks;
  if (wide && dtype == at::kFloat) {
    throw TypeError(
        fmt::format("{}: kept_until is float32, which cannot tell the {} ranks of a scope apart; "
                    "hemostat.prune.kept_until gives float64 then",
                    kOperation, entries));
  }
  const int64_t removed = checked_removed_count(kOperation, sparsity, entries);
  if (out) {
    arguments::check_out(kOperation, *out, kept_until.sizes(), at::kBool, kept_until.device());
  }
  // Ranks are whole: the last removed one is a number that kept_until holds, rounded as it is there. Where float32
  // tells ranks apart, that is the precision that both are compared in: what was widened since is rounded back to what
  // it was.
  const at::Tensor until = wide ? kept_until.detach() : kept_until.detach().to(at::kFloat);
  if (check_finite) {
    arguments::check_not_negative(kOperation, "kept_until", until);
  }
  double last = entries == 0 ? 0.0 : static_cast<double>(removed) / static_cast<double>(entries);
  if (!wide) {
    last = static_cast<double>(static_cast<float>(last));
  }
  if (!out) {
    return at::gt(until, last).contiguous();
  }
  at::Tensor result = *out;
  return at::gt_out(result, until, last);
}

void check_mask(std::string_view operation, const at::Tensor& mask, const at::Tensor& weight) {
  arguments::check_dense(operation, "mask", mask);
  if (mask.scalar_type() != at::kBool) {
    throw TypeError(fmt::format("{}: mask must be bool, true = kept, but is {}", operation,
                                arguments::dtype_name(mask.scalar_type())));
  }
  if (mask.sizes() != weight.sizes()) {
    throw ValueError(fmt::format("{}: mask has shape {}, but weight has {}", operation, arguments::shape(mask.sizes()),
                                 arguments::shape(weight.sizes())));
  }
  arguments::check_device(operation, "mask", mask, "weight", weight);
}

at::Tensor apply(const at::Tensor& weight, const at::Tensor& mask, const std::optional<at::Tensor>& out) {
  constexpr std::string_view kOperation = "hemostat.prune.apply";
  arguments::check_matrix(kOperation, "weight", weight);
  check_mask(kOperation, mask, weight);
  const at::Tensor zero = at::zeros({}, weight.options());
  if (!out) {
    return at::where(mask, weight, zero);
  }
  arguments::check_out(kOperation, *out, weight.sizes(), weight.scalar_type(), weight.device());
  arguments::check_out_without_gradient(kOperation, "weight", weight);
  arguments::is_in_place(kOperation, *out, "weight", weight);
  at::Tensor result = *out;
  return at::where_out(result, mask, weight.detach(), zero);
}

}  // namespace hemostat::prune
