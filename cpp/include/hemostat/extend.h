// Room `extend`: models made deeper. Model in, Model out.
#pragma once

#include <hemostat/model.h>

namespace hemostat::extend {

struct ExtendOptions {
  int64_t count = 0;  // blocks to add
};

// Repeats each of the `count` middle blocks in place (depth up-scaling, passthrough merging; Kim et al., "SOLAR 10.7B",
// arXiv 2312.15166, repeats a middle span likewise): block i is followed by another i, which shares its tensors and
// keeps its origin. 0 ≤ count ≤ L, else ValueError.
Model duplicate_layers(const Model& model, const ExtendOptions& options);

// Inserts `count` copies of blocks, evenly spaced, each after its original and with zero o and down projections (biases
// too): function-preserving, the control for duplicate_layers (Wu et al., "LLaMA Pro", arXiv 2401.02415, §3.2: the
// layers fall into `count` groups, and each group's last is copied). The copies share their zeros. Blocks with norms
// after the residual or on a sublayer's output don't preserve the function so: ValueError. 0 ≤ count ≤ L.
Model insert_identity(const Model& model, const ExtendOptions& options);

}  // namespace hemostat::extend
