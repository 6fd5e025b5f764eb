#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "common/arguments.h"
#include "score_arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

enum class Sign { any, not_negative };

// A statistic of the gradients, of the weight's shape.
void check_gradient(std::string_view operation, std::string_view name, const at::Tensor& weight,
                    const at::Tensor& gradient) {
  arguments::check_matrix(operation, "weight", weight);
  arguments::check_matrix(operation, name, gradient);
  if (gradient.sizes() != weight.sizes()) {
    throw ValueError(fmt::format("{}: {} has shape {}, but weight has {}", operation, name,
                                 arguments::shape(gradient.sizes()), arguments::shape(weight.sizes())));
  }
  arguments::check_device(operation, name, gradient, "weight", weight);
}

void check_values(std::string_view operation, std::string_view name, const at::Tensor& weight,
                  const at::Tensor& gradient, Sign sign) {
  arguments::check_finite(operation, "weight", weight.detach());
  if (sign == Sign::any) {
    arguments::check_finite(operation, name, gradient.detach());
  } else {
    arguments::check_not_negative(operation, name, gradient.detach());
  }
}

// NaN is counted where scores are ranked.
void check_sign(std::string_view operation, std::string_view name, const at::Tensor& gradient) {
  arguments::check_invalid(operation, name, gradient.detach().lt(0).sum(), "negative");
}

at::Tensor floats(const at::Tensor& tensor) { return tensor.detach().to(at::kFloat); }

at::Tensor taylor_score(const at::Tensor& weight, const at::Tensor& gradient) {
  return floats(weight).mul(floats(gradient)).abs_().contiguous();
}

at::Tensor fisher_score(const at::Tensor& weight, const at::Tensor& gradient_square) {
  const at::Tensor values = floats(weight);
  return values.mul(floats(gradient_square)).mul_(values).mul_(0.5).contiguous();
}

at::Tensor gblm_score(const at::Tensor& weight, const at::Tensor& norm, const at::Tensor& gradient_norm, double alpha) {
  return floats(gradient_norm).mul(alpha).add_(norm).mul_(floats(weight).abs()).contiguous();
}

template <class MaskOptions>
at::Tensor selected(std::string_view operation, std::string_view name, const at::Tensor& score,
                    const MaskOptions& options) {
  at::Tensor mask = select(operation, {.score = score, .name = name}, options.sparsity, options.pattern, options.scope,
                           options.out, options.check_finite);
  if (options.check_finite) {
    checked_score(operation, name, score);
  }
  return mask;
}

}  // namespace

at::Tensor score_taylor(const at::Tensor& weight, const at::Tensor& gradient) {
  constexpr std::string_view kOperation = "hemostat.prune.score_taylor";
  check_gradient(kOperation, "gradient", weight, gradient);
  check_values(kOperation, "gradient", weight, gradient, Sign::any);
  return checked_score(kOperation, "weight times gradient", taylor_score(weight, gradient));
}

at::Tensor score_fisher(const at::Tensor& weight, const at::Tensor& gradient_square) {
  constexpr std::string_view kOperation = "hemostat.prune.score_fisher";
  check_gradient(kOperation, "gradient_square", weight, gradient_square);
  check_values(kOperation, "gradient_square", weight, gradient_square, Sign::not_negative);
  return checked_score(kOperation, "weight times gradient_square", fisher_score(weight, gradient_square));
}

at::Tensor score_gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                      double alpha) {
  constexpr std::string_view kOperation = "hemostat.prune.score_gblm";
  check_gradient(kOperation, "gradient_norm", weight, gradient_norm);
  check_range(kOperation, "alpha", alpha, at_least(0));
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, true);
  check_values(kOperation, "gradient_norm", weight, gradient_norm, Sign::not_negative);
  return checked_score(kOperation, "weight times gradient_norm", gblm_score(weight, norm, gradient_norm, alpha));
}

at::Tensor taylor(const at::Tensor& weight, const at::Tensor& gradient, const GradientOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.taylor";
  check_gradient(kOperation, "gradient", weight, gradient);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  return selected(kOperation, "weight times gradient", taylor_score(weight, gradient), options);
}

at::Tensor fisher(const at::Tensor& weight, const at::Tensor& gradient_square, const GradientOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.fisher";
  check_gradient(kOperation, "gradient_square", weight, gradient_square);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  if (options.check_finite) {
    check_sign(kOperation, "gradient_square", gradient_square);
  }
  return selected(kOperation, "weight times gradient_square", fisher_score(weight, gradient_square), options);
}

at::Tensor gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                const GblmOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.gblm";
  check_gradient(kOperation, "gradient_norm", weight, gradient_norm);
  check_options(kOperation, options);
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  if (options.check_finite) {
    check_sign(kOperation, "gradient_norm", gradient_norm);
  }
  return selected(kOperation, "weight times gradient_norm", gblm_score(weight, norm, gradient_norm, options.alpha),
                  options);
}

}  // namespace hemostat::prune
