// The model that a family's config.json describes, its tensors without data (on the meta device): shapes to fill.
#pragma once

#include <hemostat/model.h>

#include "config.h"

namespace hemostat {

Model skeleton(const CheckpointConfig& config);

// ValueError for a negative size, or more bytes than there are addresses.
at::Tensor shape_only(at::IntArrayRef sizes);

}  // namespace hemostat
