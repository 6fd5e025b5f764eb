// CPU loops of `divergence`. See divergence.h.
//
// A row of both logits is read once, block by block. Each block is reduced while it lies in the L1 cache: its largest
// logits, then the sums of DivergenceSums relative to the largest so far, which are shifted when a larger one comes.
// Σ min(p, q) needs both sums first: the exponentials are kept, in the L2 cache, for a second look.
// Sums have 16 lanes within a block whatever the vectors' width, and double precision across blocks, so that every
// instruction set gives the same bits.
#include "kernels/divergence/divergence.h"

#include "kernels/elements.simd.h"
#include "kernels/flags.simd.h"
#include "kernels/width.simd.h"

namespace hemostat::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kVectors = kLanes / kWidth;

typedef float Vector __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

struct Lanes {
  Vector part[kVectors] = {};
};

// In a fixed order: halves are added until one lane is left.
inline float sum(const Lanes& lanes) {
  float values[kLanes];
  __builtin_memcpy(values, lanes.part, sizeof(values));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) values[lane] += values[lane + half];
  }
  return values[0];
}

constexpr float kNegativeInfinity = -__builtin_inff();

// Below this exponent e is taken as 0: what is left out of a row is less than its vocabulary · 1e-38.
constexpr float kLeast = -87.0f;

// exp(x) for kLeast ≤ x ≤ 0: 2^n · 2^r with n + r = x log₂e and |r| ≤ ½, where 2^r is a polynomial fitted for the least
// relative error, 1.6 · 2^-24. Off by at most (4 + 1.2 |x|) · 2^-24 of the result; exp(0) = 1; NaN stays NaN.
inline Vector exponential(Vector x) {
  constexpr float kLog2E = 1.44269504f;
  // Adding this rounds to an integer and leaves n + 127 in the lowest bits.
  constexpr float kShift = 12582912.0f + 127.0f;
  const Vector exponent = x * kLog2E;
  const Vector shifted = exponent + kShift;
  const Vector r = exponent - (shifted - kShift);
  Vector p = r * 0.0013269404880702496f + 0.009671294130384922f;
  p = p * r + 0.0555071122944355f;
  p = p * r + 0.24022246897220612f;
  p = p * r + 0.6931470036506653f;
  p = p * r + 1.0f;
  const Integers power = reinterpret_cast<const Integers&>(shifted) << 23;
  return p * reinterpret_cast<const Vector&>(power);
}

// For |value| < 2^22; larger ones stay as they are.
inline float round_even(float value) {
  if (!(__builtin_fabsf(value) < 4194304.0f)) return value;
  constexpr float kShift = 12582912.0f;
  return (value + kShift) - kShift;
}

struct Extremes {
  float least, largest;
};

// NaN is passed over. count is a multiple of kLanes.
Extremes extremes(const float* values, int64_t count) {
  Lanes least, largest;
  for (int j = 0; j < kVectors; ++j)
    least.part[j] = largest.part[j] = *reinterpret_cast<const Vector*>(values + j * kWidth);
  for (int64_t i = 0; i < count; i += kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      const Vector value = *reinterpret_cast<const Vector*>(values + i + j * kWidth);
      least.part[j] = value < least.part[j] ? value : least.part[j];
      largest.part[j] = value > largest.part[j] ? value : largest.part[j];
    }
  }
  float low[kLanes], high[kLanes];
  __builtin_memcpy(low, least.part, sizeof(low));
  __builtin_memcpy(high, largest.part, sizeof(high));
  Extremes found{__builtin_inff(), kNegativeInfinity};
  for (int lane = 0; lane < kLanes; ++lane) {
    found.least = low[lane] < found.least ? low[lane] : found.least;
    found.largest = high[lane] > found.largest ? high[lane] : found.largest;
  }
  return found;
}

// Adds a block to the sums, and keeps its exponentials; `at` and `damaged_at` are what exponents are relative to.
// `wide` allows for exponents below kLeast, among them those of −Inf. `next` and `next_damaged` will be read soon.
template <bool wide>
void add_block(const float* baseline, const float* damaged, int64_t count, float damaged_scale, float at,
               float damaged_at, const char* next, const char* next_damaged, int64_t next_step, DivergenceSums& sums,
               float* kept, float* kept_damaged) {
  // x − y is at − damaged_at less than the logits' own difference, which is exact where they are close. So that it is
  // also where one row is shifted far from the other, the offset's multiple of 16 is taken off first, without rounding.
  const double offset = static_cast<double>(at) - damaged_at;
  const float coarse = 16 * round_even(static_cast<float>(offset / 16));
  const float fine = static_cast<float>(offset - coarse);
  Lanes e_sum, f_sum, ex_sum, fy_sum, excess, excess_damaged;
  for (int64_t i = 0; i < count; i += kLanes) {
    __builtin_prefetch(next + i * next_step);
    __builtin_prefetch(next_damaged + i * next_step);
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      const Vector logit = *reinterpret_cast<const Vector*>(baseline + i + j * kWidth);
      const Vector damaged_logit = *reinterpret_cast<const Vector*>(damaged + i + j * kWidth) * damaged_scale;
      const Vector x = logit - at;
      const Vector y = damaged_logit - damaged_at;
      const Vector difference = (logit - (damaged_logit + coarse)) - fine;
      if (wide) {
        const Vector zero = {};
        const Vector least = zero + kLeast;
        const Vector x_within = x < kLeast ? least : x;
        const Vector y_within = y < kLeast ? least : y;
        const Vector e = x < kLeast ? zero : exponential(x_within);
        const Vector f = y < kLeast ? zero : exponential(y_within);
        *reinterpret_cast<Vector*>(kept + i + j * kWidth) = e;
        *reinterpret_cast<Vector*>(kept_damaged + i + j * kWidth) = f;
        // Where e is 0 the other may be −Inf, and the product NaN.
        const Vector by_x = e * difference, by_y = f * difference;
        e_sum.part[j] += e;
        f_sum.part[j] += f;
        ex_sum.part[j] += e * x_within;
        fy_sum.part[j] += f * y_within;
        excess.part[j] += e == 0.0f ? zero : by_x;
        excess_damaged.part[j] -= f == 0.0f ? zero : by_y;
      } else {
        const Vector e = exponential(x);
        const Vector f = exponential(y);
        *reinterpret_cast<Vector*>(kept + i + j * kWidth) = e;
        *reinterpret_cast<Vector*>(kept_damaged + i + j * kWidth) = f;
        e_sum.part[j] += e;
        f_sum.part[j] += f;
        ex_sum.part[j] += e * x;
        fy_sum.part[j] += f * y;
        excess.part[j] += e * difference;
        excess_damaged.part[j] -= f * difference;
      }
    }
  }
  sums.baseline += sum(e_sum);
  sums.damaged += sum(f_sum);
  sums.baseline_x += sum(ex_sum);
  sums.damaged_x += sum(fy_sum);
  sums.baseline_excess += sum(excess);
  sums.damaged_excess += sum(excess_damaged);
}

// Makes the sums relative to larger logits: baseline's by `up` ≥ 0, damaged's by `damaged_up`.
void shift(double up, double damaged_up, DivergenceSums& sums) {
  const double factor = up > 0 ? __builtin_exp(-up) : 1;
  const double damaged_factor = damaged_up > 0 ? __builtin_exp(-damaged_up) : 1;
  sums.baseline_x = factor * (sums.baseline_x - up * sums.baseline);
  sums.damaged_x = damaged_factor * (sums.damaged_x - damaged_up * sums.damaged);
  sums.baseline_excess = factor * (sums.baseline_excess + (damaged_up - up) * sums.baseline);
  sums.damaged_excess = damaged_factor * (sums.damaged_excess + (up - damaged_up) * sums.damaged);
  sums.baseline *= factor;
  sums.damaged *= damaged_factor;
}

// Rounding must not make negative what cannot be; NaN stays.
inline double positive(double value) { return value < 0 ? 0.0 : value; }

// Σ max(e − ratio · f, 0) of a block's exponentials.
inline float excess_mass(const float* e, const float* f, int64_t count, float ratio) {
  Lanes total;
  const Vector zero = {};
  for (int64_t i = 0; i < count; i += kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      const int64_t first = i + j * kWidth;
      const Vector more =
          *reinterpret_cast<const Vector*>(e + first) - *reinterpret_cast<const Vector*>(f + first) * ratio;
      total.part[j] += more > zero ? more : zero;
    }
  }
  return sum(total);
}

// What a row's blocks keep for a second look.
struct Kept {
  float *relative, *damaged_relative;  // of each block: what its exponentials are relative to
  float* exponentials;                 // of each block: kDivergenceBlock of the baseline, then of the damaged

  Kept(float* buffer, int64_t vocab)
      : relative(buffer),
        damaged_relative(buffer + (vocab + kDivergenceBlock - 1) / kDivergenceBlock),
        exponentials(damaged_relative + (vocab + kDivergenceBlock - 1) / kDivergenceBlock) {}
};

// Σ max(p − q, 0), which is 1 − Σ min(p, q), and exactly 0 for equal rows.
double total_variation(const Kept& kept, int64_t vocab, double at, double damaged_at, const DivergenceSums& sums) {
  double total = 0;
  for (int64_t block = (vocab - 1) / kDivergenceBlock; block >= 0; --block) {
    const int64_t left = vocab - block * kDivergenceBlock;
    const int64_t count = left < kDivergenceBlock ? (left + kLanes - 1) / kLanes * kLanes : kDivergenceBlock;
    // Before the first finite logit they are relative to 0, and all 0.
    const double up = positive(at - kept.relative[block]);
    const double damaged_up = positive(damaged_at - kept.damaged_relative[block]);
    const float* e = kept.exponentials + 2 * kDivergenceBlock * block;
    // Beyond float's range a block's p are below 1e-38.
    const double ratio = __builtin_exp(up - damaged_up) * (sums.baseline / sums.damaged);
    constexpr double kLargest = 3e38;
    const auto clipped = static_cast<float>(ratio < kLargest ? ratio : kLargest);
    total += __builtin_exp(-up) / sums.baseline * excess_mass(e, e + kDivergenceBlock, count, clipped);
  }
  return total;
}

// The five largest logits and their tokens, in order; of equal ones the lowest token first.
struct TopFive {
  float logits[5];
  int64_t tokens[5];
  int64_t count = 0;

  void insert(float logit, int64_t token) {
    int64_t place = count < 5 ? count++ : 4;
    for (; place > 0 && logit > logits[place - 1]; --place) {
      logits[place] = logits[place - 1];
      tokens[place] = tokens[place - 1];
    }
    logits[place] = logit;
    tokens[place] = token;
  }

  void add_block(const float* values, int64_t count_of_block, int64_t first_token, float largest) {
    constexpr int64_t kChunk = 64;
    int64_t begin = 0;
    for (; begin < count_of_block && count < 5; ++begin) insert(values[begin], first_token + begin);
    if (!(largest > logits[count - 1])) return;
    for (; begin < count_of_block; begin += kChunk) {
      const int64_t size = count_of_block - begin < kChunk ? count_of_block - begin : kChunk;
      const float* chunk = values + begin;
      const float fifth = logits[4];
      alignas(64) uint8_t flags[kChunk] = {};
      if (size == kChunk) {
        uint32_t any = 0;
        for (int64_t i = 0; i < kChunk; ++i) any |= chunk[i] > fifth;
        if (any == 0) continue;
        for (int64_t i = 0; i < kChunk; ++i) flags[i] = chunk[i] > fifth;
      } else {
        for (int64_t i = 0; i < size; ++i) flags[i] = chunk[i] > fifth;
      }
      for_each_set(flags, kChunk, [&](int64_t i) {
        if (chunk[i] > logits[4]) insert(chunk[i], first_token + begin + i);
      });
    }
  }
};

float overlap(const TopFive& a, const TopFive& b) {
  int64_t shared = 0;
  for (int64_t i = 0; i < a.count; ++i) {
    for (int64_t j = 0; j < b.count; ++j) shared += a.tokens[i] == b.tokens[j];
  }
  return static_cast<float>(shared) / static_cast<float>(a.count);
}

inline float logit_at(const Matrix& logits, int64_t row, int64_t token) {
  float value = 0;
  return *row_floats(logits, row, token, 1, &value);
}

inline const char* address(const Matrix& matrix, int64_t row, int64_t column) {
  const int64_t size = matrix.element == Element::float32 ? 4 : 2;
  return static_cast<const char*>(matrix.data) + (row * matrix.row_stride + column * matrix.column_stride) * size;
}

// A whole number of lanes: the rest of a row in `buffer`, followed by logits that weigh nothing.
inline const float* padded(const float* values, int64_t count, int64_t padded_count, float* buffer) {
  if (count == padded_count) return values;
  if (values != buffer) __builtin_memcpy(buffer, values, static_cast<size_t>(count) * sizeof(float));
  for (int64_t i = count; i < padded_count; ++i) buffer[i] = kNegativeInfinity;
  return buffer;
}

void row(const Matrix& baseline, const Matrix& damaged, int64_t target, float damaged_scale, int64_t token,
         const DivergenceOut& out, float* buffer) {
  const int64_t vocab = baseline.columns;
  const int64_t step = baseline.element == Element::float32 ? 4 : 2;
  float at = kNegativeInfinity, damaged_at = kNegativeInfinity;
  DivergenceSums sums{0, 0, 0, 0, 0, 0};
  const Kept kept(buffer + 2 * kDivergenceBlock, vocab);
  TopFive top, top_damaged;
  for (int64_t begin = 0; begin < vocab; begin += kDivergenceBlock) {
    const int64_t count = vocab - begin < kDivergenceBlock ? vocab - begin : kDivergenceBlock;
    const int64_t lanes = (count + kLanes - 1) / kLanes * kLanes;
    const float* x = padded(row_floats(baseline, token, begin, count, buffer), count, lanes, buffer);
    float* other = buffer + kDivergenceBlock;
    const float* y = padded(row_floats(damaged, token, begin, count, other), count, lanes, other);
    const Extremes of_x = extremes(x, lanes), of_y = extremes(y, lanes);
    top.add_block(x, count, begin, of_x.largest);
    top_damaged.add_block(y, count, begin, of_y.largest);

    const float largest_y = of_y.largest * damaged_scale;
    const float new_at = of_x.largest > at ? of_x.largest : at;
    const float new_damaged_at = largest_y > damaged_at ? largest_y : damaged_at;
    if (new_at != at || new_damaged_at != damaged_at) {
      // Before the first finite logit every e was 0, whatever it was relative to.
      const double up = at == kNegativeInfinity ? 0.0 : static_cast<double>(new_at) - at;
      const double damaged_up =
          damaged_at == kNegativeInfinity ? 0.0 : static_cast<double>(new_damaged_at) - damaged_at;
      shift(up, damaged_up, sums);
      at = new_at;
      damaged_at = new_damaged_at;
    }
    const float relative = at == kNegativeInfinity ? 0.0f : at;
    const float damaged_relative = damaged_at == kNegativeInfinity ? 0.0f : damaged_at;
    const bool narrow = of_x.least - relative >= kLeast && of_y.least * damaged_scale - damaged_relative >= kLeast;
    const int64_t block = begin / kDivergenceBlock;
    kept.relative[block] = relative;
    kept.damaged_relative[block] = damaged_relative;
    float* exponentials = kept.exponentials + 2 * begin;
    const char* next = address(baseline, token, begin) + kDivergenceBlock * step;
    const char* next_damaged = address(damaged, token, begin) + kDivergenceBlock * step;
    (narrow ? add_block<false> : add_block<true>)(x, y, lanes, damaged_scale, relative, damaged_relative, next,
                                                  next_damaged, step, sums, exponentials,
                                                  exponentials + kDivergenceBlock);
  }

  const double nan = __builtin_nan("");
  if (at == kNegativeInfinity) sums.baseline = nan;
  if (damaged_at == kNegativeInfinity) sums.damaged = nan;
  const double log_sum = __builtin_log(sums.baseline), damaged_log_sum = __builtin_log(sums.damaged);
  const auto set = [&](float* values, double value) { values[token] = static_cast<float>(positive(value)); };
  const double logit = logit_at(baseline, token, target);
  const double damaged_logit = logit_at(damaged, token, target) * damaged_scale;
  set(out.nll_baseline, log_sum + at - logit);
  set(out.nll_damaged, damaged_log_sum + damaged_at - damaged_logit);
  set(out.kl, sums.baseline_excess / sums.baseline - log_sum + damaged_log_sum);
  set(out.kl_reverse, sums.damaged_excess / sums.damaged - damaged_log_sum + log_sum);
  set(out.entropy_baseline, log_sum - sums.baseline_x / sums.baseline);
  set(out.entropy_damaged, damaged_log_sum - sums.damaged_x / sums.damaged);
  out.confidence_baseline[token] = static_cast<float>(1 / sums.baseline);
  out.confidence_damaged[token] = static_cast<float>(1 / sums.damaged);
  out.top1_baseline[token] = top.tokens[0];
  out.top1_damaged[token] = top_damaged.tokens[0];
  const bool valid = sums.baseline == sums.baseline && sums.damaged == sums.damaged;
  out.top5_overlap[token] = valid ? overlap(top, top_damaged) : static_cast<float>(nan);
  set(out.acceptance, valid ? 1 - total_variation(kept, vocab, at, damaged_at, sums) : nan);
}

void rows(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale, int64_t begin,
          int64_t end, const DivergenceOut& out, float* buffer) {
  for (int64_t token = begin; token < end; ++token) {
    row(baseline, damaged, targets[token], damaged_scale, token, out, buffer);
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const DivergenceLoops divergence_loops = {rows};
}

}  // namespace hemostat::kernels
