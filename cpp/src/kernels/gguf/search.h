// The search for the scales and minima of sixteen sub-blocks, and for the codes that follow from them. The templates
// take N values a sub-block, kept as in Group, and kWeighted: whether errors have weights.
#pragma once

#include "kernels/gguf/lanes.h"

namespace hemostat::kernels {
namespace {

// A grid of scales around the one that puts the largest magnitude, or the range, on the last code.
struct Steps {
  int count;
  float first, step;  // added to the last code
  bool both_ends;     // the largest magnitude on the last positive code too, not only on the last negative one
};

// The code of value / scale: an integer of low … high, or an entry of IQ4_NL's codebook.
template <int kLow, int kHigh>
struct Integer {
  static constexpr float kFirst = kLow, kLast = kHigh;
  static HEMOSTAT_BLOCKS Lanes round(Lanes scaled) { return nearest(least(most(scaled, splat(kLow)), splat(kHigh))); }
};

struct Nonlinear {
  static constexpr float kFirst = -127, kLast = 113;
  // The nearest entry; halfway between two, the higher.
  static HEMOSTAT_BLOCKS Lanes round(Lanes scaled) {
    constexpr Codebook kBook = nonlinear_codebook();
    Lanes code = splat(kBook.value[0]);
    for (int i = 1; i < 16; ++i) {
      const Lanes above = splat(kBook.value[i]);
      code = scaled >= 0.5f * (kBook.value[i - 1] + kBook.value[i]) ? above : code;
    }
    return code;
  }
};

// The scale of each sub-block with the least Σ weight · (value − scale · code)².
template <int N, class Code, bool kWeighted>
HEMOSTAT_BLOCKS void search_scale(const Group<N>& group, Steps steps, float* scale) {
  const Lanes zero = splat(0.0f);
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    Lanes peak = zero, size = zero;
    for (int i = 0; i < N; ++i) {
      const Lanes value = load(group.value + i * kLanes + lane), own = magnitude(value);
      peak = own > size ? value : peak;
      size = most(size, own);
    }
    const Lanes inverse = inverse_or_zero(peak);
    Lanes unit[N];
    for (int i = 0; i < N; ++i) unit[i] = load(group.value + i * kLanes + lane) * inverse;

    Lanes best = zero, gain = zero;
    const auto fit = [&](Lanes factor) {
      Lanes along = zero, square = zero;
      for (int i = 0; i < N; ++i) {
        const Lanes code = Code::round(unit[i] * factor);
        Lanes weighted = code;
        if constexpr (kWeighted) weighted = code * load(group.weight + i * kLanes + lane);
        along = along + weighted * unit[i];
        square = square + weighted * code;
      }
      const Lanes own = square > 0.0f ? along / square : zero;
      const Lanes own_gain = own * along;
      best = own_gain > gain ? own : best;
      gain = most(gain, own_gain);
    };
    for (int i = 0; i < steps.count; ++i) {
      const float beyond = steps.first + steps.step * static_cast<float>(i);
      fit(splat(Code::kFirst - beyond));
      if (steps.both_ends) fit(splat(Code::kLast + beyond));
    }
    fit(inverse_or_zero(best));
    store(scale + lane, best * peak);
  }
}

// Scale and minimum of each sub-block with the least Σ weight · (value − (scale · code − minimum))², code 0 … kHigh.
// kNegative: the minimum that is subtracted is at least 0, as K formats store it.
template <int N, int kHigh, bool kNegative, bool kWeighted>
HEMOSTAT_BLOCKS void search_range(const Group<N>& group, Steps steps, float* scale, float* minimum) {
  const Lanes zero = splat(0.0f);
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    Lanes low = load(group.value + lane), high = low;
    for (int i = 1; i < N; ++i) {
      const Lanes value = load(group.value + i * kLanes + lane);
      low = least(low, value);
      high = most(high, value);
    }
    if constexpr (kNegative) low = least(low, zero);
    const Lanes range = high - low, inverse = inverse_or_zero(range);
    const Lanes limit = -low * inverse;  // the shift at which the minimum is 0
    Lanes unit[N];
    Lanes count = zero, sum = zero;
    for (int i = 0; i < N; ++i) {
      unit[i] = (load(group.value + i * kLanes + lane) - low) * inverse;
      if constexpr (kWeighted) {
        const Lanes weight = load(group.weight + i * kLanes + lane);
        count = count + weight;
        sum = sum + weight * unit[i];
      } else {
        sum = sum + unit[i];
      }
    }
    if constexpr (!kWeighted) count = splat(N);

    // Values are range · (slope · code + shift) + low.
    Lanes best_slope = zero, best_shift = zero, gain = splat(-1e30f);
    const auto fit = [&](Lanes factor, Lanes offset) {
      Lanes codes = zero, squares = zero, along = zero;
      for (int i = 0; i < N; ++i) {
        const Lanes code = nearest(least(most(unit[i] * factor - offset, zero), splat(kHigh)));
        Lanes weighted = code;
        if constexpr (kWeighted) weighted = code * load(group.weight + i * kLanes + lane);
        codes = codes + weighted;
        squares = squares + weighted * code;
        along = along + weighted * unit[i];
      }
      const Lanes determinant = count * squares - codes * codes;
      const auto solvable = determinant > 0.0f;
      const Lanes inverse_determinant = solvable ? 1.0f / determinant : zero;
      Lanes slope = (count * along - sum * codes) * inverse_determinant;
      Lanes shift = (squares * sum - codes * along) * inverse_determinant;
      Lanes own_gain = slope * along + shift * sum;
      if constexpr (kNegative) {
        const auto above = shift > limit;
        const Lanes rest = along - limit * codes;
        const Lanes steep = squares > 0.0f ? rest / squares : zero;
        const Lanes limited_gain = limit * (2.0f * sum - limit * count) + steep * rest;
        slope = above ? steep : slope;
        shift = above ? limit : shift;
        own_gain = above ? limited_gain : own_gain;
      }
      const Lanes none = splat(-1e30f);
      own_gain = solvable ? own_gain : none;
      const auto better = own_gain > gain;
      best_slope = better ? slope : best_slope;
      best_shift = better ? shift : best_shift;
      gain = most(gain, own_gain);
    };
    for (int i = 0; i < steps.count; ++i) fit(splat(kHigh + steps.first + steps.step * static_cast<float>(i)), zero);
    const Lanes again = inverse_or_zero(best_slope);
    fit(again, best_shift * again);
    store(scale + lane, most(range * best_slope, zero));
    Lanes own_minimum = -(low + range * best_shift);
    if constexpr (kNegative) own_minimum = most(own_minimum, zero);
    store(minimum + lane, own_minimum);
  }
}

// Σ weight · (value − (scale · code − minimum))² of the sub-blocks from `lane` on, each value on its nearest code.
template <int N, class Code, bool kWeighted>
HEMOSTAT_BLOCKS Lanes squared_error(const Group<N>& group, int lane, Lanes scale, Lanes minimum) {
  const Lanes inverse = inverse_or_zero(scale);
  Lanes sum = splat(0.0f);
  for (int i = 0; i < N; ++i) {
    const Lanes value = load(group.value + i * kLanes + lane) + minimum;
    const Lanes off = value - scale * Code::round(value * inverse);
    Lanes square = off * off;
    if constexpr (kWeighted) square = square * load(group.weight + i * kLanes + lane);
    sum = sum + square;
  }
  return sum;
}

// The factors, integers of low … high, by which a sub-block multiplies its block's scale and minimum.
struct Factors {
  alignas(64) float scale[kLanes], minimum[kLanes];
};

// Those of the least error: of the nearest to what was searched and their neighbours.
//   unit_scale, unit_minimum  of the block that each sub-block is in
template <int N, class Code, bool kMinimum, bool kWeighted>
HEMOSTAT_BLOCKS void choose_factors(const Group<N>& group, const Factors& searched, const Factors& unit, float low,
                                    float high, Factors& chosen) {
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Lanes unit_scale = load(unit.scale + lane), unit_minimum = load(unit.minimum + lane);
    const Lanes lowest = splat(low), highest = splat(high);
    const auto factor = [&](Lanes value, Lanes of, float beside) {
      return most(least(nearest(value * inverse_or_zero(of)) + beside, highest), lowest);
    };
    Lanes least_error = splat(3e38f), best_scale = splat(0.0f), best_minimum = splat(0.0f);
    for (int beside = -1; beside <= 1; ++beside) {
      const Lanes scale = factor(load(searched.scale + lane), unit_scale, static_cast<float>(beside));
      for (int below = kMinimum ? -1 : 0; below <= (kMinimum ? 1 : 0); ++below) {
        const Lanes minimum = factor(load(searched.minimum + lane), unit_minimum, static_cast<float>(below));
        const Lanes error = squared_error<N, Code, kWeighted>(group, lane, unit_scale * scale, unit_minimum * minimum);
        const auto better = error < least_error;
        best_scale = better ? scale : best_scale;
        best_minimum = better ? minimum : best_minimum;
        least_error = better ? error : least_error;
      }
    }
    store(chosen.scale + lane, best_scale);
    store(chosen.minimum + lane, best_minimum);
  }
}

}  // namespace
}  // namespace hemostat::kernels
