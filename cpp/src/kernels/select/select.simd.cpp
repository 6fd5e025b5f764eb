// CPU loops of `select`. See select.h.
#include "kernels/select/select.h"

#include "kernels/elements.simd.h"
#include "kernels/flags.simd.h"

namespace hemostat::kernels {
namespace {

// float32 bits ordered as integers: those of a negative number run backwards. Adding 0 turns −0 into +0.
inline int32_t key_of(float value) {
  const int32_t bits = bit_cast<int32_t>(value + 0.0f);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// What a pass that makes keys sees of them: their extremes, NaN scores, and how many lie below two pivots.
struct Range {
  int32_t lowest = INT32_MAX, highest = INT32_MIN;
  int64_t invalid = 0;
  int32_t low_pivot = INT32_MIN, high_pivot = INT32_MIN;
  int64_t below_low = 0, below_high = 0;
};

template <bool absolute, bool scaled>
void convert(const float* values, const float* scale, int64_t count, int32_t* keys, Range& range) {
  int32_t lowest = range.lowest, highest = range.highest, invalid = 0, below_low = 0, below_high = 0;
  const int32_t low_pivot = range.low_pivot, high_pivot = range.high_pivot;
  for (int64_t i = 0; i < count; ++i) {
    float value = values[i];
    if (absolute) value = __builtin_fabsf(value);
    if (scaled) value *= scale[i];
    const int32_t key = absolute && !scaled ? bit_cast<int32_t>(value) : key_of(value);
    invalid += value != value;
    lowest = key < lowest ? key : lowest;
    highest = key > highest ? key : highest;
    below_low += key < low_pivot;
    below_high += key < high_pivot;
    keys[i] = key;
  }
  range.below_low += below_low;
  range.below_high += below_high;
  range.lowest = lowest;
  range.highest = highest;
  range.invalid += invalid;
}

// Keys of the entries [begin, begin + count) of one row.
void load_row(const Scores& scores, int64_t row, int64_t begin, int64_t count, int32_t* keys, Range& range) {
  const float* values = row_floats(scores.matrix, row, begin, count, reinterpret_cast<float*>(keys));
  const float* scale = scores.column_scale == nullptr ? nullptr : scores.column_scale + begin;
  if (scores.absolute) {
    scale != nullptr ? convert<true, true>(values, scale, count, keys, range)
                     : convert<true, false>(values, scale, count, keys, range);
  } else {
    scale != nullptr ? convert<false, true>(values, scale, count, keys, range)
                     : convert<false, false>(values, scale, count, keys, range);
  }
}

int64_t count_below(const int32_t* keys, int64_t count, int32_t pivot) {
  int32_t below = 0;
  for (int64_t i = 0; i < count; ++i) below += keys[i] < pivot;
  return below;
}

int64_t count_equal(const int32_t* keys, int64_t count, int32_t key) {
  int32_t equal = 0;
  for (int64_t i = 0; i < count; ++i) equal += keys[i] == key;
  return equal;
}

// --- the threshold ---------------------------------------------------------------------------------------------

// The threshold lies in [low, high): `below` keys are less than low, `below_high` less than high,
// below ≤ removed < below_high.
struct Bracket {
  int64_t low, high;
  int64_t below, below_high;
  int64_t population() const { return below_high - below; }
};

// Counts the keys below a pivot and moves one end of the bracket there.
void narrow(const int32_t* keys, int64_t count, int64_t removed, int64_t pivot, Bracket& bracket) {
  const int64_t below = count_below(keys, count, static_cast<int32_t>(pivot));
  if (below > removed) {
    bracket.high = pivot;
    bracket.below_high = below;
  } else {
    bracket.low = pivot;
    bracket.below = below;
  }
}

// The same, but moves the end on to the nearest key: where many keys are equal, few steps remain.
void narrow_to_key(const int32_t* keys, int64_t count, int64_t removed, int64_t pivot, Bracket& bracket) {
  const int32_t key = static_cast<int32_t>(pivot);
  const int64_t below = count_below(keys, count, key);
  int32_t largest_below = INT32_MIN, least_above = INT32_MAX;
  if (below > removed) {
#pragma omp simd reduction(max : largest_below)
    for (int64_t i = 0; i < count; ++i) {
      const int32_t lesser = keys[i] < key ? keys[i] : INT32_MIN;
      largest_below = largest_below > lesser ? largest_below : lesser;
    }
  } else {
#pragma omp simd reduction(min : least_above)
    for (int64_t i = 0; i < count; ++i) {
      const int32_t other = keys[i] < key ? INT32_MAX : keys[i];
      least_above = least_above < other ? least_above : other;
    }
  }
  if (below > removed) {
    bracket.high = int64_t{largest_below} + 1;
    bracket.below_high = below;
  } else {
    bracket.low = least_above;
    bracket.below = below;
  }
}

// Interpolates between the ends, aiming a little beyond the goal so that both ends close in, and bisects where
// interpolation stalls, until at most `enough` keys lie in the bracket, or one value does, or low removes exactly
// `removed`. For a sample, `tolerance` ends it when an end comes that close in rank.
void search(const int32_t* keys, int64_t count, int64_t removed, int64_t enough, int64_t tolerance, Bracket& bracket) {
  int side = 0;
  bool stalled = false;
  while (bracket.high - bracket.low > 1 && bracket.below != removed && bracket.population() > enough) {
    const float population = static_cast<float>(bracket.population());
    const int64_t width = bracket.high - bracket.low;
    float share = static_cast<float>(removed - bracket.below) / population;
    if (population > 3) share -= static_cast<float>(side) * 0.6f * __builtin_sqrtf(share * (1 - share) / population);
    share = share < 0.5f / population ? 0.5f / population : share;
    share = share > 1 - 0.5f / population ? 1 - 0.5f / population : share;
    int64_t step = stalled ? width / 2 : static_cast<int64_t>(static_cast<float>(width) * share);
    step = step < 1 ? 1 : step > width - 1 ? width - 1 : step;
    const int64_t low = bracket.low;
    if (stalled) {
      narrow_to_key(keys, count, removed, bracket.low + step, bracket);
    } else {
      narrow(keys, count, removed, bracket.low + step, bracket);
    }
    side = bracket.low == low ? 1 : -1;
    if (tolerance > 0 && bracket.below_high - removed <= tolerance) return;
    if (tolerance > 0 && removed - bracket.below <= tolerance) return;
    stalled = 2 * static_cast<float>(bracket.population()) > population && 2 * (bracket.high - bracket.low) > width;
  }
}

constexpr int64_t kSample = 256;
constexpr int64_t kFew = 48;

// Moves the ends of the bracket to where a sample puts them.
void narrow_by_sample(const int32_t* keys, int64_t count, int64_t removed, Bracket& bracket) {
  int32_t sample[kSample];
  const int64_t stride = count / kSample;
  for (int64_t i = 0; i < kSample; ++i) {
    // The offset within a stride varies, so that a periodic row is not read at one phase.
    const uint64_t jitter = static_cast<uint32_t>(i) * 2654435761u;
    sample[i] = keys[i * stride + static_cast<int64_t>(jitter * static_cast<uint64_t>(stride) >> 32)];
  }
  const float share = static_cast<float>(removed) / static_cast<float>(count);
  const float margin = 1.5f * __builtin_sqrtf(share * (1 - share) * kSample) + 1;
  const int64_t ranks[2] = {static_cast<int64_t>(share * kSample - margin),
                            static_cast<int64_t>(share * kSample + margin) + 1};
  for (const int64_t rank : ranks) {
    if (rank <= 0 || rank >= kSample) continue;
    Bracket around{bracket.low, bracket.high, 0, kSample};
    search(sample, kSample, rank, 1, 2, around);
    const int64_t pivot = rank - around.below <= 2 ? around.low : around.high;
    if (pivot > bracket.low && pivot < bracket.high) narrow(keys, count, removed, pivot, bracket);
    if (bracket.below == removed) return;
  }
}

// Copies the keys in [low, high), at most kFew of them, and returns how many.
int64_t collect(const int32_t* keys, int64_t count, int64_t low, int64_t high, int32_t* to) {
  constexpr int64_t kBlock = 64;
  const uint32_t width = static_cast<uint32_t>(high - low);
  const int32_t base = static_cast<int32_t>(low);
  int64_t found = 0, i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    uint32_t any = 0;
    for (int64_t j = 0; j < kBlock; ++j) any |= static_cast<uint32_t>(keys[i + j]) - base < width;
    if (any == 0) continue;
    alignas(64) uint8_t inside[kBlock];
    for (int64_t j = 0; j < kBlock; ++j) inside[j] = static_cast<uint32_t>(keys[i + j]) - base < width;
    for_each_set(inside, kBlock, [&](int64_t j) __attribute__((always_inline)) { to[found++] = keys[i + j]; });
  }
  for (; i < count; ++i) {
    if (static_cast<uint32_t>(keys[i]) - base < width) to[found++] = keys[i];
  }
  return found;
}

// 0 ≤ removed < count. Where the two pivots of the range enclose the threshold, it is searched between them.
Threshold threshold_in(const int32_t* keys, int64_t count, int64_t removed, const Range& range) {
  Bracket bracket{range.lowest, int64_t{range.highest} + 1, 0, count};
  if (range.below_low > 0 && range.below_low <= removed && removed < range.below_high) {
    bracket = {range.low_pivot, range.high_pivot, range.below_low, range.below_high};
    // A pivot may lie beyond every key.
    if (bracket.high > int64_t{range.highest} + 1) bracket.high = int64_t{range.highest} + 1;
  } else if (count >= 4 * kSample) {
    narrow_by_sample(keys, count, removed, bracket);
  }
  search(keys, count, removed, count >= 16 * kFew ? kFew : 1, 0, bracket);
  if (bracket.below != removed && bracket.high - bracket.low > 1) {
    if (bracket.population() <= kFew) {
      int32_t few[kFew];
      const int64_t found = collect(keys, count, bracket.low, bracket.high, few);
      const int64_t rank = removed - bracket.below;
      Bracket among{bracket.low, bracket.high, 0, found};
      search(few, found, rank, 1, 0, among);
      return {static_cast<int32_t>(among.low), rank - among.below};
    }
  }
  return {static_cast<int32_t>(bracket.low), removed - bracket.below};
}

Threshold find_threshold(const int32_t* keys, int64_t count, int64_t removed) {
  Range range;
  for (int64_t i = 0; i < count; ++i) {
    range.lowest = keys[i] < range.lowest ? keys[i] : range.lowest;
    range.highest = keys[i] > range.highest ? keys[i] : range.highest;
  }
  return threshold_in(keys, count, removed, range);
}

// --- the masks -------------------------------------------------------------------------------------------------

void write_at_least(const int32_t* keys, int64_t count, int32_t key, bool* out) {
  uint8_t* kept = reinterpret_cast<uint8_t*>(out);
  for (int64_t i = 0; i < count; ++i) kept[i] = keys[i] >= key;
}

void write_above(const int32_t* keys, int64_t count, int32_t key, bool* out) {
  uint8_t* kept = reinterpret_cast<uint8_t*>(out);
  for (int64_t i = 0; i < count; ++i) kept[i] = keys[i] > key;
}

void write_mask(const int32_t* keys, int64_t count, Threshold* threshold, bool* out) {
  constexpr int64_t kBlock = 512;
  int64_t i = 0;
  while (i < count && threshold->ties > 0) {
    const int64_t size = count - i < kBlock ? count - i : kBlock;
    const int64_t equal = count_equal(keys + i, size, threshold->key);
    write_above(keys + i, size, threshold->key, out + i);
    if (equal <= threshold->ties) {
      threshold->ties -= equal;
    } else {
      for (int64_t j = i; j < i + size; ++j) {
        if (keys[j] == threshold->key && threshold->ties-- <= 0) out[j] = true;
      }
      threshold->ties = 0;
    }
    i += size;
  }
  write_at_least(keys + i, count - i, threshold->key, out + i);
}

void select_row(const int32_t* keys, int64_t count, int64_t removed, const Range& range, bool* out) {
  if (removed <= 0 || removed >= count) {
    __builtin_memset(out, removed <= 0, static_cast<size_t>(count));
    return;
  }
  Threshold threshold = threshold_in(keys, count, removed, range);
  write_mask(keys, count, &threshold, out);
}

// Where the next row's threshold is expected: around the last one, in a window that narrows while it catches
// thresholds and widens when it misses one.
struct Guess {
  int64_t key = 0, width = 0;

  void aim(Range& range) const {
    if (width == 0) return;
    range.low_pivot = key - width > INT32_MIN ? static_cast<int32_t>(key - width) : INT32_MIN;
    range.high_pivot = key + width < INT32_MAX ? static_cast<int32_t>(key + width) : INT32_MAX;
  }
  void learn(int32_t threshold) {
    if (width == 0) {
      width = int64_t{1} << 18;
    } else if (threshold >= key - width && threshold < key + width) {
      width -= width / 8;
    } else {
      width *= width < (int64_t{1} << 28) ? 2 : 1;
    }
    if (width < 16) width = 16;
    key = threshold;
  }
};

int64_t mask_rows(const Scores& scores, int64_t begin, int64_t end, int64_t removed, bool* out, int32_t* keys) {
  const int64_t columns = scores.matrix.columns;
  int64_t invalid = 0;
  Guess guess;
  for (int64_t row = begin; row < end; ++row) {
    Range range;
    guess.aim(range);
    load_row(scores, row, 0, columns, keys, range);
    invalid += range.invalid;
    bool* kept = out + row * columns;
    // The order of NaN is undefined, and so is that row's mask.
    if (range.invalid > 0 || removed == 0 || removed == columns) {
      __builtin_memset(kept, removed < columns, static_cast<size_t>(columns));
      continue;
    }
    Threshold threshold = threshold_in(keys, columns, removed, range);
    guess.learn(threshold.key);
    write_mask(keys, columns, &threshold, kept);
  }
  return invalid;
}

// --- n of m ----------------------------------------------------------------------------------------------------

typedef int32_t Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
constexpr int64_t kLanes = 16;

// lane → the lane `distance` further in its group of m, cyclically; and whether that one has the lower index, so that
// it wins a tie: only then is its key compared with key + 1.
template <int64_t m>
inline void rotation(int64_t distance, Lanes& from, Lanes& wins) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t group = lane / m * m, place = lane % m, other = (place + distance) % m;
    from[lane] = static_cast<int32_t>(group + other);
    wins[lane] = other < place;
  }
}

// Ranks every key in its group of m by comparing it with each other one: kept are those with at least m − n smaller.
template <int64_t m>
void mask_lanes(const int32_t* keys, int64_t count, int64_t n, bool* out) {
  const int32_t needed = static_cast<int32_t>(m - n);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Lanes own = *reinterpret_cast<const Lanes*>(keys + i);
    Lanes smaller = {};
#pragma GCC unroll 16
    for (int64_t distance = 1; distance < m; ++distance) {
      Lanes from, wins;
      rotation<m>(distance, from, wins);
      smaller -= __builtin_shuffle(own, from) < own + wins;
    }
    *reinterpret_cast<Bytes*>(out + i) = -__builtin_convertvector(smaller >= needed, Bytes);
  }
}

void mask_small_groups(const int32_t* keys, int64_t count, int64_t n, int64_t m, bool* out) {
  switch (m) {
    case 2:
      return mask_lanes<2>(keys, count, n, out);
    case 4:
      return mask_lanes<4>(keys, count, n, out);
    case 8:
      return mask_lanes<8>(keys, count, n, out);
    default:
      return mask_lanes<16>(keys, count, n, out);
  }
}

int64_t mask_groups(const Scores& scores, int64_t begin, int64_t end, int64_t n, int64_t m, bool* out, int32_t* keys) {
  const int64_t columns = scores.matrix.columns;
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    Range range;
    load_row(scores, row, 0, columns, keys, range);
    invalid += range.invalid;
    bool* kept = out + row * columns;
    int64_t done = 0;
    if (m == 2 || m == 4 || m == 8 || m == 16) {
      done = columns / kLanes * kLanes;
      mask_small_groups(keys, done, n, m, kept);
      if (done < columns) {
        int32_t last[kLanes] = {};
        bool last_kept[kLanes];
        for (int64_t i = done; i < columns; ++i) last[i - done] = keys[i];
        mask_small_groups(last, kLanes, n, m, last_kept);
        for (int64_t i = done; i < columns; ++i) kept[i] = last_kept[i - done];
      }
    } else {
      const int64_t removed = range.invalid > 0 ? 0 : m - n;
      for (; done < columns; done += m) select_row(keys + done, m, removed, range, kept + done);
    }
  }
  return invalid;
}

// --- a whole tensor --------------------------------------------------------------------------------------------

int64_t load_keys(const Scores& scores, int64_t begin, int64_t count, int32_t* keys, int32_t* lowest,
                  int32_t* highest) {
  const int64_t columns = scores.matrix.columns;
  Range range;
  int64_t row = begin / columns, column = begin % columns;
  for (int64_t done = 0; done < count; ++row, column = 0) {
    const int64_t size = columns - column < count - done ? columns - column : count - done;
    load_row(scores, row, column, size, keys + done, range);
    done += size;
  }
  *lowest = range.lowest < *lowest ? range.lowest : *lowest;
  *highest = range.highest > *highest ? range.highest : *highest;
  return range.invalid;
}

Bracketed split(const int32_t* keys, int64_t count, int32_t low, int32_t high, bool* out, int32_t* between,
                int32_t* positions) {
  constexpr int64_t kBlock = 64;
  Bracketed result{0, 0, 0, 0};
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t size = count - i < kBlock ? count - i : kBlock;
    alignas(64) uint8_t inside[kBlock] = {};
    int32_t below = 0, at_low = 0, at_high = 0;
    uint8_t* kept = reinterpret_cast<uint8_t*>(out) + i;
    const int32_t* block = keys + i;
    const auto pass = [&](int64_t entries) __attribute__((always_inline)) {
      for (int64_t j = 0; j < entries; ++j) {
        below += block[j] < low;
        at_low += block[j] == low;
        at_high += block[j] == high;
        kept[j] = block[j] >= high;
        inside[j] = (block[j] > low) & (block[j] < high);
      }
    };
    size == kBlock ? pass(kBlock) : pass(size);
    result.below += below;
    result.at_low += at_low;
    result.at_high += at_high;
    for_each_set(inside, kBlock, [&](int64_t j) __attribute__((always_inline)) {
      between[found] = block[j];
      positions[found++] = static_cast<int32_t>(i + j);
    });
  }
  result.between = found;
  return result;
}

inline uint32_t cell_of(int32_t key, Digit digit) {
  return (static_cast<uint32_t>(key) - static_cast<uint32_t>(digit.base)) >> digit.shift;
}

void histogram(const int32_t* keys, int64_t count, Digit digit, int32_t* counts) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(keys[i], digit);
    if (cell < kCells) ++counts[cell];
  }
}

// --- kept_until ------------------------------------------------------------------------------------------------

constexpr int kRadixBits = 11;
constexpr int32_t kRadix = 1 << kRadixBits;
static_assert(bins_of(0) >= 3 * kRadix);

struct Entry {
  uint32_t key;
  int32_t index;
};

// Calls place(index, rank) for every key in stable order: a radix sort from the lowest digit up, over the bits in
// which the keys differ.
template <class Place>
void for_each_ranked(const int32_t* keys, int64_t count, int32_t lowest, int32_t highest, int32_t* scratch,
                     Place place) {
  const uint32_t base = static_cast<uint32_t>(lowest);
  uint32_t varying = 0;
  for (int64_t i = 0; i < count; ++i) varying |= static_cast<uint32_t>(keys[i]) - base;
  if (varying == 0) {
    for (int64_t i = 0; i < count; ++i) place(static_cast<int32_t>(i), static_cast<int32_t>(i));
    return;
  }
  const int first_bit = __builtin_ctz(varying);
  const int bits = 32 - __builtin_clz(static_cast<uint32_t>(highest) - base) - first_bit;
  // One pass also over more bits, where there are keys enough to pay for its bins: it moves no index.
  const bool one_pass = bits <= kRadixBits || (bits <= 16 && (int64_t{1} << bits) <= 2 * count);
  const int passes = one_pass ? 1 : (bits + kRadixBits - 1) / kRadixBits;
  const int digit_bits = (bits + passes - 1) / passes;
  const uint32_t mask = (uint32_t{1} << digit_bits) - 1;

  int32_t* starts = scratch;
  Entry* from = reinterpret_cast<Entry*>(scratch + bins_of(count));
  Entry* to = from + count;
  const int64_t bins_used = one_pass ? int64_t{mask} + 1 : int64_t{kRadix} * passes;
  __builtin_memset(starts, 0, sizeof(int32_t) * static_cast<size_t>(bins_used));
  if (passes == 1) {
    for (int64_t i = 0; i < count; ++i) ++starts[(static_cast<uint32_t>(keys[i]) - base) >> first_bit];
  } else if (passes == 2) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t key = (static_cast<uint32_t>(keys[i]) - base) >> first_bit;
      ++starts[key & mask];
      ++starts[kRadix + (key >> digit_bits)];
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t key = (static_cast<uint32_t>(keys[i]) - base) >> first_bit;
      ++starts[key & mask];
      ++starts[kRadix + ((key >> digit_bits) & mask)];
      ++starts[2 * kRadix + (key >> (2 * digit_bits))];
    }
  }
  for (int pass = 0; pass < passes; ++pass) {
    int32_t start = 0;
    for (int32_t* bin = starts + pass * kRadix; bin <= starts + pass * kRadix + mask; ++bin) {
      const int32_t size = *bin;
      *bin = start;
      start += size;
    }
  }

  int32_t* bins = starts;
  if (passes == 1) {
    for (int64_t i = 0; i < count; ++i) {
      place(static_cast<int32_t>(i), bins[(static_cast<uint32_t>(keys[i]) - base) >> first_bit]++);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t key = (static_cast<uint32_t>(keys[i]) - base) >> first_bit;
    to[bins[key & mask]++] = {key >> digit_bits, static_cast<int32_t>(i)};
  }
  bins += kRadix;
  if (passes == 3) {
    Entry* sorted = to;
    to = from;
    from = sorted;
    for (int64_t i = 0; i < count; ++i) {
      const Entry entry = from[i];
      to[bins[entry.key & mask]++] = {entry.key >> digit_bits, entry.index};
    }
    bins += kRadix;
  }
  for (int64_t i = 0; i < count; ++i) place(to[i].index, bins[to[i].key]++);
}

template <class Out>
int64_t kept_rows_as(const Scores& scores, int64_t begin, int64_t end, Out* out, int32_t* scratch) {
  const int64_t columns = scores.matrix.columns;
  const double entries = static_cast<double>(columns);
  int32_t* keys = scratch;
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    Range range;
    load_row(scores, row, 0, columns, keys, range);
    invalid += range.invalid;
    Out* kept = out + row * columns;
    for_each_ranked(keys, columns, range.lowest, range.highest, scratch + columns,
                    [kept](int32_t index, int32_t rank) { kept[index] = static_cast<Out>(rank + 1); });
    // The quotient is rounded once, from exact integers: float32 holds them up to 2^24.
    for (int64_t i = 0; i < columns; ++i) kept[i] = static_cast<Out>(kept[i] / static_cast<Out>(entries));
  }
  return invalid;
}

int64_t kept_rows(const Scores& scores, int64_t begin, int64_t end, bool wide, void* out, int32_t* scratch) {
  return wide ? kept_rows_as(scores, begin, end, static_cast<double*>(out), scratch)
              : kept_rows_as(scores, begin, end, static_cast<float*>(out), scratch);
}

void scatter(const int32_t* keys, int64_t count, Digit digit, const uint16_t* bucket_of, int32_t* slots, int32_t* to) {
  for (int64_t i = 0; i < count; ++i) to[slots[bucket_of[cell_of(keys[i], digit)]]++] = keys[i];
}

void rank(int32_t* keys, int64_t count, int32_t first, int32_t* scratch) {
  int32_t lowest = INT32_MAX, highest = INT32_MIN;
  for (int64_t i = 0; i < count; ++i) {
    lowest = keys[i] < lowest ? keys[i] : lowest;
    highest = keys[i] > highest ? keys[i] : highest;
    scratch[i] = keys[i];
  }
  for_each_ranked(scratch, count, lowest, highest, scratch + count,
                  [keys, first](int32_t index, int32_t rank) { keys[index] = first + rank; });
}

template <class Out>
void gather_as(const int32_t* keys, int64_t count, Digit digit, const uint16_t* bucket_of, int32_t* slots,
               const int32_t* ranks, double entries, Out* out) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t rank = ranks[slots[bucket_of[cell_of(keys[i], digit)]]++];
    out[i] = static_cast<Out>(rank + 1) / static_cast<Out>(entries);
  }
}

void gather(const int32_t* keys, int64_t count, Digit digit, const uint16_t* bucket_of, int32_t* slots,
            const int32_t* ranks, double entries, bool wide, void* out) {
  wide ? gather_as(keys, count, digit, bucket_of, slots, ranks, entries, static_cast<double*>(out))
       : gather_as(keys, count, digit, bucket_of, slots, ranks, entries, static_cast<float*>(out));
}

}  // namespace

namespace HEMOSTAT_ISA {
const SelectLoops select_loops = {mask_rows,   mask_groups, load_keys, find_threshold, split, histogram,
                                  count_equal, write_mask,  kept_rows, scatter,        rank,  gather};
}

}  // namespace hemostat::kernels
