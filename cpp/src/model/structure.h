// Everything of a model but its tensors' data, as JSON: what hemostat.json holds beside a checkpoint whose family's
// config cannot express the model.
#pragma once

#include <string>

#include <hemostat/model.h>

namespace hemostat {

// structure() in model.h, with enumerations as words: what files hold.
std::string saved_structure(const Model& model);

// A model with shapes to fill, as skeleton() gives; config is what config.json beside it says. Throws ValueError.
Model from_structure(const std::string& json, const ModelConfig& config, const std::string& file);

// Whether two parts compute the same: every field is equal, tensors in their values, and packed weights in what they
// stand for. A block's origin does not count. Reads tensors that lie in different memory.
bool same(const at::Tensor& x, const at::Tensor& y);
bool same(const Linear& x, const Linear& y);
bool same(const Norm& x, const Norm& y);
bool same(const Head& x, const Head& y);
bool same(const Block& x, const Block& y);

}  // namespace hemostat
