// Room `normalize`: normalization changed. Model in, Model out.
#pragma once

#include <hemostat/model.h>

namespace hemostat::normalize {

struct DropNormsOptions {
  int64_t count = 0;  // norms to drop, 0 … all
};

// The norms of the residual stream, i.e. each block's before (or after) attention and MLP and the final one; those
// already dropped don't count.
int64_t norm_count(const Model& model);

// Replaces `count` norms by nothing, the deepest first (the final norm, then the last block's, MLP before attention);
// what follows sees the residual stream itself. Their weights go too. ValueError for a count out of range.
Model drop_norms(const Model& model, const DropNormsOptions& options);

}  // namespace hemostat::normalize
