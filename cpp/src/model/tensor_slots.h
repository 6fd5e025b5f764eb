// Every tensor of a model under the name it has in a checkpoint.
#pragma once

#include <functional>
#include <string>

#include <hemostat/model.h>

namespace hemostat {

// Calls function(name, slot) for each defined tensor that a checkpoint stores. Blocks are numbered as they stand, not
// by their origin. A slot may be replaced.
void for_each_tensor(Model& model, const std::function<void(const std::string&, at::Tensor&)>& function);

// Calls function(name, linear, usual) for each linear of a block, `prefix` before its name; a router is not usual.
void for_each_linear(Block& block, const Naming& names, const std::string& prefix,
                     const std::function<void(const std::string&, Linear&, bool usual)>& function);

}  // namespace hemostat
