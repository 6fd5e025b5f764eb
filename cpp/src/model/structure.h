// Everything of a model but its tensors' data, as JSON: what hemostat.json holds beside a checkpoint whose family's
// config cannot express the model.
#pragma once

#include <string>

#include <hemostat/model.h>

namespace hemostat {

std::string structure(const Model& model);

// A model with shapes to fill, as skeleton() gives; config is what config.json beside it says. Throws ValueError.
Model from_structure(const std::string& json, const ModelConfig& config, const std::string& file);

}  // namespace hemostat
