// A whole tensor of scores as one sequence of keys, for selections that rank all of them together.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include <ATen/Parallel.h>

#include "kernels/scratch.h"
#include "kernels/select/select.h"

namespace hemostat::kernels {

// Up to kTile neighbours of the sequence.
struct Tile {
  int64_t part;
  int64_t begin, count;
  const int32_t* keys;
  int32_t lowest, highest;
};

class Sequence {
 public:
  Sequence(const SelectLoops& loops, const Scores& scores)
      : loops_(loops), scores_(scores), entries_(scores.matrix.rows * scores.matrix.columns) {}

  int64_t entries() const { return entries_; }

  // Parts are ranges of the sequence, of about `size` entries; their bounds do not depend on the number of threads.
  int64_t part_size(int64_t size) const { return (size + kTile - 1) / kTile * kTile; }
  int64_t parts(int64_t size) const { return (entries_ + part_size(size) - 1) / part_size(size); }

  // visit(tile): parts in parallel, each on one thread and its tiles in order. Returns the NaN scores.
  template <class Visit>
  int64_t for_each_tile(int64_t size, const Visit& visit) const {
    const int64_t step = part_size(size);
    std::atomic<int64_t> invalid{0};
    at::parallel_for(0, parts(size), 1, [&](int64_t first, int64_t last) {
      const Scratch<int32_t> keys(kTile);
      for (int64_t part = first; part < last; ++part) {
        const int64_t end = std::min((part + 1) * step, entries_);
        for (int64_t begin = part * step; begin < end; begin += kTile) {
          Tile tile{part, begin, std::min(kTile, end - begin), keys.get(), INT32_MAX, INT32_MIN};
          const int64_t nan = loops_.load_keys(scores_, begin, tile.count, keys.get(), &tile.lowest, &tile.highest);
          if (nan > 0) invalid += nan;
          visit(tile);
        }
      }
    });
    return invalid;
  }

  // Keys of 16 neighbours (a cache line) at each of `places` spots, spread evenly but for a jitter.
  std::vector<int32_t> sample(int64_t places) const {
    constexpr int64_t kNeighbours = 16;
    std::vector<int32_t> keys(static_cast<size_t>(places * kNeighbours));
    const int64_t stride = entries_ / places;
    at::parallel_for(0, places, 512, [&](int64_t first, int64_t last) {
      int32_t lowest = 0, highest = 0;
      for (int64_t place = first; place < last; ++place) {
        const uint64_t jitter = static_cast<uint64_t>(place) * 0x9e3779b97f4a7c15u >> 33;
        int64_t begin = place * stride + static_cast<int64_t>(jitter % static_cast<uint64_t>(stride));
        begin = std::min(begin / kNeighbours * kNeighbours, entries_ - kNeighbours);
        loops_.load_keys(scores_, begin, kNeighbours, keys.data() + place * kNeighbours, &lowest, &highest);
      }
    });
    return keys;
  }

 private:
  const SelectLoops& loops_;
  const Scores& scores_;
  int64_t entries_;
};

}  // namespace hemostat::kernels
