#include <algorithm>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "foreign.h"

namespace hemostat {

KvCache::KvCache(const Model& model, int64_t batch, int64_t capacity)
    : entries_(model.blocks.size()), batch_(batch), capacity_(std::max<int64_t>(capacity, 16)) {
  check_has_blocks(model, "hemostat.KvCache");
  if (batch < 1 || capacity < 0) {
    throw ValueError(fmt::format("hemostat.KvCache: batch must be at least 1 and capacity at least 0, got {} and {}",
                                 batch, capacity));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(size_t block, const at::Tensor& keys, const at::Tensor& values) {
  if (block >= entries_.size() || keys.size(0) != batch_) {
    throw ValueError(
        fmt::format("hemostat.KvCache: made for {} blocks and a batch of {}, got block {} and a batch of {}",
                    entries_.size(), batch_, block, keys.size(0)));
  }
  const int64_t end = length_ + keys.size(2);
  while (capacity_ < end) {
    capacity_ *= 2;
  }
  Entry& entry = entries_[block];
  for (auto [held, fresh] : {std::pair(&entry.keys, &keys), std::pair(&entry.values, &values)}) {
    if (!held->defined() || held->size(2) < capacity_) {
      at::Tensor larger = at::empty({batch_, fresh->size(1), capacity_, fresh->size(3)}, fresh->options());
      if (held->defined()) {
        larger.narrow(2, 0, length_).copy_(held->narrow(2, 0, length_));
      }
      *held = larger;
    }
    held->narrow(2, length_, fresh->size(2)).copy_(*fresh);
  }
  return {entry.keys.narrow(2, 0, end), entry.values.narrow(2, 0, end)};
}

void KvCache::advance(const at::Tensor& tokens) {
  length_ += tokens.size(1);
  last_token_ = tokens.slice(1, tokens.size(1) - 1);
}

}  // namespace hemostat
