// CPU loops of `divergence`. See divergence.h.
//
// One read of both rows, tile by tile, with running maxima. With x = a − max a, y = b − max b, p ∝ exp x, q ∝ exp y:
//   KL(p ‖ q) = Σ p (a − b) − log Σ exp a + log Σ exp b        H(p) = log Σ exp x − Σ p x
// Sixteen float32 lanes sum within a tile, whatever the width of the machine's vectors; tiles are summed in float64.
#include "kernels/divergence.h"

#include "kernels/elements.simd.h"

namespace hemostat::kernels {
namespace {

constexpr int64_t kLanes = 16, kChunk = 64;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

constexpr float kLowest = -3.4028234663852886e38f;
constexpr float kNegligible = -86.0f;  // exp of less counts as 0
constexpr float kInfinity = __builtin_inff();

inline Floats load(const float* from) {
  Floats v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

// exp x for x ≤ 0, to 2 units in the last place; NaN stays NaN. exp x = 2ⁿ · exp r, r = x − n · log 2, |r| ≤ log(2)/2,
// exp r ≈ 1 + r + r² · p(r); p minimizes the largest relative error on that interval (3e-9, before rounding).
inline Floats exp_nonpositive(Floats x) {
  const Floats shifted = x * 1.44269504088896341f + 12582912.0f;  // n in the lowest bits
  const Floats n = shifted - 12582912.0f;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // log 2 in two parts, the first exact in the product
  Floats p = r * 1.3814613182e-3f + 8.3687099281e-3f;
  p = p * r + 4.1668387370e-2f;
  p = p * r + 1.6666520689e-1f;
  p = p * r + 4.9999993452e-1f;
  p = (p * (r * r) + r) + 1.0f;
  Ints bits, exponent;
  __builtin_memcpy(&bits, &p, sizeof(bits));
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  bits += exponent << 23;
  Floats result;
  __builtin_memcpy(&result, &bits, sizeof(result));
  const Floats kept = x < kNegligible ? Floats{} : result;
  return x == x ? kept : x;
}

inline double sum(Floats v) {
  double total = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) total += v[lane];
  return total;
}

inline float largest(Floats v) {
  float result = v[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) result = v[lane] > result ? v[lane] : result;
  return result;
}

// The five largest, in falling order; of equal ones those that came first.
struct TopFive {
  float values[5] = {-kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity};
  int64_t indices[5] = {-1, -1, -1, -1, -1};

  void offer(float value, int64_t index) {
    if (!(value > values[4])) return;
    int at = 4;
    for (; at > 0 && value > values[at - 1]; --at) {
      values[at] = values[at - 1];
      indices[at] = indices[at - 1];
    }
    values[at] = value;
    indices[at] = index;
  }
};

// What one row of logits has shown so far, relative to its maximum.
struct Row {
  float maximum = kLowest;
  double total = 0;       // Σ exp x
  double weighted = 0;    // Σ exp x · x
  double difference = 0;  // Σ exp x · (a − b)
  TopFive top;

  void raise(float to) {
    if (!(to > maximum)) return;
    const double by = static_cast<double>(maximum) - to, factor = __builtin_exp(by);
    weighted = total == 0 ? 0 : factor * (weighted + by * total);
    total *= factor;
    difference *= factor;
    maximum = to;
  }

  double log_total() const { return __builtin_log(total) + maximum; }
};

// The tile's maximum; chunks that may hold one of the five largest are searched.
inline float scan(const float* values, int64_t count, int64_t offset, TopFive& top) {
  float maximum = kLowest;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = begin + kChunk < count ? begin + kChunk : count;
    Floats highest = load(values + begin);
    for (int64_t i = begin + kLanes; i < end; i += kLanes) {
      const Floats v = load(values + i);
      highest = v > highest ? v : highest;
    }
    const float of_chunk = largest(highest);
    if (of_chunk > top.values[4]) {
      for (int64_t i = begin; i < end; ++i) top.offer(values[i], offset + i);
    }
    maximum = of_chunk > maximum ? of_chunk : maximum;
  }
  return maximum;
}

struct TileSums {
  double a_total, b_total, a_weighted, b_weighted, a_difference, b_difference;
  bool finite() const {
    const double all = a_total + b_total + a_weighted + b_weighted + a_difference + b_difference;
    return all - all == 0;
  }
};

// Differences are of x and y.
TileSums sums_of(const float* a, const float* b, int64_t count, float a_maximum, float b_maximum) {
  Floats a_total{}, b_total{}, a_weighted{}, b_weighted{}, a_difference{}, b_difference{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats x = load(a + i) - a_maximum, y = load(b + i) - b_maximum;
    const Floats p = exp_nonpositive(x), q = exp_nonpositive(y), d = x - y;
    a_total += p;
    b_total += q;
    a_weighted += p * x;
    b_weighted += q * y;
    a_difference += p * d;
    b_difference += q * d;
  }
  return {sum(a_total),    sum(b_total),      sum(a_weighted),
          sum(b_weighted), sum(a_difference), sum(b_difference)};
}

// Entries [begin, begin + count) in float32, scaled, filled up to whole vectors with what weighs nothing.
const float* tile(const Matrix& logits, int64_t row, int64_t begin, int64_t count, float scale, float* buffer) {
  const float* values = row_floats(logits, row, begin, count, buffer);
  if (scale == 1 && count % kLanes == 0) return values;
  for (int64_t i = 0; i < count; ++i) buffer[i] = values[i] * scale;
  for (int64_t i = count; i % kLanes != 0; ++i) buffer[i] = kLowest;
  return buffer;
}

const float* without_infinities(const float* values, int64_t count, float* buffer) {
  for (int64_t i = 0; i < count; ++i) buffer[i] = values[i] == -kInfinity ? kLowest : values[i];
  return buffer;
}

float value_at(const Matrix& logits, int64_t row, int64_t column) {
  float buffer;
  return *row_floats(logits, row, column, 1, &buffer);
}

float overlap(const TopFive& a, const TopFive& b, int64_t columns) {
  const int64_t most = columns < 5 ? columns : 5;
  int64_t common = 0;
  for (int64_t i = 0; i < most; ++i) {
    for (int64_t j = 0; j < most; ++j) common += a.indices[i] >= 0 && a.indices[i] == b.indices[j];
  }
  return static_cast<float>(common) / static_cast<float>(most);
}

void row_divergence(const Matrix& baseline, const Matrix& damaged, int64_t row, int64_t target, float scale,
                    const DivergenceOutputs& outputs, float* buffer) {
  const int64_t columns = baseline.columns;
  Row a_row, b_row;
  bool baseline_alone = false, damaged_alone = false;  // a token possible to one model and impossible to the other
  for (int64_t begin = 0; begin < columns; begin += kDivergenceTile) {
    const int64_t count = columns - begin < kDivergenceTile ? columns - begin : kDivergenceTile;
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    const float* a = tile(baseline, row, begin, count, 1, buffer);
    const float* b = tile(damaged, row, begin, count, scale, buffer + kDivergenceTile);
    a_row.raise(scan(a, padded, begin, a_row.top));
    b_row.raise(scan(b, padded, begin, b_row.top));
    TileSums sums = sums_of(a, b, padded, a_row.maximum, b_row.maximum);
    if (!sums.finite()) {
      for (int64_t i = 0; i < count; ++i) {
        baseline_alone |= a[i] > -kInfinity && b[i] == -kInfinity;
        damaged_alone |= b[i] > -kInfinity && a[i] == -kInfinity;
      }
      a = without_infinities(a, padded, buffer);
      b = without_infinities(b, padded, buffer + kDivergenceTile);
      sums = sums_of(a, b, padded, a_row.maximum, b_row.maximum);
    }
    const double apart = static_cast<double>(a_row.maximum) - b_row.maximum;
    a_row.total += sums.a_total;
    b_row.total += sums.b_total;
    a_row.weighted += sums.a_weighted;
    b_row.weighted += sums.b_weighted;
    a_row.difference += sums.a_difference + apart * sums.a_total;
    b_row.difference += sums.b_difference + apart * sums.b_total;
  }
  const double not_a_number = __builtin_nan("");
  const bool a_ok = a_row.maximum > kLowest && a_row.total - a_row.total == 0;
  const bool b_ok = b_row.maximum > kLowest && b_row.total - b_row.total == 0;
  const double a_log = a_ok ? a_row.log_total() : not_a_number, b_log = b_ok ? b_row.log_total() : not_a_number;
  const auto divergence = [&](bool alone, double value) {
    if (!a_ok || !b_ok) return static_cast<float>(not_a_number);
    return alone ? kInfinity : static_cast<float>(value > 0 ? value : 0);
  };
  outputs.nll_baseline[row] = static_cast<float>(a_log - value_at(baseline, row, target));
  outputs.nll_damaged[row] = static_cast<float>(b_log - value_at(damaged, row, target) * scale);
  outputs.kl[row] = divergence(baseline_alone, a_row.difference / a_row.total - a_log + b_log);
  outputs.kl_reverse[row] = divergence(damaged_alone, a_log - b_log - b_row.difference / b_row.total);
  outputs.entropy_baseline[row] =
      static_cast<float>(a_ok ? __builtin_log(a_row.total) - a_row.weighted / a_row.total : not_a_number);
  outputs.entropy_damaged[row] =
      static_cast<float>(b_ok ? __builtin_log(b_row.total) - b_row.weighted / b_row.total : not_a_number);
  outputs.confidence_baseline[row] = static_cast<float>(a_ok ? 1 / a_row.total : not_a_number);
  outputs.confidence_damaged[row] = static_cast<float>(b_ok ? 1 / b_row.total : not_a_number);
  outputs.top1_baseline[row] = a_ok ? a_row.top.indices[0] : -1;
  outputs.top1_damaged[row] = b_ok ? b_row.top.indices[0] : -1;
  outputs.top5_overlap[row] = a_ok && b_ok ? overlap(a_row.top, b_row.top, columns) : 0;
}

void rows(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale, int64_t begin,
          int64_t end, const DivergenceOutputs& outputs, float* buffer) {
  for (int64_t row = begin; row < end; ++row) {
    row_divergence(baseline, damaged, row, targets[row], damaged_scale, outputs, buffer);
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const DivergenceLoops divergence_loops = {rows};
}

}  // namespace hemostat::kernels
