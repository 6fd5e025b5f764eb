// Per-token comparison of two sets of logits: schema, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/divergence/divergence.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/divergence/arguments.h"
#include "kernels/library.h"
#include "kernels/scratch.h"

namespace hemostat::kernels {

void check_divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale) {
  constexpr std::string_view op = "divergence";
  check_matrix(op, "baseline_logits", baseline_logits);
  check_matrix(op, "damaged_logits", damaged_logits);
  if (damaged_logits.sym_sizes() != baseline_logits.sym_sizes()) {
    value_error(op, fmt::format("damaged_logits has shape {}, but baseline_logits has shape {}",
                                shape_of(damaged_logits), shape_of(baseline_logits)));
  }
  if (damaged_logits.scalar_type() != baseline_logits.scalar_type()) {
    type_error(
        op, fmt::format("damaged_logits is {}, but baseline_logits is {}", c10::toString(damaged_logits.scalar_type()),
                        c10::toString(baseline_logits.scalar_type())));
  }
  if (targets.dim() != 1 || targets.sym_size(0) != baseline_logits.sym_size(0)) {
    value_error(op, fmt::format("targets has shape {}, but baseline_logits has shape {} and takes one target a token",
                                shape_of(targets), shape_of(baseline_logits)));
  }
  if (targets.scalar_type() != at::kLong) {
    type_error(op, fmt::format("targets is {}, but takes int64", c10::toString(targets.scalar_type())));
  }
  check_same_device(op, damaged_logits, "damaged_logits", baseline_logits, "baseline_logits");
  check_same_device(op, targets, "targets", baseline_logits, "baseline_logits");
  if (baseline_logits.sym_size(1) < 1) value_error(op, "baseline_logits has a vocabulary of 0, but takes at least 1");
  if (!(damaged_scale > 0) || !std::isfinite(damaged_scale)) {
    value_error(op, fmt::format("damaged_scale must be positive and finite, got {}", damaged_scale));
  }
}

DivergenceTensors empty_divergence(const at::Tensor& baseline_logits) {
  const c10::SymInt tokens = baseline_logits.sym_size(0);
  const auto of = [&](at::ScalarType dtype) {
    return at::empty_symint({tokens}, baseline_logits.options().dtype(dtype));
  };
  return {of(at::kFloat), of(at::kFloat), of(at::kFloat), of(at::kFloat), of(at::kFloat), of(at::kFloat),
          of(at::kFloat), of(at::kFloat), of(at::kLong),  of(at::kLong),  of(at::kFloat), of(at::kFloat)};
}

DivergenceOut divergence_out(DivergenceTensors& tensors) {
  return std::apply(
      [](auto& nll_baseline, auto& nll_damaged, auto& kl, auto& kl_reverse, auto& entropy_baseline,
         auto& entropy_damaged, auto& confidence_baseline, auto& confidence_damaged, auto& top1_baseline,
         auto& top1_damaged, auto& top5_overlap, auto& acceptance) {
        const auto floats = [](at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); };
        const auto tokens = [](at::Tensor& tensor) { return tensor.mutable_data_ptr<int64_t>(); };
        return DivergenceOut{floats(nll_baseline),        floats(nll_damaged),        floats(kl),
                             floats(kl_reverse),          floats(entropy_baseline),   floats(entropy_damaged),
                             floats(confidence_baseline), floats(confidence_damaged), tokens(top1_baseline),
                             tokens(top1_damaged),        floats(top5_overlap),       floats(acceptance)};
      },
      tensors);
}

namespace {

const DivergenceLoops& loops() {
  static const DivergenceLoops& chosen = HEMOSTAT_PICK(divergence_loops);
  return chosen;
}

DivergenceTensors divergence_cpu(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                                 const at::Tensor& targets, double damaged_scale) {
  check_divergence(baseline_logits, damaged_logits, targets, damaged_scale);
  const int64_t tokens = baseline_logits.size(0), vocab = baseline_logits.size(1);
  const at::Tensor held_targets = targets.contiguous();
  const auto* target = held_targets.const_data_ptr<int64_t>();
  for (int64_t token = 0; token < tokens; ++token) {
    if (target[token] < 0 || target[token] >= vocab) {
      value_error("divergence",
                  fmt::format("targets[{}] is {}, but the vocabulary has {} tokens", token, target[token], vocab));
    }
  }
  DivergenceTensors result = empty_divergence(baseline_logits);
  const DivergenceOut out = divergence_out(result);
  const Matrix baseline = matrix_of(baseline_logits), damaged = matrix_of(damaged_logits);
  const int64_t tokens_per_task = std::max<int64_t>(1, (int64_t{1} << 13) / vocab);
  at::parallel_for(0, tokens, tokens_per_task, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(divergence_buffer(vocab));
    loops().rows(baseline, damaged, target, static_cast<float>(damaged_scale), begin, end, out, buffer.get());
  });
  return result;
}

DivergenceTensors divergence_meta(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                                  const at::Tensor& targets, double damaged_scale) {
  check_divergence(baseline_logits, damaged_logits, targets, damaged_scale);
  return empty_divergence(baseline_logits);
}

}  // namespace

Divergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hemostat::divergence", "")
          .typed<DivergenceTensors(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return std::make_from_tuple<Divergence>(op.call(baseline_logits, damaged_logits, targets, damaged_scale));
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m,
      "divergence(Tensor baseline_logits, Tensor damaged_logits, Tensor targets, float damaged_scale=1.0) -> "
      "(Tensor nll_baseline, Tensor nll_damaged, Tensor kl, Tensor kl_reverse, Tensor entropy_baseline, "
      "Tensor entropy_damaged, Tensor confidence_baseline, Tensor confidence_damaged, Tensor top1_baseline, "
      "Tensor top1_damaged, Tensor top5_overlap, Tensor acceptance)");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("divergence", hemostat::kernels::divergence_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("divergence", hemostat::kernels::divergence_meta); }
