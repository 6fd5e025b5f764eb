// Every tensor and linear of a model under the name it has in a checkpoint.
#pragma once

#include <functional>
#include <string>

#include <hemostat/model.h>

namespace hemostat {

// Calls function(name, slot) for each defined tensor that a checkpoint stores. Blocks are numbered as they stand, not
// by their origin. A slot may be replaced. A foreign module has none.
void for_each_tensor(Model& model, const std::function<void(const std::string&, at::Tensor&)>& function);

// The same of what a checkpoint of the model holds: without a head that is the embedding. Of a foreign module what lies
// in its linears and beside them, whatever its checkpoints call it.
void for_each_stored(const Model& model, const std::function<void(const std::string&, const at::Tensor&)>& function);

// Calls function(name, slot) for each defined tensor that no checkpoint stores, and no dtype changes.
void for_each_constant(Model& model, const std::function<void(const std::string&, at::Tensor&)>& function);

struct LinearPlace {
  std::string name;
  Role role;
  int64_t input;  // 0 … inputs_of(block) − 1; places with one read the same tensor
};

// Calls function(place, linear) for each linear of a block, `prefix` before its name.
void for_each_linear(Block& block, const Naming& names, const std::string& prefix,
                     const std::function<void(const LinearPlace&, Linear&)>& function);

// The same for each linear of a model, the head last, by names that no two have: blocks are numbered as they stand.
void for_each_linear(Model& model, const std::function<void(const LinearPlace&, Linear&)>& function);

int64_t inputs_of(const Block& block);

}  // namespace hemostat
