// CUDA kernel of `divergence`. See hemostat/kernels.h for what it computes and divergence.h for how it is called.
//
// A block a token, one read of both rows for all but Σ min(p, q), which needs the sums: a second read, from the end,
// where the L2 cache still has it. With x = a − max a and p = exp x, and y, q alike for the damaged row b:
//   KL(a ‖ b) = Σ p (x − y) / Σ p − log Σ p + log Σ q        H(a) = log Σ p − Σ p x / Σ p
// Every thread sums in float32 below a running maximum of its own; the threads' sums are added in float64, in an order
// that depends on nothing but their number.
#include <cstdint>

#include "kernels/divergence/divergence.h"
#include "kernels/elements.cuh"

namespace hemostat::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kValues = 8;  // of each row, that a thread holds at a time
constexpr int kTop = 5;
constexpr uint32_t kNowhere = 0xffffffffu;
constexpr float kLowest = -3.4028234663852886e38f;
constexpr float kLeast = -87.0f;  // a logit so far below the largest counts as impossible

__device__ float minus_infinity() { return __int_as_float(static_cast<int>(0xff800000u)); }

// One of two rows of logits.
template <class Type>
struct Logits {
  const typename Type::Storage* data;
  int64_t row_stride;
};

// The five largest logits that a warp has met: lane i holds the i-th, so that all of them are compared at once. Of
// equal ones the lower index comes first; NaN, and −Inf at kNowhere, are never among them.
struct Top {
  float value = minus_infinity();
  uint32_t index = kNowhere;

  // What a newcomer must come before.
  __device__ void fifth(float& of_fifth, uint32_t& index_of_fifth) const {
    of_fifth = __shfl_sync(kAllLanes, value, kTop - 1);
    index_of_fifth = __shfl_sync(kAllLanes, index, kTop - 1);
  }

  // Every lane offers a logit; every lane of the warp calls it.
  __device__ void offer(float own_value, uint32_t own_index) {
    const int lane = threadIdx.x % kWarp;
    float least;
    uint32_t index_of_least;
    fifth(least, index_of_least);
    uint32_t waiting = kAllLanes;
    while (true) {
      const bool enters = own_value > least || (own_value == least && own_index < index_of_least);
      waiting &= __ballot_sync(kAllLanes, enters);
      if (waiting == 0) return;
      const int from = __ffs(static_cast<int>(waiting)) - 1;
      waiting &= waiting - 1;
      const float newcomer = __shfl_sync(kAllLanes, own_value, from);
      const uint32_t index_of_newcomer = __shfl_sync(kAllLanes, own_index, from);
      const bool before = lane < kTop && (value > newcomer || (value == newcomer && index < index_of_newcomer));
      const int place = __popc(__ballot_sync(kAllLanes, before));
      const float value_above = __shfl_up_sync(kAllLanes, value, 1);
      const uint32_t index_above = __shfl_up_sync(kAllLanes, index, 1);
      if (lane == place) {
        value = newcomer;
        index = index_of_newcomer;
      } else if (lane > place) {
        value = value_above;
        index = index_above;
      }
      fifth(least, index_of_least);
    }
  }
};

// What a thread has met of one row, relative to the largest of it.
struct Sums {
  float maximum = minus_infinity();
  float total = 0;       // Σ p
  float weighted = 0;    // Σ p x, of the damaged row Σ q y
  float difference = 0;  // Σ p (x − y), of the damaged row Σ q (x − y)

  // What x is relative to: before the first finite logit every p is 0.
  __device__ float reference() const { return maximum == minus_infinity() ? 0.0f : maximum; }

  __device__ void add(const Sums& more) {
    total += more.total;
    weighted += more.weighted;
    difference += more.difference;
  }

  // Makes the sums relative to `to`; `apart` is by how much that moves x − y.
  __device__ void raise(float to, float by, float apart) {
    const float factor = maximum == minus_infinity() ? 0.0f : expf(by);
    // What has no weight left is dropped, however large it was.
    weighted = factor == 0 ? 0 : factor * fmaf(by, total, weighted);
    difference = factor == 0 ? 0 : factor * fmaf(apart, total, difference);
    total *= factor;
    maximum = to;
  }
};

__device__ void raise_both(Sums& a, Sums& b, float a_to, float b_to) {
  const float a_by = a.reference() - (a_to == minus_infinity() ? 0.0f : a_to);
  const float b_by = b.reference() - (b_to == minus_infinity() ? 0.0f : b_to);
  a.raise(a_to, a_by, a_by - b_by);
  b.raise(b_to, b_by, a_by - b_by);
}

__device__ float largest(const float (&values)[kValues]) {
  float result = values[0];
#pragma unroll
  for (int j = 1; j < kValues; ++j) result = fmaxf(result, values[j]);
  return result;
}

// Whether the warp's five largest may change.
__device__ bool any_enters(const Top& top, float highest) {
  const float least = __shfl_sync(kAllLanes, top.value, kTop - 1);
  return __any_sync(kAllLanes, highest >= least);
}

// What the block's threads share.
struct Shared {
  float maximum[4][kWarps];  // of the baseline and the damaged row; of what each has alone
  double sums[6][kWarps];
  float ratio;  // Σ p / Σ q
  float value[2][kWarps * kTop];
  uint32_t index[2][kWarps * kTop];
  uint32_t top[2][kTop];
};

// A row's sums over all threads, and the logarithm of the first.
struct Total {
  double total, weighted, difference, log_total;
};

__device__ float warp_maximum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

__device__ double warp_sum(double value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The thread's values of two rows from `begin` on, and where they lie; beyond the rows −Inf at kNowhere.
template <class Type>
__device__ void load(const typename Type::Storage* a_row, const typename Type::Storage* b_row, int64_t columns,
                     int64_t begin, int unit, float (&a)[kValues], float (&b)[kValues], uint32_t (&indices)[kValues]) {
  if (unit == kUnit) {
#pragma unroll
    for (int j = 0; j < kValues; j += kUnit) {
      const int64_t first = begin + static_cast<int64_t>(j) * kThreads + static_cast<int64_t>(threadIdx.x) * kUnit;
      if (first < columns) {
        load_unit<Type>(a_row + first, kUnit, a + j);
        load_unit<Type>(b_row + first, kUnit, b + j);
      }
#pragma unroll
      for (int k = j; k < j + kUnit; ++k) {
        indices[k] = first < columns ? static_cast<uint32_t>(first) + (k - j) : kNowhere;
        a[k] = first < columns ? a[k] : minus_infinity();
        b[k] = first < columns ? b[k] : minus_infinity();
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      const int64_t i = begin + static_cast<int64_t>(j) * kThreads + threadIdx.x;
      indices[j] = i < columns ? static_cast<uint32_t>(i) : kNowhere;
      a[j] = i < columns ? Type::load(a_row[i]) : minus_infinity();
      b[j] = i < columns ? Type::load(b_row[i]) : minus_infinity();
    }
  }
}

template <class Type>
__global__ void __launch_bounds__(kThreads)
    divergence_of_row(Logits<Type> baseline, Logits<Type> damaged, int64_t columns, int unit, const int64_t* targets,
                      float damaged_scale, DivergenceOut out) {
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  const typename Type::Storage* a_row = baseline.data + row * baseline.row_stride;
  const typename Type::Storage* b_row = damaged.data + row * damaged.row_stride;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;

  Top a_top, b_top;
  Sums a_sums, b_sums;
  // The largest logit of one row where the other has −Inf: unless it weighs nothing, KL is Inf.
  float a_alone = minus_infinity(), b_alone = minus_infinity();
  for (int64_t begin = 0; begin < columns; begin += kThreads * kValues) {
    float a[kValues], b[kValues];
    uint32_t indices[kValues];
    load<Type>(a_row, b_row, columns, begin, unit, a, b, indices);

    const float a_highest = largest(a), b_highest = largest(b);
    if (any_enters(a_top, a_highest)) {
#pragma unroll
      for (int j = 0; j < kValues; ++j) a_top.offer(a[j], indices[j]);
    }
    if (any_enters(b_top, b_highest)) {
#pragma unroll
      for (int j = 0; j < kValues; ++j) b_top.offer(b[j], indices[j]);
    }

    const float a_to = fmaxf(a_sums.maximum, a_highest), b_to = fmaxf(b_sums.maximum, b_highest * damaged_scale);
    if (a_to > a_sums.maximum || b_to > b_sums.maximum) raise_both(a_sums, b_sums, a_to, b_to);
    const float a_reference = a_sums.reference(), b_reference = b_sums.reference();
    Sums a_new, b_new;
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      const float x = a[j] - a_reference, y = b[j] * damaged_scale - b_reference;
      const float p = expf(x), q = expf(y), difference = x - y;
      a_alone = fmaxf(a_alone, difference == -minus_infinity() ? a[j] : minus_infinity());
      b_alone = fmaxf(b_alone, difference == minus_infinity() ? b[j] : minus_infinity());
      // Finite also for −Inf: there the weight is 0, or KL is Inf anyway.
      const float apart = fminf(fmaxf(difference, kLowest), -kLowest);
      a_new.total += p;
      b_new.total += q;
      a_new.weighted = fmaf(p, fmaxf(x, kLowest), a_new.weighted);
      b_new.weighted = fmaf(q, fmaxf(y, kLowest), b_new.weighted);
      a_new.difference = fmaf(p, apart, a_new.difference);
      b_new.difference = fmaf(q, apart, b_new.difference);
    }
    a_sums.add(a_new);
    b_sums.add(b_new);
  }

  // The block's maxima, and every warp's five largest.
  const float own_maxima[4] = {a_sums.maximum, b_sums.maximum, a_alone, b_alone};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float of_warp = warp_maximum(own_maxima[i]);
    if (lane == 0) shared.maximum[i][warp] = of_warp;
  }
  if (lane < kTop) {
    shared.value[0][warp * kTop + lane] = a_top.value;
    shared.index[0][warp * kTop + lane] = a_top.index;
    shared.value[1][warp * kTop + lane] = b_top.value;
    shared.index[1][warp * kTop + lane] = b_top.index;
  }
  __syncthreads();
  float maxima[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    maxima[i] = shared.maximum[i][0];
    for (int j = 1; j < kWarps; ++j) maxima[i] = fmaxf(maxima[i], shared.maximum[i][j]);
  }
  const float a_maximum = maxima[0], b_maximum = maxima[1];
  raise_both(a_sums, b_sums, a_maximum, b_maximum);
  const double own[6] = {a_sums.total, a_sums.weighted, a_sums.difference,
                         b_sums.total, b_sums.weighted, b_sums.difference};
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    const double of_warp = warp_sum(own[i]);
    if (lane == 0) shared.sums[i][warp] = of_warp;
  }
  if (warp < 2) {  // one warp for each row
    Top top;
    for (int i = 0; i < kWarps * kTop; i += kWarp) {
      const bool inside = i + lane < kWarps * kTop;
      top.offer(inside ? shared.value[warp][i + lane] : minus_infinity(),
                inside ? shared.index[warp][i + lane] : kNowhere);
    }
    if (lane < kTop) shared.top[warp][lane] = top.index;
  }
  __syncthreads();

  const double not_a_number = __longlong_as_double(0x7ff8000000000000ll);
  const auto sum_of = [&](int which) {
    double sum = 0;
    for (int j = 0; j < kWarps; ++j) sum += shared.sums[which][j];
    return sum;
  };
  const auto total_of = [&](int first, float maximum) {
    // A NaN or +Inf among the logits has made the sum NaN.
    const double total = maximum == minus_infinity() ? not_a_number : sum_of(first);
    return Total{total, sum_of(first + 1), sum_of(first + 2), log(total)};
  };
  Total a, b;
  if (threadIdx.x == 0) {
    a = total_of(0, a_maximum);
    b = total_of(3, b_maximum);
    shared.ratio = static_cast<float>(a.total / b.total);
  }
  __syncthreads();

  // Σ max(p − ratio · q, 0): over Σ p it is 1 − acceptance, and exactly 0 for equal rows.
  float more = 0;
  const float ratio = shared.ratio;
  constexpr int64_t kStep = static_cast<int64_t>(kThreads) * kValues;
  for (int64_t begin = (columns - 1) / kStep * kStep; begin >= 0; begin -= kStep) {
    float p[kValues], q[kValues];
    uint32_t indices[kValues];
    load<Type>(a_row, b_row, columns, begin, unit, p, q, indices);
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      more += fmaxf(expf(p[j] - a_maximum) - ratio * expf(q[j] * damaged_scale - b_maximum), 0.0f);
    }
  }
  const double more_of_warp = warp_sum(more);
  if (lane == 0) shared.sums[5][warp] = more_of_warp;
  __syncthreads();
  if (threadIdx.x != 0) return;

  // Rounding must not make negative what cannot be; NaN stays.
  const auto positive = [](double value) { return static_cast<float>(value < 0 ? 0.0 : value); };
  const double forward = a.difference / a.total - a.log_total + b.log_total;
  const double reverse = a.log_total - b.log_total - b.difference / b.total;
  const bool valid = forward == forward && reverse == reverse;
  const auto divergence = [&](double value, float alone, float maximum) {
    return valid && alone - maximum >= kLeast ? -minus_infinity() : positive(value);
  };

  const int64_t target = targets[row];
  const bool has_target = target >= 0 && target < columns;
  const double a_target = has_target ? Type::load(a_row[target]) : not_a_number;
  const double b_target = has_target ? Type::load(b_row[target]) * damaged_scale : not_a_number;
  out.nll_baseline[row] = positive(a.log_total + a_maximum - a_target);
  out.nll_damaged[row] = positive(b.log_total + b_maximum - b_target);
  out.kl[row] = divergence(forward, maxima[2], a_maximum);
  out.kl_reverse[row] = divergence(reverse, maxima[3] * damaged_scale, b_maximum);
  out.entropy_baseline[row] = positive(a.log_total - a.weighted / a.total);
  out.entropy_damaged[row] = positive(b.log_total - b.weighted / b.total);
  out.confidence_baseline[row] = static_cast<float>(1 / a.total);
  out.confidence_damaged[row] = static_cast<float>(1 / b.total);
  out.top1_baseline[row] = shared.top[0][0] == kNowhere ? 0 : shared.top[0][0];
  out.top1_damaged[row] = shared.top[1][0] == kNowhere ? 0 : shared.top[1][0];

  int common = 0;
  for (int i = 0; i < kTop; ++i) {
    for (int j = 0; j < kTop; ++j) common += shared.top[0][i] != kNowhere && shared.top[0][i] == shared.top[1][j];
  }
  const int most = columns < kTop ? static_cast<int>(columns) : kTop;
  out.top5_overlap[row] =
      valid ? static_cast<float>(common) / static_cast<float>(most) : static_cast<float>(not_a_number);
  out.acceptance[row] = valid ? positive(1 - sum_of(5) / a.total) : static_cast<float>(not_a_number);
}

}  // namespace

Error divergence(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale,
                 const DivergenceOut& out, void* stream) {
  const int unit = rows_in_fours(baseline) && rows_in_fours(damaged) ? kUnit : 1;
  for_element(baseline.element, [&](auto type) {
    using Type = decltype(type);
    using Storage = typename Type::Storage;
    const Logits<Type> a{static_cast<const Storage*>(baseline.data), baseline.row_stride};
    const Logits<Type> b{static_cast<const Storage*>(damaged.data), damaged.row_stride};
    divergence_of_row<Type><<<static_cast<unsigned>(baseline.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        a, b, baseline.columns, unit, targets, damaged_scale, out);
  });
  return last_error();
}

}  // namespace hemostat::kernels::cuda
