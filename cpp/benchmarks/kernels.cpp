// Each kernel alone, beside a read (sum) and a copy of the same tensor. benchmarks/kernels.py compares with peers.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>

#include <hemostat/kernels.h>

namespace hemostat {
namespace {

using kernels::Scope;

constexpr int64_t kSize = 4096;

const at::Tensor& weight(at::ScalarType dtype = at::kFloat) {
  static const at::Tensor float32 = at::randn({kSize, kSize});
  static const at::Tensor bfloat16 = float32.to(at::kBFloat16);
  return dtype == at::kFloat ? float32 : bfloat16;
}

// Runs `call` on a `result` whose memory has been touched, and says how many bytes of weight a second that is.
void run(benchmark::State& state, const at::Tensor& read, auto&& call) {
  for (auto _ : state) call();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(read.nbytes()));
}

void read(benchmark::State& state) {
  run(state, weight(), [] { benchmark::DoNotOptimize(weight().sum()); });
}

void copy(benchmark::State& state) {
  at::Tensor out = at::zeros_like(weight());
  run(state, weight(), [&] { out.copy_(weight()); });
}

void mask_smallest(benchmark::State& state, Scope scope, at::ScalarType dtype) {
  const at::Tensor scale = at::rand({kSize}) + 0.5;
  const int64_t entries = scope == Scope::row ? kSize : kSize * kSize;
  at::Tensor out = at::zeros({kSize, kSize}, at::kBool);
  run(state, weight(dtype),
      [&] { kernels::mask_smallest(weight(dtype), scale, entries / 2, scope, /*absolute=*/true, out); });
}

void mask_pattern(benchmark::State& state) {
  const int64_t m = state.range(0);
  at::Tensor out = at::zeros({kSize, kSize}, at::kBool);
  run(state, weight(), [&] { kernels::mask_pattern(weight(), {}, m / 2, m, /*absolute=*/true, out); });
}

void kept_until(benchmark::State& state, Scope scope) {
  at::Tensor out = at::zeros_like(weight());
  run(state, weight(), [&] { kernels::kept_until(weight(), {}, scope, /*absolute=*/true, out); });
}

void fake_quantize(benchmark::State& state, at::ScalarType dtype) {
  at::Tensor out = at::zeros_like(weight(dtype));
  run(state, weight(dtype),
      [&] { kernels::fake_quantize(weight(dtype), 16, state.range(0), /*symmetric=*/false, out); });
}

void divergence(benchmark::State& state, at::ScalarType dtype) {
  const at::Tensor baseline = (at::randn({512, 32000}) * 3).to(dtype), damaged = baseline + 0.3;
  const at::Tensor targets = at::randint(32000, {512}, at::kLong);
  run(state, baseline, [&] { benchmark::DoNotOptimize(kernels::divergence(baseline, damaged, targets)); });
}

BENCHMARK(read)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(copy)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(mask_smallest, row, Scope::row, at::kFloat)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(mask_smallest, row_bfloat16, Scope::row, at::kBFloat16)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(mask_smallest, tensor, Scope::tensor, at::kFloat)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(mask_pattern)->Arg(4)->Arg(8)->Arg(32)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(kept_until, row, Scope::row)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(kept_until, tensor, Scope::tensor)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fake_quantize, float32, at::kFloat)
    ->Arg(128)
    ->Arg(kSize)
    ->Arg(0)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fake_quantize, bfloat16, at::kBFloat16)->Arg(128)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(divergence, float32, at::kFloat)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(divergence, bfloat16, at::kBFloat16)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace hemostat
