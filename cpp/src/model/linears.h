// The linears that a filter chooses, in the model's order, to be changed in place; and those of one block.
#pragma once

#include <cstddef>
#include <functional>

#include <hemostat/model.h>

namespace hemostat {

void for_each_chosen(Model& model, const LinearFilter& filter,
                     const std::function<void(const NamedLinear&, Linear&)>& function);

// The model of this block alone, without a head: its linears are the block's.
Model block_alone(const Model& model, size_t block);

}  // namespace hemostat
