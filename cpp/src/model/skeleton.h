// The model that a family's config.json describes, its tensors without data (on the meta device): shapes to fill.
#pragma once

#include <hemostat/model.h>

#include "config.h"

namespace hemostat {

Model skeleton(const CheckpointConfig& config);

at::Tensor shape_only(at::IntArrayRef sizes);

}  // namespace hemostat
