// What the files that bind room prune share.
#pragma once

#include <string>

#include <pybind11/pybind11.h>

#include <hemostat/prune.h>

namespace hemostat::bindings {

// Called by register_prune, for the operators of prune_scores.cpp.
void register_prune_scores(pybind11::module_& room);

inline prune::Scope scope_of(const std::string& operation, const std::string& word) {
  return value_of_word<prune::Scope>("hemostat.prune." + operation, "scope", word);
}

}  // namespace hemostat::bindings
