#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "arguments.h"
#include "score_arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

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

}  // namespace

at::Tensor score_taylor(const at::Tensor& weight, const at::Tensor& gradient) {
  check_gradient("hemostat.prune.score_taylor", "gradient", weight, gradient);
  return taylor_score(weight, gradient);
}

at::Tensor score_fisher(const at::Tensor& weight, const at::Tensor& gradient_square) {
  check_gradient("hemostat.prune.score_fisher", "gradient_square", weight, gradient_square);
  return fisher_score(weight, gradient_square);
}

at::Tensor score_gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                      double alpha) {
  constexpr std::string_view kOperation = "hemostat.prune.score_gblm";
  check_gradient(kOperation, "gradient_norm", weight, gradient_norm);
  check_alpha(kOperation, alpha);
  return gblm_score(weight, checked_norm(kOperation, weight, activation_norm, true), gradient_norm, alpha);
}

at::Tensor taylor(const at::Tensor& weight, const at::Tensor& gradient, const GradientOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.taylor";
  check_gradient(kOperation, "gradient", weight, gradient);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  return select(kOperation, {.score = taylor_score(weight, gradient), .name = "weight times gradient"},
                options.sparsity, options.pattern, options.scope, options.out, options.check_finite);
}

at::Tensor fisher(const at::Tensor& weight, const at::Tensor& gradient_square, const GradientOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.fisher";
  check_gradient(kOperation, "gradient_square", weight, gradient_square);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  return select(kOperation, {.score = fisher_score(weight, gradient_square), .name = "weight times gradient_square"},
                options.sparsity, options.pattern, options.scope, options.out, options.check_finite);
}

at::Tensor gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                const GblmOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.gblm";
  check_gradient(kOperation, "gradient_norm", weight, gradient_norm);
  check_alpha(kOperation, options.alpha);
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  return select(kOperation,
                {.score = gblm_score(weight, norm, gradient_norm, options.alpha), .name = "weight times gradient_norm"},
                options.sparsity, options.pattern, options.scope, options.out, options.check_finite);
}

}  // namespace hemostat::prune
