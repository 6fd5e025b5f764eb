// The rotations that config.json asks for, in the spellings of transformers 4 and 5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hemostat/model.h>

#include "config_fields.h"
#include "families/family.h"

namespace hemostat {

// How a rotation is scaled, in the words of config.json; the numbers are YaRN's.
struct RopeScaling {
  std::string type = "default";
  double factor = 1, original_context = 0;
};

struct RopeConfig {
  double theta = 0, local_theta = 0;  // local: of layers with a window
  Rope rope = {}, local = {};
  RopeScaling scaling = {};  // of rope
};

RopeConfig parse_rope(ConfigFields& fields, const Family& family, int64_t head_dim, int64_t context);

// 1/theta^(2i/rotary_dim): a rotation without scaling, in float32 as transformers computes it.
std::vector<float> inverse_frequencies(double theta, int64_t rotary_dim);

}  // namespace hemostat
