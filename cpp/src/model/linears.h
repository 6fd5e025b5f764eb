// The linears that a filter chooses, in the model's order, to be changed in place.
#pragma once

#include <functional>

#include <hemostat/model.h>

namespace hemostat {

void for_each_chosen(Model& model, const LinearFilter& filter,
                     const std::function<void(const NamedLinear&, Linear&)>& function);

}  // namespace hemostat
