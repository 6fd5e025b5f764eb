// Faulty bits of memory: schema, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/bit_faults/bit_faults.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/bit_faults/arguments.h"
#include "kernels/library.h"

namespace hemostat::kernels {
namespace {

constexpr const char* kName = "bit_faults_";

const BitFaultLoops& loops() {
  static const BitFaultLoops& chosen = HEMOSTAT_PICK(bit_fault_loops);
  return chosen;
}

}  // namespace

void check_bit_faults(const at::Tensor& values, double rate, const c10::SymInt& first_bit, const c10::SymInt& bits,
                      const c10::SymInt& fault) {
  const auto dtype = values.scalar_type();
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf && dtype != at::kByte) {
    type_error(kName, fmt::format("values is {}, but takes float32, bfloat16, float16 or uint8", c10::toString(dtype)));
  }
  if (values.layout() != at::kStrided) type_error(kName, "values is sparse, but takes a dense tensor");
  if (!values.is_contiguous()) value_error(kName, "values is not contiguous");
  if (!(rate >= 0.0 && rate <= 1.0)) value_error(kName, fmt::format("rate must be in 0 … 1, got {}", rate));
  const auto width = static_cast<int64_t>(8 * c10::elementSize(dtype));
  if (first_bit < 0 || bits < 1 || first_bit + bits > width) {
    value_error(kName, fmt::format("first_bit = {} and bits = {} must name bits of {}", c10::str(first_bit),
                                   c10::str(bits), width));
  }
  if (fault < 0 || fault > 2) value_error(kName, fmt::format("fault must be 0, 1 or 2, got {}", c10::str(fault)));
}

FaultRate fault_rate(double rate, int64_t seed) {
  FaultRate result{mixed_bits(static_cast<uint64_t>(seed) + kGoldenStep), {}};
  result.survival[0] = 1.0 - rate;
  for (int level = 1; level <= kGroupLevels; ++level) {
    result.survival[level] = result.survival[level - 1] * result.survival[level - 1];
  }
  return result;
}

FaultKind fault_kind(const at::Tensor& values, int64_t first_bit, int64_t bits, int64_t fault) {
  return {static_cast<int>(8 * values.element_size()), static_cast<int>(first_bit), static_cast<int>(bits),
          static_cast<int>(fault)};
}

namespace {

void bit_faults_cpu(at::Tensor& values, double rate, int64_t seed, int64_t first_bit, int64_t bits, int64_t fault) {
  check_bit_faults(values, rate, first_bit, bits, fault);
  if (values.numel() == 0 || rate == 0.0) return;
  const FaultRate draws = fault_rate(rate, seed);
  const FaultKind kind = fault_kind(values, first_bit, bits, fault);
  auto* data = static_cast<uint8_t*>(values.mutable_data_ptr());
  const auto bytes = static_cast<int64_t>(values.nbytes());
  at::parallel_for(0, (bytes + kGroupBytes - 1) / kGroupBytes, 4096,
                   [&](int64_t begin, int64_t end) { loops().apply(data, bytes, begin, end, kind, draws); });
}

void bit_faults_meta(at::Tensor& values, double rate, c10::SymInt /*seed*/, c10::SymInt first_bit, c10::SymInt bits,
                     c10::SymInt fault) {
  check_bit_faults(values, rate, first_bit, bits, fault);
}

}  // namespace

void bit_faults_(at::Tensor& values, double rate, int64_t seed, int64_t first_bit, int64_t bits, BitFault fault) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::bit_faults_", "")
                             .typed<void(at::Tensor&, double, c10::SymInt, c10::SymInt, c10::SymInt, c10::SymInt)>();
  op.call(values, rate, seed, first_bit, bits, static_cast<int64_t>(fault));
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m, "bit_faults_(Tensor(a!) values, float rate, SymInt seed, SymInt first_bit, SymInt bits, SymInt fault) -> ()");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("bit_faults_", hemostat::kernels::bit_faults_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("bit_faults_", hemostat::kernels::bit_faults_meta); }
