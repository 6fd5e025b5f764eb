// Whether the parts of a model that hemostat.json describes fit together, so that forward() can trust them.
#pragma once

#include <string>

#include <hemostat/model.h>

namespace hemostat {

// Looks at shapes and numbers only. ValueError naming the file and the part.
void check_consistency(const Model& model, const std::string& file);

}  // namespace hemostat
