// Masks and removal ranks by score: schemas, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/select/select.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/library.h"
#include "kernels/scratch.h"
#include "kernels/select/arguments.h"
#include "kernels/select/sequence.h"

namespace hemostat::kernels {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

constexpr int64_t kMaxScope = std::numeric_limits<int32_t>::max();

void check_scores(std::string_view op, const at::Tensor& score, const OptionalTensor& column_scale,
                  const at::Tensor& out, at::ScalarType out_type) {
  check_matrix(op, "score", score);
  check_column_scale(op, score, column_scale);
  if (out.scalar_type() != out_type) {
    type_error(op, fmt::format("out is {}, but takes {}", c10::toString(out.scalar_type()), c10::toString(out_type)));
  }
  check_out(op, score, "score", out, /*in_place=*/false);
}

}  // namespace

void check_mask_smallest(const at::Tensor& score, const OptionalTensor& column_scale, const c10::SymInt& removed,
                         bool per_row, const at::Tensor& out) {
  constexpr std::string_view op = "mask_smallest";
  check_scores(op, score, column_scale, out, at::kBool);
  const c10::SymInt entries = per_row ? score.sym_size(1) : score.sym_numel();
  if (removed < 0 || removed > entries) {
    value_error(op, fmt::format("removed must be in 0 … {} (the entries of {}), got {}", c10::str(entries),
                                per_row ? "a row" : "the tensor", c10::str(removed)));
  }
}

void check_mask_pattern(const at::Tensor& score, const OptionalTensor& column_scale, const c10::SymInt& n,
                        const c10::SymInt& m, const at::Tensor& out) {
  constexpr std::string_view op = "mask_pattern";
  check_scores(op, score, column_scale, out, at::kBool);
  if (m < 1 || m > 1024) value_error(op, fmt::format("m must be in 1 … 1024, got {}", c10::str(m)));
  if (n < 0 || n > m) value_error(op, fmt::format("n must be in 0 … m = {}, got {}", c10::str(m), c10::str(n)));
  if (score.sym_size(1) % m != 0) {
    value_error(op, fmt::format("score has {} columns, which m = {} does not divide", c10::str(score.sym_size(1)),
                                c10::str(m)));
  }
}

void check_kept_until(const at::Tensor& score, const OptionalTensor& column_scale, bool per_row,
                      const at::Tensor& out) {
  constexpr std::string_view op = "kept_until";
  const auto out_type = out.scalar_type();
  if (out_type != at::kFloat && out_type != at::kDouble) {
    type_error(op, fmt::format("out is {}, but takes float32 or float64", c10::toString(out_type)));
  }
  check_scores(op, score, column_scale, out, out_type);
  const c10::SymInt entries = per_row ? score.sym_size(1) : score.sym_numel();
  if (out_type == at::kFloat && entries > (int64_t{1} << 24)) {
    type_error(op, fmt::format("out is float32, but a scope of {} entries takes float64", c10::str(entries)));
  }
  if (entries > kMaxScope) {
    value_error(op, fmt::format("score has {} entries in a scope, but takes at most 2^31 − 1", c10::str(entries)));
  }
}

namespace {

const SelectLoops& loops() {
  static const SelectLoops& chosen = HEMOSTAT_PICK(select_loops);
  return chosen;
}

// Scores as the loops see them, and the memory that they point into.
struct Held {
  Held(const at::Tensor& score, const OptionalTensor& column_scale, bool absolute)
      : scale(column_scale.has_value() ? column_scale->contiguous() : at::Tensor()),
        scores{matrix_of(score), scale.defined() ? scale.const_data_ptr<float>() : nullptr, absolute} {}
  at::Tensor scale;
  Scores scores;
};

at::Tensor count_tensor(int64_t count) { return at::scalar_tensor(count, at::dtype(at::kLong)); }

// So many rows that a task is worth waking a thread for.
int64_t rows_per_task(int64_t columns) {
  return std::max<int64_t>(1, (int64_t{1} << 14) / std::max<int64_t>(1, columns));
}

// Entries of a part of a whole tensor: enough to be worth a task, few enough for int32 positions.
constexpr int64_t kPart = int64_t{1} << 18;

// Writes the mask of a threshold; `equal` holds, per part, how many keys are equal to it.
void write_mask(const Sequence& sequence, Threshold threshold, const std::vector<int64_t>& equal, bool* out) {
  std::vector<Threshold> of_part;
  for (const int64_t entries : equal) {
    const int64_t ties = std::min(threshold.ties, entries);
    of_part.push_back({threshold.key, ties});
    threshold.ties -= ties;
  }
  sequence.for_each_tile(kPart, [&](const Tile& tile) {
    loops().write_mask(tile.keys, tile.count, &of_part[tile.part], out + tile.begin);
  });
}

// Cells of the keys, per part of about `size` entries.
std::vector<std::vector<int32_t>> histograms(const Sequence& sequence, int64_t size, Digit digit) {
  std::vector<std::vector<int32_t>> counts(static_cast<size_t>(sequence.parts(size)));
  sequence.for_each_tile(size, [&](const Tile& tile) {
    auto& own = counts[tile.part];
    if (own.empty()) own.assign(kCells, 0);
    loops().histogram(tile.keys, tile.count, digit, own.data());
  });
  return counts;
}

// A part for every MiB of entries, but no more than 16: each has a histogram of its own.
int64_t histogram_part(int64_t entries) { return std::max<int64_t>(int64_t{1} << 20, (entries + 15) / 16); }

// Finds the threshold by two histograms of 16 bits each: for scores of which a sample tells nothing.
void mask_by_histogram(const Sequence& sequence, int64_t removed, bool* out) {
  Threshold threshold{INT32_MIN, removed};
  for (const int32_t shift : {16, 0}) {
    const auto counts = histograms(sequence, histogram_part(sequence.entries()), {threshold.key, shift});
    uint32_t cell = 0;
    for (; cell + 1 < kCells; ++cell) {
      int64_t entries = 0;
      for (const auto& of_part : counts) entries += of_part[cell];
      if (threshold.ties < entries) break;
      threshold.ties -= entries;
    }
    threshold.key = static_cast<int32_t>(static_cast<uint32_t>(threshold.key) + (cell << shift));
  }
  std::vector<int64_t> equal(static_cast<size_t>(sequence.parts(kPart)));
  sequence.for_each_tile(
      kPart, [&](const Tile& tile) { equal[tile.part] += loops().count_equal(tile.keys, tile.count, threshold.key); });
  write_mask(sequence, threshold, equal, out);
}

// The part of a whole tensor that lies in the bracket of mask_by_sample.
struct Inside {
  Bracketed counts{0, 0, 0, 0};
  std::vector<int32_t> keys, positions;  // in the part
};

// Selects among the keys inside the bracket the one of that rank, and sets the mask of those that it keeps.
void mask_inside(const std::vector<Inside>& inside, int64_t entries, int64_t rank, int64_t part_size, bool* out) {
  std::vector<int32_t> keys;
  keys.reserve(static_cast<size_t>(entries));
  for (const Inside& part : inside) keys.insert(keys.end(), part.keys.begin(), part.keys.end());
  Threshold threshold = loops().find_threshold(keys.data(), entries, rank);
  std::vector<int64_t> ties;
  for (const Inside& part : inside) {
    const int64_t equal = loops().count_equal(part.keys.data(), static_cast<int64_t>(part.keys.size()), threshold.key);
    ties.push_back(std::min(threshold.ties, equal));
    threshold.ties -= ties.back();
  }
  at::parallel_for(0, static_cast<int64_t>(inside.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const Inside& from = inside[part];
      bool* to = out + part * part_size;
      for (size_t i = 0; i < from.keys.size(); ++i) {
        const bool tie = from.keys[i] == threshold.key;
        if (tie ? ties[part]-- <= 0 : from.keys[i] > threshold.key) to[from.positions[i]] = true;
      }
    }
  });
}

// A sample brackets the threshold; one pass writes the mask outside the bracket and sets aside what lies inside, among
// which the threshold is then selected. 0 < removed < entries. Returns the NaN scores.
int64_t mask_by_sample(const Sequence& sequence, int64_t removed, bool* out) {
  constexpr int64_t kPlaces = 1 << 13;
  const std::vector<int32_t> sample = sequence.sample(kPlaces);
  const double size = static_cast<double>(sample.size());
  const double share = static_cast<double>(removed) / static_cast<double>(sequence.entries());
  const double margin = 5 * std::sqrt(share * (1 - share) * size) + 2;
  const auto at_rank = [&](double rank) {
    return loops().find_threshold(sample.data(), static_cast<int64_t>(sample.size()), static_cast<int64_t>(rank)).key;
  };
  const int32_t low = share * size < margin ? INT32_MIN : at_rank(share * size - margin);
  const int32_t high = share * size + margin >= size ? INT32_MAX : at_rank(share * size + margin);

  std::vector<Inside> inside(static_cast<size_t>(sequence.parts(kPart)));
  const int64_t invalid = sequence.for_each_tile(kPart, [&](const Tile& tile) {
    int32_t keys[kTile], positions[kTile];
    const Bracketed found = loops().split(tile.keys, tile.count, low, high, out + tile.begin, keys, positions);
    Inside& part = inside[tile.part];
    const auto offset = static_cast<int32_t>(tile.begin - tile.part * kPart);
    for (int64_t i = 0; i < found.between; ++i) positions[i] += offset;
    part.keys.insert(part.keys.end(), keys, keys + found.between);
    part.positions.insert(part.positions.end(), positions, positions + found.between);
    part.counts.below += found.below;
    part.counts.at_low += found.at_low;
    part.counts.between += found.between;
    part.counts.at_high += found.at_high;
  });
  if (invalid > 0) return invalid;

  Bracketed total{0, 0, 0, 0};
  std::vector<int64_t> at_low, at_high;
  for (const Inside& part : inside) {
    total.below += part.counts.below;
    total.at_low += part.counts.at_low;
    total.between += part.counts.between;
    total.at_high += part.counts.at_high;
    at_low.push_back(part.counts.at_low);
    at_high.push_back(part.counts.at_high);
  }
  const int64_t above_low = removed - total.below;
  const int64_t in_between = above_low - total.at_low;
  const int64_t above_between = in_between - total.between;
  if (above_low >= 0 && in_between < 0) {
    write_mask(sequence, {low, above_low}, at_low, out);
  } else if (in_between >= 0 && above_between < 0) {
    mask_inside(inside, total.between, in_between, kPart, out);
  } else if (low != high && above_between >= 0 && above_between < total.at_high) {
    write_mask(sequence, {high, above_between}, at_high, out);
  } else {
    mask_by_histogram(sequence, removed, out);
  }
  return 0;
}

// Returns the NaN scores.
int64_t mask_tensor(const Scores& scores, int64_t removed, bool* out) {
  const Sequence sequence(loops(), scores);
  const int64_t entries = sequence.entries();
  if (removed == 0 || removed == entries) {
    std::fill_n(out, entries, removed == 0);
    return sequence.for_each_tile(kPart, [](const Tile&) {});
  }
  if (entries > kPart) return mask_by_sample(sequence, removed, out);
  const Scratch<int32_t> keys(entries);
  int32_t lowest = 0, highest = 0;
  const int64_t invalid = loops().load_keys(scores, 0, entries, keys.get(), &lowest, &highest);
  if (invalid > 0) return invalid;
  Threshold threshold = loops().find_threshold(keys.get(), entries, removed);
  loops().write_mask(keys.get(), entries, &threshold, out);
  return 0;
}

at::Tensor mask_smallest_cpu(const at::Tensor& score, const OptionalTensor& column_scale, int64_t removed, bool per_row,
                             bool absolute, at::Tensor& out) {
  check_mask_smallest(score, column_scale, removed, per_row, out);
  if (score.numel() == 0) return count_tensor(0);
  const Held held(score, column_scale, absolute);
  bool* kept = out.mutable_data_ptr<bool>();
  if (!per_row || score.size(0) == 1) return count_tensor(mask_tensor(held.scores, removed, kept));
  std::atomic<int64_t> invalid{0};
  const int64_t columns = score.size(1);
  at::parallel_for(0, score.size(0), rows_per_task(columns), [&](int64_t begin, int64_t end) {
    const Scratch<int32_t> keys(columns);
    invalid += loops().mask_rows(held.scores, begin, end, removed, kept, keys.get());
  });
  return count_tensor(invalid);
}

at::Tensor mask_pattern_cpu(const at::Tensor& score, const OptionalTensor& column_scale, int64_t n, int64_t m,
                            bool absolute, at::Tensor& out) {
  check_mask_pattern(score, column_scale, n, m, out);
  if (score.numel() == 0) return count_tensor(0);
  const Held held(score, column_scale, absolute);
  bool* kept = out.mutable_data_ptr<bool>();
  std::atomic<int64_t> invalid{0};
  const int64_t columns = score.size(1);
  at::parallel_for(0, score.size(0), rows_per_task(columns), [&](int64_t begin, int64_t end) {
    const Scratch<int32_t> keys(columns);
    invalid += loops().mask_groups(held.scores, begin, end, n, m, kept, keys.get());
  });
  return count_tensor(invalid);
}

void lower(std::atomic<int32_t>& to, int32_t value) {
  int32_t seen = to;
  while (value < seen && !to.compare_exchange_weak(seen, value)) continue;
}

void raise(std::atomic<int32_t>& to, int32_t value) {
  int32_t seen = to;
  while (value > seen && !to.compare_exchange_weak(seen, value)) continue;
}

// Ranks a whole tensor without moving an index: the keys are partitioned, in order, into buckets of neighbouring
// values; each bucket is ranked in cache; then the scores are walked again, and each finds its rank where its key went.
int64_t kept_tensor(const Scores& scores, bool wide, void* out) {
  const Sequence sequence(loops(), scores);
  const int64_t entries = sequence.entries();
  std::atomic<int32_t> lowest{INT32_MAX}, highest{INT32_MIN};
  const int64_t invalid = sequence.for_each_tile(kPart, [&](const Tile& tile) {
    lower(lowest, tile.lowest);
    raise(highest, tile.highest);
  });
  if (invalid > 0) return invalid;
  Digit digit{lowest, 0};
  const uint32_t range = static_cast<uint32_t>(highest.load()) - static_cast<uint32_t>(digit.base);
  while ((range >> digit.shift) >= kCells) ++digit.shift;

  // Cells are merged into buckets of about entries/512; a cell with more is a bucket alone.
  const int64_t part = histogram_part(entries);
  auto counts = histograms(sequence, part, digit);
  const int64_t enough = std::max<int64_t>(entries / 512, 4096);
  std::vector<uint16_t> bucket_of(kCells);
  std::vector<int64_t> starts{0};
  int64_t size = 0;
  for (int32_t cell = 0; cell < kCells; ++cell) {
    int64_t own = 0;
    for (const auto& of_part : counts) own += of_part[cell];
    if (size > 0 && size + own > enough) {
      starts.push_back(starts.back() + size);
      size = 0;
    }
    size += own;
    bucket_of[cell] = static_cast<uint16_t>(starts.size() - 1);
  }
  starts.push_back(entries);
  const int64_t buckets = static_cast<int64_t>(starts.size()) - 1;

  // slots[part][bucket]: where the next key of that part and bucket goes.
  std::vector<std::vector<int32_t>> slots(counts.size(), std::vector<int32_t>(static_cast<size_t>(buckets)));
  for (size_t of_part = 0; of_part < counts.size(); ++of_part) {
    for (int32_t cell = 0; cell < kCells; ++cell) slots[of_part][bucket_of[cell]] += counts[of_part][cell];
  }
  int64_t largest = 0;
  for (int64_t bucket = 0; bucket < buckets; ++bucket) {
    auto slot = static_cast<int32_t>(starts[bucket]);
    for (auto& of_part : slots) slot += std::exchange(of_part[bucket], slot);
    largest = std::max(largest, starts[bucket + 1] - starts[bucket]);
  }
  counts = {};

  const Scratch<int32_t> ranks(entries);
  auto next = slots;
  sequence.for_each_tile(part, [&](const Tile& tile) {
    loops().scatter(tile.keys, tile.count, digit, bucket_of.data(), next[tile.part].data(), ranks.get());
  });
  at::parallel_for(0, buckets, 1, [&](int64_t first, int64_t last) {
    const Scratch<int32_t> scratch(scratch_of(largest));
    for (int64_t bucket = first; bucket < last; ++bucket) {
      loops().rank(ranks.get() + starts[bucket], starts[bucket + 1] - starts[bucket],
                   static_cast<int32_t>(starts[bucket]), scratch.get());
    }
  });
  sequence.for_each_tile(part, [&](const Tile& tile) {
    void* to = wide ? static_cast<void*>(static_cast<double*>(out) + tile.begin)
                    : static_cast<void*>(static_cast<float*>(out) + tile.begin);
    loops().gather(tile.keys, tile.count, digit, bucket_of.data(), slots[tile.part].data(), ranks.get(),
                   static_cast<double>(entries), wide, to);
  });
  return 0;
}

at::Tensor kept_until_cpu(const at::Tensor& score, const OptionalTensor& column_scale, bool per_row, bool absolute,
                          at::Tensor& out) {
  check_kept_until(score, column_scale, per_row, out);
  if (score.numel() == 0) return count_tensor(0);
  const Held held(score, column_scale, absolute);
  const bool wide = out.scalar_type() == at::kDouble;
  void* kept = out.mutable_data_ptr();
  const bool one_row = score.size(0) == 1;
  if (one_row ? score.size(1) > kPart : !per_row) return count_tensor(kept_tensor(held.scores, wide, kept));
  std::atomic<int64_t> invalid{0};
  const int64_t columns = score.size(1);
  at::parallel_for(0, score.size(0), rows_per_task(columns), [&](int64_t begin, int64_t end) {
    const Scratch<int32_t> scratch(scratch_of(columns));
    invalid += loops().kept_rows(held.scores, begin, end, wide, kept, scratch.get());
  });
  return count_tensor(invalid);
}

at::Tensor count_meta(const at::Tensor& score) { return at::empty({}, score.options().dtype(at::kLong)); }

at::Tensor mask_smallest_meta(const at::Tensor& score, const OptionalTensor& column_scale, c10::SymInt removed,
                              bool per_row, bool /*absolute*/, at::Tensor& out) {
  check_mask_smallest(score, column_scale, removed, per_row, out);
  return count_meta(score);
}

at::Tensor mask_pattern_meta(const at::Tensor& score, const OptionalTensor& column_scale, c10::SymInt n, c10::SymInt m,
                             bool /*absolute*/, at::Tensor& out) {
  check_mask_pattern(score, column_scale, n, m, out);
  return count_meta(score);
}

at::Tensor kept_until_meta(const at::Tensor& score, const OptionalTensor& column_scale, bool per_row, bool /*absolute*/,
                           at::Tensor& out) {
  check_kept_until(score, column_scale, per_row, out);
  return count_meta(score);
}

}  // namespace

at::Tensor mask_smallest(const at::Tensor& score, const OptionalTensor& column_scale, int64_t removed, Scope scope,
                         bool absolute, at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hemostat::mask_smallest", "")
          .typed<at::Tensor(const at::Tensor&, const OptionalTensor&, c10::SymInt, bool, bool, at::Tensor&)>();
  return op.call(score, column_scale, removed, scope == Scope::row, absolute, out);
}

at::Tensor mask_pattern(const at::Tensor& score, const OptionalTensor& column_scale, int64_t n, int64_t m,
                        bool absolute, at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hemostat::mask_pattern", "")
          .typed<at::Tensor(const at::Tensor&, const OptionalTensor&, c10::SymInt, c10::SymInt, bool, at::Tensor&)>();
  return op.call(score, column_scale, n, m, absolute, out);
}

at::Tensor kept_until(const at::Tensor& score, const OptionalTensor& column_scale, Scope scope, bool absolute,
                      at::Tensor& out) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::kept_until", "")
                             .typed<at::Tensor(const at::Tensor&, const OptionalTensor&, bool, bool, at::Tensor&)>();
  return op.call(score, column_scale, scope == Scope::row, absolute, out);
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m,
      "mask_smallest(Tensor score, Tensor? column_scale, SymInt removed, bool per_row, bool absolute, *, "
      "Tensor(a!) out) -> Tensor");
  hemostat::kernels::define(
      m,
      "mask_pattern(Tensor score, Tensor? column_scale, SymInt n, SymInt m, bool absolute, *, Tensor(a!) out) -> "
      "Tensor");
  hemostat::kernels::define(
      m, "kept_until(Tensor score, Tensor? column_scale, bool per_row, bool absolute, *, Tensor(a!) out) -> Tensor");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) {
  m.impl("mask_smallest", hemostat::kernels::mask_smallest_cpu);
  m.impl("mask_pattern", hemostat::kernels::mask_pattern_cpu);
  m.impl("kept_until", hemostat::kernels::kept_until_cpu);
}

TORCH_LIBRARY_IMPL(hemostat, Meta, m) {
  m.impl("mask_smallest", hemostat::kernels::mask_smallest_meta);
  m.impl("mask_pattern", hemostat::kernels::mask_pattern_meta);
  m.impl("kept_until", hemostat::kernels::kept_until_meta);
}
