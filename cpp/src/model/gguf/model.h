// Models in GGUF files: Model::load and Model::save of a path that ends in .gguf.
#pragma once

#include <string>

#include <hemostat/model.h>

namespace hemostat::gguf {

bool is_path(const std::string& path);  // it ends in .gguf

Model load_model(const std::string& path, const LoadOptions& options);

// A sentence on what other readers would overlook; empty: nothing.
std::string save_model(const Model& model, const std::string& path);

}  // namespace hemostat::gguf
