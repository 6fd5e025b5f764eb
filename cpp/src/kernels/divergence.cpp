// Divergence of two sets of logits: schema, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/divergence.h"

#include <array>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/arguments.h"
#include "kernels/scratch.h"

namespace hemostat::kernels {

void check_divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets) {
  constexpr std::string_view op = "divergence";
  check_matrix(op, "baseline_logits", baseline_logits);
  check_matrix(op, "damaged_logits", damaged_logits);
  if (baseline_logits.scalar_type() != damaged_logits.scalar_type()) {
    type_error(op, fmt::format("baseline_logits is {}, but damaged_logits is {}",
                               c10::toString(baseline_logits.scalar_type()),
                               c10::toString(damaged_logits.scalar_type())));
  }
  if (baseline_logits.sym_sizes() != damaged_logits.sym_sizes()) {
    value_error(op, fmt::format("baseline_logits has shape {}, but damaged_logits {}", shape_of(baseline_logits),
                                shape_of(damaged_logits)));
  }
  if (targets.scalar_type() != at::kLong) {
    type_error(op, fmt::format("targets must be int64, got {}", c10::toString(targets.scalar_type())));
  }
  if (targets.dim() != 1 || targets.sym_size(0) != baseline_logits.sym_size(0)) {
    value_error(op, fmt::format("targets has shape {}, but baseline_logits {}", shape_of(targets),
                                shape_of(baseline_logits)));
  }
  if (baseline_logits.sym_size(1) < 1) {
    value_error(op, fmt::format("baseline_logits has shape {}: no vocabulary", shape_of(baseline_logits)));
  }
  check_same_device(op, damaged_logits, "damaged_logits", baseline_logits, "baseline_logits");
  check_same_device(op, targets, "targets", baseline_logits, "baseline_logits");
}

namespace {

using T = at::Tensor;
using Outputs = std::tuple<T, T, T, T, T, T, T, T, T, T, T>;

const DivergenceLoops& loops() {
  static const DivergenceLoops& chosen = HEMOSTAT_PICK(divergence_loops);
  return chosen;
}

// In the schema's order: eight of float32, two of int64, one of float32.
Outputs outputs_like(const T& logits) {
  const auto floats = [&] { return at::empty_symint({logits.sym_size(0)}, logits.options().dtype(at::kFloat)); };
  const auto indices = [&] { return at::empty_symint({logits.sym_size(0)}, logits.options().dtype(at::kLong)); };
  return {floats(), floats(), floats(), floats(), floats(),  floats(),
          floats(), floats(), indices(), indices(), floats()};
}

DivergenceOutputs pointers(const Outputs& outputs) {
  const auto& [nll_a, nll_b, kl, reverse, h_a, h_b, c_a, c_b, top_a, top_b, overlap] = outputs;
  const auto floats = [](const T& tensor) { return tensor.mutable_data_ptr<float>(); };
  return {.nll_baseline = floats(nll_a),
          .nll_damaged = floats(nll_b),
          .kl = floats(kl),
          .kl_reverse = floats(reverse),
          .entropy_baseline = floats(h_a),
          .entropy_damaged = floats(h_b),
          .confidence_baseline = floats(c_a),
          .confidence_damaged = floats(c_b),
          .top5_overlap = floats(overlap),
          .top1_baseline = top_a.mutable_data_ptr<int64_t>(),
          .top1_damaged = top_b.mutable_data_ptr<int64_t>()};
}

Outputs divergence_cpu(const T& baseline_logits, const T& damaged_logits, const T& targets, double damaged_scale) {
  check_divergence(baseline_logits, damaged_logits, targets);
  const int64_t tokens = baseline_logits.size(0), vocab = baseline_logits.size(1);
  const T contiguous_targets = targets.contiguous();
  const int64_t* target = contiguous_targets.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < tokens; ++i) {
    if (target[i] < 0 || target[i] >= vocab) {
      value_error("divergence", fmt::format("targets has {} at {}, but the vocabulary takes 0 … {}", target[i], i, vocab - 1));
    }
  }
  const Outputs outputs = outputs_like(baseline_logits);
  const DivergenceOutputs to = pointers(outputs);
  const Matrix baseline = matrix_of(baseline_logits), damaged = matrix_of(damaged_logits);
  at::parallel_for(0, tokens, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(2 * kDivergenceTile);
    loops().rows(baseline, damaged, target, static_cast<float>(damaged_scale), begin, end, to, buffer.get());
  });
  return outputs;
}

Outputs divergence_meta(const T& baseline_logits, const T& damaged_logits, const T& targets, double /*damaged_scale*/) {
  check_divergence(baseline_logits, damaged_logits, targets);
  return outputs_like(baseline_logits);
}

}  // namespace

Divergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::divergence", "")
                             .typed<Outputs(const T&, const T&, const T&, double)>();
  auto [nll_a, nll_b, kl, reverse, h_a, h_b, c_a, c_b, top_a, top_b, overlap] =
      op.call(baseline_logits, damaged_logits, targets, damaged_scale);
  return {nll_a, nll_b, kl, reverse, h_a, h_b, c_a, c_b, top_a, top_b, overlap};
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  m.def(
      "divergence(Tensor baseline_logits, Tensor damaged_logits, Tensor targets, float damaged_scale=1.0) -> "
      "(Tensor nll_baseline, Tensor nll_damaged, Tensor kl, Tensor kl_reverse, Tensor entropy_baseline, "
      "Tensor entropy_damaged, Tensor confidence_baseline, Tensor confidence_damaged, Tensor top1_baseline, "
      "Tensor top1_damaged, Tensor top5_overlap)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("divergence", hemostat::kernels::divergence_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("divergence", hemostat::kernels::divergence_meta); }
