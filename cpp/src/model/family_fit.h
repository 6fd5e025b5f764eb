// Whether the config.json of a model's family describes all of its structure.
#pragma once

#include <string>

#include <hemostat/model.h>

namespace hemostat {

struct FittedConfig {
  std::string config, structure;
  bool expressible;  // the family's config describes the whole structure
};

// Reads shapes and fields, not what tensors hold.
FittedConfig fitted_config(const Model& model);

// The model with its packed weights as dense ones that have a shape and no data.
Model shapes_only(Model model);

}  // namespace hemostat
