// Room `normalize`: normalization changed. Model in, Model out.
#pragma once

#include <hemostat/model.h>

namespace hemostat::normalize {

struct DropNormsOptions {
  int64_t count = 0;  // norms to drop, 0 … all
};

// The norms of the residual stream, i.e. every block's and the final one.
int64_t norm_count(const Model& model);

// Replaces `count` norms by nothing, the deepest first (the final norm, then the last block's, MLP before attention);
// what follows sees the residual stream itself. Their weights go too.
Model drop_norms(const Model& model, const DropNormsOptions& options);

}  // namespace hemostat::normalize
